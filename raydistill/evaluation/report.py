"""Numbers to a Markdown report and to the short table at the end of `distill`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

from raydistill.evaluation.agreement import (
    agreement_intro,
    agreement_rows,
    is_agreement,
    with_pairs,
)
from raydistill.evaluation.markup import escaped, markdown_table, text_table
from raydistill.evaluation.tables import _short, data_markdown
from raydistill.files.schema import COUNTS

_HEAD = ("", "AUC", "accuracy", "log loss", "calibration error", "AUC retained", "µs/pair")


def table_rows(found: dict[str, Any]) -> list[tuple[str, ...]]:
    """One row a scorer: name, metrics, retention, microseconds a pair."""
    rows: list[tuple[str, ...]] = []
    for name, entry in found["scorers"].items():
        kept = entry.get("auc_retention")
        speed = entry.get("us_per_pair")
        rows.append(
            (
                with_pairs(name, entry, num_all=found["num_pairs"]),
                f"{entry['auc']:.4f}",
                "" if entry["accuracy"] is None else f"{entry['accuracy']:.4f}",
                f"{entry['log_loss']:.4f}",
                f"{entry['ece']:.4f}",
                "" if kept is None else f"{kept:.1%}",
                "" if speed is None else f"{speed:,.1f}",
            )
        )
    return rows


def console_table(found: dict[str, Any]) -> str:
    """The table as aligned text."""
    if is_agreement(found):
        return text_table(agreement_rows(found))
    return text_table([_HEAD, *table_rows(found)])


def markdown(found: dict[str, Any]) -> str:
    """The report as Markdown."""
    lines = _agreement(found) if is_agreement(found) else _on_judged(found)
    lines += ["", "## Rows", "", markdown_table(_stage_rows(found["stages"]))]
    lines += [
        "",
        "Times: of a teacher, one actor (a core or a GPU) in `label`; of the student, one core, "
        f"batches from raw text. A call with a single pair takes {found['single_us']:,.0f} µs.",
        "",
        *(["## Search", "", tune_markdown(found["tune"])] if found.get("tune") else []),
        data_markdown(found["data"]),
    ]
    return "\n".join(lines) + "\n"


def _agreement(found: dict[str, Any]) -> list[str]:
    rows = agreement_rows(found)
    lines = ["# Report", "", agreement_intro(found), "", markdown_table(rows)]
    return lines + coverage_section(found.get("coverage", {}), sources=found.get("sources", {}))


def _on_judged(found: dict[str, Any]) -> list[str]:
    split = "the dev split"
    if found.get("is_dev_drawn"):
        split = "held-out queries of the transfer set, where the teachers decide"
    lines = [
        "# Report",
        "",
        f"On {found['num_pairs']:,} judged pairs of {found['num_queries']:,} queries that neither "
        "teacher nor student has seen. A pair is relevant when its label is at least "
        f"{found['relevant_at']}; the threshold of each row's accuracy comes from {split}. "
        "*AUC retained* is the student's AUC / the teacher's; *above chance* counts from 0.5.",
        "",
        markdown_table([_HEAD, *table_rows(found)]),
    ]
    lines += ["", "## Retention", "", *_retention(found)]
    lines += coverage_section(found.get("coverage", {}), sources=found.get("sources", {}))
    lines += stack_section(found["stack"]) if found.get("stack") else []
    return lines


def _retention(found: Mapping[str, Any]) -> list[str]:
    """What the student retains of the teacher, and on how many pairs if not on all."""
    teacher, entries = escaped(found["teacher"]), found["scorers"]
    if found["teacher"] not in entries:
        return [
            f"None is given: {teacher} has no scores of both relevant and other test pairs. Have "
            "test pairs scored too."
        ]
    lines = [f"- {escaped(name)}: {value:.1%}" for name, value in found["retention"].items()]
    num_pairs = entries[found["teacher"]].get("num_pairs", found["num_pairs"])
    if num_pairs < found["num_pairs"]:
        lines += ["", f"On the {num_pairs:,} test pairs that {teacher} has scores of."]
    if entries[found["teacher"]]["accuracy"] is None:
        lines += ["", f"Without accuracy: {teacher} has scores of too few dev pairs."]
    return lines


def _stage_rows(stages: Mapping[str, Any]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [
        ("stage", "in", "out", "duplicates", "quarantined", "held out", "s")
    ]
    for name, stage in stages.items():
        counts = (f"{stage.get(count, 0):,}" for count in COUNTS)
        rows.append((name, *counts, f"{stage['seconds']:,.1f}"))
    return rows


def coverage_section(
    coverage: Mapping[str, Any], *, sources: Mapping[str, str] | None = None
) -> list[str]:
    """The pairs that each teacher has a logit of, as Markdown lines; none if they have all.

    `sources`: the dataset of the dev and the test pairs, where it is not "judged".
    """
    if all("unmatched" not in one for one in coverage.values()):
        return []
    of = {"dev": "judged", "test": "judged", **(sources or {})}
    splits = [f"{of[split].replace('_', ' ')} {split}" for split in ("dev", "test")]
    rows: list[tuple[str, ...]] = [("", "pairs", "share", *splits)]
    for name, one in coverage.items():
        counts = f"{one['pairs']:,} of {one['of']:,}", f"{one['share']:.1%}"
        rows.append((f"teacher {name}", *counts, f"{one['dev']:,}", f"{one['test']:,}"))
    text = (
        "The pairs that each teacher has a logit of, of the transfer set and the dev and "
        "test pairs together. A pair's soft label is made of the teachers that have one; a teacher "
        "with a number of pairs beside its name is measured on these."
    )
    unmatched = [
        f"- {one['unmatched']:,} scores of {escaped(name)} are of no such pair"
        for name, one in coverage.items()
        if one.get("unmatched")
    ]
    return ["", "## Coverage", "", text, "", markdown_table(rows), *([""] if unmatched else []),
            *unmatched]  # fmt: skip


def stack_section(stack: dict[str, Any]) -> list[str]:
    """The fitted stack and its standard errors, as Markdown lines."""
    rows: list[tuple[str, ...]] = [("", "fitted", "standard error")]
    for name, weight in stack["weights"].items():
        error = stack["weight_errors"][name]
        rows.append((f"weight of {name}", f"{weight:.3f}", "" if error is None else f"{error:.3f}"))
    for name in ("bias", "temperature"):
        rows.append((name, f"{stack[name]:.3f}", f"{stack[f'{name}_error']:.3f}"))
    text = (
        f"Fitted on {stack['num_pairs']:,} judged dev pairs that each teacher has a logit of; "
        "weights are at least 0, their sum 1. "
        "*teacher ensemble, calibrated* above is sigmoid((sum of weight x logit + bias) / "
        "temperature); "
        "*teacher ensemble* is what the student learned from, at temperature 1."
    )
    return ["", "## Stack", "", text, "", markdown_table(rows)]


def tune_markdown(found: dict[str, Any]) -> str:
    """A search's results as Markdown, without the section's heading."""
    metric = found["metric"]
    states = ", ".join(f"{num} {escaped(state)}" for state, num in sorted(found["states"].items()))
    lines = [escaped(found["verdict"]), ""]
    if found.get("is_agreement"):
        lines += ["Every dev figure here is agreement with the teachers' soft labels.", ""]
    lines += [
        f"Trials on {found['num_sample']:,} pairs: {states}. The best were trained again on the "
        "whole transfer set with the seeds of the untuned settings. They were chosen on the dev "
        "split; the test split was not used. Spread: standard deviation over the seeds.",
        "",
        markdown_table(_finals_rows(found)),
        "",
        f"Chosen: **{escaped(found['chosen'])}** (`tune/best.toml`).",
        "",
        "### Best trials",
        "",
        markdown_table(_trials_rows(found["best_trials"], metric)),
    ]
    if found["front"]:
        lines += ["", "### Pareto front: quality and speed", ""]
        lines += [markdown_table(_trials_rows(found["front"], metric))]
    if found["errors"]:
        lines += ["", "### Failed trials", ""]
        lines += [
            f"- {escaped(one['name'])}: {escaped(_short(one['error']))}" for one in found["errors"]
        ]
    lines += [line for name in found["plots"] for line in ("", f"![{name}]({name})")]
    return "\n".join(lines) + "\n"


def _finals_rows(found: dict[str, Any]) -> list[tuple[str, ...]]:
    names = dict.fromkeys((found["metric"], "auc", "ndcg_10", "log_loss"))
    measured = [student for final in found["finals"] for student in final["students"]][:1]
    names |= {"agreement": None} if found.get("is_agreement") else {}
    columns = [
        (s, name) for s in ("dev", "test") for name in names if all(name in m[s] for m in measured)
    ]
    head = ("", *(f"{split} {name.replace('_', ' ')}" for split, name in columns), "µs/pair")
    rows: list[tuple[str, ...]] = [head]
    for final in found["finals"]:
        cells = [_spread([s[split][name] for s in final["students"]]) for split, name in columns]
        speed = min(student["us_per_pair"] for student in final["students"])
        rows.append((final["name"], *cells, f"{speed:,.1f}"))
    return rows


def _spread(values: Sequence[float]) -> str:
    deviation = f" ± {stdev(values):.4f}" if len(values) > 1 else ""
    return f"{fmean(values):.4f}{deviation}"


def _trials_rows(trials: Sequence[dict[str, Any]], metric: str) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [("trial", metric.replace("_", " "), "µs/pair", "settings")]
    for trial in trials:
        speed = f"{trial['us_per_pair']:,.1f}" if "us_per_pair" in trial else ""
        settings = ", ".join(f"{name} = {_number(v)}" for name, v in trial["settings"].items())
        rows.append((f"{trial['name']}, {trial['state']}", f"{trial[metric]:.4f}", speed, settings))
    return rows


def _number(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
