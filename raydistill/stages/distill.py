"""distill: all stages one after the other; what is complete is skipped."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from raydistill.files.folder import Folder
from raydistill.runs.fingerprints import ROLES
from raydistill.runs.run_folder import STAGES, Run
from raydistill.runs.shards import missing_shards
from raydistill.runs.sources import DATASETS

if TYPE_CHECKING:
    from raydistill.cluster.connection import Cluster

logger = logging.getLogger("raydistill")
_NEED_TEACHERS = frozenset({"finetune", "label", "train"})  # they load models


def run_stage(name: str, run: Run, *, verbose: bool = False) -> bool:
    """Run one stage; False if nothing was left to do. Ray starts only where a stage needs it."""
    run.check_owner()
    if name == "prepare":
        _check_inputs(run)
    if is_complete(name, run):
        return False
    if name in _NEED_TEACHERS:
        _check_teachers(run, (name,), verbose=verbose)
    return _stage(name, run, verbose=verbose)()


def run_all(run: Run, *, verbose: bool = False) -> bool:
    """Run every stage that is not complete; False if none was left."""
    run.check_owner()
    _check_inputs(run)
    left = tuple(name for name in STAGES if not is_complete(name, run))
    if not _NEED_TEACHERS.isdisjoint(left):
        _check_teachers(run, left, verbose=verbose)
    done = [run_stage(name, run, verbose=verbose) for name in STAGES]
    return any(done)


def _check_inputs(run: Run) -> None:
    """A wrong column or a changed file is found before Ray takes its seconds."""
    from raydistill.stages import prepare

    prepare.check_inputs(run)


def _check_teachers(run: Run, stages: tuple[str, ...], *, verbose: bool) -> None:
    """A teacher that cannot do its work is found before others take their hours."""
    from raydistill.cluster import teacher_trial

    teacher_trial.check_teachers(run, stages, connect=lambda: _connect(run, verbose=verbose))


def _stage(name: str, run: Run, *, verbose: bool) -> Callable[[], bool]:
    # Imported here: Ray, torch and transformers take seconds that a finished run need not pay.
    if name == "prepare":
        from raydistill.stages import prepare

        _connect(run, verbose=verbose)
        return lambda: prepare.prepare_stage(run)
    if name == "export":
        from raydistill.stages import export

        return lambda: export.export_stage(run)
    if name == "evaluate":
        from raydistill.stages import evaluate

        return lambda: evaluate.evaluate_stage(run)
    cluster = _connect(run, verbose=verbose)
    if name == "finetune":
        from raydistill.stages import finetune

        return lambda: finetune.finetune_stage(run, cluster)
    if name == "label":
        from raydistill.stages import label

        return lambda: label.label_stage(run, cluster)
    if name == "tune":
        from raydistill.stages import tune

        return lambda: tune.tune_stage(run, cluster)
    from raydistill.stages import train

    return lambda: train.train_stage(run, cluster)


def _connect(run: Run, *, verbose: bool) -> Cluster:
    from raydistill.cluster.connection import connect, warn_if_apart

    config = run.config
    cluster = connect(
        config.cluster,
        shard_rows=config.pairs.shard_rows,
        max_length=config.label.max_length,
        verbose=verbose,
    )
    warn_if_apart(run.root.uri)
    return cluster


def is_complete(name: str, run: Run) -> bool:
    """Whether every output of a stage is there and of the current settings."""
    if not all(_has(folder, wanted) for folder, wanted in outputs(name, run).items()):
        return False
    if name == "prepare":
        return not any(run.unknown_files(dataset) for dataset in DATASETS)
    if name == "export":
        return run.has_bundle()
    # A logits file that was lost or deleted is scored again.
    return name != "label" or not any(missing_shards(run, t) for t in run.config.teacher_names)


def _has(folder: Folder, fingerprint: str) -> bool:
    done = folder.success()
    return done is not None and done["fingerprint"] == fingerprint


def outputs(name: str, run: Run) -> dict[Folder, str]:
    """The folders that a stage makes, with the fingerprint each must carry."""
    teachers = run.config.teachers
    if name == "prepare":
        return {run.root / dataset: run.prepare_fingerprint(dataset) for dataset in DATASETS}
    if name == "finetune":
        based = [teacher for teacher, given in teachers.items() if given.base is not None]
        return {run.teacher(t): run.finetune_fingerprint(t) for t in based}
    if name == "label":
        return {run.logits(t): run.label_fingerprint(t) for t in run.config.teacher_names}
    if name == "train":
        return {run.student(role): run.train_fingerprint(role) for role in ROLES}
    if name == "export":
        return {run.bundle: run.train_fingerprint("student")}
    if name == "tune":
        return {run.tune: run.tune_fingerprint()}
    return {run.report: run.report_fingerprint()}
