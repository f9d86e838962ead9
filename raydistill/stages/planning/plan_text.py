"""A plan as text: sizes, rates, stages with the most workers, and the table of workers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from raydistill.config.evaluation import PricesConfig
from raydistill.stages.planning.plan import Plan
from raydistill.stages.planning.rates import Rate
from raydistill.stages.planning.stage_times import HOUR_S, Total

_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")


def plan_text(plan: Plan, *, prices: PricesConfig) -> str:
    """The plan, as the console shows it."""
    parts = [
        f"plan of {plan.run_dir}", *_sizes(plan), "",
        *_rates(plan), "", *_stages(plan.totals[-1], plan.unit), "", *_table(plan, prices),
    ]  # fmt: skip
    return "\n".join(parts)


def _sizes(plan: Plan) -> Iterator[str]:
    sizes, total = plan.sizes, sum(plan.output_bytes.values())
    about = "" if sizes.is_exact else "about "
    yield f"pairs     {about}{sizes.num_raw:,} raw rows ({sizes.source})"
    if not sizes.is_exact and sizes.num_pairs == sizes.num_raw:
        yield "          duplicates and held-out pairs are among them: the run takes less time"
    each = f"{about}{sizes.num_pairs:,} pairs in {sizes.num_shards:,} shards"
    yield f"          {each}; each teacher scores {about}{sizes.num_scored:,}"
    named = ", ".join(f"{name} {_bytes(num)}" for name, num in plan.output_bytes.items())
    yield f"output    about {_bytes(total)}: {named}"
    if plan.complete:
        yield f"complete  {', '.join(plan.complete)}: `distill` skips them"


def _rates(plan: Plan) -> Iterator[str]:
    for name, rate in plan.rates.items():
        if rate.pairs_per_s is None:
            yield f"{name:<9} {rate.source}"
            continue
        worker = "GPU" if rate.on_gpu else "core"
        where = f" of {rate.device_name}" if rate.device_name else ""
        yield f"{name:<9} {rate.pairs_per_s:,.0f} pairs/s a {worker}{where}; {rate.source}"
        yield from _tokenising(rate)


def _tokenising(rate: Rate) -> Iterator[str]:
    if rate.tokenised_per_s is None:
        return
    cores = rate.cores_a_gpu
    need = "" if cores is None else f": a GPU needs {cores:.1f} cores"
    start = f"; {rate.start_s:.0f} s to load" if rate.start_s >= 1 else ""
    yield f"{'':<9} a core reads and tokenises {rate.tokenised_per_s:,.0f} pairs/s{need}{start}"


def _stages(total: Total, unit: str) -> Iterator[str]:
    num = total.workers.size
    yield f"with {num:,} {unit}{'s' if num > 1 else ''}"
    width = max(len(one.stage) for one in total.stages)
    for one in total.stages:
        time = "-" if one.seconds is None else _time(one.seconds)
        yield f"  {one.stage:<{width}}  {time:>9}  {one.how}"


def _table(plan: Plan, prices: PricesConfig) -> list[str]:
    head = [f"{plan.unit}s", "label", "all", "GPU hours", "CPU hours", prices.currency, "kWh",
            "longest stage"]  # fmt: skip
    rows = [head, *(_row(total, prices) for total in plan.totals)]
    widths = [max(len(row[at]) for row in rows) for at in range(len(head))]
    lines = ["  ".join(_cell(row, at, widths) for at in range(len(head))).rstrip() for row in rows]
    unknown = [one.stage for one in plan.totals[-1].stages if one.seconds is None]
    if unknown:
        lines.append(f"not estimated, and not in these sums: {', '.join(unknown)}")
    if prices.gpu_hour is None and prices.cpu_hour is None:
        lines.append("no money: [cluster.prices] has no price")
    return lines


def _cell(row: Sequence[str], at: int, widths: Sequence[int]) -> str:
    is_last = at == len(row) - 1
    return f"{row[at]:<{widths[at]}}" if is_last else f"{row[at]:>{widths[at]}}"


def _row(total: Total, prices: PricesConfig) -> list[str]:
    money, kwh = total.bill(prices)
    gpu = sum(one.gpu_hours for one in total.stages)
    cpu = sum(one.cpu_hours for one in total.stages)
    label = "-" if total.label_seconds is None else _time(total.label_seconds)
    return [
        f"{total.workers.size:,}", label, _time(total.seconds),
        _hours(gpu), _hours(cpu), _number(money), _number(kwh), total.bottleneck,
    ]  # fmt: skip


def _hours(hours: float) -> str:
    return f"{hours:,.2f}" if hours < 100 else f"{hours:,.0f}"


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.3f}" if value < 1 else f"{value:,.2f}" if value < 1_000 else f"{value:,.0f}"


def _time(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 2 * HOUR_S else f"{seconds / HOUR_S:,.1f} h"


def _bytes(num: float) -> str:
    at = 0
    while num >= 1_000 and at < len(_UNITS) - 1:
        num, at = num / 1_000, at + 1
    return f"{num:.0f} {_UNITS[at]}" if num >= 10 or at == 0 else f"{num:.1f} {_UNITS[at]}"
