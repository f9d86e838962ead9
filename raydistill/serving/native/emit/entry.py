"""The functions of the library: one mapped model, the scratch memory of a thread, no allocation.

`raydistill.h` documents them for callers; `emitter.py` gives them their C names. Addresses are
int64. The model has passed `check.py`: no index is checked here.
"""

from __future__ import annotations

from typing import cast

import numpy as np
from numpy.typing import NDArray

from raydistill.serving.featurize import Scratch, add_pair, read_text
from raydistill.serving.machine_code.emitted import emitted
from raydistill.serving.native.emit import memory
from raydistill.serving.native.emit.cleaning import clean, is_plain
from raydistill.serving.native.emit.net import (
    ROWS,
    fill_logits,
    half,
    keep_known,
    keep_used,
    sum_bag,
)
from raydistill.serving.native.emit.session import (
    Session,
    open_session,
    space,
    window,
)
from raydistill.serving.native.emit.unicode import decode_utf8, encode_utf8
from raydistill.serving.native.layout import (
    ALIGN,
    ARGUMENT,
    AT,
    FAILED,
    FLOAT16,
    FLOAT32,
    HEADER_WORDS,
    MODEL_FORMAT,
    OK,
    SECTION,
)
from raydistill.serving.native.python_calls import BYTES_AT, NAMES

_TABLE_AT = {name: at for at, name in enumerate(NAMES)}
_MODEL, _SCRATCH, _IS_PAIRS = (_TABLE_AT[name] for name in ("model", "scratch", "is_pairs"))
_NONE, _LIST, _TUPLE = (_TABLE_AT[name] for name in ("none", "list", "tuple"))
_TYPE, _AS_TUPLE, _SIZE, _ITEM, _UTF8, _BYTEARRAY, _CONTENT, _MALLOC, _FREE = (
    *(_TABLE_AT[f"Py{name}"] for name in ("Object_Type", "List_AsTuple", "Tuple_Size")),
    *(_TABLE_AT[f"Py{name}"] for name in ("Tuple_GetItem", "Unicode_AsUTF8AndSize")),
    *(_TABLE_AT[f"PyByteArray_{name}"] for name in ("FromStringAndSize", "AsString")),
    *(_TABLE_AT[f"PyMem_{name}"] for name in ("Malloc", "Free")),
)
_CLEAR, _INCREF, _DECREF, _RELEASE, _ACQUIRE = (
    *(_TABLE_AT[name] for name in ("PyErr_Clear", "Py_IncRef", "Py_DecRef")),
    *(_TABLE_AT[f"PyEval_{name}"] for name in ("SaveThread", "RestoreThread")),
)
# How texts lie: side by side, or anywhere. numba would compile `_score` again for each literal.
_NO, _OFFSETS, _SPANS = cast(tuple[int, ...], (np.int64(0), np.int64(1), np.int64(2)))
_BAGS, _VOCABULARY, _DIM, _DENSE = AT["bags"], AT["vocabulary"], AT["dim"], AT["dense"]
_MAX_QUERY, _MAX_TITLE = AT["max_query"], AT["max_title"]
_VECTOR_TYPE, _WORD_DIM, _TEMPERATURE = AT["vector_type"], AT["word_dim"], AT["temperature"]
_USED = SECTION["used"]
_WORDS, _VECTORS, _VECTOR_SCALES = (SECTION[name] for name in ("words", "vectors", "vector_scales"))
_MEAN, _STD, _TABLE, _SCALES = (
    SECTION[name] for name in ("dense_mean", "dense_std", "table", "table_scales")
)


@emitted
def model_format() -> int:
    """The version of model files that this library reads."""
    return MODEL_FORMAT


@emitted
def scratch_bytes(model: int) -> int:
    """Bytes of scratch memory of one thread."""
    head = memory.i8(model, HEADER_WORDS)
    return space(0, model, head).end


@emitted
def score(
    model: int,
    scratch: int,
    query: int,
    query_bytes: int,
    titles: int,
    offsets: int,
    num: int,
    scores: int,
) -> int:
    """Scores of one query's titles; the query is read once."""
    if query_bytes < 0 or (query == 0 and query_bytes > 0):
        return ARGUMENT
    if num < 0 or offsets == 0 or (num > 0 and titles == 0) or not _is_rising(offsets, num):
        return ARGUMENT
    return _score(model, scratch, query, _NO, query_bytes, titles, offsets, _OFFSETS, num, scores)


