"""Statistics of a run's datasets or of raw files: figures, reject reasons and a sample of pairs.

Memory and time are bounded: of a large dataset or of long raw files only a share is read, and
`share_read` or `is_cut` reports it. In a run with deduplicated pairs the share is a range of query
keys in all increments, so each query is read completely or not at all.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from tokenizers import Tokenizer

from raydistill.config.data import InputConfig, PairsConfig
from raydistill.data.bucket_layout import BucketLayout, ExistingPairs
from raydistill.data.clean_rows import read_clean
from raydistill.data.input_checks import count_reasons
from raydistill.data.manifest import check_files, find_files
from raydistill.data.pairs import collapse, group_keys, pair_ids
from raydistill.evaluation.markup import plain_json
from raydistill.files.folder import SUCCESS, Folder
from raydistill.files.inputs.raw_rows import one_chunk
from raydistill.files.model_files import model_folder
from raydistill.files.pieces import Piece, read_pieces, shard_pieces
from raydistill.files.schema import COUNTS, SPLITS
from raydistill.runs.run_folder import Run
from raydistill.runs.shards import pair_shards, split_shards
from raydistill.serving.units.names import Names

# The transfer set is read up to 2,097,152 pairs, in a few seconds. A tally keeps 32 bytes a pair
# (three hashes of 8 bytes, two lengths of 4), 67 MB.
_MOST_ROWS = 1 << 21
_LAST_KEY = (1 << 64) - 1
_MAX_RAW_ROWS = 2_000_000
_MAX_REJECT_FILES = 64
_NUM_SAMPLED = 8
_NUM_TOKENISED = 4_096
_QUANTILES = (0.5, 0.95, 1.0)


@dataclass
class _Tally:
    """Statistics of clean pairs, added one table at a time; the pairs of a table are distinct."""

    num_pairs: int = 0
    weight: float = 0.0
    num_relevant: int = 0
    keys: list[NDArray[np.uint64]] = field(default_factory=list)  # query key of each pair
    titles: list[NDArray[np.int64]] = field(default_factory=list)
    ids: list[NDArray[np.int64]] = field(default_factory=list)
    lengths: dict[str, list[NDArray[np.int32]]] = field(default_factory=dict)
    sample: list[dict[str, Any]] = field(default_factory=list)
    texts: list[pa.Table] = field(default_factory=list)  # a sample, to count wordpieces
    extra_units: Names = ()  # the configured units, which query keys depend on

    def add(self, table: pa.Table, *, relevant_at: float | None = None) -> None:
        self.num_pairs += table.num_rows
        self.weight += float(pc.sum(table["weight"]).as_py() or 0)
        self.ids.append(table["pair_id"].to_numpy())
        queries, titles = one_chunk(table["query"]), one_chunk(table["title"])
        self.keys.append(group_keys(table, extra_units=self.extra_units))
        nothing = pa.array([""] * len(titles), pa.string())
        self.titles.append(np.unique(np.asarray(pair_ids(nothing, titles))))
        for name, texts in {"query": queries, "title": titles}.items():
            if name == "query" and pc.all(pc.equal(texts, "")).as_py():
                continue  # single texts
            self.lengths.setdefault(name, []).append(_num_words(texts))
        if relevant_at is not None:
            self.num_relevant += int(np.sum(table["label"].to_numpy() >= relevant_at))
        rows = np.unique(np.linspace(0, table.num_rows - 1, _NUM_SAMPLED).astype(int))
        shown = table.take(pa.array(rows[: table.num_rows])).drop_columns(["pair_id"])
        self.sample += shown.to_pylist()
        first = pa.array(np.arange(min(table.num_rows, _NUM_TOKENISED)))
        # `take` copies the rows; a slice would keep the whole table in memory.
        self.texts.append(table.select(["query", "title"]).take(first))

    def figures(
        self, *, share_read: float = 1, by_query: bool = True, tokenizer: Tokenizer | None = None
    ) -> dict[str, Any]:
        """The figures; `by_query`: queries were read completely, so their count is scaled up."""
        shown = np.random.default_rng(0).permutation(len(self.sample))[:_NUM_SAMPLED]
        found: dict[str, Any] = {
            "pairs_read": self.num_pairs,
            "share_read": round(share_read, 4),
            "queries": round(_num_distinct(self.keys) / (share_read if by_query else 1)),
            "titles_read": _num_distinct(self.titles),
            "rows_a_pair": round(self.weight / max(self.num_pairs, 1), 3),
            "words": {name: _quantiles(parts) for name, parts in self.lengths.items()},
            "sample": [self.sample[at] for at in sorted(shown)],
        }
        if tokenizer is not None and self.texts:
            found["wordpieces"] = {"pair": _quantiles([_num_wordpieces(self.texts, tokenizer)])}
        return found


def inspect_run(run: Run) -> dict[str, Any]:
    """Figures of all outputs of prepare.

    Raises:
        UserError: prepare is not complete.
    """
    tokenizer = _tokenizer(run)
    shards = pair_shards(run)
    datasets: dict[str, Any] = {}
    splits: dict[str, _Tally] = {}
    for split in SPLITS[0 if run.config.learns_from_judged else 1 :]:
        pieces, at = _pieces(split_shards(run, split)), run.config.relevant_at(split)
        tally = splits[split] = _Tally(extra_units=run.config.ngrams.unit_names)
        for table in read_pieces(run.split(split), pieces):
            tally.add(table, relevant_at=at)
        found = tally.figures(tokenizer=tokenizer)
        if at is not None:
            found["relevant_share"] = round(tally.num_relevant / max(tally.num_pairs, 1), 4)
        datasets[f"{run.config.source_of(split).replace('_', ' ')} {split}"] = found
    key_share = _key_share(run, shards)
    tally, share = _tally_pairs(run, shards, key_share)
    found = tally.figures(share_read=share, by_query=key_share is not None, tokenizer=tokenizer)
    rows = {name: _counts(run.root / name) for name in run.config.datasets}
    # With the duplicates that later increments had of known pairs.
    kept = rows["pairs"]["rows_out"] + rows["pairs"]["duplicates"]
    found["rows_a_pair"] = round(kept / max(rows["pairs"]["rows_out"], 1), 3)
    datasets["pairs"] = found
    return {
        "rows": rows,
        "num_shards": len(shards),
        "max_length": run.config.label.max_length,
        "datasets": datasets,
        "overlap": _overlap(splits, tally, key_share),
        "rejects": {name: count_reasons(_quarantined(run, name)) for name in run.rules},
        "are_rejects_cut": any(
            len(_quarantine(run, n).shards()) > _MAX_REJECT_FILES for n in run.rules
        ),
    }


def _key_share(run: Run, shards: Mapping[str, int]) -> float | None:
    """The share of the query keys whose pairs are read; None if pairs are not deduplicated.

    Without deduplication, the pairs of a range of query keys are spread over all shards.
    """
    if not run.config.pairs.dedupe:
        return None
    return min(1.0, _MOST_ROWS / max(sum(shards.values()), 1))


def _is_read(keys: NDArray[np.uint64], key_share: float) -> NDArray[np.bool_]:
    """Whether each key is in the lowest `key_share` of the key range.

    Keys are hashes, so this is a random sample of the queries.
    """
    return np.asarray(keys <= np.uint64(min(key_share * 2.0**64, _LAST_KEY)))


def _tally_pairs(run: Run, shards: dict[str, int], key_share: float | None) -> tuple[_Tally, float]:
    """Tally of the pairs of a share of the keys, or of some pieces; and the share read."""
    units = run.config.ngrams.unit_names
    tally = _Tally(extra_units=units)
    if key_share is None:
        pieces = _some(_pieces(shards))
        for table in read_pieces(run.pairs, pieces):
            tally.add(table)
        num_rows = sum(piece.num_rows for piece in pieces)
        return tally, num_rows / max(sum(shards.values()), 1) or 1.0
    done = run.pairs.require_json(SUCCESS, stage="prepare")
    layouts = tuple(BucketLayout(**one["layouts"][""]) for one in done["increments"])
    last_bucket = math.ceil(key_share * layouts[0].num_buckets) - 1
    for names, _, _ in ExistingPairs(run.pairs, layouts).bucket_groups((0, last_bucket)):
        there = {name: shards[name] for name in names if name in shards}
        for table in read_pieces(run.pairs, _pieces(there)):
            inside = _is_read(group_keys(table, extra_units=units), key_share)
            tally.add(table.filter(pa.array(inside)))
    return tally, key_share


def inspect_files(
    path: str, *, query: str, title: str | list[str], csv: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Figures of raw files, cleaned as in prepare; reading stops after 2,000,000 rows.

    `csv` has the fields of the `csv` table of the run file.

    Raises:
        UserError: no such file, or no such column.
    """
    given = {"input": (InputConfig(path=path),), "query": query, "title": title, "csv": csv or {}}
    rules = PairsConfig.model_validate(given)
    files = find_files(rules)
    check_files(files)
    goods: list[pa.Table] = []
    bads: list[pa.Table] = []
    num_rows = 0
    for file in files:
        for rows_of_file in read_clean(file, rules):
            goods.append(rows_of_file.pairs)
            bads.append(rows_of_file.rejects)
            num_rows += rows_of_file.num_rows
            if num_rows >= _MAX_RAW_ROWS:
                break
        if num_rows >= _MAX_RAW_ROWS:
            break
    rows = pa.concat_tables(goods)
    distinct = collapse(rows, dedupe=True)
    counts = dict.fromkeys(COUNTS, 0) | {
        "rows_in": num_rows,
        "rows_out": distinct.num_rows,
        "duplicates": rows.num_rows - distinct.num_rows,
        "quarantined": num_rows - rows.num_rows,
    }
    found = describe_pairs(distinct, counts=counts, rejects=count_reasons(bads))
    return {**found, "is_cut": num_rows >= _MAX_RAW_ROWS}


