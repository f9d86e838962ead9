"""Figures to a Markdown report and to the short table at the end of `distill`."""

from __future__ import annotations

from typing import Any

from raydistill.schema import COUNTS

_HEAD = ("", "AUC", "accuracy", "log loss", "calibration error", "AUC kept", "us a pair")


def table_rows(found: dict[str, Any]) -> list[tuple[str, ...]]:
    """One row a scorer: name, metrics, retention, microseconds a pair."""
    rows: list[tuple[str, ...]] = []
    for name, entry in found["scorers"].items():
        kept = entry.get("auc_retention")
        speed = entry.get("us_per_pair")
        rows.append(
            (
                name,
                f"{entry['auc']:.4f}",
                f"{entry['accuracy']:.4f}",
                f"{entry['log_loss']:.4f}",
                f"{entry['ece']:.4f}",
                "" if kept is None else f"{kept:.1%}",
                "" if speed is None else f"{speed:,.1f}",
            )
        )
    return rows


def console_table(found: dict[str, Any]) -> str:
    """The table as aligned text."""
    rows = [_HEAD, *table_rows(found)]
    widths = [max(len(row[at]) for row in rows) for at in range(len(_HEAD))]
    lines = []
    for row in rows:
        first, *rest = (cell.ljust(w) if at == 0 else cell.rjust(w)
                        for at, (cell, w) in enumerate(zip(row, widths, strict=True)))  # fmt: skip
        lines.append("  ".join([first, *rest]).rstrip())
    return "\n".join(lines)


def markdown(found: dict[str, Any]) -> str:
    """The report as Markdown."""
    lines = [
        "# Report",
        "",
        f"On {found['num_pairs']:,} judged pairs of {found['num_queries']:,} queries that neither "
        "teacher nor student has seen. A pair is relevant when its label is at least "
        f"{found['relevant_at']}; the threshold of each row's accuracy comes from the dev split. "
        "*AUC kept* is the student's AUC / the teacher's; *above chance* counts from 0.5.",
        "",
        "| " + " | ".join(_HEAD) + " |",
        "|---|" + "---:|" * (len(_HEAD) - 1),
    ]
    lines += ["| " + " | ".join(row) + " |" for row in table_rows(found)]
    lines += ["", "## Retention", ""]
    lines += [f"- {name}: {value:.1%}" for name, value in found["retention"].items()]
    lines += ["", "## Rows", "", "| stage | in | out | duplicates | quarantined | held out | s |"]
    lines += ["|---|" + "---:|" * 6]
    for name, stage in found["stages"].items():
        counts = [stage.get(name, 0) for name in COUNTS]
        cells = " | ".join(f"{count:,}" for count in counts)
        lines.append(f"| {name} | {cells} | {stage['seconds']:,.1f} |")
    lines += [
        "",
        "Times are of one actor (a core or a GPU) for a teacher while it labeled, of one core "
        "for the student in batches from raw text; "
        f"one call with one pair takes the student {found['single_us']:,.0f} us.",
    ]
    return "\n".join(lines) + "\n"
