"""The two students of a comparison, and the judged pairs on which both are measured."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from raydistill.config.data import JudgedConfig
from raydistill.config.loading import load_config, parse_config
from raydistill.errors import UserError
from raydistill.files.folder import Folder
from raydistill.files.inputs.decoding import decode_text
from raydistill.files.schema import JUDGED
from raydistill.runs.run_folder import RUN_FILE, Run
from raydistill.runs.shards import split_shards
from raydistill.serving.scorer import Scorer
from raydistill.stages.quality.judged_pairs import JudgedPairs, read_judged_files

logger = logging.getLogger("raydistill")
_FEWEST_COMMON = 300  # pairs: of fewer an interval says nothing
_OWN_FILE = "give both the same judged pairs with --judged INPUT"


@dataclass(frozen=True)
class Side:
    """A student: a bundle, or the bundle of a run."""

    path: str
    scorer: Scorer
    run: Run | None = None

    @property
    def kind(self) -> str:
        """What the path is."""
        return "bundle" if self.run is None else "run"


@dataclass(frozen=True)
class Sides:
    """A (before) and B (after)."""

    one: Side
    other: Side

    def settings(self, *, has_title: bool) -> dict[str, Any]:
        """The settings that the rules of judged files depend on, which both must share.

        `has_title`: the user names the columns of the title.

        Raises:
            UserError: the sides read other texts.
        """
        one, other = (side.scorer.settings for side in (self.one, self.other))
        if bool(one.get("single_texts")) != bool(other.get("single_texts")):
            raise UserError("one of the students reads pairs, the other single texts")
        titles = [settings.get("title", "title") for settings in (one, other)]
        if titles[0] != titles[1] and not has_title:
            raise UserError(
                f"A was trained on the title {titles[0]}, B on {titles[1]}: name the columns that "
                "both shall read, --title COLUMNS"
            )
        # A row that is too long for one of them is left out of both.
        names = ("max_query_chars", "max_title_chars")
        return {**one, **{name: min(one[name], other[name]) for name in names}}


@dataclass(frozen=True)
class CommonPairs:
    """Judged pairs of both sides, and how many each side had."""

    pairs: JudgedPairs
    relevant_at: float
    num_of_sides: tuple[int, int]


def open_side(path: str) -> Side:
    """The student at a run folder, a run file or a bundle.

    Raises:
        UserError: there is none, or the run has no bundle of its current student.
    """
    if path.endswith(".toml"):
        return _of_run(path, Run(load_config(path)))
    folder = Folder(path)
    if not folder.exists(RUN_FILE):
        return Side(path, Scorer.load(path))
    name = f"{folder}/{RUN_FILE}"
    config = parse_config(decode_text(folder.read_bytes(RUN_FILE), name=name), name=name)
    # run_dir is replaced, as the run folder may have been moved.
    return _of_run(path, Run(config.model_copy(update={"run_dir": folder.uri})))


def _of_run(path: str, run: Run) -> Side:
    try:
        is_current = run.has_bundle()
    except UserError as error:
        logger.warning(
            "compare   whether the bundle in %s is of the current student cannot be checked here: "
            "%s", run.bundle, error,
        )  # fmt: skip
    else:
        if not is_current:
            raise UserError(f"no bundle of the current student in {run.bundle}: run `export` first")
    return Side(path, Scorer.load(run.bundle.uri), run)


def pairs_of_files(rules: JudgedConfig) -> CommonPairs:
    """The pairs of judged files, the same for both sides."""
    pairs = read_judged_files(rules)
    num_pairs = pairs.table.num_rows
    return CommonPairs(pairs, rules.relevant_at, (num_pairs, num_pairs))


def pairs_of_runs(sides: Sides, *, relevant_at: float | None = None) -> CommonPairs:
    """The judged pairs that are in the test splits of both runs.

    Raises:
        UserError: a side is no run or has no judged test pairs, or the splits have too few pairs
            in common or other labels.
    """
    tables = [_test_split(side) for side in (sides.one, sides.other)]
    rows = _common_rows(*tables)
    counts = tables[0].num_rows, tables[1].num_rows
    if len(rows[0]) < max(counts):
        _check_common(len(rows[0]), counts)
    one, other = (table.take(pa.array(some)) for table, some in zip(tables, rows, strict=True))
    _check_labels(one, other)
    return CommonPairs(JudgedPairs(one), _relevant_at(sides, relevant_at), counts)


def _test_split(side: Side) -> pa.Table:
    if side.run is None:
        raise UserError(f"{side.path} is a bundle, which has no test split: {_OWN_FILE}")
    if side.run.config.source_of("test") != "judged":
        raise UserError(f"{side.path} has no judged test pairs: {_OWN_FILE}")
    folder = side.run.split("test")
    shards = split_shards(side.run, "test")
    parts = [folder.read_table(name, columns=JUDGED.names) for name in shards]
    return pa.concat_tables([JUDGED.empty_table(), *parts])


def _common_rows(one: pa.Table, other: pa.Table) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The rows of the pairs that both tables have, in the order of the first."""
    ids = [table["pair_id"].to_numpy() for table in (one, other)]
    _, here, there = np.intersect1d(*ids, return_indices=True)
    order = np.argsort(here)
    return here[order], there[order]


def _check_common(num_common: int, counts: tuple[int, int]) -> None:
    each = f"{counts[0]:,} pairs of A and {counts[1]:,} of B"
    if num_common < _FEWEST_COMMON:
        raise UserError(
            f"the test splits of the runs differ: of {each} only {num_common:,} are in both, at "
            f"least {_FEWEST_COMMON} are needed: {_OWN_FILE}"
        )
    logger.warning(
        "compare   the test splits of the runs differ: of %s, the %s that are in both are compared",
        each, f"{num_common:,}",
    )  # fmt: skip


def _check_labels(one: pa.Table, other: pa.Table) -> None:
    labels = [table["label"].to_numpy() for table in (one, other)]
    num_other = int((np.abs(labels[0] - labels[1]) > 1e-6).sum())
    if num_other:
        raise UserError(
            f"{num_other:,} of the {one.num_rows:,} pairs in both test splits have other labels in "
            f"B than in A: {_OWN_FILE}"
        )


def _relevant_at(sides: Sides, given: float | None) -> float:
    if given is not None:
        return given
    found = [
        side.run.config.judged_rules.relevant_at
        for side in (sides.one, sides.other)
        if side.run is not None
    ]
    if found[0] != found[-1]:
        raise UserError(
            f"a pair is relevant from a label of {found[0]:g} in A and of {found[-1]:g} in B: "
            "give --relevant-at LABEL for both"
        )
    return found[0]
