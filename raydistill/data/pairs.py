"""Raw rows to clean pairs: rejection reasons, pair ids, splits, deduplication; no Python row loops.

A clean pair has NFKC text with single spaces and no control characters. All functions are pure
functions of their rows, so the result does not depend on files, blocks or the cluster.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from raydistill.config.data import TextRules
from raydistill.data.grades import LabelRule, read_labels
from raydistill.data.query_key import query_keys as keys_of_texts
from raydistill.files.inputs.decoding import likely_encoding
from raydistill.files.inputs.raw_rows import decode, one_chunk, read_column
from raydistill.files.schema import JUDGED, PAIRS, RAW_QUARANTINE, SOURCE
from raydistill.serving.feature_spec import Features, NgramSpec
from raydistill.serving.featurize import featurize
from raydistill.serving.lexicon import Lexicon
from raydistill.serving.text.arrow_text import MAX_BYTES, to_arrow, to_texts
from raydistill.serving.text.cleaning import normalise
from raydistill.serving.text.hashing import hash_texts
from raydistill.serving.units.names import Names

_SEPARATOR = "\x1f"  # a control character: clean text does not contain it


@dataclass(frozen=True)
class Cleaned:
    """`pairs`: query, title (, label, source); `rejects`: quarantine rows for all other rows.

    `kept`: the input row index of each pair.
    """

    pairs: pa.Table
    rejects: pa.Table
    kept: NDArray[np.int64]


def clean(
    table: pa.Table,
    *,
    rows: NDArray[np.int64],
    columns: Mapping[str, str | Sequence[str]],
    rules: TextRules,
    source: str,
    labels: LabelRule = LabelRule(),  # noqa: B008 - it is immutable
    lines: NDArray[np.int64] | None = None,
) -> Cleaned:
    """Normalise the texts of raw rows; rows that cannot be used are rejected with a reason.

    `columns` maps query, title, label and source to their name or names in `table`, without those
    that are absent. `rows` and `lines`: numbers and lines of the rows in the file `source`.
    `labels`: how to read its labels.
    """
    found: dict[str, pa.Array] = {}
    reasons = pa.nulls(table.num_rows, pa.string())
    for name, max_chars in {"query": rules.max_query_chars, "title": rules.max_title_chars}.items():
        if name not in columns:
            found[name] = pa.array([""] * table.num_rows, pa.string())
            continue
        text, problem = _clean_text(
            read_column(table, columns[name]), name=name, max_chars=max_chars
        )
        found[name] = pc.utf8_lower(text) if rules.lowercase else text
        reasons = pc.coalesce(reasons, problem)
    if "label" in columns:
        found["label"], problem = read_labels(read_column(table, columns["label"]), labels)
        reasons = pc.coalesce(reasons, problem)
    if rules.keeps_source:
        nothing = pa.nulls(table.num_rows, pa.string())
        texts = decode(read_column(table, columns["source"]))[0] if "source" in columns else nothing
        texts = normalise(pc.fill_null(texts, ""))
        found["source"] = pc.if_else(pc.equal(texts, ""), None, texts)
    good = pc.is_null(reasons)
    bad = np.flatnonzero(~np.asarray(good))
    rejected = pa.table({"query": found["query"], "title": found["title"]}).take(pa.array(bad))
    rejects = pa.table(
        {
            "source": pa.array([source] * len(bad), pa.string()),
            "row": pa.array(rows[bad], pa.int64()),
            "reason": reasons.take(pa.array(bad)),
            "query": pc.utf8_slice_codeunits(rejected["query"], 0, 200),
            "title": pc.utf8_slice_codeunits(rejected["title"], 0, 200),
            "line": pa.nulls(len(bad)) if lines is None else pa.array(lines[bad], pa.int64()),
        },
        schema=RAW_QUARANTINE,
    )
    pairs = pa.table(found)
    return Cleaned(pairs.filter(good) if len(bad) else pairs, rejects, np.flatnonzero(good))


def unparsed(bad: Sequence[tuple[int, str]], *, source: str, lines: Sequence[int] = ()) -> pa.Table:
    """Quarantine rows for rows that could not be parsed: `bad` has their numbers and reasons."""
    found = [
        {"source": source, "row": row, "reason": reason, "line": line}
        for (row, reason), line in zip_longest(bad, lines)
    ]
    return pa.Table.from_pylist(found, schema=RAW_QUARANTINE)


def pair_ids(queries: pa.Array, titles: pa.Array) -> pa.Int64Array:
    """64-bit ids of clean pairs: the hash of query, U+001F and title, as a signed integer."""
    texts = [to_arrow(queries), to_arrow(titles)]
    if texts[0].type != texts[1].type or sum(part.nbytes for part in texts) > MAX_BYTES:
        texts = [part.cast(pa.large_string()) for part in texts]
    joined = pc.binary_join_element_wise(*texts, pa.scalar(_SEPARATOR, texts[0].type))
    return pa.array(hash_texts(joined).view(np.int64))


def query_keys(
    queries: pa.Array | pa.ChunkedArray, *, extra_units: Names = ()
) -> NDArray[np.uint64]:
    """64-bit key of each query, equal for near-identical queries; splits and buckets use it."""
    return keys_of_texts(to_texts(queries), extra_units=extra_units)


def group_keys(table: pa.Table, *, extra_units: Names = ()) -> NDArray[np.uint64]:
    """The query key of each clean pair; in a task of single texts, the key of its title."""
    has_query = table.num_rows and table["query"][0].as_py()
    return query_keys(table["query" if has_query else "title"], extra_units=extra_units)


def split_of(keys: NDArray[np.uint64], *, dev_share: float, test_share: float) -> NDArray[np.int8]:
    """0 train, 1 dev, 2 test for each query key, from its low 32 bits; buckets use the high."""
    position = (keys & np.uint64(0xFFFFFFFF)).astype(np.float64) / 2.0**32
    return np.where(position < test_share, 2, position < test_share + dev_share).astype(np.int8)


def collapse(table: pa.Table, *, dedupe: bool) -> pa.Table:
    """Clean pairs of complete queries, sorted by query and title, as PAIRS or JUDGED rows.

    Equal pairs (compared as texts, not by id) become one row: weight = sum of the weights, label =
    mean of the labels, source = the first in sort order, null if none has one. Without `dedupe`
    every row stays. A row without a weight has weight 1.
    """
    keys = [name for name in ("query", "title", "label", "source") if name in table.column_names]
    # One chunk first: Arrow sorts a hundred small chunks at a third of the speed.
    table = table.combine_chunks().sort_by([(key, "ascending") for key in keys]).combine_chunks()
    starts = run_starts(table) if dedupe else np.arange(table.num_rows)
    return to_pairs(
        table.take(pa.array(starts)), weights=_weights(table, starts), labels=_labels(table, starts)
    )


def to_pairs(
    table: pa.Table, *, weights: NDArray[np.float32], labels: NDArray[np.float32] | None = None
) -> pa.Table:
    """Clean pairs with their ids: PAIRS, or JUDGED with labels; and the source column if any."""
    queries, titles = one_chunk(table["query"]), one_chunk(table["title"])
    schema = PAIRS if labels is None else JUDGED
    columns = [pair_ids(queries, titles), queries, titles, pa.array(weights)]
    columns += [] if labels is None else [pa.array(labels)]
    if "source" in table.column_names:
        columns.append(table["source"])
        schema = schema.append(SOURCE)
    return pa.table(columns, schema=schema)


def run_starts(table: pa.Table) -> NDArray[np.int64]:
    """The first row of each run of equal pairs, in a table in which equal pairs are adjacent."""
    if table.num_rows == 0:
        return np.empty(0, np.int64)
    here, before = table.slice(1), table.slice(0, table.num_rows - 1)
    new = pc.or_(
        pc.not_equal(here["query"], before["query"]), pc.not_equal(here["title"], before["title"])
    )
    return np.concatenate([[0], np.flatnonzero(new.to_numpy()) + 1])


def _weights(table: pa.Table, starts: NDArray[np.int64]) -> NDArray[np.float32]:
    if "weight" not in table.column_names:
        return np.diff(starts, append=table.num_rows).astype(np.float32)
    if not len(starts):
        return np.empty(0, np.float32)
    return np.add.reduceat(table["weight"].to_numpy().astype(np.float64), starts).astype(np.float32)


def _labels(table: pa.Table, starts: NDArray[np.int64]) -> NDArray[np.float32] | None:
    if "label" not in table.column_names:
        return None
    if not len(starts):
        return np.empty(0, np.float32)
    sums = np.add.reduceat(table["label"].to_numpy().astype(np.float64), starts)
    return (sums / np.diff(starts, append=table.num_rows)).astype(np.float32)


def count_conflicts(table: pa.Table) -> int:
    """How many of the pairs of a table have rows with different labels."""
    found = table.group_by(["query", "title"]).aggregate([("label", "min"), ("label", "max")])
    return int(pc.sum(pc.not_equal(found["label_min"], found["label_max"])).as_py() or 0)


def _clean_text(
    raw: pa.Array, *, name: str, max_chars: int
) -> tuple[pa.StringArray, pa.StringArray]:
    """Normalised texts ("" for a missing one), and for each row its problem or null."""
    decoded, not_utf8 = decode(raw)
    texts = normalise(pc.fill_null(decoded, ""))
    problem = pc.case_when(
        pc.make_struct(
            not_utf8,
            pc.is_null(decoded),
            pc.equal(texts, ""),
            pc.greater(pc.utf8_length(texts), max_chars),
        ),
        _not_utf8(raw, not_utf8, name=name),
        pa.scalar(f"{name} is null"),
        pa.scalar(f"{name} is empty"),
        pa.scalar(f"{name} is longer than {max_chars} characters"),
        pa.scalar(None, pa.string()),
    )
    return texts, problem


def _not_utf8(raw: pa.Array, mask: pa.BooleanArray, *, name: str) -> pa.Array:
    """The problem of the rows in `mask`, with the likely encoding of their bytes."""
    problem = f"{name} is not UTF-8"
    if not pc.any(mask).as_py():
        return pa.scalar(problem)
    likely = [
        likely_encoding(value) if is_bad else None
        for value, is_bad in zip(raw.cast(pa.binary()).to_pylist(), mask.to_pylist(), strict=True)
    ]
    return pa.array([f"{problem}, perhaps {one}" if one else problem for one in likely])


def features_of(pairs: pa.Table, *, spec: NgramSpec, lexicon: Lexicon) -> Features:
    """Features of the pairs of a table with `query` and `title`."""
    queries, titles = to_texts(pairs["query"]), to_texts(pairs["title"])
    return featurize(queries, titles, spec=spec, lexicon=lexicon)
