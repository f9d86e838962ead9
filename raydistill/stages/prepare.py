"""prepare: raw files to `judged/`, `pairs/` and `quarantine/`.

Two passes of Ray Data tasks over files, not over rows in memory. Scatter: a raw file becomes clean
chunks sorted by the hash of the query. Gather: a range of hashes (a bucket) is read from all
chunks, sorted, made distinct and cut into shards. The result depends on neither the cluster nor
the order of files.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from raydistill.config import JudgedConfig, TextRules
from raydistill.errors import UserError
from raydistill.pairs import clean, collapse, query_hashes, split_of, unparsed
from raydistill.progress import Progress
from raydistill.readers import InputFile, RawRows, check_columns, expand_inputs, read_raw
from raydistill.run import PREPARED, Run, describe
from raydistill.schema import COUNTS, SPLITS
from raydistill.stages.tasks import Item, run_tasks
from raydistill.storage import SUCCESS, Folder

logger = logging.getLogger("raydistill")
_CHUNK_ROWS = 1 << 20  # clean rows held in memory before they are sorted and written: 100 MB
_CHUNK_GROUP_ROWS = 1 << 14  # a gather reads only the row groups whose hashes overlap its range
_FILL = 0.75  # buckets differ in size; aimed lower, few are cut into a whole shard and a crumb
_HASHES = 1 << 64


@dataclass(frozen=True)
class Dataset:
    """One of the two datasets, as a worker needs it."""

    name: str  # "pairs" or "judged"
    rules: TextRules
    folder: Folder
    quarantine: Folder
    splits: tuple[str, ...]  # subfolders; ("",) for the pairs
    shard_rows: int
    dedupe: bool

    @property
    def chunks(self) -> Folder:
        """What the scatter leaves for the gather; gone when the dataset is complete."""
        return self.folder / "_chunks"


def run(run: Run) -> bool:
    """Make the judged splits and the shards of the transfer set; False if nothing was left to do.

    Raises:
        UserError: inputs that are missing, have other columns, or have changed since.
    """
    files = check_inputs(run)
    if not run.root.exists(PREPARED):
        run.root.write_json(PREPARED, {"settings": run.prepare_settings(), "inputs": run.inputs})
    judged, pairs = _datasets(run)
    did_judged = _build(judged, files["judged"], run=run, held_out=None)
    check_splits(run)
    did_pairs = _build(pairs, files["pairs"], run=run, held_out=_held_out_queries(run))
    return did_judged or did_pairs


def check_inputs(run: Run) -> dict[str, list[InputFile]]:
    """The input files of both datasets.

    Raises:
        UserError: an input is missing, has other columns, or has changed since prepare began.
    """
    run.check_owner()
    return {dataset.name: _checked_inputs(dataset, run) for dataset in _datasets(run)}


def check_splits(run: Run) -> None:
    """Raise UserError unless every judged split has pairs, relevant ones and others."""
    at = run.config.judged.relevant_at
    for split in SPLITS:
        folder = run.judged(split)
        labels = [folder.read_table(name, columns=["label"])["label"] for name in folder.shards()]
        relevant = sum(int(pc.sum(pc.greater_equal(label, at)).as_py() or 0) for label in labels)
        total = sum(len(label) for label in labels)
        if not 0 < relevant < total:
            raise UserError(
                f"the judged {split} split has {total} pairs, {relevant} of them relevant "
                f"(label >= judged.relevant_at = {at}); it needs both kinds: give more judged "
                "pairs, another relevant_at, or other shares in a new run_dir"
            )


def _datasets(run: Run) -> tuple[Dataset, Dataset]:
    config, quarantine = run.config, run.root / "quarantine"
    judged = Dataset(
        "judged", config.judged, run.root / "judged", quarantine / "judged", SPLITS,
        shard_rows=config.pairs.shard_rows, dedupe=True,
    )  # fmt: skip
    pairs = Dataset(
        "pairs", config.pairs, run.pairs, quarantine / "pairs", ("",),
        shard_rows=config.pairs.shard_rows, dedupe=config.pairs.dedupe,
    )  # fmt: skip
    return judged, pairs


def _build(
    dataset: Dataset, files: list[InputFile], *, run: Run, held_out: NDArray[np.uint64] | None
) -> bool:
    if dataset.folder.success() is not None:
        return False
    start_s = time.monotonic()
    counts = _scatter(dataset, files, held_out=held_out)
    totals = _gather(dataset, counts)
    kept = sum(counts[f"kept_{split}"] for split in dataset.splits)
    if kept + counts["quarantined"] + counts["held_out"] != counts["rows_in"]:
        raise RuntimeError(f"{dataset.name}: rows were lost while cleaning: {dict(counts)}")
    if totals["rows_in"] != kept:
        raise RuntimeError(f"{dataset.name}: {kept} clean rows, but {dict(totals)} in the shards")
    seconds = time.monotonic() - start_s
    summary: dict[str, Any] = {
        "fingerprint": run.prepare_fingerprint(),
        "rows_in": counts["rows_in"],
        "rows_out": totals["rows_out"],
        "duplicates": totals["rows_in"] - totals["rows_out"],
        "quarantined": counts["quarantined"],
        "held_out": counts["held_out"],
        "seconds": round(seconds, 1),
        "rows_per_s": round(counts["rows_in"] / max(seconds, 1e-9)),
        "shards": _shard_rows(dataset),
    }
    dataset.chunks.delete()
    dataset.folder.write_json(SUCCESS, summary)
    logger.info(
        "prepare   %s: %s rows in = %s out + %s duplicates + %s quarantined + %s held out "
        "(dev and test queries); %d shards, %.0f s",
        dataset.name, *(f"{summary[name]:,}" for name in COUNTS), len(summary["shards"]), seconds,
    )  # fmt: skip
    return True


def _checked_inputs(dataset: Dataset, run: Run) -> list[InputFile]:
    """The input files, which must be those that were there when prepare began."""
    try:
        files = expand_inputs(dataset.rules.input)
    except UserError:
        if dataset.folder.success() is None:
            raise
        return []  # complete, and the raw files are gone: that is allowed
    now, then = describe(files), run.inputs[dataset.name]
    if now != then:
        raise UserError(
            f"the files of {dataset.name}.input have changed since {run.root} was begun "
            f"({len(then)} files then, {len(now)} now, or other sizes); give another run_dir"
        )
    if dataset.folder.success() is None:
        for file in files:
            check_columns(file, _columns(dataset.rules))
    return files


def _columns(rules: TextRules) -> list[str]:
    label = [rules.label] if isinstance(rules, JudgedConfig) else []
    return [name for name in (rules.query, rules.title) if name] + label


def _scatter(
    dataset: Dataset, files: list[InputFile], *, held_out: NDArray[np.uint64] | None
) -> Counter[str]:
    """Clean every file into chunks; the sum of all files' counts."""
    items = [{"index": at, "uri": f.uri, "size_bytes": f.size_bytes} for at, f in enumerate(files)]
    progress = Progress("prepare", num_items=len(items), num_rows=None, unit="files")
    work = partial(scatter_file, dataset=dataset, held_out=held_out)
    totals: Counter[str] = Counter()
    for result in run_tasks(items, work, cpus=1):
        totals.update(result)
        progress.add(rows=result["rows_in"], note=f"{dataset.name} cleaned")
    return totals


