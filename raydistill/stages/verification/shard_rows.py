"""The check of one shard, row by row: its pairs by themselves, and the logits of each teacher.

A pair's id is the hash of its texts, and its shard follows from its query: so a shard can be
checked without another copy. Logits have checksums and the ids of their pairs. No Ray.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from raydistill.data.bucket_layout import BucketLayout, bucket_group_of, shard_name
from raydistill.data.pairs import group_keys, pair_ids, split_of
from raydistill.files.folder import SUCCESS, Folder
from raydistill.files.inputs.raw_rows import one_chunk
from raydistill.files.pieces import PIECE_ROWS, ParquetRows
from raydistill.files.schema import JUDGED, LOGITS, PAIRS, SPLITS
from raydistill.serving.units.names import Names
from raydistill.stages.verification.finding import Finding, Problem, attempt
from raydistill.teachers.shards.logits import MARK, logits_mark

Item = dict[str, Any]
_NO_KEYS: NDArray[np.uint64] = np.empty(0, np.uint64)


@dataclass(frozen=True)
class TeacherFiles:
    """The logits of a teacher; `path`, `rejected`: folders below the run folder."""

    name: str
    path: str
    rejected: str
    is_partial: bool


@dataclass(frozen=True)
class ShardChecks:
    """What the checks of the shards of one dataset need; sent to workers."""

    root: Folder
    dataset: str
    units: Names
    teachers: tuple[TeacherFiles, ...] = ()
    # By split, one an increment; {} where shards are no ranges of query keys.
    layouts: Mapping[str, tuple[BucketLayout, ...]] = field(default_factory=dict)
    shares: tuple[float, float] | None = None  # dev and test, if a hash of the query decides
    held: NDArray[np.uint64] = field(default_factory=lambda: _NO_KEYS)  # no pair has such a query

    def check(self, item: Item) -> Item:
        """Check a shard: `split`, `name`, `rows`, and `target`s of teachers that scored it.

        Returns findings, the number of null logits by teacher, and the query keys of a split.
        """
        state = _State(self, item)
        state.read()
        return {
            "findings": [asdict(found) for found in state.findings],
            "nulls": state.nulls,
            "rows": item["rows"],
            "file": state.file,
            "keys": np.unique(np.concatenate([_NO_KEYS, *state.keys])).tobytes().hex(),
        }

    def removals(self, file: str) -> list[str]:
        """What is removed so that prepare makes a shard again; `file` may be missing.

        A bucket group is complete if it has its first shard.
        """
        folder, _, name = file.rpartition("/")
        first = f"{folder}/{shard_name(bucket_group_of(name), 0)}"
        return [file, *([first] if self.layouts else []), f"{self.dataset}/{SUCCESS}"]


class _State:
    """The check of a shard while it is read."""

    def __init__(self, checks: ShardChecks, item: Item) -> None:
        self.checks, self.item = checks, item
        split = f"{item['split']}/" if item["split"] else ""
        self.file = f"{checks.dataset}/{split}{item['name']}"
        self.findings: list[Finding] = []
        self.nulls: dict[str, int] = {}
        self.keys: list[NDArray[np.uint64]] = []

    def read(self) -> None:
        """Read pairs and logits piece by piece, side by side."""
        root, rows = self.checks.root, self.item["rows"]
        pairs = _open(root, self.file, num_rows=rows, what="_SUCCESS.json says")
        logits = {}
        for teacher in self.checks.teachers:
            if teacher.name in self.item["scored"]:
                logits[teacher] = self._open_logits(teacher, pairs)
                self.nulls[teacher.name] = 0
        for start in range(0, max(rows, 1), PIECE_ROWS):
            pairs, piece = self._read(pairs, start)
            if piece is not None:
                problem = self._problem_of(piece)
                pairs, piece = (Problem(problem), None) if problem else (pairs, piece)
            for teacher, opened in logits.items():
                logits[teacher] = self._align(teacher, opened, piece, start=start)
        if isinstance(pairs, Problem):
            gone = self.checks.removals(self.file)
            self.findings.insert(0, pairs.finding(self.file, work="prepare", removes=gone))
        for teacher, opened in logits.items():
            self._finish(teacher, opened)

    def _read(
        self, opened: ParquetRows | Problem, start: int
    ) -> tuple[ParquetRows | Problem, pa.Table | None]:
        if isinstance(opened, Problem):
            return opened, None
        piece, problem = attempt(lambda: _validated(opened.read(start, start + PIECE_ROWS)))
        return (problem, None) if problem else (opened, piece)

    def _problem_of(self, piece: pa.Table) -> str:
        """What is wrong with the pairs; "" if nothing is."""
        expected = JUDGED if self.checks.dataset == "judged" else PAIRS
        if not _begins_with(piece, expected):
            return (
                f"has the columns {', '.join(piece.column_names)}, not {', '.join(expected.names)}"
            )
        if any(piece[name].null_count for name in expected.names):
            return "has nulls"
        texts = one_chunk(piece["query"]), one_chunk(piece["title"])
        if not pair_ids(*texts).equals(one_chunk(piece["pair_id"])):
            return "has pair_ids that are not those of its texts"
        if not _all(pc.greater(piece["weight"], 0)):
            return "has weights that are not above 0"
        if expected is JUDGED and not _all(pc.and_(
            pc.greater_equal(piece["label"], 0), pc.less_equal(piece["label"], 1)
        )):  # fmt: skip
            return "has labels outside 0..1"
        return self._problem_of_keys(group_keys(piece, extra_units=self.checks.units))

    def _problem_of_keys(self, keys: NDArray[np.uint64]) -> str:
        checks, split = self.checks, self.item["split"]
        if checks.shares is not None:
            found = split_of(keys, dev_share=checks.shares[0], test_share=checks.shares[1])
            if (found != SPLITS.index(split)).any():
                return "has queries of another split"
        low, high = _key_range(self.item["name"], checks.layouts.get(split, ()))
        if len(keys) and (keys.min() < low or keys.max() > high):
            return "has queries of another shard"
        if num := len(np.unique(keys[np.isin(keys, checks.held)])):
            return f"has {num:,} queries of the dev or test split"
        if split:
            self.keys.append(keys)
        return ""

    def _open_logits(
        self, teacher: TeacherFiles, pairs: ParquetRows | Problem
    ) -> ParquetRows | Problem:
        """Of damaged pairs the number of rows is not known: of their logits any will do."""
        root, file = self.checks.root, f"{teacher.path}/{self.item['target']}"
        num_rows = None if isinstance(pairs, Problem) else self.item["rows"]
        opened = _open(root, file, num_rows=num_rows, what="its pairs are")
        if isinstance(opened, Problem):
            return opened
        folder = root / teacher.path
        mark = (opened.metadata or {}).get(MARK)
        if mark is not None and mark != logits_mark(folder)[MARK]:
            return Problem(f"holds logits of {mark.decode(errors='replace')}")
        return opened

    def _align(
        self,
        teacher: TeacherFiles,
        opened: ParquetRows | Problem,
        piece: pa.Table | None,
        *,
        start: int,
    ) -> ParquetRows | Problem:
        """Compare the logits of a piece with its pairs, if those could be read."""
        opened, logits = self._read(opened, start)
        if logits is None:
            return opened
        if not _begins_with(logits, LOGITS) or logits.num_columns != len(LOGITS):
            return Problem(f"has the columns {', '.join(logits.column_names)}, not pair_id, logit")
        if piece is not None and not one_chunk(logits["pair_id"]).equals(
            one_chunk(piece["pair_id"])
        ):
            return Problem("has pair_ids that are not those of its pairs in the same rows")
        if not _all(pc.is_finite(pc.drop_null(logits["logit"]))):
            return Problem("has logits that are not finite")
        self.nulls[teacher.name] += logits["logit"].null_count
        return opened

    def _finish(self, teacher: TeacherFiles, opened: ParquetRows | Problem) -> None:
        target, name = self.item["target"], teacher.name
        file, rejected = f"{teacher.path}/{target}", f"{teacher.rejected}/{target}"
        if not isinstance(opened, Problem):
            problem = (
                None
                if teacher.is_partial
                else self._problem_of_rejected(rejected, self.nulls[name])
            )
            if problem is None:
                return
            found = problem.finding(rejected, work=f"label-{name}", removes=[rejected, file])
        else:
            folder, _, shard = rejected.rpartition("/")
            gone = [file, *([rejected] if (self.checks.root / folder).exists(shard) else [])]
            found = opened.finding(file, work=f"label-{name}", removes=gone)
        del self.nulls[name]
        self.findings.append(found)

    def _problem_of_rejected(self, rejected: str, num_null: int) -> Problem | None:
        """What is wrong with the quarantine of a shard's pairs without a logit."""
        if not num_null:
            return None
        folder, _, name = rejected.rpartition("/")
        table, problem = attempt(lambda: read_whole(self.checks.root / folder, name))
        if table is not None and table.num_rows != num_null:
            return Problem(
                f"has {table.num_rows:,} rows, the shard has {num_null:,} pairs without a logit"
            )
        return problem


def read_whole(folder: Folder, name: str) -> pa.Table:
    """All rows of a small table, with its checksums checked."""
    return _validated(folder.open_table(name, checks_pages=True).read())


def _open(root: Folder, file: str, *, num_rows: int | None, what: str) -> ParquetRows | Problem:
    folder, _, name = file.rpartition("/")
    opened, problem = attempt(
        lambda: ParquetRows((root / folder).open_table(name, checks_pages=True))
    )
    if opened is None:
        return problem or Problem("cannot be read")
    if num_rows is not None and opened.num_rows != num_rows:
        return Problem(f"has {opened.num_rows:,} rows, {what} {num_rows:,}")
    return opened


def _validated(table: pa.Table) -> pa.Table:
    """The table; raises ArrowInvalid if a text is not UTF-8 or a list's edges are wrong."""
    table.validate(full=True)
    return table


def _begins_with(table: pa.Table, schema: pa.Schema) -> bool:
    return bool(pa.schema(list(table.schema)[: len(schema)]).equals(schema, check_metadata=False))


def _all(mask: pa.ChunkedArray) -> bool:
    return bool(pc.all(mask, min_count=0).as_py())


def _key_range(name: str, layouts: tuple[BucketLayout, ...]) -> tuple[np.uint64, np.uint64]:
    """The smallest and the largest query key of a shard; of all keys if its name tells none."""
    parts = bucket_group_of(name).split("-")
    at = int(parts[1][1:]) if parts[1].startswith("a") else 0
    if at >= len(layouts):
        return np.uint64(0), np.uint64(2**64 - 1)
    low, high = layouts[at].key_range(int(parts[-1]), int(parts[-1]))
    return np.uint64(low), np.uint64(high)


def findings_of(result: Item) -> Iterator[Finding]:
    """The findings in the result of a check, which has passed through JSON."""
    for one in result["findings"]:
        yield Finding(**{**one, "removes": tuple(one["removes"])})


def keys_of(result: Item) -> NDArray[np.uint64]:
    """The query keys of a split's shard in the result of a check."""
    return np.frombuffer(bytes.fromhex(result["keys"]), np.uint64)
