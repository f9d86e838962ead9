"""The files of a student in a run folder: feature scale, weights, metrics of the fit; no Ray."""

from __future__ import annotations

import hashlib
import io
import logging

import numpy as np
import torch
from numpy.typing import NDArray

from raydistill.errors import UserError
from raydistill.files.folder import SUCCESS, Folder
from raydistill.runs.covered import covered_pairs, is_sparse
from raydistill.runs.lexicon_file import load_lexicon
from raydistill.runs.run_folder import Run
from raydistill.runs.shards import missing_shards, pair_shards, split_shards
from raydistill.student.batches import Loader, scale_features
from raydistill.student.dev_split import shown_metric
from raydistill.student.fit import FitState, StudentFit, copy_arrays
from raydistill.teachers.judged_logits import stack_of, targets_of
from raydistill.teachers.soft_labels import Targets
from raydistill.teachers.transformer.device import use_text

logger = logging.getLogger("raydistill")
WEIGHTS, LAST, FEATURES, RESULT = "weights.pt", "last.pt", "features.npz", "result.json"
TRAINED_ROWS = "trained_rows.npy"


def student_fit(run: Run, role: str) -> StudentFit:
    """The shards and the targets of a student's fit.

    Raises:
        UserError: there is nothing to train on, no dev pair, or a teacher has not scored a shard.
    """
    settings = run.config.train
    if not split_shards(run, "dev"):  # a drawn split is never empty
        raise UserError(
            "no judged dev pair to choose the best weights by: give more judged pairs or a larger "
            f"judged.dev_share (now {run.config.judged_rules.dev_share})"
        )
    if role == "judged_only":
        shards = split_shards(run, "train")
        return StudentFit(run, role, run.judged("train"), shards, Targets(), settings.judged_epochs)
    shards = pair_shards(run)
    if not shards:
        raise UserError(f"no pair in {run.pairs}: nothing to train on")
    for teacher in run.config.teacher_names:
        missing = missing_shards(run, teacher)
        if missing:
            raise UserError(
                f"teacher {teacher} has not scored {len(missing)} of the shards: run `label` first"
            )
    stack = stack_of(run)
    if not is_sparse(run, stack.counted):
        return StudentFit(run, role, run.pairs, shards, targets_of(run, stack), settings.epochs)
    found = covered_pairs(run, stack.counted)
    targets = targets_of(run, stack, logits=found.logits)
    return StudentFit(run, role, found.pairs, found.shards, targets, settings.epochs)


def write_success(fit: StudentFit, *, seconds: float) -> None:
    """Mark the student as complete, with the results of the fit."""
    result = fit.output.require_json(RESULT, stage="train")
    rows = sum(fit.shards.values())
    summary = {
        "fingerprint": fit.fingerprint,
        "rows_in": rows,
        "rows_out": rows,
        "quarantined": 0,
        "seconds": round(seconds, 1),
        "rows_per_s": round(result["pairs"] / seconds),
        **result,
    }
    fit.output.write_json(SUCCESS, summary)
    logger.info(
        "train     %s: best %s %.4f, %.0f s, on %s",
        fit.role,
        shown_metric(fit.metric, relevant_at=fit.run.config.relevant_at("dev")),
        result[f"dev_{fit.metric}"],
        seconds,
        use_text(result),
    )


def measure_features(fit: StudentFit) -> None:
    """Write the scale of the dense features; requires the run's lexicon."""
    loader = Loader(fit.folder, fit.targets, spec=fit.spec, lexicon=load_lexicon(fit.run))
    buffer = io.BytesIO()
    np.savez(buffer, **scale_features(loader, fit.shards))  # type: ignore[arg-type]
    fit.output.write_bytes(FEATURES, buffer.getvalue())


def load_features(folder: Folder) -> dict[str, NDArray[np.float32]]:
    """`dense_mean` and `dense_std` of a student."""
    with np.load(io.BytesIO(folder.read_bytes(FEATURES))) as arrays:
        return dict(arrays)


def write_student(fit: StudentFit, state: FitState, *, use: dict[str, str]) -> None:
    """Write the best weights, the last ones if `keeps_last`, the fit's history and its devices."""
    if fit.keeps_last:
        fit.output.write_bytes(LAST, _to_bytes(copy_arrays(state.student)))
    best = _to_bytes(state.best)
    fit.output.write_bytes(WEIGHTS, best)
    rows = io.BytesIO()
    np.save(rows, np.packbits(state.trainer.trained_rows()))
    fit.output.write_bytes(TRAINED_ROWS, rows.getvalue())
    best_dev = {f"dev_{name}": value for name, value in state.best_dev.items()}
    found = {
        "metric": fit.metric,
        **best_dev,
        "pairs": state.num_pairs,
        "evaluations": state.history,
        "losses": state.line.points,
    }
    weights = hashlib.blake2b(best, digest_size=8).hexdigest()
    fit.output.write_json(RESULT, {"weights": weights, **found, **use})


def _to_bytes(arrays: dict[str, torch.Tensor]) -> memoryview:
    buffer = io.BytesIO()
    torch.save(arrays, buffer)
    return buffer.getbuffer()


def load_trained_rows(folder: Folder, *, num_rows: int) -> NDArray[np.bool_]:
    """The rows of a student's table that training moved, shape V; all of one fitted before."""
    if not folder.exists(TRAINED_ROWS):
        return np.ones(num_rows, bool)
    bits = np.load(io.BytesIO(folder.read_bytes(TRAINED_ROWS)))
    return np.unpackbits(bits)[:num_rows].astype(bool)


def load_student(folder: Folder) -> dict[str, torch.Tensor]:
    """The best weights of a student, in the form of `Student.load`."""
    found: dict[str, torch.Tensor]
    found = torch.load(io.BytesIO(folder.read_bytes(WEIGHTS)), weights_only=True)
    return found
