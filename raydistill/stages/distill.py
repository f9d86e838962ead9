"""distill: run all stages in order and skip those that are complete."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from raydistill.errors import UserError
from raydistill.files.folder import MARKER, Folder
from raydistill.progress import heartbeat
from raydistill.runs.lexicon_file import has_lexicon
from raydistill.runs.run_folder import STAGES, Run
from raydistill.runs.shards import awaited, is_labeled

if TYPE_CHECKING:
    from raydistill.cluster.connection import Cluster

logger = logging.getLogger("raydistill")
_ON_DRIVER = frozenset({"export", "evaluate"})  # stages that start no worker
_NEED_TEACHERS = frozenset({"finetune", "label", "train"})  # stages that load models


def run_stage(name: str, run: Run, *, verbose: bool = False) -> bool:
    """Run one stage; False if it is complete. Ray starts only if the stage needs it.

    Raises:
        UserError: all that is left waits for another stage.
    """
    did = _run_stage(name, run, verbose=verbose)
    if not did and name in ("finetune", "label"):
        _check_waiting(name, run)
    return did


def _check_waiting(name: str, run: Run) -> None:
    """Raise UserError if teachers are not complete because they learn from one that is not."""
    waiting = {teacher: awaited(run, teacher) for teacher in run.config.teachers}
    waits = [f"{teacher} learns from {source}" for teacher, source in waiting.items() if source]
    if waits:
        raise UserError(
            f"{name}: {', '.join(waits)}, which has not scored all pairs yet: run `finetune` and "
            "`label` in turns, or `distill`, which does"
        )


def check_run(run: Run) -> None:
    """Raise UserError if the run folder is not this run's, or will be lost with a job."""
    from raydistill.cluster.places import check_not_in_package

    config = run.config
    check_not_in_package("run_dir", config.run_dir, shared=config.cluster.shared_paths)
    run.check_owner()


def _run_stage(name: str, run: Run, *, verbose: bool) -> bool:
    check_run(run)
    if name == "prepare":
        _check_inputs(run)
    if is_complete(name, run):
        return False
    if name in _NEED_TEACHERS:
        _check_teachers(run, (name,), verbose=verbose)
    work = _stage(name, run, verbose=verbose)
    with heartbeat() if name in _ON_DRIVER else on_machines(name, run):
        return work()


@contextmanager
def on_machines(name: str, run: Run) -> Iterator[None]:
    """Check that all machines see what the stage reads and writes; log lines with the cost."""
    from raydistill.cluster import places, spending

    config = run.config
    outputs, inputs = [("run_dir", config.run_dir)], _inputs(name, run)
    places.check_places(outputs, inputs, config.cluster)
    spent = spending.of_this_job(config.cluster.prices)
    with places.needing(outputs, inputs), heartbeat(lambda: str(spent)):
        yield


@contextmanager
def where_models_are_seen(run: Run) -> Iterator[None]:
    """Tasks of Ray inside, which load a teacher, first look for the folders that models lie in.

    Before `prepare` the run folder may not be there, and holds no model.
    """
    from raydistill.cluster import places

    outputs = [("run_dir", run.config.run_dir)] if run.root.exists(MARKER) else []
    with places.needing(outputs, [*_inputs("finetune", run), *_inputs("label", run)]):
        yield


def _inputs(name: str, run: Run) -> list[tuple[str, str]]:
    """The files and models that the workers of a stage read, each with its setting's name."""
    if name == "prepare":
        rules = run.rules.items()
        return [(f"{section}.input", one.path) for section, given in rules for one in given.input]
    found = []
    for teacher, given in run.config.teachers.items():
        field, model = f"teachers.{teacher}.{given.teacher_kind}", given.source
        is_read = name == ("finetune" if given.base else "label")
        if is_read and model is not None and "://" not in model and Path(model).is_dir():
            found.append((field, model))
        if name == "label":
            found += [(field, scores.path) for scores in given.scores or ()]
    return found


def run_all(run: Run, *, verbose: bool = False) -> bool:
    """Run each stage that is not complete; False if all are complete."""
    check_run(run)
    _check_inputs(run)
    left = tuple(name for name in STAGES if not is_complete(name, run))
    if not _NEED_TEACHERS.isdisjoint(left):
        _check_teachers(run, left, verbose=verbose)
    done = [_run_stage(name, run, verbose=verbose) for name in plan(run)]
    return any(done)


def plan(run: Run) -> list[str]:
    """The stages in order: `finetune` and `label` in turns where teachers learn from others."""
    first, last = STAGES.index("finetune"), STAGES.index("label") + 1
    in_turns = STAGES[first:last] * run.config.num_label_rounds
    return [*STAGES[:first], *in_turns, *STAGES[last:]]


def _check_inputs(run: Run) -> None:
    """Report a wrong column or a changed file before Ray starts, which takes seconds."""
    from raydistill.stages import prepare

    prepare.check_inputs(run)


def _check_teachers(run: Run, stages: tuple[str, ...], *, verbose: bool) -> None:
    """Report an unusable teacher before other teachers work for hours."""
    from raydistill.cluster import teacher_trial

    with where_models_are_seen(run):
        teacher_trial.check_teachers(run, stages, connect=lambda: _connect(run, verbose=verbose))


def _stage(name: str, run: Run, *, verbose: bool) -> Callable[[], bool]:
    # Imported here: Ray, torch and transformers take seconds, and a complete run needs none.
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
    from raydistill.cluster.connection import connect
    from raydistill.cluster.places import check_places

    config = run.config
    cluster = connect(
        config.cluster,
        shard_rows=config.pairs.shard_rows,
        max_length=config.label.max_length,
        verbose=verbose,
    )
    check_places([("run_dir", config.run_dir)], [], config.cluster)
    return cluster


def is_complete(name: str, run: Run) -> bool:
    """Whether all outputs of a stage exist and match the current settings."""
    if not all(_has(folder, wanted) for folder, wanted in outputs(name, run).items()):
        return False
    if name == "prepare":
        return not any(run.unknown_files(dataset) for dataset in run.rules)
    if name == "train":
        return has_lexicon(run)
    if name == "export":
        return run.has_bundle()
    if name == "evaluate":
        return run.has_report()
    if name != "label":
        return True
    # A logits file that was deleted is scored again; of pairs that were, prepare comes first.
    return all(is_labeled(run, teacher) for teacher in run.config.teacher_names)


def _has(folder: Folder, fingerprint: str) -> bool:
    done = folder.success()
    return done is not None and done["fingerprint"] == fingerprint


def outputs(name: str, run: Run) -> dict[Folder, str]:
    """The output folders of a stage, with the required fingerprint of each."""
    teachers = run.config.teachers
    if name == "prepare":
        datasets = run.config.datasets
        return {run.root / dataset: run.prepare_fingerprint(dataset) for dataset in datasets}
    if name == "finetune":
        based = [teacher for teacher, given in teachers.items() if given.base is not None]
        return {run.teacher(t): run.finetune_fingerprint(t) for t in based}
    if name == "label":
        return {run.logits(t): run.label_fingerprint(t) for t in run.config.teacher_names}
    if name == "train":
        return {run.student(role): run.train_fingerprint(role) for role in run.roles}
    if name == "export":
        return {run.bundle: run.train_fingerprint("student")}
    if name == "tune":
        return {run.tune: run.tune_fingerprint()}
    return {run.report: run.report_fingerprint()}
