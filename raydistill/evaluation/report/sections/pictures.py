"""The charts: scores and labels, quality and speed, the learning curve, training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

from raydistill.evaluation.learning_curve import curve_rows, is_retained
from raydistill.evaluation.report.sections.blocks import (
    Block,
    Chart,
    Charts,
    Histogram,
    Paragraph,
    Section,
    Series,
    Table,
    plain_table,
)
from raydistill.evaluation.report.sections.numbers import (
    BASELINE,
    STUDENT,
    Found,
    count,
    figure_of,
    has_interval,
    headlines,
    is_agreement,
    metric_name,
    number,
    speed,
)

_NUM_LOOKS = 10  # of charts.py
_MOST_SHOWN = 4  # scorers in one picture of calibration
_MOST_MARKERS = 20  # of a line; more points have none, and the table has every n-th


def looks(found: Found) -> dict[str, int]:
    """The number of each scorer's look: the same in all charts."""
    fixed = {STUDENT: 0, found.get("teacher") or "": 1, BASELINE: 2}
    others = [name for name in found["scorers"] if name not in fixed]
    return fixed | {name: 3 + at % (_NUM_LOOKS - 3) for at, name in enumerate(others)}


def _main_first(found: Found, names: Sequence[str]) -> list[str]:
    """The student, the reference teacher and the baseline before the others."""
    order = looks(found)
    return sorted(names, key=lambda name: order.get(name, _NUM_LOOKS))


def scores_section(found: Found) -> Section | None:
    """Reliability curves, student against teacher, and the scores' distribution by label."""
    drawn = found.get("charts") or {}
    reliability = {n: bins for n, bins in (drawn.get("reliability") or {}).items() if bins}
    histograms = {n: one for n, one in (drawn.get("histograms") or {}).items() if one}
    charts: list[Chart | Histogram] = []
    if reliability:
        charts.append(_reliability(found, reliability))
    if drawn.get("student_by_teacher"):
        charts.append(_by_teacher(found, drawn["student_by_teacher"]))
    for name in _main_first(found, list(histograms))[:_MOST_SHOWN]:
        charts.append(_histogram(found, name, histograms[name]))
    title = "Scores and soft labels" if is_agreement(found) else "Scores and labels"
    return Section("scores", title, (Charts(tuple(charts)),)) if charts else None


def _reliability(found: Found, reliability: Mapping[str, Sequence[Mapping[str, float]]]) -> Chart:
    label = "mean soft label" if is_agreement(found) else "mean label"
    is_share = not is_agreement(found)
    label = "share of relevant pairs" if is_share else label
    names, look = _main_first(found, list(reliability))[:_MOST_SHOWN], looks(found)
    series = tuple(
        Series(name, look.get(name, 0), tuple((b["score"], b["label"]) for b in reliability[name]))
        for name in names
    )
    rows = [
        (name, number(b["score"], 3), number(b["label"], 3), f"{b['num']:,}")
        for name in names
        for b in reliability[name]
    ]
    table = plain_table("Reliability", [("scorer", "mean score", label, "pairs"), *rows])
    caption = (
        f"Pairs in bins of their score, {count(found['num_pairs'], 'pair')}. On the diagonal a "
        "score is the share that it promises; below it, scores are too high."
    )
    return Chart("Reliability", "mean score", label, series, _folded(table), caption,
                 has_diagonal=True)  # fmt: skip


def _folded(table: Table) -> Table:
    return Table(f"{table.caption}: the numbers", table.head, table.rows, is_folded=True)


def _histogram(found: Found, name: str, one: Mapping[str, Any]) -> Histogram:
    edges = tuple(one["edges"])
    groups = (("relevant", tuple(one["relevant"])), ("other", tuple(one["other"])))
    rows = [
        (f"{number(low, 2)} to {number(high, 2)}", f"{relevant:,}", f"{other:,}")
        for low, high, relevant, other in zip(
            edges, edges[1:], one["relevant"], one["other"], strict=False
        )
        if relevant or other
    ]
    title = f"Scores of {name}"
    table = plain_table(title, [("score", "relevant pairs", "other pairs"), *rows])
    who = "as the teachers decide" if is_agreement(found) else "as judged"
    caption = (
        f"{count(sum(one['relevant']), 'relevant pair')} and "
        f"{count(sum(one['other']), 'other pair')}, {who}; each group sums to 100%."
    )
    return Histogram(title, "score", edges, groups, _folded(table), caption)