@emitted
def score_pairs(
    model: int,
    scratch: int,
    queries: int,
    query_offsets: int,
    titles: int,
    offsets: int,
    num: int,
    scores: int,
) -> int:
    """Scores of pairs; a query that equals the one before it is not read again."""
    if num < 0 or query_offsets == 0 or not _is_rising(query_offsets, num):
        return ARGUMENT
    if offsets == 0 or (num > 0 and titles == 0) or not _is_rising(offsets, num):
        return ARGUMENT
    if queries == 0 and memory.i8(query_offsets, num + 1)[num] > 0:
        return ARGUMENT
    return _score(
        *(model, scratch, queries, query_offsets, _NO, titles, offsets, _OFFSETS, num, scores),
    )


@emitted
def clean_text(
    model: int, scratch: int, text: int, num_bytes: int, is_query: int, out: int, capacity: int
) -> int:
    """Write the clean text as the student reads it; its bytes, of which `capacity` are written."""
    if num_bytes < 0 or capacity < 0 or not (_is_address(model) and _is_address(scratch)):
        return FAILED
    if (text == 0 and num_bytes > 0) or (out == 0 and capacity > 0):
        return FAILED
    session = open_session(model, scratch)
    data = memory.u1(text, num_bytes)
    most = session.head[_MAX_QUERY if is_query else _MAX_TITLE]
    found = memory.u1(out, capacity)
    if is_plain(data, most):
        count = int(min(num_bytes, most))
        for at in range(min(count, capacity)):
            found[at] = data[at]
        return count
    count = _clean(data, most, session)
    for at in range(min(count, capacity)):
        found[at] = session.space.utf8[at]
    return count


@emitted
def _is_address(address: int) -> bool:
    """Whether an address is that of a model or of scratch memory, and not null."""
    return address != 0 and address % ALIGN == 0


@emitted
def _is_rising(offsets: int, num: int) -> bool:
    starts = memory.i8(offsets, num + 1)
    is_rising = starts[0] >= 0
    for at in range(num):
        is_rising &= starts[at] <= starts[at + 1]
    return bool(is_rising)


@emitted
def _clean(data: NDArray[np.uint8], most: int, session: Session) -> int:
    """Write the first `most` characters of the clean text to `utf8`; the number of bytes."""
    num, buffers = min(len(data), window(most)), session.space.buffers
    back = 0
    while num < len(data) and back < 3 and num > 0 and data[num] & 0xC0 == 0x80:
        num, back = num - 1, back + 1  # not inside a character
    num = decode_utf8(data, num, buffers.text)
    num = clean(buffers, num, session.unicode)
    return encode_utf8(buffers.text, min(num, most), session.space.utf8)


@emitted(forceinline=True)
def _read(data: NDArray[np.uint8], most: int, session: Session, side: Scratch) -> Scratch:
    """A raw text to its words, and what else the model needs of it."""
    bounds, clean_data = session.space.bounds, data
    bounds[0], bounds[1] = 0, min(len(data), most)
    if not is_plain(data, most):
        bounds[1], clean_data = _clean(data, most, session), session.space.utf8
    return read_text(
        *((clean_data, bounds), 0, session.tables, session.units),
        *(side, session.lexicon, session.layout),
    )


@emitted(forceinline=True)
def _copy_vectors(side: Scratch, model: int, session: Session, start: int) -> None:
    """Copy the words' vectors as float32 to the rows from `start` on, and index these."""
    head, known, num = session.head, side.words.known, session.head[_WORDS + 1]
    halves = memory.matrix_u2(model + head[_VECTORS], num, head[_WORD_DIM])
    bytes_KE = memory.matrix_i1(model + head[_VECTORS], num, head[_WORD_DIM])
    scales = memory.f4(model + head[_VECTOR_SCALES], num)
    for word in range(len(side.words.words)):
        if known[word] < 0:
            continue
        row = start + word
        out = memory.f4(session.space.vectors + 4 * row * head[_WORD_DIM], head[_WORD_DIM])
        place = known[word]
        if head[_VECTOR_TYPE] == FLOAT16:
            for col in range(len(out)):
                out[col] = half(halves[place, col])
        else:
            for col in range(len(out)):
                out[col] = scales[place] * np.float32(bytes_KE[place, col])
        known[word] = row


