"""Texts to the inputs of a bundle's ONNX graph. Imports numpy and numba, not onnx."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raydistill.serving.bundle_check import check_settings
from raydistill.serving.featurize import featurize
from raydistill.serving.lexicon import Lexicon
from raydistill.serving.native.layout import INT8, arrays_of, describe
from raydistill.serving.numba_scorer import dequantised, windows
from raydistill.serving.scorer import Scorer
from raydistill.serving.tokenizer import encode


class TextInputs:
    """Queries and titles to the inputs of the graph of their bundle."""

    def __init__(self, scorer: Scorer) -> None:
        """`scorer`: of the bundle that the graph was made of."""
        header, arrays = describe(scorer.model), arrays_of(scorer.model)
        self._spec = check_settings(scorer.settings)
        self._limits = [header[f"max_{side}"] for side in ("query", "title")]
        # Copies: functions are compiled again for arrays that are read-only.
        idf_I, words_K = arrays["idf"].copy(), arrays["words"].copy()
        vectors_KE = dequantised(arrays, "vectors", is_scaled=header["vector_type"] == INT8)
        lexicon = Lexicon.from_idf(idf_I, words_K=words_K, vectors_KE=vectors_KE)
        self._lexicon = lexicon.with_ngrams(arrays["ngrams"].astype(np.int32))

    @classmethod
    def load(cls, bundle: str | Path) -> TextInputs:
        """Load a bundle, as `Scorer.load`."""
        return cls(Scorer.load(bundle))

    def __call__(self, queries: Sequence[str], titles: Sequence[str]) -> dict[str, NDArray[Any]]:
        """The inputs of B pairs of raw texts; for single texts every query is "".

        `ids`: int64, shape N; `offsets`: int64, shape G B + 1 with G bags a pair; `dense`: float32,
        shape B, F, of students with match features.

        Raises:
            ValueError: the sides differ in length.
        """
        sides = (
            encode(windows(side, max_chars=most), max_chars=most)
            for side, most in zip((queries, titles), self._limits, strict=True)
        )
        found = featurize(*sides, spec=self._spec, lexicon=self._lexicon)
        inputs = {"ids": found.ids_N.astype(np.int64), "offsets": found.offsets}
        return {**inputs, "dense": found.dense_BF} if self._spec.num_dense else inputs
