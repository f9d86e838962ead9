"""Score (query, title) pairs with a student's arrays. Needs numpy and numba only.

For students in memory, and for bundles where no native library fits the CPU.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raydistill.errors import UserError
from raydistill.serving.bundle_check import check_arrays, check_settings
from raydistill.serving.embedding_bag import sum_bags
from raydistill.serving.feature_spec import FORMAT, Features
from raydistill.serving.featurize import featurize
from raydistill.serving.lexicon import IDF, NGRAMS, VECTORS, WORDS, Lexicon
from raydistill.serving.native.int8_layers import Int8Layer, forward
from raydistill.serving.native.layout import (
    FLOATS,
    INT8,
    WINDOW_BYTES_A_CHAR,
    WINDOW_MORE_BYTES,
    arrays_of,
    describe,
    verify,
)
from raydistill.serving.text.arrow_text import Texts
from raydistill.serving.tokenizer import encode

_BATCH_ROWS = 1_024  # activations of 1,024 x 1,024 float32 = 4 MB stay in the cache of a core


class NumbaScorer:
    """Scores pairs with a student on a CPU; thread-safe."""

    def __init__(
        self, settings: Mapping[str, Any], arrays: Mapping[str, NDArray[np.float32]]
    ) -> None:
        """`settings` as in bundle.json, `arrays` by the names of `Student.arrays` and `Lexicon`.

        Raises:
            UserError: settings and arrays do not match: `bundle_check.py`.
        """
        self.spec = check_settings(settings)
        num_layers = check_arrays(arrays, self.spec)
        self.temperature = float(settings["temperature"])
        self.max_query_chars = int(settings["max_query_chars"])
        self.max_title_chars = int(settings["max_title_chars"])
        self._table_VD, self.lexicon = arrays["embedding"], Lexicon.from_arrays(arrays)
        self._mean_F, self._std_F = arrays["dense_mean"], arrays["dense_std"]
        self._layers = [
            (np.ascontiguousarray(arrays[f"weight_{at}"].T), arrays[f"bias_{at}"])
            for at in range(num_layers)
        ]
        self._int8_layers: list[Int8Layer] = []  # in place of the hidden layers
        self._factors_I: NDArray[np.float32] | None = None

    @classmethod
    def from_model(cls, settings: Mapping[str, Any], model: NDArray[np.uint8]) -> NumbaScorer:
        """A scorer of a bundle's settings and mapped model file.

        Raises:
            UserError: the model has other features, or is damaged.
        """
        header = describe(model)
        if header["features"] != FORMAT:
            raise UserError(
                f"the model has features {header['features']}; this raydistill has {FORMAT}"
            )
        verify(model)
        numbers = {name: header[name] for name in FLOATS}
        limits = {f"max_{side}_chars": header[f"max_{side}"] for side in ("query", "title")}
        scorer = cls({**settings, **numbers, **limits}, _student_arrays(model))
        if header["layer_type"] == INT8:
            scorer._use_int8(arrays_of(model), num_layers=header["layers"] - 1)
        return scorer

    def _use_int8(self, arrays: Mapping[str, NDArray[Any]], *, num_layers: int) -> None:
        """Replace the hidden layers by those of a model file."""
        self._factors_I = arrays["input_factors"]
        names = ("weight", "scales", "starts", "bias")
        self._int8_layers = [
            Int8Layer(*(arrays[f"{name}_{at}"] for name in names)) for at in range(num_layers)
        ]

    def score(self, query: str, titles: Sequence[str]) -> NDArray[np.float32]:
        """Scores in 0..1 of one query's titles, in the order given."""
        return self.score_pairs([query] * len(titles), titles)

    def score_pairs(self, queries: Sequence[str], titles: Sequence[str]) -> NDArray[np.float32]:
        """Scores in 0..1 of pairs, in the order given; for single texts every query is ""."""
        limits = self.max_query_chars, self.max_title_chars
        sides = (
            encode(windows(side, max_chars=most), max_chars=most)
            for side, most in zip((queries, titles), limits, strict=True)
        )
        return self._score(*sides)

    def score_strings(self, query: object, titles: object) -> None:
        """Only the native library scores without checks."""

    def score_string_pairs(self, queries: object, titles: object) -> None:
        """As `score_strings`."""

    def score_texts(self, queries: Texts, titles: Texts) -> NDArray[np.float32]:
        """Scores in 0..1 of pairs of raw texts: UTF-8 bytes, and R + 1 offsets."""
        return self.score_pairs(_strings(queries), _strings(titles))

    def _score(self, queries: Texts, titles: Texts) -> NDArray[np.float32]:
        features = featurize(queries, titles, spec=self.spec, lexicon=self.lexicon)
        return self.scores_of(self.logits(features))

    def scores_of(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        """Student logits to scores: sigmoid(temperature * logit), probability at temperature 1."""
        with np.errstate(over="ignore"):  # exp overflows to inf, which gives the correct score 0
            return np.asarray(1 / (1 + np.exp(-self.temperature * logits)), np.float32)

    def logits(self, features: Features) -> NDArray[np.float32]:
        """Student logits of all pairs of `features`."""
        out = np.empty(features.num_pairs, np.float32)
        dense = (features.dense_BF - self._mean_F) / self._std_F
        bags, width = self.spec.num_bags, self._table_VD.shape[1]
        for at in range(0, len(out), _BATCH_ROWS):
            stop = min(at + _BATCH_ROWS, len(out))
            x = np.empty((stop - at, bags * width + dense.shape[1]), np.float32)
            offsets = features.offsets[at * bags : stop * bags + 1]
            sum_bags(features.ids_N, offsets, self._table_VD, bags, x)
            x[:, bags * width :] = dense[at:stop]
            out[at:stop] = self._net(x)
        return out

    def _net(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        *hidden, last = self._layers
        for at, layer in enumerate(self._int8_layers):
            x = forward(x, layer, factors_I=None if at else self._factors_I)
        for weight, bias in () if self._int8_layers else hidden:
            x = x @ weight
            x += bias
            np.maximum(x, 0, out=x)
        return np.asarray((x @ last[0] + last[1])[:, 0])


def windows(texts: Sequence[str], *, max_chars: int) -> list[str]:
    """The part of each text that the native library reads."""
    most = WINDOW_BYTES_A_CHAR * max_chars + WINDOW_MORE_BYTES
    return [text if 4 * len(text) <= most else _cut(text, most) for text in texts]


def _cut(text: str, num_bytes: int) -> str:
    return text.encode("utf-8", "replace")[:num_bytes].decode("utf-8", "replace")


def _strings(texts: Texts) -> list[str]:
    data, offsets = texts
    whole = data.tobytes()
    return [whole[start:end].decode("utf-8", "replace") for start, end in pairwise(offsets)]


def _student_arrays(model: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
    """The arrays of a model file under the names of a student's, the table in float32.

    Copies: compiled functions are compiled again for arrays that are read-only.
    """
    header = describe(model)
    try:
        found = arrays_of(model)
        rows = dequantised(found, "table", is_scaled=header["table_type"] == INT8)
        num_ids = header["vocabulary"] or 1 << (64 - header["shift"])
        table = _whole(rows, found["used"], num_ids=num_ids)
        layers = float_layers(found, num_layers=header["layers"])
        vectors = dequantised(found, "vectors", is_scaled=header["vector_type"] == INT8)
    except (ValueError, IndexError) as error:  # a number that is out of range
        raise UserError(f"the model is damaged ({error}); copy the bundle again") from error
    return {
        **layers,
        **{name: found[name] for name in ("dense_mean", "dense_std")},
        "embedding": table,
        IDF: found["idf"].copy(),
        WORDS: found["words"].copy(),
        VECTORS: vectors,
        NGRAMS: found["ngrams"].astype(np.int32),
    }


def float_layers(
    arrays: Mapping[str, NDArray[Any]], *, num_layers: int
) -> dict[str, NDArray[np.float32]]:
    """Weights and biases as float32; for int8 layers about what they stand for."""
    found: dict[str, NDArray[np.float32]] = {}
    for at in range(num_layers):
        weight = arrays[f"weight_{at}"]
        if weight.dtype == np.int8:
            weight = weight * arrays[f"scales_{at}"][:, None]
            weight = weight if at else weight * arrays["input_factors"]
        found |= {f"weight_{at}": weight, f"bias_{at}": arrays[f"bias_{at}"]}
    return found


def _whole(
    rows: NDArray[np.float32], used: NDArray[np.uint64], *, num_ids: int
) -> NDArray[np.float32]:
    """The table with zeros for ids that have no row."""
    if not len(used):
        return rows
    has_row = np.unpackbits(used.view(np.uint8), bitorder="little")[:num_ids].astype(bool)
    table = np.zeros((num_ids, rows.shape[1]), np.float32)
    table[has_row] = rows
    return table


def dequantised(
    arrays: Mapping[str, NDArray[Any]], name: str, *, is_scaled: bool
) -> NDArray[np.float32]:
    """Rows as float32, from int8 by the scale of each row."""
    values = arrays[name].astype(np.float32)
    scales = "table_scales" if name == "table" else "vector_scales"
    return values * arrays[scales][:, None] if is_scaled else values
