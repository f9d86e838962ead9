"""Texts for compiled functions: UTF-8 bytes and offsets, from Arrow or from NumPy.

Input: an Arrow array of any string type, or bytes and offsets. Output: checked `Texts`, and blocks
of rows of one numba type: read-only uint8 bytes and read-only int32 offsets (compiling for another
type takes half a minute). The only module that reads Arrow's buffers. Imports only NumPy: a caller
with an Arrow array has imported pyarrow.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pyarrow as pa

# UTF-8 bytes, R + 1 non-decreasing offsets; read-only.
Texts = tuple[NDArray[np.uint8], NDArray[np.int32] | NDArray[np.int64]]
Block = tuple[NDArray[np.uint8], NDArray[np.int32]]

MAX_BYTES = 2**31 - 1  # limit of int32 offsets, in Arrow's `string` and in compiled code
_STR = {str}
_ALLOWED = "string, large_string, string_view or a dictionary of them, chunked or not"


def to_texts(values: pa.Array | pa.ChunkedArray | Texts) -> Texts:
    """Bytes and offsets of R texts; `string`, `large_string` and NumPy arrays are not copied.

    Raises:
        TypeError: not an Arrow array of strings, and not a tuple of uint8 bytes and int32 or int64
            offsets.
        ValueError: a null; decreasing offsets, or offsets outside the bytes.
    """
    data, offsets = _from_numpy(values) if isinstance(values, tuple) else _from_arrow(values)
    if len(offsets) == 0:
        raise ValueError("no offsets: R texts have R + 1, and no text has one, 0")
    if offsets[0] < 0 or offsets[-1] > len(data):
        raise ValueError(
            f"offsets from {offsets[0]:,} to {offsets[-1]:,} of {len(data):,} bytes: a text would "
            "lie outside of them"
        )
    falls = offsets[1:] < offsets[:-1]
    if falls.any():
        row = int(falls.argmax())
        raise ValueError(
            f"text {row:,} begins at byte {offsets[row]:,} and ends at {offsets[row + 1]:,}: "
            "offsets must rise"
        )
    return data, offsets


def to_arrow(values: pa.Array | pa.ChunkedArray) -> pa.Array:
    """The texts as one array: `large_string` if they are `large_string` or over 2 GB, or `string`.

    Raises:
        TypeError: not an Arrow array of strings.
        ValueError: a null.
    """
    pa = sys.modules.get("pyarrow")
    if pa is None or not isinstance(values, (pa.Array, pa.ChunkedArray)):
        raise TypeError(f"texts of type {_type_name(values)}; give an Arrow array of {_ALLOWED}")
    _check_type(pa, values.type)
    chunks = values.chunks if isinstance(values, pa.ChunkedArray) else [values]
    texts = _joined([_plain(chunk) for chunk in chunks])
    if texts.null_count:
        row = int(np.asarray(texts.is_null()).argmax())
        raise ValueError(
            f"{texts.null_count:,} of {len(texts):,} texts are null, the first in row {row:,}; "
            'leave them out, or make them ""'
        )
    return texts


def narrowed(texts: pa.LargeStringArray) -> pa.Array:
    """The texts as `string`; unchanged if they have more than 2 GB."""
    pa = sys.modules["pyarrow"]
    return texts if texts.nbytes > MAX_BYTES else texts.cast(pa.string())


def row_spans(
    *columns: Texts, max_rows: int | None = None, max_bytes: int = MAX_BYTES
) -> Iterator[tuple[int, int]]:
    """Start and stop row of consecutive blocks; without rows, one empty block.

    A block has at most `max_rows` rows and at most `max_bytes` in each column; a single longer text
    is a block of its own. All columns must have equally many rows.

    Raises:
        ValueError: a text has more than MAX_BYTES.
    """
    num_rows = len(columns[0][1]) - 1
    if (max_rows is None or num_rows <= max_rows) and all(
        int(offsets[-1]) - int(offsets[0]) <= max_bytes for _, offsets in columns
    ):
        yield 0, num_rows  # the fast path for the titles of a single query: microseconds
        return
    start = 0
    while start < num_rows:
        last = num_rows if max_rows is None else min(num_rows, start + max_rows)
        stop = min(_rows_within(offsets, start, last, max_bytes) for _, offsets in columns)
        yield start, stop
        start = stop


def row_block(texts: Texts, start: int, stop: int) -> Block:
    """The rows start..stop, a span of `row_spans`, with int32 offsets."""
    data, offsets = texts
    part = offsets[start : stop + 1]
    if part.dtype == np.int32:
        return data, part  # type: ignore[return-value]  # the dtype is checked
    based = (part - part[0]).astype(np.int32)
    based.setflags(write=False)
    return data[part[0] : part[-1]], based


def row_blocks(
    texts: Texts, *, max_rows: int | None = None, max_bytes: int = MAX_BYTES
) -> Iterator[Block]:
    """All rows, block by block: see `row_spans`."""
    for start, stop in row_spans(texts, max_rows=max_rows, max_bytes=max_bytes):
        yield row_block(texts, start, stop)


def check_strings(name: str, texts: object) -> None:
    """Raise TypeError unless `texts` is a list, tuple, Series or 1-dimensional array of strings.

    The message gives the index of the first element that is not a string: `titles[3] is None`.
    """
    if type(texts) is list and set(map(type, texts)) <= _STR:
        return  # the usual case, in a third of the time: it counts for one pair alone
    is_one = isinstance(texts, (str, bytes, bytearray))
    is_unordered = isinstance(texts, (set, frozenset, Mapping))
    if is_one or is_unordered or not (hasattr(texts, "__len__") and hasattr(texts, "__iter__")):
        raise TypeError(f"{name} is {shown(texts)}; give a list of str")
    if getattr(texts, "ndim", 1) != 1:
        raise TypeError(f"{name} has {getattr(texts, 'ndim', 0)} dimensions; give a list of str")
    if set(map(type, texts)) <= _STR:
        return
    for at, text in enumerate(texts):
        if not isinstance(text, str):
            is_arrow = type(text).__module__.startswith("pyarrow")
            hint = ", or Arrow arrays to score_texts" if is_arrow else ""
            raise TypeError(f"{name}[{at}] is {shown(text)}; give a list of str{hint}")


def shown(value: object) -> str:
    """A value that is not a string, for a message: its type; a number with its value."""
    if value is None:
        return "None"
    if isinstance(value, (int, float, np.number)) and not isinstance(value, bool):
        is_nan = value != value
        return f"{'NaN' if is_nan else value} ({_type_name(value)})"
    return f"of type {_type_name(value)}"


def _rows_within(offsets: NDArray[Any], start: int, last: int, max_bytes: int) -> int:
    """The largest stop such that rows start..stop have at most `max_bytes`; at least `start` + 1.

    Raises:
        ValueError: row `start` has more than MAX_BYTES.
    """
    # Search in the type of the offsets: for a wider one NumPy would copy all of them.
    most = min(int(offsets[start]) + max_bytes, int(np.iinfo(offsets.dtype).max))
    part = offsets[start : last + 1]
    num_rows = int(np.searchsorted(part, offsets.dtype.type(most), side="right")) - 1
    if num_rows == 0 and int(part[1]) - int(part[0]) > MAX_BYTES:
        size = int(part[1]) - int(part[0])
        raise ValueError(f"text {start:,} has {size:,} bytes; at most {MAX_BYTES:,} can be read")
    return start + max(num_rows, 1)


def _from_numpy(values: tuple[Any, ...]) -> tuple[NDArray[Any], NDArray[Any]]:
    if len(values) != 2:
        raise TypeError(f"a tuple of {len(values)}; give (bytes, offsets)")
    data, offsets = values
    if isinstance(data, bytes):
        data = np.frombuffer(data, np.uint8)
    _check_array("bytes", data, allowed=(np.uint8,))
    _check_array("offsets", offsets, allowed=(np.int32, np.int64))
    return _read_only(data), _read_only(offsets)


def _check_array(name: str, values: object, *, allowed: tuple[type, ...]) -> None:
    if isinstance(values, np.ndarray) and values.ndim == 1 and values.dtype in allowed:
        return
    found = _type_name(values)
    if isinstance(values, np.ndarray):
        found = f"{values.dtype} of shape {values.shape}"
    wanted = " or ".join(kind.__name__ for kind in allowed)
    raise TypeError(f"{name} of texts are {found}; give a one-dimensional array of {wanted}")


def _read_only(values: NDArray[Any]) -> NDArray[Any]:
    if values.flags.writeable or not values.flags.c_contiguous:
        values = np.ascontiguousarray(values).view()
        values.setflags(write=False)
    return values


def _from_arrow(values: pa.Array | pa.ChunkedArray) -> tuple[NDArray[Any], NDArray[Any]]:
    pa = sys.modules.get("pyarrow")
    texts = to_arrow(values)
    _, offsets, data = texts.buffers()
    kind: Any = np.int64 if pa and pa.types.is_large_string(texts.type) else np.int32
    first, stop = texts.offset, texts.offset + len(texts) + 1
    starts = np.frombuffer(offsets or bytes(8), kind)[first:stop]
    if len(starts) < stop - first:
        raise ValueError(f"{len(starts):,} offsets for {len(texts):,} texts: a broken Arrow array")
    letters = np.frombuffer(b"" if data is None else data, np.uint8)
    return _read_only(letters), _read_only(starts)


def _check_type(pa: Any, kind: pa.DataType) -> None:  # noqa: ANN401 - the module pyarrow
    types = pa.types
    words = kind.value_type if types.is_dictionary(kind) else kind
    if types.is_string(words) or types.is_large_string(words) or types.is_string_view(words):
        return
    if types.is_null(kind):  # the type of an empty list
        return
    hint = "; cast them to string" if types.is_binary(kind) else ""
    raise TypeError(f"texts of Arrow type {kind}; {_ALLOWED} can be read{hint}")


def _plain(values: pa.Array) -> pa.Array:
    """The texts of one chunk as `string` or `large_string`."""
    pa = sys.modules["pyarrow"]
    if pa.types.is_dictionary(values.type):
        words = values.dictionary.cast(pa.large_string())  # decoded `string` may exceed 2 GB
        return narrowed(pa.DictionaryArray.from_arrays(values.indices, words).dictionary_decode())
    if pa.types.is_string(values.type) or pa.types.is_large_string(values.type):
        return values
    return narrowed(values.cast(pa.large_string()))


def _joined(parts: list[pa.Array]) -> pa.Array:
    pa = sys.modules["pyarrow"]
    if not parts:
        return pa.array([], pa.string())
    if len(parts) == 1:
        return parts[0]
    kinds = {part.type for part in parts}
    if len(kinds) > 1 or sum(part.nbytes for part in parts) > MAX_BYTES:
        parts = [part.cast(pa.large_string()) for part in parts]
    return pa.concat_arrays(parts)


def _type_name(value: object) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")