@emitted(forceinline=True)
def _read_query(data: NDArray[np.uint8], model: int, session: Session) -> Scratch:
    query = _read(data, session.head[_MAX_QUERY], session, session.space.query)
    if session.layout.match and session.head[_VECTOR_TYPE] != FLOAT32:
        _copy_vectors(query, model, session, 0)
    return query


@emitted(forceinline=True)
def _read_title(data: NDArray[np.uint8], model: int, session: Session) -> Scratch:
    title = _read(data, session.head[_MAX_TITLE], session, session.space.title)
    if session.layout.match and session.head[_VECTOR_TYPE] != FLOAT32:
        _copy_vectors(title, model, session, len(session.space.query.words.words))
    return title


@emitted(forceinline=True)
def _fill_row(query: Scratch, title: Scratch, model: int, session: Session, x: int) -> None:
    """Write the network's input of a pair to the address `x`: its bags, then dense features."""
    head, buffers = session.head, session.space
    ids, ends, dim, layout = buffers.ids, buffers.ends, head[_DIM], session.layout
    dense = memory.f4(x + 4 * head[_BAGS] * dim, head[_DENSE])
    ends[0] = 0
    add_pair(query, title, buffers.grams, session.lexicon, layout, ids, 0, ends, 0, dense)
    if head[_VOCABULARY]:
        keep_known(ids, ends, session.lexicon)
    if head[_USED + 1]:
        keep_used(ids[: ends[head[_BAGS]]], model, head)
    num_rows = head[_TABLE + 1] // dim
    for bag in range(head[_BAGS]):
        sum_bag(
            *(ids[ends[bag] : ends[bag + 1]], model + head[_TABLE], model + head[_SCALES]),
            *(num_rows, head, memory.f4(x + 4 * bag * dim, dim)),
        )
    mean = memory.f4(model + head[_MEAN], head[_DENSE])
    std = memory.f4(model + head[_STD], head[_DENSE])
    for at in range(len(dense)):
        dense[at] = (dense[at] - mean[at]) / std[at]


@emitted
def _is_as_before(text: int, starts: NDArray[np.int64], step: int, row: int) -> bool:
    """Whether a query equals that of the row before."""
    at, before = step * row, step * (row - 1)
    size = starts[at + 1] - starts[at]
    if size != starts[before + 1] - starts[before]:
        return False
    one, other = memory.u1(text + starts[before], size), memory.u1(text + starts[at], size)
    for place in range(size):
        if one[place] != other[place]:
            return False
    return True


@emitted
def _score(
    model: int,
    scratch: int,
    queries: int,
    query_starts: int,
    query_bytes: int,
    titles: int,
    starts: int,
    step: int,
    num: int,
    scores: int,
) -> int:
    """Scores of pairs, ROWS at a time; without `query_starts` all have the first query.

    Text i is the bytes starts[step i] .. starts[step i + 1] from `queries` or `titles` on: `step`
    is _OFFSETS or _SPANS.
    """
    if (num > 0 and scores == 0) or not (_is_address(model) and _is_address(scratch)):
        return ARGUMENT
    session, is_own = open_session(model, scratch), query_starts != 0
    at_title, out = memory.i8(starts, step * num + 2 - step), memory.f4(scores, num)
    at_query = memory.i8(query_starts, step * num + 2 - step if is_own else 0)
    width = session.head[_BAGS] * session.head[_DIM] + session.head[_DENSE]
    buffers, query = session.space, session.space.query
    scale = np.float32(memory.f8(model, HEADER_WORDS)[_TEMPERATURE])
    for start in range(0, num, ROWS):
        rows = min(ROWS, num - start)
        for row in range(start, start + rows):
            if row == 0 or (is_own and not _is_as_before(queries, at_query, step, row)):
                first = at_query[step * row] if is_own else 0
                size = at_query[step * row + 1] - first if is_own else query_bytes
                query = _read_query(memory.u1(queries + first, size), model, session)
            first = at_title[step * row]
            text = memory.u1(titles + first, at_title[step * row + 1] - first)
            title = _read_title(text, model, session)
            _fill_row(query, title, model, session, buffers.x + 4 * (row - start) * width)
        logits = out[start : start + rows]
        fill_logits(
            *(model, session.head, buffers.layers, buffers.x, buffers.first, buffers.second),
            *(buffers.quants, buffers.steps, rows, logits),
        )
        for at in range(rows):
            logits[at] = np.float32(1) / (np.float32(1) + np.exp(-scale * logits[at]))
    return OK


