"""All runtimes give a model's own logits, in the order of the titles."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from raydistill.errors import UserError
from raydistill.teachers.transformer.runtimes import (
    RUNTIMES,
    Shape,
    load_cross_encoder,
    random_bert,
    runtimes,
)
from tests.helpers.models import make_bert

TINY = Shape(32, 1, 2, 64, vocabulary=400)
TITLES = ["grey sofa", "drill 18 v with a very heavy duty case", "lamp", "oak table, small"] * 10
SLOW = pytest.mark.slow
PACKAGES = {"onnxruntime": ("onnx", "onnxruntime"), "openvino": ("openvino",)}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if "torch f" in name else SLOW) for name in RUNTIMES]
)
def test_logits_are_the_models(name: str, tmp_path: Path) -> None:
    for package in PACKAGES.get(name.split()[0], ()):
        pytest.importorskip(package)
    encoder = load_cross_encoder(make_bert(tmp_path / "model", num_labels=2), max_length=16)
    own = runtimes(encoder, ["torch float32"])
    (runtime,) = runtimes(encoder, [name])
    assert runtime.score is not None, runtime.reason
    expected = next(own).score("grey sofa", TITLES)
    assert np.std(expected) > 0.1
    tolerance = 1e-4 if name.endswith(("32", "compiled")) else 0.5
    np.testing.assert_allclose(runtime.score("grey sofa", TITLES), expected, atol=tolerance)


def test_a_word_is_one_wordpiece(tmp_path: Path) -> None:
    encoder = random_bert(tmp_path, TINY, words=["grey", "sofa"])
    (runtime,) = runtimes(encoder, ["torch float32"])
    read = torch.nn.Embedding.forward
    seen = []

    def note(self: torch.nn.Embedding, ids: torch.Tensor) -> torch.Tensor:
        seen.append(ids.shape)
        return read(self, ids)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.nn.Embedding, "forward", note)
        assert runtime.score("grey sofa", ["Sofa grey sofa"]).shape == (1,)
    assert seen[0] == (1, 1 + 2 + 1 + 3 + 1)  # [CLS] query [SEP] title [SEP]


def test_a_package_that_is_missing_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    (runtime,) = runtimes(random_bert(tmp_path, TINY, words=["a"]), ["openvino float32"])
    assert runtime.score is None and "openvino" in runtime.reason


def test_a_folder_without_a_model_is_a_users_mistake(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be loaded"):
        load_cross_encoder(tmp_path)