def scatter_file(
    item: Item, *, dataset: Dataset, held_out: NDArray[np.uint64] | None
) -> dict[str, int]:
    """Clean one raw file into sorted chunks and quarantine rows; its counts.

    The counts are written last: a file that has them was finished, and is not read again.
    """
    name = f"part-{item['index']:05d}"
    found = dataset.chunks.read_json(f"{name}.json")
    if found is not None:
        return found
    counts: Counter[str] = Counter(rows_in=0, quarantined=0, held_out=0)
    waiting: list[tuple[pa.Table, pa.Table]] = []
    chunk = 0
    file = InputFile(item["uri"], item["size_bytes"])
    for raw in read_raw(file, columns=_columns(dataset.rules)):
        good, bad = _clean_rows(raw, dataset=dataset, source=item["uri"], held_out=held_out)
        counts.update(rows_in=len(raw.rows) + len(raw.bad), quarantined=bad.num_rows)
        counts["held_out"] += len(raw.rows) + len(raw.bad) - good.num_rows - bad.num_rows
        waiting.append((good, bad))
        if sum(good.num_rows + bad.num_rows for good, bad in waiting) >= _CHUNK_ROWS:
            _write_chunk(dataset, f"{name}-{chunk:04d}", waiting, counts)
            waiting, chunk = [], chunk + 1
    if waiting:
        _write_chunk(dataset, f"{name}-{chunk:04d}", waiting, counts)
    dataset.chunks.write_json(f"{name}.json", counts)
    return dict(counts)


def _clean_rows(
    raw: RawRows, *, dataset: Dataset, source: str, held_out: NDArray[np.uint64] | None
) -> tuple[pa.Table, pa.Table]:
    """Clean rows with their query's hash and split, without the held-out queries; and rejects."""
    cleaned = clean(raw.table, rows=raw.rows, rules=dataset.rules, source=source)
    good, has_query = cleaned.pairs, bool(dataset.rules.query)
    hashes = query_hashes(good["query" if has_query else "title"].combine_chunks())
    splits = np.zeros(len(hashes), np.int8)
    if isinstance(dataset.rules, JudgedConfig):
        shares = {"dev_share": dataset.rules.dev_share, "test_share": dataset.rules.test_share}
        splits = split_of(hashes, **shares)
    good = good.append_column("hash", pa.array(hashes)).append_column("split", pa.array(splits))
    if held_out is not None:
        good = good.filter(pa.array(~np.isin(hashes, held_out)))
    return good, pa.concat_tables([cleaned.rejects, unparsed(raw.bad, source=source)])


