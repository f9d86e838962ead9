"""A bundle's student as an explanation reads it: rows of the table and layers as floats.

Stored integers stand for what they are multiplied by: int8 layers and rows times their scales.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raydistill.serving.bundle_check import check_settings
from raydistill.serving.lexicon import Lexicon
from raydistill.serving.native.int8_layers import Int8Layer, forward
from raydistill.serving.native.layout import INT8, arrays_of, describe
from raydistill.serving.numba_scorer import dequantised, float_layers

_BITS = np.uint64(63)


class Weights:
    """The numbers of a loaded model; reads the rows that are asked for, not the whole table."""

    def __init__(self, settings: Mapping[str, Any], model: NDArray[np.uint8]) -> None:
        """`settings` and `model` of a Scorer, which has checked them."""
        self.spec = check_settings(settings)
        self.header, self._arrays = describe(model), arrays_of(model)
        found = float_layers(self._arrays, num_layers=self.header["layers"])
        self.layers = [
            (found[f"weight_{at}"].astype(np.float64), found[f"bias_{at}"].astype(np.float64))
            for at in range(self.header["layers"])
        ]
        self.mean_F, self.std_F = self._arrays["dense_mean"], self._arrays["dense_std"]

    def lexicon(self) -> Lexicon:
        """The lexicon; a copy."""
        idf_I, words_K = self._arrays["idf"].copy(), self._arrays["words"].copy()
        is_scaled = self.header["vector_type"] == INT8
        vectors_KE = dequantised(self._arrays, "vectors", is_scaled=is_scaled)
        return Lexicon.from_idf(idf_I, words_K=words_K, vectors_KE=vectors_KE)

    def places(self, ids_N: NDArray[np.int64]) -> NDArray[np.int64]:
        """The place of each n-gram id in the table of all ids; -1 where it is not a known one."""
        ngrams_R = self._arrays["ngrams"].astype(np.int64)
        if not self.spec.vocabulary_rows:
            return ids_N
        found_N = np.minimum(np.searchsorted(ngrams_R, ids_N), max(len(ngrams_R) - 1, 0))
        is_known = ngrams_R[found_N] == ids_N if len(ngrams_R) else np.zeros(len(ids_N), bool)
        return np.where(is_known, found_N, -1)

    def rows(self, places_N: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """The row of each place as floats, shape N, D, and whether it has one.

        A place without a row (untrained, or -1) has zeros.
        """
        used = self._arrays["used"]
        has_row, rows_N = places_N >= 0, np.maximum(places_N, 0)
        if len(used):
            word_N, bit_N = rows_N >> 6, (rows_N & 63).astype(np.uint64)
            has_row &= (used[word_N] >> bit_N) & np.uint64(1) == 1
            below_N = used[word_N] & ((np.uint64(1) << bit_N) - np.uint64(1))
            rows_N = self._arrays["used_before"][word_N] + np.bitwise_count(below_N)
        rows_N = np.where(has_row, rows_N, 0).astype(np.int64)
        found_ND = np.zeros((len(rows_N), self.header["dim"]))
        if has_row.any():
            found_ND[has_row] = self._arrays["table"][rows_N[has_row]]
            if self.header["table_type"] == INT8:
                found_ND[has_row] *= self._arrays["table_scales"][rows_N[has_row], None]
        return found_ND, has_row

    def scored_logit(self, x_X: NDArray[np.float64]) -> float | None:
        """The logit by the arithmetic of int8 layers; None where no layer is int8."""
        if self.header["layer_type"] != INT8:
            return None
        x_BI, names = x_X[None].astype(np.float32), ("weight", "scales", "starts", "bias")
        for at in range(self.header["layers"] - 1):
            layer = Int8Layer(*(self._arrays[f"{name}_{at}"] for name in names))
            x_BI = forward(x_BI, layer, factors_I=None if at else self._arrays["input_factors"])
        weights, biases = self.layers[-1]
        return float((x_BI @ weights.T + biases)[0, 0])
