"""Load a bundle from a local folder and score (query, title) pairs. Needs numpy and numba only."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from raydistill.errors import UserError
from raydistill.serving.bundle import read_bundle
from raydistill.serving.bundle_check import check_arrays, check_settings
from raydistill.serving.embedding_bag import sum_bags
from raydistill.serving.feature_spec import FORMAT, Features
from raydistill.serving.featurize import featurize
from raydistill.serving.lexicon import Lexicon
from raydistill.serving.text.arrow_text import Texts, check_strings, shown, to_texts
from raydistill.serving.text.tokenizer import encode

if TYPE_CHECKING:
    import pyarrow as pa

_BATCH_ROWS = 1_024  # activations of 1,024 x 1,024 float32 = 4 MB stay in the cache of a core


class Scorer:
    """Scores pairs with a student on a CPU; thread-safe."""

    def __init__(self, settings: dict[str, Any], arrays: dict[str, NDArray[np.float32]]) -> None:
        """`settings` as in bundle.json, `arrays` as in arrays.npz without the fingerprint.

        Raises:
            UserError: another format, or settings and arrays that do not match: `bundle_check.py`.
        """
        if settings.get("format") != FORMAT:
            raise UserError(
                f"bundle format {settings.get('format')!r}; this raydistill reads {FORMAT}"
            )
        self.settings = settings
        self.spec = check_settings(settings)
        num_layers = check_arrays(arrays, self.spec)
        self.temperature = float(settings["temperature"])
        self.threshold = float(settings["threshold"])
        self.max_query_chars = int(settings["max_query_chars"])
        self.max_title_chars = int(settings["max_title_chars"])
        self._table_VD, self.lexicon = arrays["embedding"], Lexicon.from_arrays(arrays)
        self._mean_F, self._std_F = arrays["dense_mean"], arrays["dense_std"]
        self._layers = [
            (np.ascontiguousarray(arrays[f"weight_{at}"].T), arrays[f"bias_{at}"])
            for at in range(num_layers)
        ]

    @property
    def hidden(self) -> list[int]:
        """Sizes of the hidden layers."""
        return [len(bias) for _, bias in self._layers[:-1]]

    @classmethod
    def load(cls, bundle: str | Path) -> Scorer:
        """Load a bundle from a local folder; `raydistill.files.bundles` reads object stores.

        In a folder of several bundles, such as `bundle/` of a run, the newest one is loaded.

        Raises:
            UserError: there is no bundle, it has another format or is damaged, or its files come
                from different bundles.
        """
        if "://" in str(bundle):
            raise UserError(
                f"{bundle} is no local folder: copy the bundle to this machine, or use "
                "raydistill.files.bundles.load_scorer (pip install 'raydistill[distill]')"
            )
        return cls(*read_bundle(Path(bundle).expanduser()))

    def score(self, query: str, titles: Sequence[str]) -> NDArray[np.float32]:
        """Scores in 0..1 of one query's titles, in the order given.

        Raises:
            TypeError: the query is not a string, or the titles are not a list of strings.
        """
        check_strings("titles", titles)
        if not isinstance(query, str):
            raise TypeError(f"query is {shown(query)}; give a str")
        return self._score_checked([query] * len(titles), titles)

    def score_pairs(self, queries: Sequence[str], titles: Sequence[str]) -> NDArray[np.float32]:
        """Scores in 0..1 of pairs, in the order given; for single texts every query is "".

        Raises:
            TypeError: a side is not a list of strings; the message gives the first other element.
            ValueError: the sides differ in length.
        """
        check_strings("queries", queries)
        check_strings("titles", titles)
        return self._score_checked(queries, titles)

    def _score_checked(self, queries: Sequence[str], titles: Sequence[str]) -> NDArray[np.float32]:
        if len(queries) != len(titles):
            raise ValueError(f"{len(queries)} queries for {len(titles)} titles")
        limits = self.max_query_chars, self.max_title_chars
        return self._score(
            encode(queries, max_chars=limits[0]), encode(titles, max_chars=limits[1])
        )

    def score_texts(
        self,
        queries: Texts | pa.Array | pa.ChunkedArray,
        titles: Texts | pa.Array | pa.ChunkedArray,
    ) -> NDArray[np.float32]:
        """Scores in 0..1 of pairs of clean texts, as `prepare` writes them; no text is truncated.

        A side is an Arrow array of strings, or a tuple of UTF-8 bytes (uint8) and R + 1
        non-decreasing offsets (int32 or int64).

        Raises:
            TypeError: a side has another type.
            ValueError: a null, decreasing offsets, offsets outside the bytes, or sides of different
                length.
        """
        return self._score(to_texts(queries), to_texts(titles))

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
        for weight, bias in hidden:
            x = x @ weight
            x += bias
            np.maximum(x, 0, out=x)
        return np.asarray((x @ last[0] + last[1])[:, 0])
