import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from raydistill.errors import UserError
from raydistill.teacher import Teacher, resolve_dtype, token_batches
from tests.conftest import WORDS, make_bert


def make(folder: Path, *, tokens_per_batch: int = 256, max_length: int = 32) -> Teacher:
    return Teacher(
        folder,
        device="cpu",
        dtype="float32",
        max_length=max_length,
        tokens_per_batch=tokens_per_batch,
    )


def some_pairs(num: int, *, seed: int = 0) -> tuple[list[str], list[str]]:
    rng = np.random.default_rng(seed)
    text = lambda most: " ".join(rng.choice(WORDS, rng.integers(1, most)))  # noqa: E731
    return [text(5) for _ in range(num)], [text(20) for _ in range(num)]


def test_a_logit_is_what_transformers_gives_for_the_pair_alone(tiny_bert: Path) -> None:
    queries, titles = some_pairs(40)
    model = AutoModelForSequenceClassification.from_pretrained(tiny_bert).eval()
    tokenizer = AutoTokenizer.from_pretrained(tiny_bert)
    with torch.inference_mode():
        alone = [
            model(
                **tokenizer(q, t, truncation=True, max_length=32, return_tensors="pt")
            ).logits.item()
            for q, t in zip(queries, titles, strict=True)
        ]
    assert np.std(alone) > 0.1  # else the comparison says nothing
    assert make(tiny_bert).logits(queries, titles) == pytest.approx(alone, abs=1e-4)


@pytest.mark.parametrize("tokens_per_batch", [1, 64, 100_000])
def test_neither_batches_nor_order_matter(tiny_bert: Path, tokens_per_batch: int) -> None:
    queries, titles = some_pairs(30)
    expected = make(tiny_bert).logits(queries, titles)
    order = np.random.default_rng(1).permutation(30)
    found = make(tiny_bert, tokens_per_batch=tokens_per_batch).logits(
        [queries[i] for i in order], [titles[i] for i in order]
    )
    assert found == pytest.approx(expected[order], abs=1e-5)


def test_two_outputs_give_the_margin(tmp_path: Path) -> None:
    folder = make_bert(tmp_path / "two", num_labels=2)
    teacher = make(folder)
    tokens = teacher.tokenizer("sofa", "grey sofa", return_tensors="pt")
    with torch.inference_mode():
        no, yes = teacher.model(**tokens).logits[0].tolist()
    assert teacher.logits(["sofa"], ["grey sofa"])[0] == pytest.approx(yes - no, abs=1e-5)


def test_a_model_without_token_types(tmp_path: Path) -> None:
    """DistilBERT takes no token_type_ids; a BERT tokenizer beside it makes them."""
    from transformers import DistilBertConfig, DistilBertForSequenceClassification

    source = make_bert(tmp_path / "bert", num_labels=1)
    tokenizer = AutoTokenizer.from_pretrained(source)
    assert "token_type_ids" in tokenizer("a", "b")
    folder = tmp_path / "distil"
    config = DistilBertConfig(
        vocab_size=len(tokenizer), dim=32, n_layers=1, n_heads=2, hidden_dim=64,
        max_position_embeddings=64, num_labels=1, initializer_range=0.5,
    )  # fmt: skip
    DistilBertForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    queries, titles = some_pairs(10)
    found = make(folder).logits(queries, titles)
    assert np.isfinite(found).all() and np.std(found) > 0


def test_single_texts_are_not_pairs(tiny_bert: Path) -> None:
    teacher = make(tiny_bert)
    tokens = teacher.tokenizer("grey sofa", return_tensors="pt")
    with torch.inference_mode():
        expected = teacher.model(**tokens).logits.item()
    assert teacher.logits([""], ["grey sofa"])[0] == pytest.approx(expected, abs=1e-5)


def test_nothing_in_nothing_out(tiny_bert: Path) -> None:
    assert make(tiny_bert).logits([], []).shape == (0,)


def test_long_pairs_are_cut(tiny_bert: Path) -> None:
    teacher = make(tiny_bert, max_length=8)
    short, long = "sofa", "sofa " * 100
    assert np.isfinite(teacher.logits([short, long], [long, long])).all()
    assert teacher.counters.num_tokens == 16


def test_padding_is_counted(tiny_bert: Path) -> None:
    teacher = make(tiny_bert, tokens_per_batch=10_000)
    teacher.logits(["sofa", "sofa"], ["grey", "grey grey grey"])  # 5 and 7 wordpieces: 12 of 14
    assert teacher.counters.padding == pytest.approx(2 / 14)


def test_token_batches() -> None:
    lengths = np.array([3, 9, 1, 4, 4, 20])
    batches = [b.tolist() for b in token_batches(lengths, tokens_per_batch=9)]
    assert batches == [[5], [1], [3, 4], [0, 2]]
    assert sorted(row for batch in batches for row in batch) == list(range(6))


def test_what_is_no_teacher(tmp_path: Path, tiny_bert: Path) -> None:
    with pytest.raises(UserError, match="no model in"):
        make(tmp_path)
    three = make_bert(tmp_path / "three", num_labels=3)
    with pytest.raises(UserError, match="has 3 outputs; a teacher has 1 or 2"):
        make(three)
    config = json.loads((tiny_bert / "config.json").read_text())
    (tmp_path / "encoder").mkdir()
    (tmp_path / "encoder" / "config.json").write_text(
        json.dumps({**config, "architectures": ["BertModel"]})
    )
    with pytest.raises(UserError, match=r"is a BertModel, not a cross-encoder.*`base`"):
        make(tmp_path / "encoder")


def test_dtypes() -> None:
    assert resolve_dtype("float32", device="cpu") == torch.float32
    assert resolve_dtype("auto", device="cpu") in (torch.float32, torch.bfloat16)
