"""The slices of a run, and the figures of the scorers in each cell."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raydistill.data.bucket_layout import BucketLayout, ExistingPairs
from raydistill.data.pairs import group_keys
from raydistill.evaluation.metrics.bootstrap import Draws
from raydistill.evaluation.scoreboard.scored_pairs import ScoredPairs
from raydistill.evaluation.scoreboard.slices import METRICS_OF_SLICES
from raydistill.files.folder import SUCCESS
from raydistill.files.pieces import pieces_of, read_pieces
from raydistill.runs.run_folder import Run
from raydistill.runs.shards import pair_shards
from raydistill.stages.evaluation.reread_rows import (
    SLICES_HINT,
    SOURCE,
    find_rows,
    first_values,
    further_columns,
    judged_files,
)
from raydistill.stages.evaluation.slices import (
    Scored,
    Slice,
    column_slice,
    figures_of_slices,
    popularity_slice,
    score_slices,
    seen_slice,
    text_slices,
)
from raydistill.stages.evaluation.split_pairs import SplitPairs


def run_slices(
    run: Run,
    pairs: SplitPairs,
    scored: ScoredPairs,
    *,
    teacher: str,
    draws: Draws,
    known: Collection[str] = METRICS_OF_SLICES,
) -> list[dict[str, Any]]:
    """The figures of teachers, student and baseline in each cell; `pairs`: those of `scored`.

    `known`: the metrics that some scorer has; single texts have none of a query.

    Raises:
        UserError: the judged files lack a column that the settings name, or are gone.
    """
    slices = slices_of(run, pairs, scored, teacher=teacher)
    metrics = [key for key in METRICS_OF_SLICES if key in known]
    return figures_of_slices(slices, scored, reference=teacher, draws=draws, metrics=metrics)


def slices_of(run: Run, pairs: SplitPairs, scored: ScoredPairs, *, teacher: str) -> list[Slice]:
    """The slices with at least one cell."""
    has_query = run.config.has_query
    teachers = [f"teacher {name}" for name in run.config.teacher_names]
    there = [scored.scores[name] for name in teachers if name in scored.scores]
    own = further_values(run, pairs)
    found = [seen_slice(_seen(run, pairs), what="query" if has_query else "text")]
    if has_query:
        found.append(_popularity(run, pairs, own))
    found += text_slices(pairs.table, has_query=has_query)
    if teacher in scored.scores:
        probabilities = np.stack(there, axis=1) if there else np.empty((len(scored.labels_B), 0))
        found += score_slices(Scored(scored.scores[teacher], probabilities.astype(np.float32)))
    found += [column_slice(name, own[name]) for name in run.config.evaluate.slices]
    return [one for one in found if one.cells]


def _seen(run: Run, pairs: SplitPairs) -> NDArray[np.bool_]:
    """Which pairs have a query that is in the transfer set; none where those are held out."""
    if run.config.pairs.hold_out:
        return np.zeros(pairs.table.num_rows, bool)
    units = run.config.ngrams.unit_names
    keys_B = group_keys(pairs.table, extra_units=units)
    wanted, seen = np.unique(keys_B), np.empty(0, np.uint64)
    pieces = pieces_of(_shards_with(run, wanted))
    for rows in read_pieces(run.pairs, pieces, columns=["query", "title"]):
        found = np.intersect1d(wanted, group_keys(rows, extra_units=units))
        seen = np.union1d(seen, found)
        if len(seen) == len(wanted):
            break
    return np.isin(keys_B, seen)


def _shards_with(run: Run, keys: NDArray[np.uint64]) -> dict[str, int]:
    """The shards that may have pairs of some query keys: all of them without deduplication."""
    shards = pair_shards(run)
    if not run.config.pairs.dedupe:
        return shards
    done = run.pairs.require_json(SUCCESS, stage="prepare")
    layouts = tuple(BucketLayout(**one["layouts"][""]) for one in done["increments"])
    names = ExistingPairs(run.pairs, layouts).shards_of(keys)
    return {name: shards[name] for name in names if name in shards}


def _popularity(run: Run, pairs: SplitPairs, own: dict[str, list[str | None]]) -> Slice:
    column = run.config.evaluate.weight
    if column is None:
        weights_B = np.asarray(pairs.table["weight"].to_numpy(), np.float64)
        source = "how often a query's pairs occur in the files"
        return popularity_slice(weights_B, pairs.groups_B, source=source)
    weights_B = np.array([_to_number(value) for value in own[column]])
    # A query's weight is in each of its rows.
    _, queries_B, counts_Q = np.unique(pairs.groups_B, return_inverse=True, return_counts=True)
    each_B = weights_B / counts_Q[queries_B]
    return popularity_slice(each_B, pairs.groups_B, source=f"the column {column}")


def _to_number(text: str | None) -> float:
    try:
        return float(text or "nan")
    except ValueError:
        return float("nan")


def further_values(run: Run, pairs: SplitPairs) -> dict[str, list[str | None]]:
    """The values of the columns that `evaluate.slices` and `evaluate.weight` name.

    `source` is in the shards if the run file keeps it; others are read from the judged files again.

    Raises:
        UserError: a column that no file has; a run without judged test pairs.
    """
    wanted, table = further_columns(run.config), pairs.table
    found: dict[str, list[str | None]] = {}
    if SOURCE in wanted and SOURCE in table.column_names:
        found[SOURCE] = table[SOURCE].to_pylist()
    columns = [name for name in wanted if name not in found]
    return found | (_from_files(run, pairs, columns) if columns else {})


def _from_files(run: Run, pairs: SplitPairs, columns: Sequence[str]) -> dict[str, list[str | None]]:
    rules = run.config.judged_rules
    files = judged_files(rules, columns=columns, hint=SLICES_HINT)
    rows = find_rows(files, rules, wanted=pairs.ids_B, columns=columns).table
    return {name: first_values(rows, name, ids_B=pairs.ids_B) for name in columns}
