"""distill: all stages one after the other; what is complete is skipped."""

from __future__ import annotations

import logging
from collections.abc import Callable

from raydistill.cluster import connect
from raydistill.run import Run
from raydistill.storage import Folder

logger = logging.getLogger("raydistill")
STAGES = ("prepare", "finetune", "label", "train", "export", "evaluate")


def run_stage(name: str, run: Run, *, verbose: bool = False) -> bool:
    """Run one stage; False if nothing was left to do. Ray starts only where a stage needs it."""
    run.check_owner()
    if is_complete(name, run):
        return False
    run.root.write_bytes("run.toml", run.config.to_toml().encode())
    return _stage(name, run, verbose=verbose)()


def run_all(run: Run, *, verbose: bool = False) -> bool:
    """Run every stage that is not complete; False if none was left."""
    done = [run_stage(name, run, verbose=verbose) for name in STAGES]
    return any(done)


def _stage(name: str, run: Run, *, verbose: bool) -> Callable[[], bool]:
    # Imported here: torch and transformers take seconds that a finished run need not pay.
    if name == "prepare":
        from raydistill.stages import prepare

        prepare.check_inputs(run)  # a wrong column is found before Ray takes its seconds
        connect(run.config.cluster, verbose=verbose)
        return lambda: prepare.run(run)
    if name == "export":
        from raydistill.stages import export

        return lambda: export.run(run)
    if name == "evaluate":
        from raydistill.stages import evaluate

        return lambda: evaluate.run(run)
    cluster = connect(run.config.cluster, verbose=verbose)
    if name == "finetune":
        from raydistill.stages import finetune

        return lambda: finetune.run(run, cluster)
    if name == "label":
        from raydistill.stages import label

        return lambda: label.run(run, cluster)
    from raydistill.stages import train

    return lambda: train.run(run, cluster)


def is_complete(name: str, run: Run) -> bool:
    """Whether every output of a stage is there and of the current settings."""
    return all(_has(folder, wanted) for folder, wanted in outputs(name, run).items())


def _has(folder: Folder, fingerprint: str) -> bool:
    done = folder.success()
    return done is not None and done["fingerprint"] == fingerprint


def outputs(name: str, run: Run) -> dict[Folder, str]:
    """The folders that a stage makes, with the fingerprint each must carry."""
    teachers = run.config.teachers
    if name == "prepare":
        made = run.prepare_fingerprint()
        return {run.root / "judged": made, run.pairs: made}
    if name == "finetune":
        based = [teacher for teacher, given in teachers.items() if given.base is not None]
        return {run.teacher(t): run.finetune_fingerprint(t) for t in based}
    if name == "label":
        return {run.logits(teacher): run.label_fingerprint(teacher) for teacher in teachers}
    if name == "train":
        from raydistill.run import ROLES

        return {run.student(role): run.train_fingerprint(role) for role in ROLES}
    if name == "export":
        return {run.bundle: run.train_fingerprint("student")}
    return {run.report: run.report_fingerprint()}