def _write_chunk(
    dataset: Dataset, name: str, tables: list[tuple[pa.Table, pa.Table]], counts: Counter[str]
) -> None:
    """Write clean rows, sorted by hash, and rejects; add the clean ones to the counts."""
    rejects = pa.concat_tables([bad for _, bad in tables])
    if rejects.num_rows:
        dataset.quarantine.write_table(f"{name}.parquet", rejects)
    rows = pa.concat_tables([good for good, _ in tables])
    for at, split in enumerate(dataset.splits):
        part = rows.filter(pc.equal(rows["split"], at)).drop_columns(["split"])
        counts[f"kept_{split}"] += part.num_rows
        if part.num_rows:
            folder = dataset.chunks / (split or "all")
            part = part.sort_by("hash")
            folder.write_table(f"{name}.parquet", part, row_group_rows=_CHUNK_GROUP_ROWS)


def _gather(dataset: Dataset, counts: Mapping[str, int]) -> Counter[str]:
    """Make the shards of every bucket; rows read from the chunks and rows written."""
    items = list(_buckets(dataset, counts))
    kept = sum(counts[f"kept_{split}"] for split in dataset.splits)
    progress = Progress("prepare", num_items=len(items), num_rows=kept, unit="buckets")
    totals: Counter[str] = Counter(rows_in=0, rows_out=0)
    for result in run_tasks(items, partial(gather_bucket, dataset=dataset), cpus=1):
        totals.update(result)
        progress.add(rows=result["rows_in"], note=f"{dataset.name} distinct")
    return totals


def _buckets(dataset: Dataset, counts: Mapping[str, int]) -> Iterator[Item]:
    """Equal ranges of hashes, as many as the row count asks for."""
    for split in dataset.splits:
        num = max(1, round(counts[f"kept_{split}"] / (dataset.shard_rows * _FILL)))
        for bucket in range(num):
            low, high = _HASHES * bucket // num, _HASHES * (bucket + 1) // num - 1
            yield {"split": split, "bucket": bucket, "low": low, "high": high}


def gather_bucket(item: Item, *, dataset: Dataset) -> dict[str, int]:
    """Read one bucket from all chunks, make it distinct, write its shards.

    The first shard is written last: a bucket that has it was finished.
    """
    folder = dataset.folder / item["split"] if item["split"] else dataset.folder
    name = f"part-{item['bucket']:05d}"
    if folder.exists(f"{name}.parquet"):
        return _count_bucket(folder, name)
    rows = _read_bucket(dataset.chunks / (item["split"] or "all"), item["low"], item["high"])
    if rows is None:
        return {"rows_in": 0, "rows_out": 0}
    distinct = collapse(rows, dedupe=dataset.dedupe)
    starts = range(0, distinct.num_rows, dataset.shard_rows)
    for piece, start in reversed(list(enumerate(starts))):
        suffix = f"-{piece:03d}" if piece else ""
        folder.write_table(f"{name}{suffix}.parquet", distinct.slice(start, dataset.shard_rows))
    return {"rows_in": rows.num_rows, "rows_out": distinct.num_rows}


def _read_bucket(chunks: Folder, low: int, high: int) -> pa.Table | None:
    """The rows of all chunks whose hash is in [low, high]; None where there are none."""
    inside = [
        ("hash", ">=", pa.scalar(low, pa.uint64())),
        ("hash", "<=", pa.scalar(high, pa.uint64())),
    ]
    parts = [
        pq.read_table(chunks.path(name), filesystem=chunks.filesystem, filters=inside)
        for name in chunks.shards()
    ]
    parts = [part for part in parts if part.num_rows]
    return pa.concat_tables(parts) if parts else None


def _count_bucket(folder: Folder, name: str) -> dict[str, int]:
    """Rows that went into a finished bucket (the sum of the weights) and came out of it."""
    shards = [s for s in folder.shards() if s == f"{name}.parquet" or s.startswith(f"{name}-")]
    weights = [folder.read_table(s, columns=["weight"])["weight"].to_numpy() for s in shards]
    return {
        "rows_in": int(sum(w.sum(dtype=np.float64) for w in weights)),
        "rows_out": sum(len(w) for w in weights),
    }


def _shard_rows(dataset: Dataset) -> dict[str, int]:
    """Every shard (with its split, where there are splits) and its rows."""
    rows: dict[str, int] = {}
    for split in dataset.splits:
        folder = dataset.folder / split if split else dataset.folder
        for name in folder.shards():
            metadata = pq.read_metadata(folder.path(name), filesystem=folder.filesystem)
            rows[f"{split}/{name}" if split else name] = metadata.num_rows
    return rows


def _held_out_queries(run: Run) -> NDArray[np.uint64]:
    """Hashes of the dev and test queries: their pairs are left out of the transfer set."""
    column = "query" if run.config.judged.query else "title"
    hashes = [
        query_hashes(folder.read_table(name, columns=[column])[column].combine_chunks())
        for folder in (run.judged("dev"), run.judged("test"))
        for name in folder.shards()
    ]
    return np.unique(np.concatenate([np.empty(0, np.uint64), *hashes]))