def describe_pairs(
    pairs: pa.Table,
    *,
    counts: Mapping[str, int],
    rejects: Sequence[Mapping[str, Any]],
    name: str = "pairs",
    relevant_at: float | None = None,
) -> dict[str, Any]:
    """Figures of distinct pairs that were read from raw files; `counts`: the rows of the files.

    `relevant_at`: the label from which a pair is relevant, if the pairs have labels.
    """
    tally = _Tally()
    tally.add(pairs, relevant_at=relevant_at)
    figures = tally.figures()
    if relevant_at is not None:
        figures["relevant_share"] = round(tally.num_relevant / max(tally.num_pairs, 1), 4)
    return {
        "rows": {name: dict(counts)},
        "datasets": {name: figures},
        "rejects": {name: list(rejects)},
    }


def _counts(folder: Folder) -> dict[str, int]:
    done = folder.require_json(SUCCESS, stage="prepare")
    return {name: done[name] for name in COUNTS}


def _pieces(shards: Mapping[str, int]) -> list[Piece]:
    """The pieces of the shards, in the order of `shards`."""
    return [piece for name, rows in shards.items() for piece in shard_pieces(name, rows)]


def _some(pieces: list[Piece]) -> list[Piece]:
    """Every n-th piece, with n such that about `_MOST_ROWS` rows remain."""
    step = -(-sum(piece.num_rows for piece in pieces) // _MOST_ROWS)
    return pieces[:: max(step, 1)]


def _num_words(texts: pa.StringArray) -> NDArray[np.int32]:
    has_text = pc.not_equal(texts, "").cast(pa.int32())
    return np.asarray(pc.add(pc.count_substring(texts, " "), has_text))


def _num_wordpieces(texts: list[pa.Table], tokenizer: Tokenizer) -> NDArray[np.int32]:
    rows = pa.concat_tables(texts)
    step = max(1, rows.num_rows // _NUM_TOKENISED)
    rows = rows.take(pa.array(np.arange(0, rows.num_rows, step)))
    pairs = [
        (row["query"], row["title"]) if row["query"] else row["title"] for row in rows.to_pylist()
    ]
    return np.array([len(found.ids) for found in tokenizer.encode_batch_fast(pairs)], np.int32)


def _tokenizer(run: Run) -> Tokenizer | None:
    """The first teacher's tokenizer.json, without truncation; None if no teacher has one."""
    for teacher in run.config.teachers.values():
        if teacher.source is None:
            continue
        folder = model_folder(run.model(teacher.source).source)
        if folder.exists("tokenizer.json"):
            tokenizer = Tokenizer.from_str(folder.read_bytes("tokenizer.json").decode())
            tokenizer.no_truncation()
            tokenizer.no_padding()
            return tokenizer
    return None


def _joined(parts: list[NDArray[Any]]) -> NDArray[Any]:
    return np.concatenate(parts) if parts else np.empty(0, np.uint64)


def _num_distinct(parts: list[NDArray[Any]]) -> int:
    return len(np.unique(_joined(parts)))


def _quantiles(parts: list[NDArray[np.int32]]) -> list[int]:
    values = np.concatenate(parts) if parts else np.zeros(1, np.int32)
    values = values if len(values) else np.zeros(1, np.int32)
    return [int(value) for value in np.quantile(values, _QUANTILES, method="nearest")]


def _overlap(
    splits: dict[str, _Tally], pairs: _Tally, key_share: float | None
) -> dict[str, dict[str, float]]:
    """For each split: the share of its queries, and of its pairs, that are in the transfer set."""
    there_keys, there_ids = _joined(pairs.keys), _joined(pairs.ids)
    found: dict[str, dict[str, float]] = {}
    for split, tally in splits.items():
        keys, ids = _joined(tally.keys), _joined(tally.ids)
        if key_share is not None:
            inside = _is_read(keys, key_share)
            keys, ids = keys[inside], ids[inside]
        queries, pairs_share = _share_in(np.unique(keys), there_keys), _share_in(ids, there_ids)
        found[split] = {"queries": queries, "pairs": pairs_share}
    return found


def _share_in(these: NDArray[Any], those: NDArray[Any]) -> float:
    return round(float(np.mean(np.isin(these, those))), 4) if len(these) else 0.0


def _quarantined(run: Run, name: str) -> Iterator[pa.Table]:
    folder = _quarantine(run, name)
    return (folder.read_table(shard) for shard in folder.shards()[:_MAX_REJECT_FILES])


def _quarantine(run: Run, name: str) -> Folder:
    return run.root / "quarantine" / name


def to_json(found: dict[str, Any]) -> str:
    """The figures as JSON text that is safe to print on a terminal."""
    return plain_json(json.dumps(found, indent=2, ensure_ascii=False))
