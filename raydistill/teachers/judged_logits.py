"""A dev or test split as arrays (labels, queries, teachers' logits), and the stack fitted on dev.

The labels are judged, or soft labels of the ensemble where the split is of the transfer set.

Reads the run folder; no Ray, no torch.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from raydistill.config.run_config import normalised
from raydistill.errors import UserError
from raydistill.files.folder import Folder
from raydistill.files.pieces import Piece
from raydistill.runs.run_folder import Run
from raydistill.runs.shards import split_target
from raydistill.teachers.soft_labels import Targets, read_logits
from raydistill.teachers.stacking import FittedStack, Stack, columns_to_fit, fit_stack, joined

logger = logging.getLogger("raydistill")
_LOGGED: set[tuple[str, str]] = set()  # of each run, in this process: the stack is made many times


@dataclass(frozen=True)
class Judged:
    """B judged pairs and the logits of M teachers, in file order; NaN: no logit.

    `groups_B` numbers the queries, or the pairs if they are single texts.
    """

    logits_BM: NDArray[np.float32]
    labels_B: NDArray[np.float32]
    groups_B: NDArray[np.int64]

    @property
    def num_queries(self) -> int:
        """The number of different queries, or of different single texts."""
        return len(np.unique(self.groups_B))


def read_judged(run: Run, split: str) -> Judged:
    """Logits and labels of the dev or the test split, in shard order; NaN: no soft label.

    Raises:
        UserError: a teacher has not scored a shard.
    """
    folder, targets = run.split(split), split_targets(run, split)
    names = run.config.teacher_names
    logits, labels = [np.empty((0, len(names)), np.float32)], [np.empty(0, np.float32)]
    for shard in folder.shards():
        own = ["label"] if not targets.logits else []
        pairs = folder.read_table(shard, columns=["pair_id", *own])
        target, num_rows = split_target(run, split, shard), pairs.num_rows
        columns = []
        for name in names:
            if not run.logits(name).exists(target):
                raise UserError(f"teacher {name} has not scored {target}: run `label` first")
            whole = Piece(target, 0, num_rows, num_rows)
            columns.append(read_logits(run.logits(name), whole, pairs))
        logits.append(np.stack(columns, axis=1))
        labels.append(targets.for_piece(Piece(shard, 0, num_rows, num_rows), pairs))
    return Judged(np.concatenate(logits), np.concatenate(labels), read_groups(run, split))


def split_targets(run: Run, split: str) -> Targets:
    """The labels of a split: judged ones; or the ensemble's soft labels at temperature 1."""
    if run.config.source_of(split) == "judged":
        return Targets()
    stack = stack_of(run)
    folders = tuple(
        run.logits(name) / run.config.source_of(split) / split for name in stack.weights
    )
    return Targets(folders, tuple(stack.weights.values()), stack.bias)


def read_groups(run: Run, split: str) -> NDArray[np.int64]:
    """The number of each pair's query, or of its title for single texts; shape B."""
    folder, text = run.split(split), "query" if run.config.has_query else "title"
    parts = [folder.read_table(shard, columns=[text])[text] for shard in folder.shards()]
    chunks = [chunk for part in parts for chunk in part.chunks]
    codes = pa.chunked_array(chunks, pa.string()).combine_chunks().dictionary_encode().indices
    return np.asarray(codes.to_numpy(), np.int64)


def fitted_stack(run: Run) -> FittedStack:
    """The stack fitted on the judged dev split.

    Raises:
        UserError: there is nothing to fit on, or no teacher agrees with the labels.
    """
    return _fit(run, read_judged(run, "dev"), names=run.config.teacher_names)


def _fit(run: Run, dev: Judged, *, names: Sequence[str]) -> FittedStack:
    columns = [run.config.teacher_names.index(name) for name in names]
    logits_BM, num_dev = dev.logits_BM[:, columns], len(dev.labels_B)
    stack = fit_stack(logits_BM, dev.labels_B, names=names, groups_B=dev.groups_B)
    if any(map(run.config.is_partial, names)):
        whose = "all teachers" if len(names) == len(run.config.teacher_names) else ", ".join(names)
        text = (
            f"weights are fitted on the {stack.num_pairs:,} of {num_dev:,} judged dev pairs that "
            f"{whose} score"
        )
        _log_once(run, logging.INFO, text)
    return stack


def _log_once(run: Run, level: int, text: str) -> None:
    """Log a line on the stack, unless this process has logged it of this run."""
    if (run.root.uri, text) not in _LOGGED:
        _LOGGED.add((run.root.uri, text))
        logger.log(level, "stack     %s", text)


def stack_of(run: Run, *, fitted: Stack | None = None) -> Stack:
    """The stack of the student's soft labels: the run file's weights, or fitted ones.

    `fitted`: the result of `fitted_stack`, if the caller has it.

    Raises:
        UserError: see `fitted_stack`; only if the run file requests fitted weights.
    """
    weights, bias = run.config.stacking_weights(), run.config.soft_labels.bias
    if weights is not None:
        return Stack(weights, bias or 0.0)
    stack = fitted or _fitted_or_equal(run)
    return stack if bias is None else replace(stack, bias=bias)


def _fitted_or_equal(run: Run) -> Stack:
    """The fitted stack; the plain mean if the fit fails and the run file requests no fit.

    Teachers of too few dev pairs join the fitted ones, with their mean weight. The plain mean
    excludes the trees: without judged pairs nothing is known about their quality.
    """
    dev, names = read_judged(run, "dev"), run.config.teacher_names
    if run.config.soft_labels.weights == "fitted":
        return _fit(run, dev, names=names)
    columns = columns_to_fit(dev.logits_BM, is_partial=[*map(run.config.is_partial, names)])
    fitted = [names[at] for at in columns]
    try:
        stack = _fit(run, dev, names=fitted)
    except UserError as error:
        equal = list(run.config.teachers)
        _log_once(run, logging.WARNING, f"equal weights of {', '.join(equal)}: {error}")
        return Stack(normalised(dict.fromkeys(equal, 1.0), names=equal))
    if len(fitted) == len(names):
        return stack
    few = ", ".join(name for name in names if name not in fitted)
    text = (
        f"too few judged dev pairs have a logit of {few} to fit a weight on: the mean weight of "
        f"{', '.join(fitted)}"
    )
    _log_once(run, logging.WARNING, text)
    return joined(stack, names)


def targets_of(run: Run, stack: Stack, *, logits: Mapping[str, Folder] | None = None) -> Targets:
    """The targets of a student of this run: the teachers' logits and a stack.

    `logits`: where they are, of the teachers that count; default: in the run folder, of all.
    """
    folders = {name: run.logits(name) for name in stack.weights} if logits is None else logits
    return Targets(
        logits=tuple(folders.values()),
        weights=tuple(stack.weights[name] for name in folders),
        bias=stack.bias,
        temperature=run.config.soft_labels.temperature,
        target=run.config.target,
    )
