"""Tables to lines of JSON or TSV, column by column: ten times faster than row by row."""

from __future__ import annotations

import json
import math

import pyarrow as pa
import pyarrow.compute as pc

from raydistill.errors import UserError

_TEXT = pa.large_string()  # a block of rows may have more than 2 GB
_ESCAPED = r'["\\\x00-\x1f]'  # what a JSON string must not contain as it is
_NO_FIELD = r"[\t\n\r]"
_WHOLE_NUMBER = r"^-?[0-9]+$"


def json_lines(table: pa.Table) -> pa.Buffer:
    """One JSON object a line, all columns in each; NaN and infinity become null."""
    parts: list[pa.Array | pa.Scalar] = []
    for name in table.column_names:
        before = f", {json.dumps(name, ensure_ascii=False)}: " if parts else (
            f"{{{json.dumps(name, ensure_ascii=False)}: "
        )  # fmt: skip
        parts += [pa.scalar(before, _TEXT), _json_values(_one_chunk(table[name]))]
    return _joined([*parts, pa.scalar("}\n", _TEXT)])


def tsv_lines(table: pa.Table) -> pa.Buffer:
    """One line a row; a null is an empty field.

    Raises:
        UserError: a text has a tab or a line break, as TSV has no quotes.
    """
    parts: list[pa.Array | pa.Scalar] = []
    for name in table.column_names:
        fields = pc.fill_null(_texts(_one_chunk(table[name])), "")
        is_bad = pc.match_substring_regex(fields, _NO_FIELD)
        if pc.any(is_bad).as_py():
            text = fields.filter(is_bad)[0].as_py()
            raise UserError(
                f"{text[:60]!r} has a tab or a line break: write .csv, .jsonl or .parquet"
            )
        parts += [fields, pa.scalar("\t", _TEXT)]
    return _joined([*parts[:-1], pa.scalar("\n", _TEXT)])


def _one_chunk(column: pa.ChunkedArray) -> pa.Array:
    array = column.combine_chunks()
    return array.dictionary_decode() if pa.types.is_dictionary(array.type) else array


def _joined(parts: list[pa.Array | pa.Scalar]) -> pa.Buffer:
    lines = pc.binary_join_element_wise(*parts, pa.scalar("", _TEXT))
    _, offsets, data = lines.buffers()
    if not len(lines):
        return pa.py_buffer(b"")
    edges = memoryview(offsets).cast("q")
    first, last = edges[lines.offset], edges[lines.offset + len(lines)]
    return data.slice(first, last - first)


def _json_values(column: pa.Array) -> pa.Array:
    """Each value as JSON."""
    if pa.types.is_floating(column.type):
        column = pc.if_else(pc.is_finite(column), column, None)
    if _is_plain(column.type):
        return pc.fill_null(_texts(column), "null")
    if not _is_text(column.type):
        return pa.array(map(_json_value, column.to_pylist()), _TEXT)
    texts = column.cast(_TEXT)
    quote = pa.scalar('"', _TEXT)
    values = pc.binary_join_element_wise(quote, texts, quote, pa.scalar("", _TEXT))
    is_odd = pc.fill_null(pc.match_substring_regex(texts, _ESCAPED), False)
    if pc.any(is_odd).as_py():
        odd = pa.array(map(_json_value, texts.filter(is_odd).to_pylist()), _TEXT)
        values = pc.replace_with_mask(values, is_odd, odd)
    return pc.fill_null(values, "null")


def _json_value(value: object) -> str:
    return json.dumps(_finite(value), ensure_ascii=False, default=_shown)


def _finite(value: object) -> object:
    """The value of a list or a struct without NaN and infinity, which JSON does not have."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {name: _finite(one) for name, one in value.items()}
    return [_finite(one) for one in value] if isinstance(value, (list, tuple)) else value


def _texts(column: pa.Array) -> pa.Array:
    """Each value as text; a float has a point or an exponent, as in Python."""
    if not (_is_plain(column.type) or _is_text(column.type)):
        values = column.to_pylist()
        return pa.array([None if value is None else _shown(value) for value in values], _TEXT)
    texts = column.cast(_TEXT)
    if not pa.types.is_floating(column.type):
        return texts
    is_whole = pc.fill_null(pc.match_substring_regex(texts, _WHOLE_NUMBER), False)
    if not pc.any(is_whole).as_py():
        return texts
    point = pa.scalar(".0", _TEXT)
    with_point = pc.binary_join_element_wise(texts, point, pa.scalar("", _TEXT))
    return pc.if_else(is_whole, with_point, texts)


def _shown(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _is_plain(kind: pa.DataType) -> bool:
    """Whether Arrow writes values as JSON does: numbers, true and false."""
    return bool(
        pa.types.is_integer(kind) or pa.types.is_boolean(kind) or pa.types.is_floating(kind)
    )


def _is_text(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    )
