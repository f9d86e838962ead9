"""Retention by the number of labeled pairs: subsets of the transfer set, table and plot.

No Ray, no torch: `stages/standalone/curve.py` fits the students.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raydistill.evaluation.markup import drawn, escaped, markdown_table, text_table, to_svg

SHARES = (0.01, 0.03, 0.1, 0.3, 1.0)
MEASURES = ("AUC", "AUC above chance", "accuracy")  # keys of `retention`
_COLORS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd")  # one for each preset


def in_share(pair_ids: NDArray[np.int64], share: float) -> NDArray[np.bool_]:
    """Which pairs are in a share of the transfer set; a larger share contains each smaller one.

    A pair's id is a hash: as a fraction of 2^64 it is uniform, and equal in each run.
    """
    position = pair_ids.view(np.uint64).astype(np.float64) / 2.0**64
    return np.asarray(position < share) if share < 1 else np.ones(len(pair_ids), bool)


def plan_subset(shards: Sequence[str], share: float) -> list[list[str]]:
    """Groups of shards: the subset's pairs of one group together fill about one shard."""
    step = max(1, round(1 / share))
    names = sorted(shards)
    return [names[at : at + step] for at in range(0, len(names), step)]


def curve_rows(found: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Head and rows of the table: points by preset and share, then scorers without a share."""
    head = ("", "pairs", "AUC", "accuracy", *(f"{name} retained" for name in MEASURES))
    rows = [head]
    for (preset, share), points in _grouped(found["points"]):
        name = f"{preset}, {100 * share:g} %"
        pairs = f"{points[0]['labeled_pairs']:,}"
        rows.append((name, pairs, *_cells(points, digits=4)))
    for name, entry in found["others"].items():
        rows.append((name, "", *_cells([entry], digits=4)))
    return rows


def _grouped(
    points: Sequence[Mapping[str, Any]],
) -> Iterator[tuple[tuple[str, float], list[Mapping[str, Any]]]]:
    """The points of all seeds grouped, in the order of presets and shares."""
    groups: dict[tuple[str, float], list[Mapping[str, Any]]] = {}
    for point in points:
        groups.setdefault((point["preset"], point["share"]), []).append(point)
    yield from groups.items()


def _cells(entries: Sequence[Mapping[str, Any]], *, digits: int) -> Iterator[str]:
    for name in ("auc", "accuracy"):
        values = [entry[name] for entry in entries if entry[name] is not None]
        spread = f" ± {stdev(values):.{digits}f}" if len(values) > 1 else ""
        yield f"{fmean(values):.{digits}f}{spread}" if values else ""
    for name in MEASURES:
        kept = [one["retention"][name] for one in entries if name in one.get("retention", {})]
        yield f"{fmean(kept):.1%}" if kept else ""


def console_curve(found: Mapping[str, Any]) -> str:
    """The table as aligned text."""
    return text_table(curve_rows(found))


def is_retained(found: Mapping[str, Any], measure: str) -> bool:
    """Whether the students have a retention: the teacher has scores of dev and test pairs."""
    return all(measure in point.get("retention", {}) for point in found["points"])


def curve_markdown(found: Mapping[str, Any], *, plot: str) -> str:
    """The table with its explanation, and the plot."""
    seeds = ", ".join(str(seed) for seed in found["seeds"])
    return f"""# Retention by number of labeled pairs

On {found["num_pairs"]:,} judged pairs of {found["num_queries"]:,} queries that neither teacher nor
student has seen. Each student is fitted on a share of the transfer set, the same epochs on each;
a larger share holds the smaller ones. Metrics are those of the evaluation with the best dev AUC;
the threshold of the accuracy comes from the dev split. Seeds: {seeds}\
{"; mean ± standard deviation" if len(found["seeds"]) > 1 else ""}. {_explained(found)}

![AUC by number of pairs]({plot})

{markdown_table(curve_rows(found))}
"""


def _explained(found: Mapping[str, Any]) -> str:
    """What *retained* is, or why there is none, or on fewer pairs; as wrapped Markdown."""
    teacher = escaped(found["teacher"])
    if not is_retained(found, "AUC"):
        return f"Nothing is\n*retained*: {teacher} lacks scores of relevant or of other test pairs."
    text = f"*Retained* is relative to\n{teacher}"
    num_pairs = found["others"][found["teacher"]].get("num_pairs", found["num_pairs"])
    if num_pairs < found["num_pairs"]:
        text += f", on the {num_pairs:,} test pairs that it has scores of"
    return f"{text}; *above chance* counts from 0.5."


def curve_svg(found: Mapping[str, Any]) -> bytes:
    """Retention of AUC and accuracy against pairs, as SVG; equal numbers give equal bytes.

    Without a retention AUC and accuracy themselves.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    for axes, measure in zip(figure.subplots(1, 2), ("AUC", "accuracy"), strict=True):
        _draw(axes, found, measure)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return to_svg(figure)


def _draw(axes: Any, found: Mapping[str, Any], measure: str) -> None:  # noqa: ANN401
    lines: dict[str, list[tuple[int, float, float]]] = {}
    is_kept = is_retained(found, measure)
    for (preset, _), points in _grouped(found["points"]):
        kept = [_level(point, measure, is_kept=is_kept) for point in points]
        spread = stdev(kept) if len(kept) > 1 else 0.0
        lines.setdefault(preset, []).append((points[0]["labeled_pairs"], fmean(kept), spread))
    for color, (preset, line) in zip(_COLORS, lines.items(), strict=False):
        pairs, means, spreads = zip(*sorted(line), strict=True)
        axes.errorbar(
            pairs, means, yerr=spreads, marker="o", color=color, label=drawn(preset), capsize=2
        )
    for style, (name, entry) in zip((":", "--", "-."), _references(found), strict=False):
        level = _level(entry, measure, is_kept=is_kept)
        axes.axhline(level, color="#777777", linestyle=style, label=drawn(name))
    if is_kept:
        axes.axhline(100, color="#222222", linewidth=0.8, label=drawn(found["teacher"]))
    axes.set_xscale("log")
    axes.set_xlabel("labeled pairs")
    axes.set_ylabel(f"{measure} retained, %" if is_kept else measure)
    axes.grid(visible=True, alpha=0.3)


def _references(found: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """Scorers that need no labeled pair and are no teacher."""
    return [(name, one) for name, one in found["others"].items() if name != found["teacher"]]


def _level(entry: Mapping[str, Any], measure: str, *, is_kept: bool) -> float:
    """The height of a point or a line: a retention in percent, or the measure itself."""
    if is_kept:
        return 100 * float(entry["retention"][measure])
    return float(entry[measure if measure == "accuracy" else "auc"])
