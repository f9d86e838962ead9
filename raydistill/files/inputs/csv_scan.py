"""Bytes of a CSV file to its records: where each ends, and whether it is plain RFC 4180.

A plain record has the header's number of fields, and every field that begins with a quote ends with
one. Arrow reads plain records, `csv_fields.py` all others. A quoted value that encloses complete
records is taken as an unclosed quote: each of its lines becomes a record.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from raydistill.serving.machine_code.compiled import compiled

# Kinds of records. OTHER: not plain, with all its lines; LINE: a single line whose quotes are text;
# ESCAPED: its inner quotes are escaped by backslashes.
PLAIN, OTHER, LINE, ESCAPED = 0, 1, 2, 3
MAX_RECORD_BYTES = 1 << 20  # a longer quoted value is taken as a quote that was never closed
NOTHING = -1  # no quote, no escape
_LF, _CR, _SPACE, _BACKSLASH = 10, 13, 32, 92
_WHOLE, _CUT, _OPEN, _BROKEN = 0, 1, 2, 3
_IN_TEXT, _IN_QUOTES, _ENDS_FIELD = 1, 2, 4
_ONE = np.uint64(1)
_MANY_ALIKE = 3  # record-like lines that are required if the first line is not record-like

# Marks: delimiter, quote, escape. Shape: number of fields of the header; whether spaces follow
# delimiters, lines end in CR LF, records begin with a quote: how `_holds_records` recognises lines.
Marks = tuple[int, int, int]
Shape = tuple[int, bool, bool, bool]


def byte_kinds(marks: Marks) -> NDArray[np.uint8]:
    """For each byte value, bits for where it is special: in text, in quotes, after a field."""
    delimiter, quote, escape = marks
    kinds = np.zeros(256, np.uint8)
    kinds[[delimiter, _LF, _CR]] |= _IN_TEXT | _ENDS_FIELD
    kinds[[_LF, _CR]] |= _IN_QUOTES
    if quote != NOTHING:
        kinds[quote] |= _IN_QUOTES
    if escape != NOTHING:
        kinds[escape] |= _IN_TEXT | _IN_QUOTES
    return kinds


def with_backslash(marks: Marks) -> Marks:
    """The marks with a backslash as escape; unchanged without a quote, or if either is in use."""
    delimiter, quote, escape = marks
    can_try = quote not in (NOTHING, _BACKSLASH) and delimiter != _BACKSLASH
    return (delimiter, quote, _BACKSLASH) if escape == NOTHING and can_try else marks


@compiled(inline="always")
def _skip(
    data: NDArray[np.uint8], start: int, stop: int, kinds: NDArray[np.uint8], kind: np.uint8
) -> int:
    """The first offset from `start` whose byte is of a kind; `stop` without one.

    The offsets are unsigned: numba tests each signed index for a negative value, at half the speed.
    """
    at, last = np.uint64(start), np.uint64(stop)
    while at < last and not kinds[data[at]] & kind:
        at += _ONE
    return np.int64(at)  # type: ignore[return-value]


@compiled
def _quoted(
    data: NDArray[np.uint8], at: int, stop: int, marks: Marks, kinds: NDArray[np.uint8]
) -> tuple[int, int, bool]:
    """Offset after the closing quote of a value at `at`, line breaks in it, whether it has escapes.

    The offset is `stop` + 1 if no quote closes the value.
    """
    _, quote, escape = marks
    breaks, has_escape = 0, False
    while True:
        at = _skip(data, at, stop, kinds, np.uint8(_IN_QUOTES)) + 1
        if at > stop:
            return stop + 1, breaks, has_escape
        byte, following = data[at - 1], np.int64(data[at]) if at < stop else NOTHING
        if byte == escape:
            if following == quote or following == escape:
                has_escape = True
                at += 1
        elif byte == quote:
            if following != quote:
                return at, breaks, has_escape
            at += 1
        elif byte == _LF or following != _LF:
            breaks += 1


@compiled
def _record(
    data: NDArray[np.uint8], at: int, stop: int, marks: Marks, kinds: NDArray[np.uint8]
) -> tuple[int, int, int, int, bool]:
    """End, fields, line breaks inside, state, and whether an escape occurs, of the record at `at`.

    _CUT: no line end before `stop`; _OPEN: no closing quote either; _BROKEN: text follows one.
    """
    delimiter, quote, escape = marks
    fields, breaks, has_escape = 1, 0, False
    while True:
        if at < stop and data[at] == quote:
            at, more, is_escaped = _quoted(data, at + 1, stop, marks, kinds)
            breaks += more
            has_escape = has_escape or is_escaped
            if at > stop:
                return stop, fields, breaks, _OPEN, has_escape
            if at < stop and not kinds[data[at]] & np.uint8(_ENDS_FIELD):
                return at, fields, breaks, _BROKEN, has_escape
        at = _skip(data, at, stop, kinds, np.uint8(_IN_TEXT))
        while at < stop and data[at] == escape:
            has_escape = True
            is_line_end = at + 1 < stop and (data[at + 1] == _LF or data[at + 1] == _CR)
            at = _skip(data, at + 1 + (not is_line_end), stop, kinds, np.uint8(_IN_TEXT))
        if at >= stop or (data[at] == _CR and at + 1 == stop):  # a line feed may follow
            return stop, fields, breaks, _CUT, has_escape
        if data[at] != delimiter:
            return _line_end(data, at, stop), fields, breaks, _WHOLE, has_escape
        at += 1
        fields += 1


@compiled
def _line_end(data: NDArray[np.uint8], at: int, stop: int) -> int:
    """Offset after the end of the line that contains `at`; `stop` if the line has no end."""
    while at < stop and data[at] != _LF and data[at] != _CR:
        at += 1
    if at + 1 < stop and data[at] == _CR and data[at + 1] == _LF:
        at += 1
    return min(at + 1, stop)


@compiled
def _looks_whole(
    data: NDArray[np.uint8], at: int, end: int, marks: Marks, shape: Shape
) -> tuple[int, bool]:
    """Offset after a line, and whether the line looks like a record, with its quotes as text.

    Such a line has the header's number of delimiters, ends in CR LF if the header does, and begins
    with a quote if the first record does. A delimiter before a space ("soft, warm") counts only if
    spaces follow all delimiters of the header.
    """
    num_fields, is_spaced, is_crlf, is_quoted = shape
    after = _line_end(data, at, end)
    last = after
    while last > at and (data[last - 1] == _LF or data[last - 1] == _CR):
        last -= 1
    delimiters = 0
    for place in range(at, last):
        if data[place] == marks[0]:
            delimiters += is_spaced or place + 1 == last or data[place + 1] != _SPACE
    is_alike = delimiters == num_fields - 1 and (not is_quoted or data[at] == marks[1])
    return after, is_alike and (not is_crlf or after - last == 2)


@compiled
def _holds_records(data: NDArray[np.uint8], at: int, end: int, marks: Marks, shape: Shape) -> bool:
    """Whether most lines of a multi-line record, after its first, look like records."""
    at, is_first_alike = _looks_whole(data, at, end, marks, shape)
    num_lines, num_alike = 0, 0
    while at < end:
        is_blank = data[at] == _LF or data[at] == _CR
        at, is_alike = _looks_whole(data, at, end, marks, shape)
        num_lines += not is_blank
        num_alike += is_alike
    return 2 * num_alike > num_lines and (is_first_alike or num_alike >= _MANY_ALIKE)


@compiled
def _value(
    data: NDArray[np.uint8],
    at: int,
    stop: int,
    marks: Marks,
    kinds: NDArray[np.uint8],
    shape: Shape,
) -> tuple[int, int, int, int, bool]:
    """As `_record`; also _BROKEN if the record encloses others or is longer than the maximum."""
    end, fields, breaks, state, has_escape = _record(data, at, stop, marks, kinds)
    if state == _WHOLE and breaks:
        if end - at > MAX_RECORD_BYTES or _holds_records(data, at, end, marks, shape):
            state = _BROKEN
    elif state == _OPEN and end - at > MAX_RECORD_BYTES:
        state = _BROKEN
    return end, fields, breaks, state, has_escape


@compiled
def scan(
    data: NDArray[np.uint8],
    at: int,
    is_last: bool,
    marks: tuple[Marks, Marks],
    kinds: tuple[NDArray[np.uint8], NDArray[np.uint8]],
    shape: Shape,
    spans: NDArray[np.int64],
    found: NDArray[np.uint8],
) -> tuple[int, int, int]:
    """Write begin, end, first line (from 0) and lines of each record to `spans`, kinds to `found`.

    Returns the number of records, the offset of the unread rest, and the lines before it. Blank
    lines are not records. The last data must end in a line feed. A record that is not plain with
    the first marks is tried with the second.
    """
    stop, num, line = len(data), 0, 0
    while at < stop and num < len(found):
        if data[at] == _LF or data[at] == _CR:
            if data[at] == _CR and at + 1 == stop and not is_last:
                break
            at = _line_end(data, at, stop)
            line += 1
            continue
        end, fields, breaks, state, odd = _value(data, at, stop, marks[0], kinds[0], shape)
        is_cut = state == _CUT or state == _OPEN
        kind = PLAIN if state == _WHOLE and fields == shape[0] and not odd else OTHER
        if kind == OTHER and marks[0] != marks[1] and (is_last or not is_cut):
            other = _value(data, at, stop, marks[1], kinds[1], shape)
            if other[4] and other[3] in (_CUT, _OPEN) and not is_last:
                break
            if other[4] and other[3] == _WHOLE and other[1] == shape[0]:
                end, breaks, state, kind = other[0], other[2], _WHOLE, ESCAPED
                is_cut = False
        if is_cut and not is_last:
            break
        if state != _WHOLE:
            end, breaks, kind = _line_end(data, at, stop), 0, LINE
            if end == stop and not is_last:  # the line may continue
                break
        spans[num, 0], spans[num, 1], spans[num, 2], spans[num, 3] = at, end, line, breaks + 1
        found[num] = kind
        num += 1
        line += breaks + 1
        at = end
    return num, at, line