@emitted
def score_strings(own: int, args: int, num_args: int) -> int:
    """A builtin of Python (`python_calls.py`): a query, or a list of them, and a list of titles.

    Returns a bytearray of scores; None for what is no list or tuple of strings that have UTF-8. It
    scores without the GIL; a tuple of its own keeps the strings meanwhile.
    """
    table = memory.i8(memory.i8(own + BYTES_AT, 1)[0], len(NAMES))
    given, found = memory.i8(args, num_args), 0
    if num_args == 2:
        titles = _to_tuple(given[1], table)
        queries = _to_tuple(given[0], table) if table[_IS_PAIRS] else 0
        if titles != 0 and (queries != 0) == (table[_IS_PAIRS] != 0):
            found = _score_tuple(given[0], queries, titles, table)
        memory.call(table[_DECREF], (titles,))
        memory.call(table[_DECREF], (queries,))
    if found == 0:
        memory.call(table[_CLEAR], (0,))  # the caller finds the error, with words
        memory.call(table[_INCREF], (table[_NONE],))
    return found if found != 0 else table[_NONE]


@emitted
def _to_tuple(strings: int, table: NDArray[np.int64]) -> int:
    """A new reference to a tuple of what a list or tuple has; 0 for any other object."""
    kind = memory.call(table[_TYPE], (strings,))
    memory.call(table[_DECREF], (kind,))
    if kind == table[_LIST]:
        return int(memory.call(table[_AS_TUPLE], (strings,)))
    if kind != table[_TUPLE]:
        return 0
    memory.call(table[_INCREF], (strings,))
    return strings


@emitted
def _score_tuple(query: int, queries: int, titles: int, table: NDArray[np.int64]) -> int:
    """A bytearray of scores, or 0; `queries` is 0 if all titles have one query."""
    num = memory.call(table[_SIZE], (titles,))
    if num == 0 or (queries != 0 and memory.call(table[_SIZE], (queries,)) != num):
        return 0
    num_own = num if queries != 0 else 1
    places = memory.call(table[_MALLOC], (16 * (num + num_own),))
    if places == 0:
        return 0
    starts, found = memory.i8(places, 2 * (num + num_own)), 0
    if queries != 0:
        is_read = _read_tuple(queries, table, starts, 2 * num, num)
    else:
        is_read = _read_string(query, table, starts, 2 * num)
    if is_read and _read_tuple(titles, table, starts, 0, num):
        found = memory.call(table[_BYTEARRAY], (0, 4 * num))
    if found != 0:
        scores = memory.call(table[_CONTENT], (found,))
        first, size, own = starts[2 * num], starts[2 * num + 1] - starts[2 * num], _NO
        if queries != 0:
            first, own = _NO, places + 16 * num
        state = memory.call(table[_RELEASE], (0,))
        code = _score(
            *(table[_MODEL], table[_SCRATCH], first, own, size, _NO, places, _SPANS, num, scores),
        )
        memory.call(table[_ACQUIRE], (state,))
        if code != OK:
            memory.call(table[_DECREF], (found,))
            found = 0
    memory.call(table[_FREE], (places,))
    return found


@emitted
def _read_tuple(
    strings: int, table: NDArray[np.int64], starts: NDArray[np.int64], at: int, num: int
) -> bool:
    for place in range(num):
        text = memory.call(table[_ITEM], (strings, place))
        if not _read_string(text, table, starts, at + 2 * place):
            return False
    return True


@emitted
def _read_string(text: int, table: NDArray[np.int64], starts: NDArray[np.int64], at: int) -> bool:
    """Write the addresses where a string's UTF-8 begins and ends from `at` on, if it has any."""
    place = memory.address(starts) + 8 * at
    starts[at] = memory.call(table[_UTF8], (text, place + 8))
    starts[at + 1] += starts[at]
    return bool(starts[at] != 0)