def _by_teacher(found: Found, bins: Sequence[Mapping[str, float]]) -> Chart:
    """The student's mean score in bins of the teacher's."""
    teacher = found["teacher"]
    series = Series(
        "", 0, tuple((b["teacher"], b["student"]) for b in bins),
        tuple((b["low"], b["high"]) for b in bins), is_band=True,
    )  # fmt: skip
    rows = [
        (*(number(b[key], 3) for key in ("teacher", "student", "low", "high")), f"{b['num']:,}")
        for b in bins
    ]
    head = (f"score of {teacher}", "mean score of the student", "low", "high", "pairs")
    table = plain_table("Student against teacher", [head, *rows])
    caption = (
        f"{count(sum(b['num'] for b in bins), 'pair')} in bins of the score of the {teacher}: the "
        "student's mean, and the range of its scores. On the diagonal both say the same."
    )
    return Chart("Student against teacher", "score of the teacher", "score of the student",
                  (series,), _folded(table), caption, has_diagonal=True)  # fmt: skip


def speed_section(found: Found) -> Section | None:
    """Quality against microseconds a pair."""
    timed = {n: e["us_per_pair"] for n, e in found["scorers"].items() if e.get("us_per_pair")}
    keys = [key for key in headlines(found) if any(figure_of(found, n, key) for n in timed)]
    if not timed or not keys:
        return None
    charts = tuple(_speed_chart(found, timed, key) for key in dict.fromkeys((keys[0], keys[-1])))
    blocks: list[Block] = [Charts(charts), Paragraph(_speed_text(found), is_small=True)]
    return Section("speed", "Quality and speed", tuple(blocks))


def _speed_chart(found: Found, timed: Mapping[str, float], key: str) -> Chart:
    series, rows = [], []
    for name, us_per_pair in timed.items():
        figure = figure_of(found, name, key)
        if figure is None:
            continue
        spans = ((figure["low"], figure["high"]),) if has_interval(figure) else ()
        point = ((us_per_pair, figure["value"]),)
        series.append(Series(name, looks(found)[name], point, spans, has_line=False))
        rows.append((name, number(figure["value"], 4), speed(us_per_pair)))
    shown = metric_name(found, key)
    table = plain_table(f"{shown} and speed", [("scorer", shown, "µs/pair"), *rows])
    agreed = "agreement: " if is_agreement(found) else ""
    return Chart(f"{shown} against microseconds a pair", "µs/pair, logarithmic", f"{agreed}{shown}",
                 tuple(series), _folded(table), has_log_x=True)  # fmt: skip


def _speed_text(found: Found) -> str:
    text = (
        "Times: of a teacher, one actor (a core or a GPU) in label; of the student, one core, "
        "batches from raw text."
    )
    single_us = found.get("single_us")
    if single_us is not None:
        text += f" A call of the student with a single pair takes {speed(single_us)} µs."
    return text


def curve_section(found: Found) -> Section | None:
    """Retention against the number of labeled pairs."""
    curve = found.get("curve")
    if not curve or not curve.get("points"):
        return None
    is_kept = is_retained(curve, "AUC")
    y_label = "AUC retained, %" if is_kept else "AUC"
    series = []
    for at, (preset, points) in enumerate(_by_preset(curve["points"], is_kept=is_kept).items()):
        spans = tuple((mean - spread, mean + spread) for _, mean, spread in points)
        line = tuple((pairs, mean) for pairs, mean, _ in points)
        series.append(Series(preset, at, line, spans if any(p[2] for p in points) else ()))
    caption = (
        f"On {count(curve['num_pairs'], 'judged pair')} of {count(curve['num_queries'], 'query')}"
    )
    seeds = f"; mean ± standard deviation over {count(len(curve['seeds']), 'seed')}"
    table = plain_table("Learning curve", curve_rows(curve))
    chart = Chart(f"{'Retention' if is_kept else 'AUC'} by number of labeled pairs",
                  "labeled pairs, logarithmic", y_label, tuple(series), _folded(table),
                  caption + (seeds if len(curve["seeds"]) > 1 else "") + ".", has_log_x=True,
                  level=100.0 if is_kept else None)  # fmt: skip
    return Section("curve", "Learning curve", (Charts((chart,)),))


