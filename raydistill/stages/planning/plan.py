"""plan: the sizes, the rates, and the time and cost of each stage with 1, 2, 4, ... workers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch

from raydistill.config.evaluation import PricesConfig
from raydistill.errors import UserError
from raydistill.runs.run_folder import STAGES, Run
from raydistill.stages.distill import is_complete, outputs
from raydistill.stages.planning.rates import Rate, check_names, num_cores, rates_of, scores_on_gpu
from raydistill.stages.planning.sample import Sample, draw_sample
from raydistill.stages.planning.sizes import Sizes, sizes_of
from raydistill.stages.planning.stage_times import (
    HOUR_S,
    Estimator,
    Total,
    Workers,
)

_MOST_GPUS = 8  # in the table, where nothing says how many there may be
_LOGIT_BYTES = 12  # an id and a logit, before compression


@dataclass(frozen=True)
class PlanOptions:
    """What the command line gives; None: found out."""

    given: Mapping[str, float]  # pairs a second of a worker, by teacher
    num_gpus: int | None = None
    num_cores: int | None = None  # beside each GPU; without GPUs in all
    num_pairs: int | None = None  # raw rows to plan for
    sample_pairs: int = 4_096
    seconds: float = 10.0


@dataclass(frozen=True)
class Plan:
    """The result: `totals` for 1, 2, 4, ... GPUs, or cores where no teacher has a rate of a GPU."""

    run_dir: str
    sizes: Sizes
    rates: dict[str, Rate]
    totals: list[Total]
    output_bytes: dict[str, float]
    complete: list[str]  # stages that are complete in the run folder

    @property
    def unit(self) -> str:
        """What the workers are."""
        return "GPU" if self.totals[0].workers.num_gpus else "core"

    def to_dict(self, prices: PricesConfig) -> dict[str, Any]:
        """All figures, for `--json`."""
        return {
            "run_dir": self.run_dir,
            "sizes": asdict(self.sizes),
            "rates": {name: asdict(rate) for name, rate in self.rates.items()},
            "output_bytes": self.output_bytes,
            "complete": self.complete,
            "unit": self.unit,
            "currency": prices.currency,
            "plans": [_figures(total, prices) for total in self.totals],
        }


def _figures(total: Total, prices: PricesConfig) -> dict[str, Any]:
    money, kwh = total.bill(prices)
    return {
        "workers": total.workers.size,
        "hours": total.seconds / HOUR_S,
        "label_hours": None if total.label_seconds is None else total.label_seconds / HOUR_S,
        "gpu_hours": sum(one.gpu_hours for one in total.stages),
        "cpu_hours": sum(one.cpu_hours for one in total.stages),
        "money": money,
        "kwh": kwh,
        "bottleneck": total.bottleneck,
        "stages": [asdict(one) for one in total.stages],
    }


def make_plan(run: Run, *, like: Run, options: PlanOptions, on_cluster: bool) -> Plan:
    """Plan a run; writes nothing into its folder.

    Raises:
        UserError: no usable pairs, no such teacher, or the number of rows is not known.
    """
    check_names(run, options.given)
    sizes = sizes_of(run, num_pairs=options.num_pairs)
    sample = draw_sample(run, num_pairs=options.sample_pairs)
    rates = rates_of(
        run, sample, given=options.given, like=like, seconds=options.seconds, on_cluster=on_cluster
    )
    estimator = Estimator(run, like, sizes, rates, sample)
    totals = [Total(each, estimator.times(each)) for each in _workers(run, rates, options)]
    return Plan(
        run.root.uri,
        sizes,
        rates,
        totals,
        _output_bytes(sizes, sample, rates),
        _complete(run),
    )


def _complete(run: Run) -> list[str]:
    """The stages that `distill` skips; with files added later a finished one is not complete."""
    try:
        return [name for name in STAGES if outputs(name, run) and is_complete(name, run)]
    except UserError:  # a teacher's model may be on other machines
        return ["prepare"] if is_complete("prepare", run) else []


def _workers(run: Run, rates: Mapping[str, Rate], options: PlanOptions) -> list[Workers]:
    """1, 2, 4, ... workers up to the most."""
    here, cores = torch.cuda.device_count(), options.num_cores
    most = run.config.cluster.gpus if options.num_gpus is None else options.num_gpus
    has_rate = any(rate.on_gpu and rate.pairs_per_s for rate in rates.values())
    if has_rate and most != 0 and any(scores_on_gpu(run, name) for name in rates):
        each = cores or max(1, num_cores() // max(here, 1))
        return [Workers(num, num * each) for num in _doubled(most or here or _MOST_GPUS)]
    return [Workers(0, num) for num in _doubled(cores or num_cores())]


def _doubled(most: int) -> list[int]:
    """1, 2, 4, ... and the most."""
    found = [1]
    while 2 * found[-1] < most:
        found.append(2 * found[-1])
    return found if found[-1] >= most else [*found, most]


def _output_bytes(sizes: Sizes, sample: Sample, rates: Mapping[str, Rate]) -> dict[str, float]:
    found = {"pairs": sample.bytes_each * sizes.num_pairs}
    for name, rate in rates.items():
        each = rate.logits_bytes_each or _LOGIT_BYTES
        found[f"logits {name}"] = each * sizes.num_scored
    return found
