"""Cosines of sentence encoders: against transformers' own outputs, and with each text once."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from raydistill.config.teachers import LabelConfig
from raydistill.errors import UserError
from raydistill.files.model_files import pin_model
from raydistill.teachers.bi_encoder import (
    BiEncoder,
    ScoreCosines,
    check_bi_encoder,
    pack_sentences,
    sentence_tokenizer,
)
from raydistill.teachers.heads.sentence_folder import read_rules
from raydistill.teachers.shards.texts import from_bytes
from raydistill.teachers.stacking import Calibration
from raydistill.teachers.transformer.trial_pairs import Trial
from tests.helpers.models import make_bert
from tests.helpers.sentence import make_sentence_encoder, write_json, write_modules

pytestmark = pytest.mark.slow
QUERIES = ["grey sofa", "grey sofa", "18 v drill", "tap", "oak desk"]
TITLES = ["sofa cover", "oak desk lamp green 18", "volt drill", "sink tap 2", "oak desk"]
MEAN = {"pooling_mode": "mean"}


def encoder(folder: Path, *, max_length: int = 32, **settings: object) -> BiEncoder:
    return BiEncoder(folder, device="cpu", dtype="float32", max_length=max_length, **settings)  # type: ignore[arg-type]


def own_embeddings(folder: Path, texts: list[str], mode: str, max_length: int = 32) -> np.ndarray:
    """transformers' own forward for each text alone, pooled here."""
    from transformers import AutoModel, AutoTokenizer

    tokenizer, model = (kind.from_pretrained(folder) for kind in (AutoTokenizer, AutoModel))
    found = []
    for text in texts:
        given = tokenizer(text, truncation=True, max_length=max_length, return_tensors="pt")
        with torch.inference_mode():
            hidden_LD = model.eval()(**given).last_hidden_state[0]
        pooled = {
            "mean": hidden_LD.mean(0),
            "cls": hidden_LD[0],
            "max": hidden_LD.max(0).values,
            "lasttoken": hidden_LD[-1],
        }[mode]
        found.append((pooled / pooled.norm()).numpy())
    return np.stack(found)


@pytest.mark.parametrize("family", ["bert", "distilbert"])
@pytest.mark.parametrize("mode", ["mean", "cls", "max", "lasttoken"])
def test_a_cosine_is_that_of_transformers_own_outputs(
    tmp_path: Path, family: str, mode: str
) -> None:
    pooling: dict[str, object] = {"pooling_mode": mode}
    folder = make_sentence_encoder(tmp_path / "m", pooling=pooling, family=family)
    teacher = encoder(folder)
    assert teacher.is_packed == (family == "bert") and teacher.pads
    expected = own_embeddings(folder, QUERIES, mode) * own_embeddings(folder, TITLES, mode)
    found = teacher.cosines(QUERIES, TITLES)
    assert np.ptp(found) > 0.1 and found[-1] == pytest.approx(1, abs=1e-5)
    assert np.allclose(found, expected.sum(1), atol=1e-5)


@pytest.mark.parametrize("family", ["bert", "distilbert"])
def test_a_text_does_not_depend_on_its_batch(tmp_path: Path, family: str) -> None:
    folder = make_sentence_encoder(tmp_path / "m", pooling=MEAN, family=family)
    together = encoder(folder).cosines(QUERIES, TITLES)
    small = encoder(folder, tokens_per_batch=8).cosines(QUERIES[::-1], TITLES[::-1])
    assert np.allclose(together, small[::-1], atol=1e-5)


def test_without_files_of_its_own_it_is_the_mean(tmp_path: Path) -> None:
    plain = make_sentence_encoder(tmp_path / "plain")
    named = make_sentence_encoder(tmp_path / "named", pooling=MEAN)
    old = make_sentence_encoder(tmp_path / "old", pooling={"pooling_mode_mean_tokens": True})
    found = [encoder(folder).cosines(QUERIES, TITLES) for folder in (plain, named, old)]
    assert np.array_equal(found[0], found[1]) and np.array_equal(found[0], found[2])


def test_sentence_transformers_gives_the_same_with_prompts_and_its_limit(tmp_path: Path) -> None:
    sentence_transformers = pytest.importorskip("sentence_transformers")
    prompts = {"query": "red : ", "document": "blue : "}
    folder = make_sentence_encoder(tmp_path / "m", pooling=MEAN, prompts=prompts, max_seq_length=6)
    theirs = sentence_transformers.SentenceTransformer(str(folder), device="cpu")
    queries, titles = theirs.encode_query(QUERIES), theirs.encode_document(TITLES)
    expected = (queries * titles).sum(1)
    teacher = encoder(folder)
    assert teacher.max_length == 6
    found = teacher.cosines(QUERIES, TITLES)
    assert np.allclose(found, expected, atol=1e-5) and found[-1] < 0.99


def test_a_dense_layer_follows_the_pooling(tmp_path: Path) -> None:
    sentence_transformers = pytest.importorskip("sentence_transformers")
    folder = make_sentence_encoder(tmp_path / "m", pooling=MEAN)
    plain = encoder(folder).cosines(QUERIES, TITLES)
    torch.manual_seed(1)
    models = sentence_transformers.models
    dense = models.Dense(32, 8)
    (folder / "3_Dense").mkdir()
    dense.save(str(folder / "3_Dense"))
    write_modules(folder, [("Pooling", "1_Pooling"), ("Dense", "3_Dense")])
    theirs = sentence_transformers.SentenceTransformer(str(folder), device="cpu")
    pairs = [theirs.encode(texts, normalize_embeddings=True) for texts in (QUERIES, TITLES)]
    found = encoder(folder).cosines(QUERIES, TITLES)
    assert np.allclose(found, (pairs[0] * pairs[1]).sum(1), atol=1e-5)
    assert not np.allclose(found, plain, atol=1e-2)


