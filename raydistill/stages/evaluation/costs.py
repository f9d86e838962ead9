"""What each stage of a run counted, and what it cost: seconds, GPU hours, money, energy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from raydistill.config.evaluation import PricesConfig
from raydistill.config.teachers import TREES
from raydistill.files.folder import Folder
from raydistill.files.schema import COUNTS
from raydistill.runs.run_folder import Run

_HOUR_S = 3_600


def stage_folders(run: Run) -> dict[str, Folder]:
    """The output folder of each stage by its name in the report, in the order of the stages."""
    folders = {f"prepare {name.replace('_', ' ')}": run.root / name for name in run.config.datasets}
    for name, teacher in run.config.teachers.items():
        if teacher.base is not None:
            folders[f"finetune {name}"] = run.teacher(name)
    if run.config.has_trees:
        folders[f"fit {TREES}"] = run.teacher(TREES)
    for name in run.config.teacher_names:
        folders[f"label {name}"] = run.logits(name)
    folders |= {"train student": run.student("student"), "export": run.bundle}
    if "judged_only" in run.roles:
        folders["train baseline on judged labels only"] = run.student("judged_only")
    return folders


def stage_counts(run: Run) -> dict[str, dict[str, Any]]:
    """The counts of each complete stage, from its _SUCCESS.json."""
    wanted = (*COUNTS, "seconds")
    return {
        label: {key: done[key] for key in wanted if key in done}
        for label, folder in stage_folders(run).items()
        if (done := folder.success()) is not None
    }


def costs(run: Run) -> dict[str, Any]:
    """The cost of each complete stage, for metrics.json; see `cost_of`."""
    prices = run.config.cluster.prices
    entries = [
        cost_of(name, done, workers=workers_of(run, name, done), prices=prices)
        for name, folder in stage_folders(run).items()
        if (done := folder.success()) is not None
    ]
    return {
        "stages": entries,
        "money_total": _total(entries, "money"),
        "kwh_total": _total(entries, "kwh"),
        "currency": prices.currency,
    }


def cost_of(
    name: str, done: Mapping[str, Any], *, workers: tuple[int, float], prices: PricesConfig
) -> dict[str, Any]:
    """Pairs, seconds, hours, money and energy of a stage with this _SUCCESS.json.

    `workers`: their number, and the GPUs of each, if they had any. A worker without a GPU counts as
    the CPU cores that it recorded, or as one. Money and energy are None without a price of what was
    used.
    """
    num_workers, gpus_each = workers
    seconds = _seconds_of_all(done)
    hours = num_workers * seconds / _HOUR_S
    has_gpu = done.get("device", "cpu") != "cpu" and gpus_each > 0
    cpu_hours = 0.0 if has_gpu else hours * done.get("cores", 1)
    gpu_hours = gpus_each * hours if has_gpu else 0.0
    return {
        "stage": name,
        "pairs": done["rows_in"],
        "seconds": seconds,
        "gpu_hours": gpu_hours,
        "cpu_hours": cpu_hours,
        "money": prices.money(gpu_hours=gpu_hours, cpu_hours=cpu_hours),
        "kwh": prices.kwh(gpu_hours=gpu_hours, cpu_hours=cpu_hours),
    }


def _seconds_of_all(done: Mapping[str, Any]) -> float:
    """The seconds of all rows, by the rate of the last attempt: `label` records that one alone."""
    seconds, rows = float(done["seconds"]), done["rows_in"]
    scored = done.get("rows_scored") or rows
    return seconds if scored == rows else round(seconds * rows / scored, 1)


def workers_of(run: Run, name: str, done: Mapping[str, Any]) -> tuple[int, float]:
    """The workers of a stage, and the GPUs of each: recorded by `label`, else as in the settings.

    `prepare` and `export` do not record theirs: one. An elastic fit counts as the most workers.
    """
    stage, config = name.partition(" ")[0], run.config
    if stage == "label":
        return done.get("actors", 1), config.label.num_gpus
    if stage == "finetune":
        return config.finetune.num_workers, config.finetune.num_gpus
    if stage == "train":
        return config.train.most_workers, config.train.num_gpus
    return 1, 0.0


def _total(entries: list[dict[str, Any]], key: str) -> float | None:
    """The sum over all stages; None without stages, or if one has no price."""
    known = [entry[key] for entry in entries if entry[key] is not None]
    return sum(known) if known and len(known) == len(entries) else None
