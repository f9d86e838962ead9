"""A judged split as arrays: labels, queries, every teacher's logits; and the stack fitted on dev.

Reads the run folder; no Ray, no torch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from raydistill.errors import UserError
from raydistill.loader import Targets, read_logits
from raydistill.run import Run
from raydistill.stacking import FittedStack, Stack, fit_stack


@dataclass(frozen=True)
class Judged:
    """B judged pairs and the logits of M teachers, in the order of the file; NaN: not scored.

    `groups_B` numbers the queries (of single texts: the pairs).
    """

    logits_BM: NDArray[np.float32]
    labels_B: NDArray[np.float32]
    groups_B: NDArray[np.int64]


def read_judged(run: Run, split: str) -> Judged:
    """Logits and labels of the dev or the test split, shard by shard in their order.

    Raises:
        UserError: a shard that a teacher has not scored.
    """
    folder = run.judged(split)
    logits = [np.empty((0, len(run.config.teachers)), np.float32)]
    labels, queries = [np.empty(0, np.float32)], [np.empty(0, object)]
    for shard in folder.shards():
        pairs, target = folder.read_table(shard), f"judged/{split}/{shard}"
        columns = []
        for name in run.config.teachers:
            if not run.logits(name).exists(target):
                raise UserError(f"teacher {name} has not scored {target}: run `label` first")
            columns.append(read_logits(run.logits(name), target, pairs))
        logits.append(np.stack(columns, axis=1))
        labels.append(pairs["label"].to_numpy())
        text = "query" if run.config.judged.query else "title"
        queries.append(pairs[text].to_numpy(zero_copy_only=False))
    _, groups = np.unique(np.concatenate(queries).astype(str), return_inverse=True)
    return Judged(np.concatenate(logits), np.concatenate(labels), groups.astype(np.int64))


def fitted_stack(run: Run) -> FittedStack:
    """The stack that fits the judged dev split.

    Raises:
        UserError: nothing to fit on, or no teacher that agrees with the labels.
    """
    dev = read_judged(run, "dev")
    names = list(run.config.teachers)
    return fit_stack(dev.logits_BM, dev.labels_B, names=names, groups_B=dev.groups_B)


def stack_of(run: Run) -> Stack:
    """What the student's soft labels are made with: the weights of the file, or fitted ones.

    Raises:
        UserError: as `fitted_stack`.
    """
    weights = run.config.stacking_weights()
    if weights is None:
        return fitted_stack(run)
    return Stack(weights, run.config.labels.bias)


def targets_of(run: Run, stack: Stack) -> Targets:
    """What a student of this run learns, from the teachers' logits in the run folder."""
    return Targets(
        logits=tuple(run.logits(name) for name in stack.weights),
        weights=tuple(stack.weights.values()),
        bias=stack.bias,
        temperature=run.config.labels.temperature,
        as_logits=run.config.learns_logits,
    )
