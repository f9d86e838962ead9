"""How the run came about: search, stack, coverage, rows of every stage, cost, data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

from raydistill.evaluation.report.sections.blocks import (
    Block,
    Bullets,
    Chart,
    Charts,
    Heading,
    Paragraph,
    Picture,
    Section,
    Series,
    Table,
    plain_table,
)
from raydistill.evaluation.report.sections.numbers import Found, count, known_name, number, percent
from raydistill.evaluation.tables import data_notes, data_tables, short
from raydistill.files.schema import COUNTS

_LEAST_DRAWN = 3  # trials with different values
_LOOKS = {"finished": 0, "stopped": 5}


def search_section(found: Found) -> Section | None:
    """The search's results."""
    tune = found.get("tune")
    return Section("search", "Search", tuple(search_blocks(tune))) if tune else None


def search_blocks(tune: Mapping[str, Any]) -> list[Block]:
    """What the search found."""
    metric = known_name(tune["metric"])
    states = ", ".join(f"{num} {state}" for state, num in sorted(tune["states"].items()))
    blocks: list[Block] = [Paragraph(tune["verdict"])]
    if tune.get("is_agreement"):
        text = "Every dev figure here is agreement with the teachers' soft labels."
        blocks.append(Paragraph(text))
    text = (
        f"Trials on {tune['num_sample']:,} pairs: {states}. The best were trained again on the "
        "whole transfer set with the seeds of the untuned settings. They were chosen on the dev "
        "split; the test split was not used. Spread: standard deviation over the seeds."
    )
    blocks.append(Paragraph(text))
    if tune["finals"]:
        blocks.append(plain_table("On the whole transfer set", _finals_rows(tune)))
    blocks.append(Paragraph(f"Chosen: {tune['chosen']} (tune/best.toml)."))
    blocks += _search_charts(tune, metric)
    blocks.append(_trials_table("Best trials", tune["best_trials"], tune["metric"]))
    if tune["front"]:
        title = "Pareto front: quality and speed"
        blocks.append(_trials_table(title, tune["front"], tune["metric"]))
    if tune["errors"]:
        errors = tuple(f"{one['name']}: {short(one['error'])}" for one in tune["errors"])
        blocks += [Heading("Failed trials"), Bullets(errors)]
    return blocks + [Picture(name) for name in tune["plots"]]


def _search_charts(tune: Mapping[str, Any], metric: str) -> list[Block]:
    """The metric against temperature and weights, over the trials that the report has."""
    rows = {
        one["name"]: one for one in tune.get("trials") or [*tune["best_trials"], *tune["front"]]
    }
    names = dict.fromkeys(name for one in rows.values() for name in one["settings"])
    charts = []
    for name in names:
        if not name.startswith(("soft_labels.temperature", "soft_labels.weights")):
            continue
        points = sorted(
            (float(one["settings"][name]), float(one[tune["metric"]]), str(one["state"]))
            for one in rows.values()
            if isinstance(one["settings"].get(name), (int, float)) and tune["metric"] in one
        )
        if len({x for x, _, _ in points}) < _LEAST_DRAWN:
            continue
        shown = [(f"{x:.4g}", number(y, 4), state) for x, y, state in points]
        table = plain_table(
            f"{name}: the numbers", [(name, metric, "state"), *shown], is_folded=True
        )
        states = dict.fromkeys(state for _, _, state in points)
        series = tuple(
            Series(state, _LOOKS.get(state, 3), tuple((x, y) for x, y, s in points if s == state),
                   has_line=False)
            for state in states
        )  # fmt: skip
        axis = "temperature" if name.endswith("temperature") else "weight"
        caption = f"{count(len(points), 'trial')} on a sample of the transfer set."
        charts.append(
            Chart(f"Dev {metric} by {name}", axis, f"dev {metric}", series, table, caption)
        )
    return [Charts(tuple(charts))] if charts else []


def _finals_rows(tune: Mapping[str, Any]) -> list[tuple[str, ...]]:
    names = dict.fromkeys((tune["metric"], "auc", "ndcg_10", "log_loss"))
    measured = [student for final in tune["finals"] for student in final["students"]][:1]
    names |= {"agreement": None} if tune.get("is_agreement") else {}
    columns = [
        (s, name) for s in ("dev", "test") for name in names if all(name in m[s] for m in measured)
    ]
    head = ("", *(f"{split} {known_name(name)}" for split, name in columns), "µs/pair")
    rows: list[tuple[str, ...]] = [head]
    for final in tune["finals"]:
        cells = [_spread([s[split][name] for s in final["students"]]) for split, name in columns]
        us_per_pair = min(student["us_per_pair"] for student in final["students"])
        rows.append((final["name"], *cells, f"{us_per_pair:,.1f}"))
    return rows


def _spread(given: Sequence[float | None]) -> str:
    """The mean of the seeds' values that are known; "" for none."""
    values = [value for value in given if value is not None]
    if not values:
        return ""
    deviation = f" ± {stdev(values):.4f}" if len(values) > 1 else ""
    return f"{fmean(values):.4f}{deviation}"


