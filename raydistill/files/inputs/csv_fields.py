"""One record of delimited text to its fields, for records that are not plain RFC 4180.

Quotes that do not enclose a field are read as text. A record is split in several ways; the first
split with as many fields as the header is taken, and without one the record is bad.
"""

from __future__ import annotations

import re
from functools import cache

from raydistill.files.inputs.csv_scan import ESCAPED, LINE, NOTHING, Marks, with_backslash


def read_record(record: bytes, kind: int, marks: Marks, num_fields: int) -> tuple[list[bytes], str]:
    """The fields of a record without its line end, and the reason why it is bad, or "".

    `kind` is a kind of record of `csv_scan`: how its quotes are to be read.
    """
    tries = [with_backslash(marks)] if kind == ESCAPED else [marks]
    found = [split_record(record, one) for one in tries]
    found.append(split_record(record, marks, is_spaced=True))
    if kind != ESCAPED:
        found.append(split_record(record, marks, is_lenient=True))
    for fields in found:
        if len(fields) == num_fields:
            return fields, ""
    quoting = "a quote that is no quoting, " if kind == LINE else ""
    return found[0], f"{quoting}{len(found[0])} fields, not {num_fields}"


def split_record(
    record: bytes, marks: Marks, *, is_spaced: bool = False, is_lenient: bool = False
) -> list[bytes]:
    """The fields of one record without its line end.

    A field is quoted if it begins with a quote (`is_spaced`: or with spaces and a quote) and a
    quote before a delimiter or the end closes it. Any other field is text up to the next delimiter.
    `is_lenient`: quotes inside a quoted field need not be doubled.
    """
    delimiter, quote, escape = marks
    mark = bytes([quote]) if quote != NOTHING else b""
    if (not mark or mark not in record) and escape == NOTHING:
        return record.split(bytes([delimiter]))
    pattern = _field_pattern(marks, is_spaced, is_lenient)
    fields: list[bytes] = []
    at = 0
    while True:
        match = pattern.match(record, at)
        if match is None:  # cannot happen: the pattern also matches an empty field
            raise ValueError(f"no field at byte {at} of {record[:80]!r}")
        fields.append(_field(match, marks))
        at = match.end() + 1
        if at > len(record):
            return fields


@cache
def _field_pattern(marks: Marks, is_spaced: bool, is_lenient: bool) -> re.Pattern[bytes]:
    delimiter, quote, escape = (re.escape(bytes([m])) if m != NOTHING else b"" for m in marks)
    end = rb"(?=" + delimiter + rb"|\Z)"
    escaped = rb"|" + escape + rb"." if escape else b""
    text = rb"((?:[^" + delimiter + escape + rb"]" + escaped + (rb"|" + escape if escape else b"")
    text += rb")*)"
    if not quote:
        return re.compile(rb"(?:(?!)())?" + text, re.DOTALL)
    spaces = rb"[ \t]*" if is_spaced and delimiter != re.escape(b"\t") else b""
    if is_lenient:
        inner = rb"(.*?)"
    else:
        inner = rb"((?:[^" + quote + escape + rb"]" + escaped + rb"|" + quote + quote + rb")*+)"
    return re.compile(spaces + quote + inner + quote + spaces + end + rb"|" + text, re.DOTALL)


def _field(match: re.Match[bytes], marks: Marks) -> bytes:
    delimiter, quote, escape = (bytes([mark]) if mark != NOTHING else b"" for mark in marks)
    quoted, text = match[1], match[2]
    if escape:
        escaped = re.escape(escape) + rb"([" + re.escape(delimiter + quote + escape) + rb"])"
        return re.sub(escaped, rb"\1", text if quoted is None else quoted.replace(quote * 2, quote))
    return bytes(quoted.replace(quote * 2, quote)) if quoted is not None else _own_text(text, quote)


def _own_text(text: bytes, quote: bytes) -> bytes:
    """The text; if it is in quotes and their number is odd (`"55" tv"`), without the outer two."""
    is_wrapped = len(text) > 1 and text.startswith(quote) and text.endswith(quote)
    return text[1:-1] if quote and is_wrapped and text.count(quote) % 2 else text
