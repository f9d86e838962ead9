"""Weights that the checkpoint lacks raise an error naming them; none is initialised randomly."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file

from raydistill.errors import UserError
from raydistill.student.lexicon.builder import check_encoder
from raydistill.teachers.cross_encoder import Teacher, check_model
from raydistill.teachers.transformer.model_loading import (
    load_classifier,
    load_encoder,
    most_positions,
    read_config,
)
from raydistill.teachers.transformer.trial_pairs import Trial
from tests.helpers.checkpoints import Weights, damaged, reconfigured, without
from tests.helpers.models import make_bert, make_roberta


def load(folder: Path) -> Teacher:
    return Teacher(folder, device="cpu", dtype="float32", max_length=32)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("classifier"), r"lacks 2 weights.*classifier\.bias, classifier\.weight.*`base`"),
        (without("attention.self.query"), r"lacks 2 weights.*layer\.0\.attention\.self\.query\.b"),
        (without("pooler"), r"lacks 2 weights.*bert\.pooler\.dense\.bias"),
        (
            lambda weights: {f"module.{name}": w for name, w in weights.items()},
            r"lacks \d+ weights.*and \d+ more.*checkpoint has module\.bert\.",
        ),
        (
            lambda weights: {**weights, "classifier.weight": torch.zeros(2, 32)},
            r"classifier\.weight is \(2, 32\) in the checkpoint and \(1, 32\) by config\.json",
        ),
    ],
)
def test_weights_that_are_missing_or_of_another_shape_are_named(
    tiny_bert: Path, tmp_path: Path, change: Callable[[Weights], Weights], message: str
) -> None:
    folder = damaged(tiny_bert, tmp_path / "damaged", change)
    for attempt in (load, lambda folder: check_model(folder, max_length=32)):
        with pytest.raises(UserError, match=message):
            attempt(folder)


def test_weights_that_nobody_reads_are_no_mistake(tiny_bert: Path, tmp_path: Path) -> None:
    folder = damaged(tiny_bert, tmp_path / "more", lambda w: {**w, "cls.bias": torch.zeros(3)})
    check_model(folder, max_length=32)


def test_a_config_that_says_no_number_of_outputs(tiny_bert: Path, tmp_path: Path) -> None:
    """transformers takes 2 of them then."""
    names = dict.fromkeys(("id2label", "label2id", "num_labels"))
    folder = reconfigured(tiny_bert, tmp_path / "one", **names)
    with pytest.raises(UserError, match=r'classifier.*write "num_labels": 1'):
        check_model(folder, max_length=32)
    two = reconfigured(make_bert(tmp_path / "2", num_labels=2), tmp_path / "two", **names)
    check_model(two, max_length=32)
    check_model(reconfigured(tiny_bert, tmp_path / "unnamed", architectures=None), max_length=32)


@pytest.mark.parametrize(
    "change", [without("classifier"), without("pooler"), without("position_ids")]
)
def test_of_a_base_the_head_may_be_new(
    tiny_bert: Path, tmp_path: Path, change: Callable[[Weights], Weights]
) -> None:
    folder = damaged(tiny_bert, tmp_path / "base", change)
    check_model(folder, max_length=32, trial=Trial(is_base=True))


def test_a_base_may_have_a_head_of_another_size(tmp_path: Path) -> None:
    folder = make_bert(tmp_path / "three", num_labels=3)
    check_model(folder, max_length=32, trial=Trial(is_base=True))
    assert load_classifier(folder, dtype=torch.float32, new_head=True).config.num_labels == 1


@pytest.mark.parametrize("word", ["attention.self.query", "word_embeddings", "LayerNorm"])
def test_of_a_base_the_encoder_is_whole(tiny_bert: Path, tmp_path: Path, word: str) -> None:
    folder = damaged(tiny_bert, tmp_path / "base", without(word))
    with pytest.raises(UserError, match=rf"lacks \d+ weights.*{word}"):
        check_model(folder, max_length=32, trial=Trial(is_base=True))
    with pytest.raises(UserError, match=rf"lacks \d+ weights.*{word}"):
        check_encoder(folder)


def test_the_pooler_of_a_word_encoder_may_be_new(tiny_bert: Path, tmp_path: Path) -> None:
    check_encoder(damaged(tiny_bert, tmp_path / "encoder", without("pooler")))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers(tiny_bert: Path, tmp_path: Path, value: float) -> None:
    name = "bert.encoder.layer.0.output.dense.bias"
    folder = damaged(
        tiny_bert, tmp_path / "nan", lambda w: {**w, name: torch.full_like(w[name], value)}
    )
    with pytest.raises(UserError, match=f"are NaN or infinite: {name}"):
        check_model(folder, max_length=32)


def test_tied_weights_are_there(tmp_path: Path) -> None:
    """T5 stores its embedding once, and uses it three times."""
    config = transformers.MT5Config(
        vocab_size=50, d_model=32, d_kv=16, d_ff=64, num_layers=1, num_heads=2, num_labels=1
    )
    transformers.MT5ForSequenceClassification(config).save_pretrained(tmp_path)
    load_classifier(tmp_path, dtype=torch.float32)
    assert load_encoder(tmp_path)(torch.tensor([[1, 2]])).last_hidden_state.shape == (1, 2, 32)


def broken(kind: str, source: Path, folder: Path) -> Path:
    shutil.copytree(source, folder)
    weights, config = folder / "model.safetensors", folder / "config.json"
    if kind == "missing":
        weights.unlink()
    elif kind == "cut":
        weights.write_bytes(weights.read_bytes()[:-100])
    elif kind == "empty":
        weights.write_bytes(b"")
    elif kind == "old":
        torch.save(load_file(weights), folder / "pytorch_model.bin")
        weights.unlink()
        old = folder / "pytorch_model.bin"
        old.write_bytes(old.read_bytes()[: old.stat().st_size // 2])
    elif kind == "sharded":
        weights.unlink()
        shard = {"classifier.bias": "model-00001-of-00002.safetensors"}
        index = {"metadata": {"total_size": 4}, "weight_map": shard}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    elif kind == "no_json":
        config.write_text("{no")
    elif kind == "list":
        config.write_text("[]")
    elif kind == "unknown":
        config.write_text('{"model_type": "superbert9"}')
    elif kind == "quantised":
        quantised = {"quant_method": "bitsandbytes", "load_in_8bit": True}
        content = json.loads(config.read_text())
        config.write_text(json.dumps({**content, "quantization_config": quantised}))
    return folder


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("missing", "cannot be loaded.*no file named model.safetensors"),
        ("cut", r"cannot be loaded \(is a file of its weights cut off, or"),
        ("empty", r"cannot be loaded \(is a file of its weights cut off, or"),
        ("old", r"cannot be loaded \(is a file of its weights cut off, or"),
        ("sharded", "cannot be loaded.*model-00001-of-00002.safetensors"),
        ("no_json", "no model in .*not a valid JSON file"),
        ("list", "no model in .*model_type"),
        ("unknown", "no model in .*superbert9"),
        ("quantised", "cannot be loaded.*bitsandbytes"),
    ],
)
def test_a_folder_that_is_broken_is_a_users_error(
    tiny_bert: Path, tmp_path: Path, kind: str, message: str
) -> None:
    folder = broken(kind, tiny_bert, tmp_path / kind)
    with pytest.raises(UserError, match=message) as caught:
        check_model(folder, max_length=32)
    assert "\n" not in str(caught.value)


def test_roberta_reads_two_tokens_fewer_than_it_has_positions(
    tiny_bert: Path, tmp_path: Path
) -> None:
    folder = make_roberta(tmp_path / "roberta", tiny_bert)
    check_model(folder, max_length=62)
    for is_base in (False, True):
        with pytest.raises(UserError, match=r"reads 62 wordpieces.*max_length is 63"):
            check_model(folder, max_length=63, trial=Trial(is_base=is_base))


@pytest.mark.parametrize("limit", [-1, 0])
def test_a_limit_below_one_is_none(limit: int) -> None:
    config = transformers.DistilBertConfig(max_position_embeddings=limit)
    assert most_positions(config) is None
    assert most_positions(transformers.XLNetConfig()) is None
    assert most_positions(transformers.BertConfig(max_position_embeddings=64)) == 64


def test_an_encoder_is_no_cross_encoder(tiny_bert: Path, tmp_path: Path) -> None:
    folder = reconfigured(tiny_bert, tmp_path / "encoder", architectures=["BertModel"])
    assert read_config(folder).num_labels == 1
    with pytest.raises(UserError, match=r"is a BertModel, not a cross-encoder.*`base`"):
        check_model(folder, max_length=32)
