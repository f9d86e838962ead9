"""The functions of the library: one mapped model, the scratch memory of a thread, no allocation.

`raydistill.h` documents them for callers; `emitter.py` gives them their C names. Addresses are
int64. The model has passed `check.py`: no index is checked here.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from raydistill.serving.featurize import Scratch, add_pair, read_text
from raydistill.serving.lexicon import Lexicon, find_word
from raydistill.serving.machine_code.emitted import emitted
from raydistill.serving.native.emit import memory
from raydistill.serving.native.emit.cleaning import clean
from raydistill.serving.native.emit.net import ROWS, fill_logits, half, sum_bag
from raydistill.serving.native.emit.session import (
    Session,
    open_session,
    space,
    window,
)
from raydistill.serving.native.emit.unicode import decode_utf8, encode_utf8, signed
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

_BLANK, _TILDE, _AMPERSAND = 0x20, 0x7E, 0x26
_BAGS, _VOCABULARY, _DIM, _DENSE = AT["bags"], AT["vocabulary"], AT["dim"], AT["dense"]
_MAX_QUERY, _MAX_TITLE = AT["max_query"], AT["max_title"]
_VECTOR_TYPE, _WORD_DIM, _TEMPERATURE = AT["vector_type"], AT["word_dim"], AT["temperature"]
_USED, _USED_BEFORE = SECTION["used"], SECTION["used_before"]
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
    return _score(model, scratch, query, 0, query_bytes, titles, offsets, num, scores)


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
    if queries == 0 and memory.i8(query_offsets, num + 1)[num] > 0:
        return ARGUMENT
    return _score(model, scratch, queries, query_offsets, 0, titles, offsets, num, scores)


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
    if _is_plain(data, most):
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
def _is_plain(data: NDArray[np.uint8], most: int) -> bool:
    """Whether a text's first `most` characters are clean: `cleaning.is_odd` finds nothing in them.

    One more byte is looked at: a mark would join the last character.
    """
    num = min(len(data), most + 1)
    if num == 0:
        return True
    is_odd = data[0] == _BLANK or (num == len(data) and data[num - 1] == _BLANK)
    for at in range(num):
        is_odd |= (data[at] < _BLANK) | (data[at] > _TILDE) | (data[at] == _AMPERSAND)
    for at in range(1, num):
        is_odd |= (data[at] == _BLANK) & (data[at - 1] == _BLANK)
    return not is_odd


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
    if not _is_plain(data, most):
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


@emitted
def _keep_known(ids: NDArray[np.int32], ends: NDArray[np.int64], lexicon: Lexicon) -> None:
    """Rows of the ids that the vocabulary has, in place, as `featurize._known_rows`."""
    count = start = 0
    for bag in range(1, len(ends)):
        stop = ends[bag]
        for at in range(start, stop):
            row = find_word(np.uint64(ids[at]), lexicon.ngrams_R, lexicon.ngram_places)
            if row >= 0:
                ids[count] = row
                count += 1
        start, ends[bag] = stop, count


@emitted
def _keep_used(ids: NDArray[np.int32], model: int, head: NDArray[np.int64]) -> None:
    """Rows of the table of n-gram ids, in place; -1 for an id that has none."""
    used = memory.u8(model + head[_USED], head[_USED + 1])
    before = memory.u4(model + head[_USED_BEFORE], head[_USED_BEFORE + 1])
    for at in range(len(ids)):
        word, bit = used[ids[at] >> 6], np.uint64(1) << np.uint64(ids[at] & 63)
        row = signed(before[ids[at] >> 6]) + memory.num_bits(word & (bit - np.uint64(1)))
        ids[at] = row if word & bit else -1


@emitted(forceinline=True)
def _fill_row(query: Scratch, title: Scratch, model: int, session: Session, x: int) -> None:
    """Write the network's input of a pair to the address `x`: its bags, then dense features."""
    head, buffers = session.head, session.space
    ids, ends, dim, layout = buffers.ids, buffers.ends, head[_DIM], session.layout
    dense = memory.f4(x + 4 * head[_BAGS] * dim, head[_DENSE])
    ends[0] = 0
    add_pair(query, title, buffers.grams, session.lexicon, layout, ids, 0, ends, 0, dense)
    if head[_VOCABULARY]:
        _keep_known(ids, ends, session.lexicon)
    if head[_USED + 1]:
        _keep_used(ids[: ends[head[_BAGS]]], model, head)
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
def _is_as_before(text: int, starts: NDArray[np.int64], row: int) -> bool:
    """Whether a query equals that of the row before."""
    size, before = starts[row + 1] - starts[row], starts[row] - starts[row - 1]
    if size != before:
        return False
    one, other = memory.u1(text + starts[row - 1], size), memory.u1(text + starts[row], size)
    for at in range(size):
        if one[at] != other[at]:
            return False
    return True


@emitted
def _score(
    model: int,
    scratch: int,
    queries: int,
    query_offsets: int,
    query_bytes: int,
    titles: int,
    offsets: int,
    num: int,
    scores: int,
) -> int:
    """Scores of pairs, ROWS at a time; without `query_offsets` all have the first query."""
    if num < 0 or offsets == 0 or (num > 0 and (titles == 0 or scores == 0)):
        return ARGUMENT
    if not (_is_address(model) and _is_address(scratch) and _is_rising(offsets, num)):
        return ARGUMENT
    session, is_own = open_session(model, scratch), query_offsets != 0
    starts, out = memory.i8(offsets, num + 1), memory.f4(scores, num)
    query_starts = memory.i8(query_offsets, num + 1 if is_own else 0)
    width = session.head[_BAGS] * session.head[_DIM] + session.head[_DENSE]
    buffers, query = session.space, session.space.query
    scale = np.float32(memory.f8(model, HEADER_WORDS)[_TEMPERATURE])
    for start in range(0, num, ROWS):
        rows = min(ROWS, num - start)
        for row in range(start, start + rows):
            if row == 0 or (is_own and not _is_as_before(queries, query_starts, row)):
                first = query_starts[row] if is_own else 0
                size = query_starts[row + 1] - first if is_own else query_bytes
                query = _read_query(memory.u1(queries + first, size), model, session)
            text = memory.u1(titles + starts[row], starts[row + 1] - starts[row])
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
