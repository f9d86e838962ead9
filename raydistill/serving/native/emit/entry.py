"""The functions of the library: one mapped model, the scratch memory of a thread, no allocation.

`raydistill.h` documents them for callers; `emitter.py` gives them their C names. Addresses are
int64. The model has passed `check.py`: no index is checked here.
"""

from __future__ import annotations

from typing import cast

import numpy as np
from numpy.typing import NDArray

from raydistill.serving.featurize import Scratch, add_pair, add_query, prepare_query, read_text
from raydistill.serving.machine_code.emitted import emitted
from raydistill.serving.native.emit import memory
from raydistill.serving.native.emit.net import (
    ROWS,
    add_rows,
    fill_logits,
    half,
    keep_known,
    keep_used,
    scale_bag,
    warm_rows,
)
from raydistill.serving.native.emit.session import (
    Session,
    Space,
    open_session,
    space,
    window,
)
from raydistill.serving.native.emit.text.cleaning import clean, is_plain
from raydistill.serving.native.emit.text.unicode import decode_utf8, encode_utf8
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

# How texts lie: side by side, or anywhere. numba would compile `score_texts` for each literal.
NO, _OFFSETS, SPANS = cast(tuple[int, ...], (np.int64(0), np.int64(1), np.int64(2)))
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
    return score_texts(
        model, scratch, query, NO, query_bytes, titles, offsets, _OFFSETS, num, scores
    )


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
    return score_texts(
        *(model, scratch, queries, query_offsets, NO, titles, offsets, _OFFSETS, num, scores),
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
    for at, word in enumerate(side.words.listed):
        row = start + at
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
    if session.layout.match:
        if session.head[_VECTOR_TYPE] != FLOAT32:
            _copy_vectors(query, model, session, 0)
        prepare_query(query, session.space.grams, session.lexicon)
    return query


@emitted(forceinline=True)
def _read_title(data: NDArray[np.uint8], model: int, session: Session) -> Scratch:
    title = _read(data, session.head[_MAX_TITLE], session, session.space.title)
    if session.layout.match and session.head[_VECTOR_TYPE] != FLOAT32:
        _copy_vectors(title, model, session, len(session.space.query.words.words))
    return title


@emitted(forceinline=True)
def _of_row(buffers: Space, row: int) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """The buffers of a row's ids and of the ends of its bags; two rows have their own."""
    num, half = len(buffers.ids) // 2, row % 2
    ends = buffers.ends[half * len(buffers.ends) // 2 :]
    return buffers.ids[half * num : (half + 1) * num], ends[: len(buffers.ends) // 2]


@emitted(forceinline=True)
def _list_ids(
    query: Scratch,
    title: Scratch,
    is_new: bool,
    model: int,
    session: Session,
    row: int,
    x: int,
) -> None:
    """Write the ids of a pair's bags, and its dense features to the network's input `x`.

    The query's own ids are written only if it `is_new`: their sums are there already. Those of its
    words are before the bags.
    """
    head, layout = session.head, session.layout
    ids, ends = _of_row(session.space, row)
    dense = memory.f4(x + 4 * head[_BAGS] * head[_DIM], head[_DENSE])
    ends[0] = add_query(query, layout, ids, 0) if is_new else 0
    grams, lexicon = session.space.grams, session.lexicon
    add_pair(query, title, grams, lexicon, layout, ids, ends[0], ends, 0, dense, is_new)
    if head[_VOCABULARY]:
        keep_known(ids, ends, session.lexicon)
    if head[_USED + 1]:
        keep_used(ids[: ends[head[_BAGS]]], model, head)
    warm_rows(ids[: ends[head[_BAGS]]], model, head)
    mean = memory.f4(model + head[_MEAN], head[_DENSE])
    std = memory.f4(model + head[_STD], head[_DENSE])
    for at in range(len(dense)):
        dense[at] = (dense[at] - mean[at]) / std[at]


@emitted(forceinline=True)
def _sum_bags(
    is_new: bool, model: int, session: Session, row: int, x: int, before: int, num_own: int
) -> int:
    """Write the bags of a pair to `x`; return the number of ids of the query's words.

    A query that is not new has the `num_own` of the row `before`, their sum and its characters'.
    """
    head, dim = session.head, session.head[_DIM]
    ids, ends = _of_row(session.space, row)
    own = memory.f4(session.space.own, dim)
    if is_new:
        num_own = ends[0]
        own[:] = 0
        add_rows(ids[:num_own], model, head, own)
    of_query = head[_BAGS] - 2 if session.layout.size and not is_new else -1
    for bag in range(head[_BAGS]):
        out = memory.f4(x + 4 * bag * dim, dim)
        if bag == of_query:
            found = memory.f4(before + 4 * bag * dim, dim)
            for col in range(dim):
                out[col] = found[col]
        else:
            for col in range(dim):
                out[col] = np.float32(0) if bag else own[col]
            add_rows(ids[ends[bag] : ends[bag + 1]], model, head, out)
            scale_bag(out, ends[bag + 1] - ends[bag] + (0 if bag else num_own))
    return num_own


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
def score_texts(
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
    is _OFFSETS or SPANS.
    """
    if (num > 0 and scores == 0) or not (_is_address(model) and _is_address(scratch)):
        return ARGUMENT
    session, is_own = open_session(model, scratch), query_starts != 0
    at_title, out = memory.i8(starts, step * num + 2 - step), memory.f4(scores, num)
    at_query = memory.i8(query_starts, step * num + 2 - step if is_own else 0)
    width = session.head[_BAGS] * session.head[_DIM] + session.head[_DENSE]
    buffers, query = session.space, session.space.query
    scale = np.float32(memory.f8(model, HEADER_WORDS)[_TEMPERATURE])
    was_new, num_own = True, 0
    for start in range(0, num, ROWS):
        rows, x, is_new = min(ROWS, num - start), buffers.x, False
        for row in range(start, start + rows + 1):
            if row < start + rows:
                is_new = row == 0 or (is_own and not _is_as_before(queries, at_query, step, row))
                if is_new:
                    first = at_query[step * row] if is_own else 0
                    size = at_query[step * row + 1] - first if is_own else query_bytes
                    query = _read_query(memory.u1(queries + first, size), model, session)
                first = at_title[step * row]
                text = memory.u1(titles + first, at_title[step * row + 1] - first)
                title = _read_title(text, model, session)
                _list_ids(query, title, is_new, model, session, row, x + 4 * (row - start) * width)
            # The bags of the pair before: while a text is read, its rows of the table come from
            # memory.
            if row > start:
                before = x + 4 * ((row - 2 - start) % ROWS) * width
                here = x + 4 * (row - 1 - start) * width
                num_own = _sum_bags(was_new, model, session, row - 1, here, before, num_own)
            was_new = is_new
        logits = out[start : start + rows]
        fill_logits(
            *(model, session.head, buffers.layers, buffers.x, buffers.first, buffers.second),
            *(buffers.quants, buffers.steps, rows, logits),
        )
        for at in range(rows):
            logits[at] = np.float32(1) / (np.float32(1) + np.exp(-scale * logits[at]))
    return OK