def test_each_distinct_text_is_embedded_once(tmp_path: Path) -> None:
    """8 different texts, oak desk among queries and titles."""
    teacher = encoder(make_sentence_encoder(tmp_path / "m"))
    found = teacher.cosines(QUERIES * 100, TITLES * 100)
    assert teacher.counters.num_pairs == len({*QUERIES, *TITLES}) == 8
    assert len(np.unique(found)) == 5 and len(found) == 500


def test_an_old_layout_with_the_encoder_in_a_folder(tmp_path: Path) -> None:
    """Its `sentence_bert_config.json` lies beside the encoder's config.json."""
    folder, root = tmp_path / "m", tmp_path / "m" / "0_Transformer"
    make_sentence_encoder(root)
    write_json(root / "sentence_bert_config.json", {"max_seq_length": 6, "do_lower_case": True})
    write_json(folder / "1_Pooling" / "config.json", {"pooling_mode_mean_tokens": True})
    write_modules(folder, [("Pooling", "1_Pooling")], root="0_Transformer")
    rules = read_rules(folder)
    assert (rules.max_length, rules.lowercase, rules.pooling) == (6, True, "mean")
    assert encoder(folder).max_length == 6


@pytest.mark.parametrize(
    "pairs",
    [[], [("диван", "椅子"), ("椅子", "диван"), ("серый", "серый")]],
    ids=["none", "unknown"],
)
def test_a_shard_without_a_known_text(tmp_path: Path, pairs: list[tuple[str, str]]) -> None:
    folder = make_sentence_encoder(tmp_path / "m", pooling=MEAN)
    queries, titles = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    assert np.isnan(encoder(folder).cosines(queries, titles)).tolist() == [True] * len(pairs)
    model, settings = pin_model(str(folder)), LabelConfig(max_length=32, dtype="float32")
    table = pa.table(
        {
            "pair_id": pa.array(range(len(pairs)), pa.int64()),
            "query": pa.array(queries, pa.string()),
            "title": pa.array(titles, pa.string()),
        }
    )
    step = ScoreCosines(model=model, settings=settings, device="cpu", calibration=Calibration())
    item, scored = step({}, pack_sentences(table, sentence_tokenizer(model, 32)))
    assert (item["rows"], item["bad_rows"]) == (len(pairs), len(pairs))
    found = from_bytes(scored)
    assert found["logit"].to_pylist() == [None] * len(pairs)
    why = "query: the encoder's tokenizer knows no part of it"
    assert found["reason"].to_pylist() == [why] * len(pairs)


def test_unknown_texts_have_no_cosine(tmp_path: Path) -> None:
    prompts = {"query": "red : "}
    for folder in (
        make_sentence_encoder(tmp_path / "m"),
        make_sentence_encoder(tmp_path / "with", pooling=MEAN, prompts=prompts),
    ):
        teacher = encoder(folder)
        found = teacher.cosines(["диван", "sofa", "sofa"], ["sofa", "диван 椅子", "диван oak"])
        assert np.isnan(found).tolist() == [True, True, False]
        texts = teacher.sentences([teacher.sentences.rules.query_prompt + "диван"])
        assert texts.reasons == {0: "the encoder's tokenizer knows no part of it"}


def test_a_vector_of_length_0_or_nan_has_no_cosine(tmp_path: Path) -> None:
    teacher = encoder(make_sentence_encoder(tmp_path / "m"))
    assert torch.isnan(teacher._finished(torch.zeros(2, 32))).all()
    assert torch.isnan(teacher._finished(torch.full((1, 32), torch.nan))).all()
    assert teacher.cosines([], []).shape == (0,)


@pytest.mark.parametrize("family", ["bert", "distilbert"])
def test_the_trial_accepts_what_label_can_use(tmp_path: Path, family: str) -> None:
    folder = make_sentence_encoder(tmp_path / "m", pooling=MEAN, family=family)
    pairs = tuple(zip(QUERIES, TITLES, strict=True))
    assert check_bi_encoder(folder, max_length=32, trial=Trial(pairs=pairs))
    assert check_bi_encoder(folder, max_length=32, trial=Trial())


def test_broken_folders_are_one_line(tmp_path: Path) -> None:
    def problem(folder: Path, **trial: object) -> str:
        with pytest.raises(UserError) as caught:
            check_bi_encoder(folder, max_length=32, trial=Trial(**trial))  # type: ignore[arg-type]
        return str(caught.value)

    folder = make_sentence_encoder(tmp_path / "m", pooling=MEAN)
    assert "does not know the words" in problem(folder, pairs=(("диван", "серый диван"),))
    with pytest.raises(UserError, match="reads 64 wordpieces"):
        check_bi_encoder(folder, max_length=100, trial=Trial())
    write_json(folder / "1_Pooling" / "config.json", {"pooling_mode": ["mean", "max"]})
    assert "has pooling mean + max; a bi_encoder may have one of mean, cls" in problem(folder)
    write_json(folder / "1_Pooling" / "config.json", {**MEAN, "include_prompt": False})
    assert "without the prompt's wordpieces" in problem(folder)
    write_modules(folder, [("Pooling", "1_Pooling"), ("LSTM", "2_LSTM")])
    assert "has the modules Transformer, Pooling, LSTM: a bi_encoder is" in problem(folder)
    (folder / "modules.json").write_text("{")
    assert "modules.json cannot be read" in problem(folder)
    classifier = make_bert(tmp_path / "classifier", num_labels=1)
    assert "BertForSequenceClassification, a cross-encoder" in problem(classifier)
    (tmp_path / "empty").mkdir()
    assert "no model in" in problem(tmp_path / "empty")
