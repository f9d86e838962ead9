"""Small bundles whose scores tell titles apart."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from raydistill.serving.bundle import BUNDLE_FORMAT, bundle_files
from raydistill.serving.feature_spec import NgramSpec
from raydistill.serving.lexicon import Lexicon
from raydistill.serving.native.emit.model_file import model_bytes


def make_model(**settings: Any) -> tuple[dict[str, Any], bytes]:  # noqa: ANN401 - of bundle.json
    """Settings and model file of a student with match features and random weights."""
    spec = NgramSpec("match", 10, units=True)
    rng = np.random.default_rng(0)
    num_inputs = 4 * 2 + spec.num_dense  # two bags of four columns
    arrays = {
        "embedding": rng.normal(size=(1 << 10, 4)).astype(np.float32),
        **Lexicon.from_idf(np.ones(1, np.float32)).to_arrays(),
        "dense_mean": np.zeros(spec.num_dense, np.float32),
        "dense_std": np.ones(spec.num_dense, np.float32),
        "weight_0": rng.normal(size=(1, num_inputs)).astype(np.float32) / 2,
        "bias_0": np.zeros(1, np.float32),
    }
    whole = {
        "format": BUNDLE_FORMAT, "ngrams": asdict(spec), "temperature": 1.0, "threshold": 0.5,
        "max_query_chars": 200, "max_title_chars": 1_000, **settings,
    }  # fmt: skip
    return whole, model_bytes(whole, arrays)


def make_bundle(
    folder: Path,
    *,
    golden: Sequence[dict[str, Any]] = (),
    ngrams: Sequence[str] = (),
    **settings: Any,  # noqa: ANN401 - of bundle.json
) -> Path:
    """The bundle of `make_model`, written to a folder."""
    folder.mkdir(parents=True)
    whole, model = make_model(**settings)
    files = bundle_files(whole, model, golden=list(golden), card="", ngrams=ngrams)[1]
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


def make_overlap_bundle(
    folder: Path,
    *,
    weight: float = 1.0,
    golden: Sequence[dict[str, Any]] = (),
    **settings: Any,  # noqa: ANN401 - of bundle.json
) -> Path:
    """A bundle whose score is sigmoid(weight x share of the query's words that the title has)."""
    spec = NgramSpec("match", 8)
    weights = np.zeros((1, 2 + spec.num_dense), np.float32)
    weights[0, 2] = weight  # after two bags of width 1 come the dense features, this one first
    arrays = {
        "embedding": np.zeros((256, 1), np.float32),
        **Lexicon.from_idf(np.ones(1, np.float32)).to_arrays(),
        "dense_mean": np.zeros(spec.num_dense, np.float32),
        "dense_std": np.ones(spec.num_dense, np.float32),
        "weight_0": weights, "bias_0": np.zeros(1, np.float32),
    }  # fmt: skip
    whole = {
        "format": BUNDLE_FORMAT, "ngrams": asdict(spec), "temperature": 1.0, "threshold": 0.6,
        "max_query_chars": 200, "max_title_chars": 1_000, **settings,
    }  # fmt: skip
    folder.mkdir(parents=True)
    files = bundle_files(whole, model_bytes(whole, arrays), golden=list(golden), card="")[1]
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder
