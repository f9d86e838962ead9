"""select: the pairs that an expensive teacher should label, written to one file.

One process reads the shards of the run in turn and holds at most twice the budget. A file that
exists is never overwritten.
"""

from __future__ import annotations

import difflib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from raydistill.data.pairs import group_keys
from raydistill.errors import UserError
from raydistill.files.folder import Folder
from raydistill.files.inputs.formats import COMPRESSIONS, file_format
from raydistill.files.pieces import Piece
from raydistill.files.prefetch import prefetch
from raydistill.progress import Progress
from raydistill.runs.run_folder import Run
from raydistill.runs.shards import Shard, missing_shards, shards_to_score
from raydistill.serving.bundle import CURRENT
from raydistill.serving.scorer import Scorer
from raydistill.stages.splits.judged import split_keys
from raydistill.stages.standalone.selection_file import (
    KIND,
    WRITTEN,
    check_output,
    counts_there,
    to_bytes,
)
from raydistill.teachers.selection import Selection, mixed, passes, ranks, uncertainty
from raydistill.teachers.soft_labels import read_logits

logger = logging.getLogger("raydistill")
STRATEGIES = ("random", "uncertain")
DEFAULT = "random"  # docs/results.md, "Labels bought in rounds": uncertain gains nothing
SCORE = "student_score"
_COLUMNS = ["pair_id", "query", "title"]
_Masks = tuple[NDArray[np.bool_], NDArray[np.bool_]]  # which pairs are labeled, which are free


@dataclass(frozen=True)
class Choice:
    """What to select, and where to write it."""

    budget: int
    output: str
    strategy: str | None = None  # None: the default
    teacher: str | None = None  # its labeled pairs are left out
    judged: bool = False  # also dev and test pairs, before all others
    seed: int = 0

    def __post_init__(self) -> None:
        """Raise UserError for an unknown strategy or format of the output."""
        if self.strategy not in (None, *STRATEGIES):
            raise UserError(f"no strategy {self.strategy!r}; give {' or '.join(STRATEGIES)}")
        kind = file_format(self.output)
        if kind not in WRITTEN or self.output.endswith(COMPRESSIONS):
            raise UserError(
                f"cannot write {self.output!r}; give a .parquet, .csv or .jsonl file, local or s3://"
            )

    @property
    def place(self) -> tuple[Folder, str]:
        """The folder of the output, and the name of the file in it."""
        base, mark, options = self.output.partition("?")
        folder, _, name = base.rpartition("/")
        return Folder(f"{folder or ('/' if base.startswith('/') else '.')}{mark}{options}"), name


@dataclass(frozen=True)
class _Sources:
    """What decides between pairs: the student, the teachers that may disagree, labeled pairs."""

    strategy: str
    scorer: Scorer | None
    student: str | None  # the name of the student's bundle
    disagreeing: tuple[str, ...]
    labeled: Folder | None  # logits of the teacher whose pairs are left out


def select_pairs(run: Run, choice: Choice) -> dict[str, Any]:
    """Write the selection; returns its counts, with `is_new` False if it was there already.

    Raises:
        UserError: prepare is not complete, a name is unknown, a student or logits are missing, no
            pair is left, or the output holds something else.
    """
    shards = shards_to_score(run)  # raises unless prepare is complete
    check_output(run, choice.output)
    choice = replace(choice, teacher=labeled_teacher(run, choice.teacher))
    sources = _sources(run, choice)
    settings = _settings(run, choice, sources)
    folder, name = choice.place
    about = f"_{name}.json"  # hidden from inputs that match the folder
    there = folder.read_json(about)
    if folder.exists(name):
        return {**counts_there(there, settings, output=choice.output), "is_new": False}
    if there is not None and there.get("kind") != KIND:
        raise UserError(f"{folder}/{about} is no file of `select`; give another --output")
    table, counts = _select(shards, choice, _Pass(run, sources, choice.seed))
    if table.num_rows < choice.budget:
        logger.warning(
            "select    the budget is %s pairs and only %s are not labeled: all of them are taken",
            f"{choice.budget:,}", f"{table.num_rows:,}",
        )  # fmt: skip
    out = _finished(table, run, sources)
    folder.write_json(about, {"kind": KIND, "settings": settings, "counts": counts})
    folder.write_bytes(name, to_bytes(out, str(file_format(choice.output))))
    return {**counts, "is_new": True}


# --- what decides


def _sources(run: Run, choice: Choice) -> _Sources:
    teacher = choice.teacher
    pointer = run.bundle.read_json(CURRENT)
    strategy = choice.strategy or (DEFAULT if pointer else "random")
    if strategy == "uncertain" and not pointer:
        raise UserError(
            f"no student in {run.bundle} yet, whose uncertainty could decide: run `distill` with "
            "the labels that there are, or give --strategy random"
        )
    scorer = _student(run, is_needed=strategy == "uncertain") if pointer else None
    others: tuple[str, ...] = ()
    if strategy == "uncertain":
        names = [name for name in run.config.teacher_names if name != teacher]
        others = tuple(name for name in names if _has_logits(run, name))
        others = others if len(others) > 1 else ()
        if not run.has_bundle():
            logger.warning("select    the student in %s is of other labels or settings: run "
                           "`distill` first to select by the newest", run.bundle)  # fmt: skip
    why = f"the student and the disagreement of {', '.join(others)}" if others else "the student"
    if strategy == "random":
        why = "random numbers" if pointer else "random numbers: there is no student yet"
    logger.info("select    %s: by %s, in turns over the queries", strategy, why)
    if teacher is not None:
        logger.info("select    pairs that %s has a logit for are left out", teacher)
    labeled = None if teacher is None else run.logits(teacher)
    student = pointer["bundle"] if pointer and scorer else None
    return _Sources(strategy, scorer, student, others, labeled)


def _student(run: Run, *, is_needed: bool) -> Scorer | None:
    """The student of the newest bundle; None, with a warning, if it cannot be loaded.

    Raises:
        UserError: it cannot be loaded, and its scores decide.
    """
    try:
        return Scorer.load(run.bundle.uri)
    except UserError as error:
        if is_needed:
            raise
        logger.warning("select    without the column %s: %s", SCORE, error)
        return None


def labeled_teacher(run: Run, name: str | None) -> str | None:
    """The teacher whose labeled pairs are left out, by default the only one of scores from files.

    Raises:
        UserError: there is no such teacher, it has not scored a shard, or several have scores.
    """
    names = run.config.teacher_names
    if name is None:
        of_scores = [teacher for teacher in names if run.config.is_partial(teacher)]
        if len(of_scores) > 1:
            raise UserError(
                f"several teachers have scores from files ({', '.join(of_scores)}): name the one "
                "that is to label, --teacher NAME"
            )
        if not of_scores:
            return None
        (name,) = of_scores
    if name not in names:
        near = difflib.get_close_matches(name, names, n=3, cutoff=0.5) or names
        raise UserError(f"no teacher {name!r} in the run file; did you mean {', '.join(near)}?")
    missing = missing_shards(run, name)
    if missing:
        raise UserError(
            f"teacher {name} has no logits for {len(missing)} shards, so its labeled pairs are not "
            "known: run `label` first"
        )
    return name


def _has_logits(run: Run, name: str) -> bool:
    base = run.config.teachers.get(name)
    if base is not None and base.base is not None and run.teacher(name).success() is None:
        return False
    return not missing_shards(run, name)


def _settings(run: Run, choice: Choice, sources: _Sources) -> dict[str, Any]:
    """All that determines the selection."""
    names = [*sources.disagreeing, *([choice.teacher] if choice.teacher else [])]
    return {
        "budget": choice.budget,
        "strategy": sources.strategy,
        "seed": choice.seed,
        "judged": choice.judged,
        "teacher": choice.teacher,
        "logits": {name: [run.label_fingerprint(name), run.labeled_by(name)] for name in names},
        "student": sources.student,
        "pairs": run.prepare_fingerprint("pairs"),
    }


# --- the pass over the shards


def _select(
    shards: Sequence[Shard], choice: Choice, work: _Pass
) -> tuple[pa.Table, dict[str, Any]]:
    """The selected pairs in order, and the counts."""
    parts: list[pa.Table] = []
    if choice.judged:
        # At random, however the others are chosen: a test of the teacher must not be biased.
        judged = [shard for shard in shards if shard.target != shard.name]
        parts += work.first(judged, choice.budget, by_chance=True)
    num_judged = sum(part.num_rows for part in parts)
    if num_judged < choice.budget:
        transfer = [shard for shard in shards if shard.target == shard.name]
        by_chance = work.sources.strategy == "random"
        parts += work.first(transfer, choice.budget - num_judged, by_chance=by_chance)
    if not any(part.num_rows for part in parts):
        why = f"{choice.teacher} has a logit for all {work.pairs:,} pairs"
        why = why if work.pairs else "there is none outside of the dev and test queries"
        raise UserError(f"no pair is left to select: {why}")
    table = pa.concat_tables(parts)
    counts = {
        "rows": table.num_rows,
        "queries": len(table["query"].unique()),
        "judged": num_judged,
        "pairs": work.pairs,
        "labeled": work.labeled,
        "scored": work.scored,
    }
    return table, counts


