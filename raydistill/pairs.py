"""Raw rows to clean pairs: normalise, reject with a reason, pair_id, split; Arrow compute only.

A clean pair has NFKC text with single spaces and no control characters. Everything here is a pure
function of its rows, so that the result does not depend on files, blocks or the cluster.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from raydistill.config import JudgedConfig, TextRules
from raydistill.hashing import hash_texts
from raydistill.schema import JUDGED, PAIRS, QUARANTINE

# Zero-width space, byte-order mark and soft hyphen carry no text; other white space and control
# characters separate words.
_INVISIBLE = r"[\x{200B}\x{FEFF}\x{00AD}]"
_SPACES = r"[\p{Z}\p{Cc}]+"
_SEPARATOR = "\x1f"  # a control character: no clean text holds it


@dataclass(frozen=True)
class Cleaned:
    """`pairs`: query, title (, label); `rejects`: the quarantine rows. Together all the rows."""

    pairs: pa.Table
    rejects: pa.Table


def clean(table: pa.Table, *, rows: NDArray[np.int64], rules: TextRules, source: str) -> Cleaned:
    """Normalise the texts of raw rows; rows that cannot be used are rejected with a reason.

    `table` has the columns that `rules` name; `rows` are their numbers in the file `source`.
    """
    reasons = pa.nulls(table.num_rows, pa.string())
    texts: dict[str, pa.StringArray] = {}
    limits = {"query": rules.max_query_chars, "title": rules.max_title_chars}
    for name, column in {"query": rules.query, "title": rules.title}.items():
        if not column:
            texts[name] = pa.array([""] * table.num_rows, pa.string())
            continue
        text, problem = _clean_text(table[column], name=name, max_chars=limits[name])
        texts[name] = pc.utf8_lower(text) if rules.lowercase else text
        reasons = pc.coalesce(reasons, problem)
    columns: dict[str, pa.Array] = dict(texts)
    if isinstance(rules, JudgedConfig):
        columns["label"], problem = _clean_label(table[rules.label])
        reasons = pc.coalesce(reasons, problem)
    good = pc.is_null(reasons)
    rejects = pa.table(
        {
            "source": pa.array([source] * table.num_rows, pa.string()),
            "row": pa.array(rows, pa.int64()),
            "reason": reasons,
            "query": pc.utf8_slice_codeunits(texts["query"], 0, 200),
            "title": pc.utf8_slice_codeunits(texts["title"], 0, 200),
        },
        schema=QUARANTINE,
    )
    return Cleaned(pa.table(columns).filter(good), rejects.filter(pc.invert(good)))


def unparsed(bad: list[tuple[int, str]], *, source: str) -> pa.Table:
    """Quarantine rows of lines that never became rows."""
    found = [{"source": source, "row": row, "reason": reason} for row, reason in bad]
    return pa.Table.from_pylist(found, schema=QUARANTINE)


def normalise(texts: pa.StringArray) -> pa.StringArray:
    """NFKC, invisible characters dropped, every run of white space one space, ends trimmed."""
    texts = pc.utf8_normalize(texts, form="NFKC")
    texts = pc.replace_substring_regex(texts, pattern=_INVISIBLE, replacement="")
    texts = pc.replace_substring_regex(texts, pattern=_SPACES, replacement=" ")
    return pc.utf8_trim(texts, characters=" ")


def pair_ids(queries: pa.StringArray, titles: pa.StringArray) -> pa.Int64Array:
    """64-bit ids of clean pairs: the hash of query, U+001F, title, as a signed integer."""
    joined = pc.binary_join_element_wise(queries, titles, _SEPARATOR)
    return pa.array(hash_texts(joined).view(np.int64))


def query_hashes(queries: pa.StringArray) -> NDArray[np.uint64]:
    """64-bit hash of each query without regard to case: what splits and buckets go by."""
    return hash_texts(pc.utf8_lower(queries))


def split_of(
    hashes: NDArray[np.uint64], *, dev_share: float, test_share: float
) -> NDArray[np.int8]:
    """0 train, 1 dev, 2 test for each query hash; the low 32 bits decide, buckets take the high."""
    position = (hashes & np.uint64(0xFFFFFFFF)).astype(np.float64) / 2.0**32
    return np.where(position < test_share, 2, position < test_share + dev_share).astype(np.int8)


def collapse(table: pa.Table, *, dedupe: bool) -> pa.Table:
    """Clean pairs of whole queries, sorted by query and title, as PAIRS or JUDGED rows.

    Equal pairs (compared as texts, not by their ids) become one whose weight is their count and
    whose label is their mean. Without `dedupe` every row stays, with weight 1.
    """
    has_label = "label" in table.column_names
    keys = ["query", "title"] + ["label"] * has_label
    table = table.select(keys).sort_by([(key, "ascending") for key in keys]).combine_chunks()
    starts = _run_starts(table) if dedupe else np.arange(table.num_rows)
    counts = np.diff(starts, append=table.num_rows)
    first = table.take(pa.array(starts))
    queries, titles = (one_chunk(first[name]) for name in ("query", "title"))
    columns = [pair_ids(queries, titles), queries, titles, pa.array(counts.astype(np.float32))]
    if has_label:
        sums = np.add.reduceat(table["label"].to_numpy().astype(np.float64), starts)
        columns.append(pa.array((sums / counts).astype(np.float32)))
    return pa.table(columns, schema=JUDGED if has_label else PAIRS)


def _run_starts(table: pa.Table) -> NDArray[np.int64]:
    if table.num_rows == 0:
        return np.empty(0, np.int64)
    here, before = table.slice(1), table.slice(0, table.num_rows - 1)
    new = pc.or_(
        pc.not_equal(here["query"], before["query"]), pc.not_equal(here["title"], before["title"])
    )
    return np.concatenate([[0], np.flatnonzero(new.to_numpy()) + 1])


def _clean_text(
    column: pa.ChunkedArray, *, name: str, max_chars: int
) -> tuple[pa.StringArray, pa.StringArray]:
    """Normalised texts ("" where there is none) and, for each row, its problem or null."""
    decoded, not_utf8 = decode(one_chunk(column))
    texts = normalise(pc.fill_null(decoded, ""))
    problem = pc.case_when(
        pc.make_struct(
            not_utf8,
            pc.is_null(decoded),
            pc.equal(texts, ""),
            pc.greater(pc.utf8_length(texts), max_chars),
        ),
        pa.scalar(f"{name} is not UTF-8"),
        pa.scalar(f"{name} is null"),
        pa.scalar(f"{name} is empty"),
        pa.scalar(f"{name} is longer than {max_chars} characters"),
        pa.scalar(None, pa.string()),
    )
    return texts, problem


def _clean_label(column: pa.ChunkedArray) -> tuple[pa.FloatArray, pa.StringArray]:
    """Labels as float32 and, for each row, its problem or null."""
    raw = one_chunk(column)
    if not (pa.types.is_integer(raw.type) or pa.types.is_floating(raw.type)):
        texts = pc.fill_null(decode(raw)[0], "")
        is_number = pc.match_substring_regex(
            texts, r"^\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*$"
        )
        raw = pc.utf8_trim_whitespace(pc.if_else(is_number, texts, None))
    labels = raw.cast(pa.float64())
    in_range = pc.and_(pc.greater_equal(labels, 0.0), pc.less_equal(labels, 1.0))
    problem = pc.case_when(
        pc.make_struct(pc.is_null(labels), pc.invert(pc.fill_null(in_range, False))),
        pa.scalar("label is null or not a number"),
        pa.scalar("label is outside 0..1"),
        pa.scalar(None, pa.string()),
    )
    return labels.cast(pa.float32()), problem


def decode(raw: pa.Array) -> tuple[pa.StringArray, pa.BooleanArray]:
    """Any column as strings, and a mask of the rows whose bytes are not UTF-8 (null there)."""
    valid = pa.array(np.zeros(len(raw), bool))
    is_bytes = pa.types.is_binary(raw.type) or pa.types.is_large_binary(raw.type)
    try:
        texts = raw.cast(pa.string())
        texts.validate(full=True)
    except pa.ArrowInvalid:  # Arrow says that some value is bad, not which
        values = (raw if is_bytes else raw.cast(pa.binary())).to_pylist()
        bad = [value is not None and not _is_utf8(value) for value in values]
        texts = pa.array([None if b else v for v, b in zip(values, bad, strict=True)], pa.binary())
        return texts.cast(pa.string()), pa.array(bad, pa.bool_())
    return texts, valid


def _is_utf8(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


def one_chunk(column: pa.ChunkedArray) -> pa.Array:
    """The column as one array."""
    combined = column.combine_chunks()
    if isinstance(combined, pa.ChunkedArray):  # no chunk at all, or over 2 GiB of text
        combined = (
            pa.concat_arrays(combined.chunks) if combined.chunks else pa.array([], column.type)
        )
    return combined
