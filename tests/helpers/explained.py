"""Students of a few numbers set by hand, whose explanations are mental arithmetic."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raydistill.serving.bundle import BUNDLE_FORMAT
from raydistill.serving.feature_spec import NgramSpec
from raydistill.serving.lexicon import Lexicon
from raydistill.serving.match_features import DENSE_NAMES
from raydistill.serving.native.emit.model_file import model_bytes
from raydistill.serving.native.layout import aligned
from raydistill.serving.scorer import Scorer
from raydistill.serving.text.hashing import mix64
from raydistill.serving.tokenizer import word_hash

GOLDEN_RATIO = np.uint64(0x9E3779B97F4A7C15)  # docs/features.md, words to ids


def row_of(text: str, *, hash_bits: int) -> int:
    """The row of a word, or of two words."""
    hashes = [word_hash(word) for word in text.split(" ")]
    with np.errstate(over="ignore"):
        whole = hashes[0] if len(hashes) == 1 else mix64.py_func(
            hashes[0] * GOLDEN_RATIO + hashes[1]
        )  # fmt: skip
    return int(whole) >> (64 - hash_bits)


def settings_of(spec: NgramSpec, **settings: Any) -> dict[str, Any]:  # noqa: ANN401
    """The content of bundle.json."""
    return {
        "format": BUNDLE_FORMAT, "ngrams": asdict(spec), "temperature": 1.0, "threshold": 0.5,
        "max_query_chars": 200, "max_title_chars": 1_000, **settings,
    }  # fmt: skip


def linear_arrays(
    spec: NgramSpec,
    *,
    rows: Mapping[str, Sequence[float]],
    weights: Mapping[str, float] | None = None,
    bias: float = 0.0,
    lexicon: Lexicon | None = None,
) -> dict[str, NDArray[Any]]:
    """A student without hidden layers: the first bag's columns count 1, the others 0.

    `rows`: of the table by n-gram; `weights` of match features by name, which have mean 0.5 and
    deviation 0.25.
    """
    dim = len(next(iter(rows.values())))
    table = np.zeros((spec.num_rows, dim), np.float32)
    for text, row in rows.items():
        table[row_of(text, hash_bits=spec.hash_bits)] = row
    weight = np.zeros((1, spec.num_bags * dim + spec.num_dense), np.float32)
    weight[0, :dim] = 1
    for name, value in (weights or {}).items():
        weight[0, spec.num_bags * dim + DENSE_NAMES.index(name)] = value
    return {
        "embedding": table,
        **(lexicon or Lexicon.from_idf(np.ones(1, np.float32))).to_arrays(),
        "dense_mean": np.full(spec.num_dense, 0.5, np.float32),
        "dense_std": np.full(spec.num_dense, 0.25, np.float32),
        "weight_0": weight,
        "bias_0": np.array([bias], np.float32),
    }


def random_arrays(spec: NgramSpec, *, dim: int, hidden: Sequence[int]) -> dict[str, NDArray[Any]]:
    """A student with hidden layers and random weights; of word vectors those of four words."""
    rng = np.random.default_rng(0)
    words = np.sort(np.array([word_hash(word) for word in ("ipad", "tablet", "case", "sofa")]))
    vectors = rng.normal(size=(4, spec.word_dim)).astype(np.float32)
    lexicon = Lexicon.from_idf(
        rng.random(16).astype(np.float32), words_K=words, vectors_KE=vectors
    ).with_ngrams(
        np.sort(rng.choice(1 << 24, spec.vocabulary_rows, replace=False)).astype(np.int32)
    )
    sizes = [spec.num_bags * dim + spec.num_dense, *hidden, 1]
    layers = {}
    for at, (num_in, num_out) in enumerate(pairwise(sizes)):
        layers[f"weight_{at}"] = rng.normal(size=(num_out, num_in)).astype(np.float32) / num_in**0.5
        layers[f"bias_{at}"] = rng.normal(size=num_out).astype(np.float32) / 4
    return {
        "embedding": rng.normal(size=(spec.num_rows, dim)).astype(np.float32),
        **lexicon.to_arrays(),
        "dense_mean": rng.random(spec.num_dense).astype(np.float32),
        "dense_std": 1 + rng.random(spec.num_dense).astype(np.float32),
        **layers,
    }


def scorer_of(
    spec: NgramSpec,
    arrays: Mapping[str, NDArray[Any]],
    *,
    settings: Mapping[str, Any] | None = None,
    **form: str,
) -> Scorer:
    """The scorer of a student in a form: `table`, `layers` as of `model_bytes`."""
    whole = settings_of(spec, **(settings or {}))
    return Scorer(whole, aligned(model_bytes(whole, arrays, **form)))