@dataclass
class _Pass:
    """Reads shards and selects from their pairs; counts pairs, labeled pairs and scored pairs."""

    run: Run
    sources: _Sources
    seed: int
    pairs: int = 0
    labeled: int = 0
    scored: int = 0

    def first(self, shards: Sequence[Shard], budget: int, *, by_chance: bool) -> list[pa.Table]:
        """The first `budget` pairs of some shards; no table if there is no pair."""
        selection = Selection(budget)
        held_out = self._held_out(shards)
        num_rows = sum(shard.num_rows for shard in shards)
        progress = Progress("select", num_items=len(shards), num_rows=num_rows, unit="shards")
        for shard, pairs, masks in prefetch(self._read(shards, held_out), depth=1):
            self._offer(selection, shard, pairs, masks, by_chance=by_chance)
            progress.add(rows=pairs.num_rows)
        found = selection.table()
        return [] if found is None else [found]

    def _held_out(self, shards: Sequence[Shard]) -> NDArray[np.uint64]:
        """Keys of the dev and test queries, where the given transfer shards may hold some."""
        is_transfer = any(shard.target == shard.name for shard in shards)
        if self.run.config.pairs.hold_out or not is_transfer:
            return np.empty(0, np.uint64)
        return split_keys(self.run)

    def _read(
        self, shards: Sequence[Shard], held_out: NDArray[np.uint64]
    ) -> Iterator[tuple[Shard, pa.Table, _Masks]]:
        """The pairs of each shard; which of them are labeled, and which may be selected at all."""
        units = self.run.config.ngrams.unit_names
        for shard in shards:
            pairs = shard.folder.read_table(shard.name, columns=_COLUMNS)
            is_labeled, is_free = np.zeros(pairs.num_rows, bool), np.ones(pairs.num_rows, bool)
            if self.sources.labeled is not None:
                is_labeled = np.isfinite(_logits(self.sources.labeled, shard, pairs))
            if len(held_out):
                is_free = ~np.isin(group_keys(pairs, extra_units=units), held_out)
            yield shard, pairs, (is_labeled, is_free)

    def _offer(
        self,
        selection: Selection,
        shard: Shard,
        pairs: pa.Table,
        masks: _Masks,
        *,
        by_chance: bool,
    ) -> None:
        """Offer the pairs of a shard that are free, not labeled and may be among the first."""
        is_labeled, is_free = masks
        ids = pairs["pair_id"].to_numpy()
        keys = mixed(ids, seed=2 * self.seed)
        places = ranks(self._groups(pairs), keys, is_labeled_B=is_labeled)
        rows = np.flatnonzero(is_free & ~is_labeled & selection.may_enter(places, keys))
        some = pairs.take(pa.array(rows))
        if by_chance:
            in_pass = np.ones(len(rows), np.int64)
        else:
            draws = mixed(ids[rows], seed=2 * self.seed + 1)
            in_pass = passes(self._uncertainty(shard, pairs, rows), draws)
            self.scored += len(rows)
        selection.add(some, passes_B=in_pass, ranks_B=places[rows], keys_B=keys[rows])
        self.pairs += int(is_free.sum())
        self.labeled += int((is_free & is_labeled).sum())

    def _groups(self, pairs: pa.Table) -> NDArray[np.int64]:
        """The number of each pair's query; each single text is a group of its own."""
        if not self.run.config.pairs.query:
            return np.arange(pairs.num_rows)
        codes = pairs["query"].combine_chunks().dictionary_encode().indices
        return np.asarray(codes.to_numpy(), np.int64)

    def _uncertainty(
        self, shard: Shard, pairs: pa.Table, rows: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """How little student and teachers know of the given rows of a shard."""
        if self.sources.scorer is None:
            raise ValueError("no student: its uncertainty is not known")
        if not len(rows):
            return np.empty(0)
        scores = _scores(self.sources.scorer, pairs.take(pa.array(rows)))
        logits = [self.run.logits(name) for name in self.sources.disagreeing]
        columns = [_logits(folder, shard, pairs)[rows] for folder in logits]
        return uncertainty(scores, np.stack(columns, axis=1) if columns else None)


def _scores(scorer: Scorer, pairs: pa.Table) -> NDArray[np.float32]:
    """The student's scores of a shard's pairs, whose titles are one column in every run."""
    return scorer.score_table(pairs, title="title")


def _logits(folder: Folder, shard: Shard, pairs: pa.Table) -> NDArray[np.float32]:
    whole = Piece(shard.target, 0, pairs.num_rows, pairs.num_rows)
    return read_logits(folder, whole, pairs)


# --- the output


def _finished(table: pa.Table, run: Run, sources: _Sources) -> pa.Table:
    """The columns of the output."""
    texts = ["query", "title"] if run.config.pairs.query else ["title"]
    out = table.select([*texts, "pair_id"])
    if sources.scorer is not None:
        out = out.append_column(SCORE, pa.array(_scores(sources.scorer, table), pa.float32()))
    return out
