"""A pair's logit does not depend on the other pairs of its batch; else the teacher is rejected."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from raydistill.errors import UserError
from raydistill.files.model_files import load_model, model_fingerprint, pin_model
from raydistill.student.lexicon.builder import check_encoder
from raydistill.teachers.cross_encoder import Teacher, check_model
from raydistill.teachers.transformer.padded_model import set_padding
from raydistill.teachers.transformer.trial_pairs import Trial
from tests.helpers.decoders import PROMPT, make_decoder
from tests.helpers.own_code import make_own
from tests.helpers.words import VOCABULARY

TRUSTED = Trial(trusts_code=True)
QUERIES = ["sofa", "grey lamp", "tap", "oak desk"]
TITLES = ["grey sofa", "lamp", "tap sink door knob hinge bolt", "oak desk chair bed red " * 3]


def make(folder: Path, source: Path, kind: str, **sizes: Any) -> Path:  # noqa: ANN401
    torch.manual_seed(0)
    given = {"vocab_size": 5 + len(VOCABULARY), "num_labels": 1, "pad_token_id": 0, **sizes}
    config = getattr(transformers, f"{kind}Config")(**given)
    model = transformers.AutoModelForSequenceClassification.from_config(config)
    model.save_pretrained(folder)
    transformers.AutoTokenizer.from_pretrained(source).save_pretrained(folder)
    return folder


def check_logits(folder: Path, *, pads: bool, prompt: str | None = None) -> None:
    assert check_model(folder, max_length=32, prompt=prompt) == pads
    teacher = Teacher(folder, device="cpu", dtype="float32", max_length=32, prompt=prompt)
    assert teacher.pads == pads and not teacher.is_packed
    together = teacher.logits(QUERIES, TITLES)
    pairs = zip(QUERIES, TITLES, strict=True)
    alone = [teacher.logits([query], [title])[0] for query, title in pairs]
    assert np.std(alone) > 1e-3
    assert together == pytest.approx(np.array(alone), abs=1e-5)


_ENCODER = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64,
    "initializer_range": 0.3,
}  # fmt: skip


@pytest.mark.slow
def test_xlnet_pads_on_the_left_and_has_no_limit(tiny_bert: Path, tmp_path: Path) -> None:
    sizes = {"d_model": 32, "n_layer": 2, "n_head": 2, "d_inner": 64, "initializer_range": 0.3}
    folder = make(tmp_path / "xlnet", tiny_bert, "XLNet", **sizes)
    check_logits(folder, pads=True)
    check_encoder(folder)


@pytest.mark.parametrize("kind", ["Electra", "DebertaV2"])
def test_padding_on_the_left_is_set_right(tiny_bert: Path, tmp_path: Path, kind: str) -> None:
    """Positions are counted from the left."""
    sizes = _ENCODER | ({"embedding_size": 32} if kind == "Electra" else {})
    folder = make(tmp_path / "left", tiny_bert, kind, max_position_embeddings=64, **sizes)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | {"padding_side": "left"}))
    check_logits(folder, pads=True)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["FNet", "Funnel"])
def test_a_model_that_padding_changes_gets_batches_of_one_length(
    tiny_bert: Path, tmp_path: Path, kind: str
) -> None:
    """Fourier transforms and pooling mix tokens with the padding behind them."""
    funnel = {"d_model": 32, "n_head": 2, "d_head": 16, "d_inner": 64, "block_sizes": [1, 1, 1]}
    funnel["initializer_range"] = 0.3
    sizes = {"FNet": _ENCODER, "Funnel": funnel}[kind]
    check_logits(make(tmp_path / kind, tiny_bert, kind, **sizes), pads=False)


@pytest.mark.slow
def test_a_decoder_is_padded_as_its_head_looks_for_it(tmp_path: Path) -> None:
    """No padding token, one of -1, and another one than the tokenizer's."""
    prompt = "{query} : {title}"
    check_logits(make_decoder(tmp_path / "none", kind="GPT2"), pads=True, prompt=prompt)
    for pad_id in (-1, 5):
        folder = Path(shutil.copytree(tmp_path / "none", tmp_path / str(pad_id)))
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | {"pad_token_id": pad_id}))
        settings = json.loads((folder / "tokenizer_config.json").read_text())
        settings |= {"padding_side": "left", "pad_token": "<|im_start|>"}
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))
        check_logits(folder, pads=True, prompt=prompt)


def test_a_decoder_without_a_padding_token_is_a_base_and_a_word_encoder(tmp_path: Path) -> None:
    folder = make_decoder(tmp_path / "gpt2", kind="GPT2")
    check_model(folder, max_length=32, trial=Trial(is_base=True))
    check_encoder(folder)
    config = transformers.AutoConfig.from_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, padding_side="left")
    set_padding(config, tokenizer)
    assert tokenizer.padding_side == "right"
    assert tokenizer.pad_token_id == config.pad_token_id == tokenizer.eos_token_id


def test_a_prompt_for_pairs_takes_no_single_texts(tmp_path: Path) -> None:
    folder = make_decoder(tmp_path / "qwen")
    check_model(folder, max_length=128, prompt=PROMPT, trial=Trial(has_query=True))
    with pytest.raises(UserError, match="takes no single texts"):
        check_model(folder, max_length=128, prompt=PROMPT, trial=Trial(has_query=False))


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("batch", r"depends on the pairs beside it \(\S+ and \S+ alone and together\)"),
        ("dropout", "another logit each time.*random"),
        ("fails", "fails at pairs of up to 32 tokens: RuntimeError: no such kernel in this place"),
    ],
)
def test_a_model_that_is_no_teacher(
    tiny_bert: Path, tmp_path: Path, kind: str, message: str
) -> None:
    folder = make_own(tmp_path / kind, tiny_bert, kind=kind)
    with pytest.raises(UserError, match=message):
        check_model(folder, max_length=32, trial=TRUSTED)


@pytest.mark.parametrize(
    ("kind", "pads"), [("sound", True), ("last", False), ("mean_of_all", False)]
)
def test_code_of_the_folder_is_run_where_it_is_trusted(
    tiny_bert: Path, tmp_path: Path, kind: str, pads: bool
) -> None:
    folder = make_own(tmp_path / kind, tiny_bert, kind=kind)
    assert check_model(folder, max_length=32, trial=TRUSTED) == pads
    with pytest.raises(UserError, match=r"set trust_remote_code = true.*\[teachers\.<name>\]"):
        check_model(folder, max_length=32)


def test_code_that_is_not_needed_is_not_run(tiny_bert: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_bert, tmp_path / "bert"))
    config = json.loads((folder / "config.json").read_text())
    names = {"AutoConfig": "own.A", "AutoModelForSequenceClassification": "own.B"}
    (folder / "config.json").write_text(json.dumps(config | {"auto_map": names}))
    (folder / "own.py").write_text("raise RuntimeError('it ran')")
    check_model(folder, max_length=32)


def test_trusted_code_is_part_of_the_model(tiny_bert: Path, tmp_path: Path) -> None:
    folder = make_own(tmp_path / "own", tiny_bert)
    plain, trusted = (pin_model(str(folder), trusts_code=trusts) for trusts in (False, True))
    assert plain.fingerprint != trusted.fingerprint == model_fingerprint(folder, with_code=True)
    (folder / "own.py").write_text((folder / "own.py").read_text() + "\n")
    load_model(plain)
    with pytest.raises(UserError, match="is another one on"):
        load_model(trusted)