def _by_preset(
    points: Sequence[Mapping[str, Any]], *, is_kept: bool
) -> dict[str, list[tuple[float, float, float]]]:
    """Of each preset: labeled pairs, mean and standard deviation over the seeds."""
    values: dict[str, dict[int, list[float]]] = {}
    for point in points:
        level = 100 * point["retention"]["AUC"] if is_kept else point["auc"]
        values.setdefault(point["preset"], {}).setdefault(point["labeled_pairs"], []).append(level)
    return {
        preset: [
            (pairs, fmean(levels), stdev(levels) if len(levels) > 1 else 0.0)
            for pairs, levels in sorted(by_pairs.items())
        ]
        for preset, by_pairs in values.items()
    }


_ROLES = {"student": STUDENT, "judged_only": BASELINE}


def training_section(found: Found) -> Section | None:
    """Training loss, and what the dev split said, by epoch."""
    fits = {
        _ROLES.get(role, role): one
        for role, one in (found.get("training") or {}).items()
        if one and one.get("evaluations")
    }
    charts = [*_loss_charts(fits), *_dev_charts(found, fits)]
    if not charts:
        return None
    targets = (
        "each fit's own targets (soft labels, or judged labels for the baseline)"
        if BASELINE in fits
        else "the fit's targets, the soft labels"
    )
    text = (
        f"The loss is that of the batches since the point before, against {targets}: compare a "
        "curve with itself."
    )
    return Section("training", "Training", (Paragraph(text, is_small=True), Charts(tuple(charts))))


_Fits = Mapping[str, Mapping[str, Any]]


def _loss_charts(fits: _Fits) -> Iterator[Chart]:
    """The loss of each fit: at about 100 points, or of older runs at the evaluations."""
    for name, fit in fits.items():
        last = fit["evaluations"][-1]
        epochs_a_pair = last.get("epoch", 0) / (last.get("pairs") or 1)
        line = [(one["pairs"] * epochs_a_pair, one["loss"]) for one in fit.get("losses") or ()]
        line = line or [(e["epoch"], e["loss"]) for e in fit["evaluations"] if _has(e, "loss")]
        if line:
            yield _epoch_chart({name: line}, title=f"Training loss: {name}", y="loss")


def _dev_charts(found: Found, fits: _Fits) -> Iterator[Chart]:
    """Each metric on dev, of all fits together."""
    keys = dict.fromkeys(
        key for fit in fits.values() for one in fit["evaluations"] for key in one
        if key.startswith("dev_") or key == "agreement"
    )  # fmt: skip
    for key in keys:
        lines = {
            name: [(one["epoch"], one[key]) for one in fit["evaluations"] if _has(one, key)]
            for name, fit in fits.items()
        }
        name = metric_name(found, key.removeprefix("dev_"))
        known = {name: line for name, line in lines.items() if line}
        if known:
            yield _epoch_chart(known, title=f"Dev {name} by epoch", y=f"dev {name}")


def _epoch_chart(
    lines: Mapping[str, Sequence[tuple[float, float]]], *, title: str, y: str
) -> Chart:
    look = {STUDENT: 0, BASELINE: 2}
    series = tuple(
        Series(name if len(lines) > 1 else "", look.get(name, 3 + at), tuple(line),
               has_markers=len(line) <= _MOST_MARKERS)
        for at, (name, line) in enumerate(lines.items())
    )  # fmt: skip
    rows = [
        (name, f"{epoch:.3g}", number(value, 5))
        for name, line in lines.items()
        for epoch, value in line[:: -(-len(line) // _MOST_MARKERS)]
    ]
    table = plain_table(title, [("fit", "epoch", y), *rows])
    return Chart(title, "epoch", y, series, _folded(table))


def _has(evaluation: Mapping[str, Any], key: str) -> bool:
    return evaluation.get(key) is not None and "epoch" in evaluation
