"""A judged split as arrays (labels, queries, teachers' logits), and the stack fitted on dev.

Reads the run folder; no Ray, no torch.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from raydistill.config.run_config import normalised
from raydistill.errors import UserError
from raydistill.files.pieces import Piece
from raydistill.runs.run_folder import Run
from raydistill.teachers.soft_labels import Targets, read_logits
from raydistill.teachers.stacking import FittedStack, Stack, fit_stack

logger = logging.getLogger("raydistill")


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
    """Logits and labels of the dev or the test split, in shard order.

    Raises:
        UserError: a teacher has not scored a shard.
    """
    folder = run.judged(split)
    names = run.config.teacher_names
    logits, labels = [np.empty((0, len(names)), np.float32)], [np.empty(0, np.float32)]
    for shard in folder.shards():
        pairs = folder.read_table(shard, columns=["pair_id", "label"])
        target, num_rows = f"judged/{split}/{shard}", pairs.num_rows
        columns = []
        for name in names:
            if not run.logits(name).exists(target):
                raise UserError(f"teacher {name} has not scored {target}: run `label` first")
            whole = Piece(target, 0, num_rows, num_rows)
            columns.append(read_logits(run.logits(name), whole, pairs))
        logits.append(np.stack(columns, axis=1))
        labels.append(pairs["label"].to_numpy())
    return Judged(np.concatenate(logits), np.concatenate(labels), read_groups(run, split))


def read_groups(run: Run, split: str) -> NDArray[np.int64]:
    """The number of each pair's query, or of its title for single texts; shape B."""
    folder, text = run.judged(split), "query" if run.config.judged.query else "title"
    parts = [folder.read_table(shard, columns=[text])[text] for shard in folder.shards()]
    chunks = [chunk for part in parts for chunk in part.chunks]
    codes = pa.chunked_array(chunks, pa.string()).combine_chunks().dictionary_encode().indices
    return np.asarray(codes.to_numpy(), np.int64)


def fitted_stack(run: Run) -> FittedStack:
    """The stack fitted on the judged dev split.

    Raises:
        UserError: there is nothing to fit on, or no teacher agrees with the labels.
    """
    return _fit(run, read_judged(run, "dev"))


def _fit(run: Run, dev: Judged) -> FittedStack:
    names = run.config.teacher_names
    return fit_stack(dev.logits_BM, dev.labels_B, names=names, groups_B=dev.groups_B)


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

    The mean excludes the trees: without judged pairs nothing is known about their quality.
    """
    dev = read_judged(run, "dev")
    try:
        return _fit(run, dev)
    except UserError as error:
        if run.config.soft_labels.weights == "fitted":
            raise
        names = list(run.config.teachers)
        logger.warning("stack     equal weights of %s: %s", ", ".join(names), error)
        return Stack(normalised(dict.fromkeys(names, 1.0), names=names))


def targets_of(run: Run, stack: Stack) -> Targets:
    """The targets of a student of this run: the teachers' logits in the run folder and a stack."""
    return Targets(
        logits=tuple(run.logits(name) for name in stack.weights),
        weights=tuple(stack.weights.values()),
        bias=stack.bias,
        temperature=run.config.soft_labels.temperature,
        target=run.config.target,
    )
