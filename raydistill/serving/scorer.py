"""Load a bundle and score (query, title) pairs, with the native library where one fits the CPU.

Imports only NumPy, so a process scores milliseconds after its start.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from raydistill.errors import UserError
from raydistill.serving.bundle import read_bundle
from raydistill.serving.native.build import found_library
from raydistill.serving.native.layout import aligned, describe
from raydistill.serving.native.library import Library, Model
from raydistill.serving.text.arrow_text import Texts, check_strings, shown, to_texts
from raydistill.serving.text.columns import join_columns

if TYPE_CHECKING:
    import pyarrow as pa

logger = logging.getLogger("raydistill")


class _Engine(Protocol):
    """What scores checked texts: the native library, or compiled functions of numba."""

    def score(self, query: str, titles: Sequence[str]) -> NDArray[np.float32]: ...

    def score_pairs(self, queries: Sequence[str], titles: Sequence[str]) -> NDArray[np.float32]: ...

    def score_texts(self, queries: Texts, titles: Texts) -> NDArray[np.float32]: ...

    # The same without checks, for what most callers give: None for anything else.
    def score_strings(self, query: object, titles: object) -> NDArray[np.float32] | None: ...

    def score_string_pairs(self, queries: object, titles: object) -> NDArray[np.float32] | None: ...


class Scorer:
    """Scores pairs with the student of a bundle on a CPU; thread-safe, releases the GIL."""

    def __init__(self, settings: dict[str, Any], model: NDArray[np.uint8]) -> None:
        """`settings` as in bundle.json; `model`: the bytes of model.rdm, at a multiple of 64.

        Raises:
            UserError: the model is damaged, or of another version.
        """
        self.settings, self.model = settings, model
        self._engine = _engine(settings, model)
        self.threshold: float = describe(model)["threshold"]
        """The score from which a pair counts as relevant."""
        self._score_strings = self._engine.score_strings

    def __reduce__(self) -> tuple[Any, ...]:
        """For pickle and copy: the settings and the model's bytes; the copy finds its library."""
        return _restored, (self.settings, self.model.tobytes())

    @classmethod
    def load(cls, bundle: str | Path) -> Scorer:
        """Load a bundle from a local folder, an object store (`s3://bucket/folder`) or a hub.

        In a folder of several bundles, such as `bundle/` of a run, the newest one is loaded. A
        bundle that is not on this machine is copied here first, which needs `raydistill[distill]`.
        `owner/name` is a local folder if there is one, else a model of the Hugging Face hub.

        Raises:
            UserError: there is no bundle, it has another format or is damaged, or its files come
                from different bundles.
        """
        return cls(*read_bundle(local_folder(bundle)))

    def score(self, query: str, titles: Sequence[str]) -> NDArray[np.float32]:
        """Scores in 0..1 of one query's titles, in the order given.

        A list or tuple of strings takes the least time: they are not copied. A string that is not
        ASCII keeps its UTF-8 as long as it lives, which takes as much memory again.

        Raises:
            TypeError: the query is not a string, or the titles are not a list of strings.
        """
        if (scores := self._score_strings(query, titles)) is not None:
            return scores
        check_strings("titles", titles)
        if not isinstance(query, str):
            raise TypeError(f"query is {shown(query)}; give a str")
        return self._engine.score(query, titles)

    def score_pairs(self, queries: Sequence[str], titles: Sequence[str]) -> NDArray[np.float32]:
        """Scores in 0..1 of pairs, in the order given; for single texts every query is "".

        Raises:
            TypeError: a side is not a list of strings; the message gives the first other element.
            ValueError: the sides differ in length.
        """
        if (scores := self._engine.score_string_pairs(queries, titles)) is not None:
            return scores
        check_strings("queries", queries)
        check_strings("titles", titles)
        _check_alike(len(queries), len(titles))
        return self._engine.score_pairs(queries, titles)

    def score_texts(
        self,
        queries: Texts | pa.Array | pa.ChunkedArray,
        titles: Texts | pa.Array | pa.ChunkedArray,
    ) -> NDArray[np.float32]:
        """Scores in 0..1 of pairs of texts in columns, which are not copied.

        A side is an Arrow array of strings, or a tuple of UTF-8 bytes (uint8) and R + 1
        non-decreasing offsets (int32 or int64).

        Raises:
            TypeError: a side has another type.
            ValueError: a null, decreasing offsets, offsets outside the bytes, or sides of different
                length.
        """
        sides = to_texts(queries), to_texts(titles)
        _check_alike(*(len(offsets) - 1 for _, offsets in sides))
        return self._engine.score_texts(*sides)

    def score_table(
        self, table: pa.Table, *, query: str = "query", title: str | Sequence[str] | None = None
    ) -> NDArray[np.float32]:
        """Scores in 0..1 of the rows of an Arrow table, by the names of its columns.

        `title`: a column, or several of strings that are joined as in training. Default: those that
        the student was trained on, or "title". A student of single texts reads the titles alone.

        Raises:
            UserError: the table has no such column.
            TypeError, ValueError: as `score_texts`.
        """
        is_single = bool(self.settings.get("single_texts"))
        given = title or self.settings.get("title", "title")
        columns = [given] if isinstance(given, str) else list(given)
        for name in columns if is_single else (query, *columns):
            if name not in table.column_names:
                raise UserError(f"the table has no column {name!r}; it has {table.column_names}")
        if is_single:
            none = np.empty(0, np.uint8), np.zeros(table.num_rows + 1, np.int64)
            return self.score_texts(none, _column(table, columns))
        return self.score_texts(table[query], _column(table, columns))


def _restored(settings: dict[str, Any], model: bytes) -> Scorer:
    return Scorer(settings, aligned(model))


def _column(table: pa.Table, names: Sequence[str]) -> pa.Array | pa.ChunkedArray:
    if len(names) == 1:
        return table[names[0]]
    return join_columns([table[name].combine_chunks() for name in names])


def _check_alike(num_queries: int, num_titles: int) -> None:
    if num_queries != num_titles:
        raise ValueError(f"{num_queries} queries for {num_titles} titles")


def _engine(settings: dict[str, Any], model: NDArray[np.uint8]) -> _Engine:
    """The native library; numba, which takes longer to start, where none fits this CPU."""
    file, reason = found_library()
    if file is not None:
        return Model(model, Library(file))
    try:
        from raydistill.serving.numba_scorer import NumbaScorer
    except ImportError as error:
        raise UserError(
            f"{reason}, and numba cannot be imported ({error}): pip install 'raydistill[numba]'"
        ) from error
    logger.warning("%s: scoring with numba, which takes longer to start and for one pair", reason)
    return NumbaScorer.from_model(settings, model)


def local_folder(bundle: str | Path) -> Path:
    """The bundle's folder on this machine, copied from a store or a hub where it is not here.

    Raises:
        UserError: there is no such bundle, or what copies it is not installed.
    """
    path = Path(bundle).expanduser()
    if "://" not in str(bundle) and (path.exists() or not _is_hub_name(str(bundle))):
        return path
    try:
        from raydistill.files.bundles import local_bundle
    except ImportError as error:
        raise UserError(
            f"{bundle} is no folder of this machine, and this installation cannot copy it "
            f"({error}): pip install 'raydistill[distill]', or give a local folder"
        ) from error
    return local_bundle(str(bundle))


def _is_hub_name(name: str) -> bool:
    owner, _, rest = name.partition("/")
    return bool(owner and rest) and "/" not in rest and owner not in (".", "..", "~")