def _trials_table(title: str, trials: Sequence[Mapping[str, Any]], metric: str) -> Table:
    rows: list[tuple[str, ...]] = [("trial", known_name(metric), "µs/pair", "settings")]
    for trial in trials:
        us_per_pair = f"{trial['us_per_pair']:,.1f}" if "us_per_pair" in trial else ""
        settings = ", ".join(f"{name} = {_setting(v)}" for name, v in trial["settings"].items())
        rows.append((f"{trial['name']}, {trial['state']}", f"{trial[metric]:.4f}", us_per_pair,
                     settings))  # fmt: skip
    return plain_table(title, rows, is_prose=True)


def _setting(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def stack_section(found: Found) -> Section | None:
    """The fitted stack and its standard errors."""
    stack = found.get("stack")
    if not stack:
        return None
    rows: list[tuple[str, ...]] = [("", "fitted", "standard error")]
    for name, weight in stack["weights"].items():
        error = stack["weight_errors"][name]
        rows.append((f"weight of {name}", number(weight, 3),
                     "" if error is None else number(error, 3)))  # fmt: skip
    for name in ("bias", "temperature"):
        rows.append((name, number(stack[name], 3), number(stack[f"{name}_error"], 3)))
    text = (
        f"Fitted on {stack['num_pairs']:,} judged dev pairs that each teacher has a logit of; "
        "weights are at least 0, their sum 1. “Teacher ensemble, calibrated” in the tables is "
        "sigmoid((sum of weight x logit + bias) / temperature); “teacher ensemble” is what the "
        "student learned from, at temperature 1."
    )
    return Section("stack", "Stack", (Paragraph(text), plain_table("The fitted stack", rows)))


def coverage_section(found: Found) -> Section | None:
    """The pairs that each teacher has a logit of; None if they have all."""
    coverage = found.get("coverage") or {}
    if all("unmatched" not in one for one in coverage.values()):
        return None
    of = {"dev": "judged", "test": "judged", **(found.get("sources") or {})}
    splits = [f"{of[split].replace('_', ' ')} {split}" for split in ("dev", "test")]
    rows: list[tuple[str, ...]] = [("", "pairs", "share", *splits)]
    for name, one in coverage.items():
        counts = f"{one['pairs']:,} of {one['of']:,}", percent(one["share"])
        rows.append((f"teacher {name}", *counts, f"{one['dev']:,}", f"{one['test']:,}"))
    text = (
        "The pairs that each teacher has a logit of, of the transfer set and the dev and test "
        "pairs together. A pair's soft label is made of the teachers that have one; a teacher with "
        "a number of pairs beside its name is measured on these."
    )
    blocks: list[Block] = [Paragraph(text), plain_table("Pairs with a logit", rows)]
    unmatched = tuple(
        f"{one['unmatched']:,} scores of {name} are of no such pair"
        for name, one in coverage.items()
        if one.get("unmatched")
    )
    return Section("coverage", "Coverage", (*blocks, *([Bullets(unmatched)] if unmatched else [])))


def stages_section(found: Found) -> Section | None:
    """Rows in, out, duplicate, quarantined and held out of every stage."""
    stages = found.get("stages") or {}
    if not stages:
        return None
    rows: list[tuple[str, ...]] = [
        ("stage", "in", "out", "duplicates", "quarantined", "held out", "s")
    ]
    for name, stage in stages.items():
        counts = (f"{stage.get(count, 0):,}" for count in COUNTS)
        rows.append((name, *counts, f"{stage['seconds']:,.1f}"))
    note = "In = out + duplicates + quarantined + held out."
    return Section("rows", "Rows", (plain_table("Rows of every stage", rows, note=note),))


_COSTS = (("pairs", "pairs", 0), ("seconds", "s", 1), ("cpu_hours", "CPU hours", 2),
          ("gpu_hours", "GPU hours", 2),
          ("money", "", 2), ("kwh", "kWh", 2))  # fmt: skip


def cost_section(found: Found) -> Section | None:
    """What the stages cost; a column of which nothing is known, or nothing used, is left out."""
    cost = found.get("cost")
    if not cost or not cost.get("stages"):
        return None
    shown = [
        (key, name or cost.get("currency") or "money", digits)
        for key, name, digits in _COSTS
        if any(stage.get(key) for stage in cost["stages"])
    ]
    rows: list[tuple[str, ...]] = [("stage", *(name for _, name, _ in shown))]
    for stage in cost["stages"]:
        rows.append((stage["stage"], *(_amount(stage.get(key), n) for key, _, n in shown)))
    totals = {"money": cost.get("money_total"), "kwh": cost.get("kwh_total")}
    if any(totals.get(key) is not None for key, _, _ in shown):
        rows.append(("total", *(_amount(totals.get(key), n) for key, _, n in shown)))
    note = "Prices: [cluster.prices] in the run file; what has none is not shown."
    return Section("cost", "Cost", (plain_table("Cost of every stage", rows, note=note),))


def _amount(value: float | None, digits: int) -> str:
    if value is None:
        return ""
    least = 10.0**-digits
    return f"<{least:g}" if digits and 0 < value < least / 2 else f"{value:,.{digits}f}"


def data_section(found: Found) -> Section | None:
    """What `inspect` says of the data."""
    data = found.get("data")
    if not data:
        return None
    blocks: list[Block] = []
    for title, rows in data_tables(data):
        is_prose = title in ("Rejects", "Some pairs")
        blocks.append(plain_table(title, rows, is_prose=is_prose))
    return Section("data", "The data", (*blocks, *map(Paragraph, data_notes(data))))
