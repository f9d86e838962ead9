"""Fit a student in this process, on one core, and measure it, for benchmarks of quality."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from prepared import rows_of
from scipy.special import expit

from raydistill.runs.lexicon_file import load_lexicon
from raydistill.runs.run_folder import Run
from raydistill.runs.shards import pair_shards
from raydistill.stages.measured import entry_of
from raydistill.student.batches import Loader, scale_features
from raydistill.student.fit import FitCallbacks, FitState, StudentFit, fit_student, new_state
from raydistill.student.network import Student, predict
from raydistill.teachers.soft_labels import Targets


def fitted(fit: StudentFit) -> Student:
    """Fit a student; it has the weights that are best on dev. The run must have a lexicon."""
    student = Student(fit.spec, fit.run.config.student)
    student.load(fitted_state(fit).best)
    return student


def fitted_state(fit: StudentFit) -> FitState:
    """The state at the end of a fit."""
    torch.set_num_threads(1)
    lexicon = load_lexicon(fit.run)
    loader = Loader(fit.folder, fit.targets, spec=fit.spec, lexicon=lexicon)
    state = new_state(fit, scale_features(loader, fit.shards), device="cpu")
    callbacks = FitCallbacks(save=lambda _: None, log=lambda _: None)
    fit_student(fit, state, loader, callbacks=callbacks)
    return state


def metrics_of(fit: StudentFit) -> dict[str, Any]:
    """Fit a student; metrics on the test split for the weights that are best on dev."""
    return judge(fit, fitted(fit))


def judge(fit: StudentFit, student: Student) -> dict[str, Any]:
    """Metrics of a student on the test split, with the threshold that is best on dev."""
    lexicon = load_lexicon(fit.run)
    scores, labels = {}, {}
    for split in ("dev", "test"):
        judged = Loader(fit.run.judged(split), Targets(), spec=fit.spec, lexicon=lexicon)
        features, labels[split] = judged.read_all(rows_of(judged.folder))
        logits = predict(student, features, device="cpu")
        scores[split] = expit(logits * np.float32(fit.targets.temperature))
    return entry_of(fit.run, scores, labels)


def some_shards(run: Run, num_pairs: int) -> dict[str, int]:
    """The first shards, which have random queries, with at least `num_pairs` pairs in total."""
    found: dict[str, int] = {}
    for name, rows in pair_shards(run).items():
        if sum(found.values()) < num_pairs:
            found[name] = rows
    return found
