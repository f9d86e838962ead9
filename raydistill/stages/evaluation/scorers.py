"""The teachers and the stacks of a run as scorers, and how many pairs each teacher scores."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raydistill.errors import UserError
from raydistill.runs.run_folder import Run
from raydistill.stages.evaluation.split_pairs import SPLITS
from raydistill.teachers.judged_logits import Judged, fitted_stack, read_judged, stack_of
from raydistill.teachers.soft_labels import soft_labels
from raydistill.teachers.stacking import FittedStack, Stack

logger = logging.getLogger("raydistill")
Scores = dict[str, NDArray[np.float32]]  # by split
ENSEMBLE, MEAN, CALIBRATED = "teacher ensemble", "teacher mean", "teacher ensemble, calibrated"


def teacher_scores(run: Run, fitted: FittedStack | None = None) -> dict[str, Scores]:
    """Scores of each teacher, and of the stacks of several teachers: see `_stacks`."""
    names = run.config.teacher_names
    logits = {split: read_judged(run, split).logits_BM for split in SPLITS}
    return {
        label: {
            split: soft_labels(
                logits_BM,
                weights_M=[stack.weights.get(name, 0.0) for name in names],
                bias=stack.bias,
                temperature=temperature,
            )
            for split, logits_BM in logits.items()
        }
        for label, (stack, temperature) in _stacks(run, fitted).items()
    }


def _stacks(run: Run, fitted: FittedStack | None) -> dict[str, tuple[Stack, float]]:
    """Each teacher and the stacks of several teachers, with their temperatures.

    The stacks: the student's, the mean of the BERTs if it differs, and `fitted` calibrated.
    """
    names = run.config.teacher_names
    one_hot = {f"teacher {name}": Stack({name: 1.0}) for name in names}
    stacks: dict[str, tuple[Stack, float]] = {name: (one, 1.0) for name, one in one_hot.items()}
    if len(stacks) > 1:
        used, berts = stack_of(run, fitted=fitted), list(run.config.teachers)
        equal = dict.fromkeys(berts, 1 / len(berts))
        stacks[ENSEMBLE] = used, 1.0
        if len(berts) > 1 and used != Stack(equal):
            stacks[MEAN] = Stack(equal), 1.0
        if fitted is not None:
            stacks[CALIBRATED] = fitted, fitted.temperature
    return stacks


def partial_scorers(run: Run, fitted: FittedStack | None = None) -> list[str]:
    """Teachers and stacks that have scores of some pairs only, and are measured on these."""
    return [
        label
        for label, (stack, _) in _stacks(run, fitted).items()
        if all(map(run.config.is_partial, stack.counted))
    ]


def reference_of(run: Run) -> str:
    """The scorer that retention divides by: the student's stack, or the only teacher."""
    if len(run.config.teacher_names) > 1:
        return ENSEMBLE
    return f"teacher {next(iter(run.config.teachers))}"


def fitted_or_none(run: Run) -> FittedStack | None:
    """The fitted stack of several teachers; None without judged dev pairs, or if the fit fails.

    Raises:
        UserError: the fit fails, and the run file asks for it.
    """
    if len(run.config.teacher_names) < 2 or not run.config.learns_from_judged:
        return None
    try:
        return fitted_stack(run)
    except UserError as error:
        if run.config.soft_labels.weights == "fitted":
            raise
        logger.warning("evaluate  no fitted stack in the report: %s", error)
        return None


def coverage(run: Run, judged: Mapping[str, Judged]) -> dict[str, dict[str, Any]]:
    """Of each teacher: the pairs that it has a logit of, of all that `label` was to score.

    The judged dev and test pairs are counted with the others, and alone.
    """
    found: dict[str, dict[str, Any]] = {}
    for at, name in enumerate(run.config.teacher_names):
        done = run.logits(name).success()
        if done is None:  # logits that another tool wrote
            continue
        num_pairs = done["rows_out"] - done.get("absent", 0)
        splits = {
            split: int(np.isfinite(one.logits_BM[:, at]).sum()) for split, one in judged.items()
        }
        share = num_pairs / max(done["rows_in"], 1)
        found[name] = {"pairs": num_pairs, "of": done["rows_in"], "share": share, **splits}
        if "unmatched" in done:
            found[name]["unmatched"] = done["unmatched"]
    return found
