"""Fit the scale and the bias of a sentence encoder's cosines, as a part of `label`."""

from __future__ import annotations

import logging
from functools import partial

from raydistill.cluster.connection import Cluster
from raydistill.cluster.tasks import FAILED, run_chain
from raydistill.cluster.workers.assigned_gpu import make_step
from raydistill.errors import WorkError
from raydistill.runs.run_folder import Run
from raydistill.teachers.kinds.bi_encoder import (
    BiEncoderKind,
    read_calibration,
    write_calibration,
)
from raydistill.teachers.stacking import Calibration

logger = logging.getLogger("raydistill")


def calibrate(run: Run, name: str, cluster: Cluster, *, verdict: bool | None) -> None:
    """Fit scale and bias on judged train pairs, once; without such pairs they are the default.

    Raises:
        WorkError: the encoder failed at the judged pairs.
    """
    logits = run.logits(name)
    if read_calibration(logits) is None:
        if run.calibrates:
            _fit(BiEncoderKind(run, name), cluster, verdict=verdict)
        else:
            write_calibration(logits, Calibration())
    found = read_calibration(logits) or Calibration()
    logger.info(
        "label     %s: logit = %.2f x cosine %+.2f, %s",
        *(name, found.scale, found.bias),
        f"fitted on {found.num_pairs:,} judged train pairs" if found.num_pairs else "the default",
    )


def _fit(teacher: BiEncoderKind, cluster: Cluster, *, verdict: bool | None) -> None:
    steps, gpus_each = teacher.calibration_steps(verdict=verdict), teacher.needs.gpus_each
    problems: list[str] = []
    for result in run_chain(
        [{"target": "calibration"}],
        before=steps.before,
        make=partial(make_step, steps),
        after=steps.after,
        num_actors=1,
        gpus=gpus_each if cluster.num_gpus else 0.0,
        on_lost=lambda _, cause: problems.append(cause),
    ):
        if FAILED in result:
            problems.append(result[FAILED])
    if problems:
        raise WorkError(
            f"teacher {teacher.name}: the cosines of the judged train pairs could not be computed: "
            f"{problems[0]}"
        )
