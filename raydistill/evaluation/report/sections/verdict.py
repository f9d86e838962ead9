"""What the figures say, in words: what was kept, against what, what is weakest, what to do next.

Nothing is called better, worse or weaker unless its interval says so.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from raydistill.evaluation.report.sections.blocks import Finding, KeyFigure, Verdict
from raydistill.evaluation.report.sections.breakdown import cell_text, weakest_cells
from raydistill.evaluation.report.sections.numbers import (
    BASELINE,
    STUDENT,
    Figure,
    Found,
    count,
    decimals,
    figure_of,
    has_interval,
    headlines,
    interval,
    is_agreement,
    is_better,
    is_known,
    listed,
    lower_is_better,
    metric_name,
    number,
    p_value,
    percent,
    percents,
    speed,
)

_FEW_QUERIES = 200  # fewer: intervals are wide, and bootstrap intervals of few queries too narrow
_WIDE = 0.04  # of a retention: an interval that is wider decides little
_POOR_CALIBRATION = 0.05
_NEARLY_ALL = 0.98
_CLEARLY_BEHIND = 0.02  # of the teacher's metric, where the difference is significant
_STILL_RISES = 0.005  # of the retention, from the last share but one to all pairs


def verdict(found: Found) -> Verdict:
    """The verdict of a report."""
    if is_agreement(found):
        return _on_agreement(found)
    against = [*_against_baseline(found), *_against_teachers(found)]
    findings = [*_kept(found), *against, *_weakest(found), *_certainty(found)]
    return Verdict(
        _headline(found), _basis(found), tuple(_key_figures(found)), tuple(findings),
        tuple(_next_steps(found))[:4],
    )  # fmt: skip


def _basis(found: Found) -> str:
    on = f"{count(found['num_pairs'], 'judged pair')} of {count(found['num_queries'], 'query')}"
    bundle = f" The bundle: {found['bundle']}." if found.get("bundle") else ""
    return f"Measured on {on}{_unseen(found)}.{bundle}"


def _unseen(found: Found) -> str:
    """Whether this run trained on the test queries; "" where nothing is known of it."""
    named = (one for one in found.get("slices") or [] if one["slice"].endswith("seen in training"))
    cells = {cell["cell"]: cell["num_pairs"] for one in named for cell in one["cells"]}
    if cells.get("seen"):
        return f"; {cells['seen']:,} of these pairs have a query of the transfer set"
    return " that this run has trained nothing on" if cells else ""


def _retained(found: Found) -> dict[str, Figure]:
    """The student's retention of the headline metrics that it is known of."""
    figures = {key: figure_of(found, STUDENT, key, kind="retention") for key in headlines(found)}
    return {key: figure for key, figure in figures.items() if figure is not None}


def _headline(found: Found) -> str:
    kept, difference = _retained(found), _difference(found, BASELINE)
    if not kept:
        first = headlines(found)[:1]
        figure = figure_of(found, STUDENT, first[0]) if first else None
        if figure is None:
            return "No headline figure could be measured"
        return f"The student has {metric_name(found, first[0])} {number(figure['value'], 3)}"
    ends = dict.fromkeys((next(iter(kept)), list(kept)[-1]))
    shown = (f"{percent(kept[key]['value'])} of the {metric_name(found, key)}" for key in ends)
    text = f"The student keeps {listed(shown)} of the {found['teacher']}"
    if found["num_queries"] < _FEW_QUERIES:
        return f"{count(found['num_queries'], 'query')} are too few for a verdict. {text}"
    if difference is None:
        return text
    better, worse = _sides(found, difference)
    baseline = "training on the judged labels only"
    if not better and not worse:
        return f"{text}, but is not shown to be better than {baseline}"
    where = f" in {_names(found, better or worse)}" * (len(better or worse) < len(kept))
    if better and worse:
        sides = f"better in {_names(found, better)} and worse in {_names(found, worse)}"
        return f"{text}; it is {sides} than {baseline}"
    if better:
        return f"{text} and is better{where} than {baseline}"
    return f"{text}, yet {baseline} is better{where}"


def _difference(found: Found, other: str) -> Mapping[str, Any] | None:
    for one in found.get("differences") or []:
        if (one["one"], one["other"]) == (STUDENT, other):
            return dict(one)
    return None


def _sides(found: Found, difference: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """The headline metrics of which a difference is significantly better, and worse."""
    lower = lower_is_better(found)
    sides: dict[bool | None, list[str]] = {True: [], False: [], None: []}
    for key in headlines(found):
        figure = difference["metrics"].get(key)
        sides[is_better(figure, lower_is_better=key in lower)].append(key)
    return sides[True], sides[False]


def _kept(found: Found) -> Iterator[Finding]:
    kept = _retained(found)
    if not kept:
        text = f"Not known: the {found.get('teacher') or 'teacher'} has no scores to compare with."
        yield Finding("open", "What was kept", text)
        return
    parts = (
        f"{percent(figure['value'])}{f' ({ends})' if (ends := percents(figure)) else ''} of "
        f"{metric_name(found, key)}"
        for key, figure in kept.items()
    )
    low = min(map(_at_least, kept.values()))
    text = f"Of the {found['teacher']} the student keeps {listed(parts)}.{_simple_methods(found)}"
    yield Finding("good" if low >= 0.95 else "open", "What was kept", text)


def _simple_methods(found: Found) -> str:
    """What the best of the simple methods keeps: how much a retention is worth."""
    methods = [n for n, entry in found["scorers"].items() if entry.get("role") == "reference"]
    parts = []
    for key in _retained(found):
        kept = {name: figure_of(found, name, key, kind="retention") for name in methods}
        values = {name: figure["value"] for name, figure in kept.items() if figure is not None}
        if values:
            best = max(values, key=lambda name: values[name])
            parts.append(f"{percent(values[best])} of {metric_name(found, key)} ({best})")
    return f" The best simple method keeps {listed(parts)}: count from there." if parts else ""


def _difference_text(found: Found, difference: Mapping[str, Any], key: str) -> str:
    """`nDCG@10 (+0.0081, +0.0026 to +0.0130, p = 0.004)`."""
    figure = difference["metrics"][key]
    resamples = (found.get("bootstrap") or {}).get("resamples", 1_000)
    details = (
        number(figure["value"], 4, sign=True),
        interval(figure, 4, sign=True),
        p_value(figure.get("p"), num_resamples=resamples),
    )
    return f"{metric_name(found, key)} ({', '.join(part for part in details if part)})"


def _against_baseline(found: Found) -> Iterator[Finding]:
    """Whether distillation gained anything over the judged labels."""
    difference = _difference(found, BASELINE)
    if difference is None:
        return
    better, worse = _sides(found, difference)
    text = _standing(found, difference, has_numbers=True)
    if not text:
        return
    question = "Against the same student on judged labels only"
    text = f"{text[0].upper()}{text[1:]}."
    if better or worse:
        kind: Literal["good", "bad", "open"] = "good" if not worse else "open" if better else "bad"
        yield Finding(kind, question, f"Significantly {text[0].lower()}{text[1:]}")
    else:
        text = f"{text} These pairs do not show that distilling helps."
        yield Finding("open", question, text)


def _names(found: Found, keys: Sequence[str]) -> str:
    return listed(metric_name(found, key) for key in keys)


def _against_teachers(found: Found) -> Iterator[Finding]:
    """Ahead, behind or neither in each headline metric; the numbers for the reference teacher."""
    texts = []
    for one in found.get("differences") or []:
        is_reference = one["other"] == found.get("teacher")
        role = (found["scorers"].get(one["other"]) or {}).get("role")
        if one["one"] == STUDENT and (is_reference or role == "teacher"):
            text = _standing(found, one, has_numbers=is_reference)
            texts += [(not is_reference, f"{one['other']}: {text}")] if text else []
    if texts:
        text = ". ".join(f"{text[0].upper()}{text[1:]}" for _, text in sorted(texts))
        yield Finding("open", "Against the teachers", f"{text}.")


def _standing(found: Found, difference: Mapping[str, Any], *, has_numbers: bool) -> str:
    """`ahead in AUC, no clear difference in nDCG@10`."""
    sides: dict[bool | None, list[str]] = {True: [], False: [], None: []}
    for key in headlines(found):
        figure = difference["metrics"].get(key)
        if is_known(figure):
            better = is_better(figure, lower_is_better=key in lower_is_better(found))
            shown = metric_name(found, key)
            shown = _difference_text(found, difference, key) if has_numbers else shown
            sides[better].append(shown)
    words = {True: "ahead in", None: "no clear difference in", False: "behind in"}
    return ", ".join(f"{words[side]} {listed(names)}" for side, names in sides.items() if names)


def _weakest(found: Found) -> Iterator[Finding]:
    """The weakest slice, and calibration where it is poor."""
    poor = _poor_calibration(found)
    if poor is not None:
        ends = interval(poor, 3)
        text = (
            f"Calibration: a score is off by {number(poor['value'], 3)} on average"
            f"{f' ({ends})' if ends else ''}. The order of the titles does not suffer from it, a "
            "threshold does."
        )
        yield Finding("bad", "What is weakest", text)
    cells = weakest_cells(found)
    if not cells:
        return
    if cells[0].is_clear:
        more = len({cell.name for cell in cells if cell.is_clear}) - 1
        others = f" {count(more, 'other part')} too: see the slices." if more else ""
        text = (
            f"{cell_text(found, cells[0])}: less than of all pairs together, also where the "
            f"interval is widened for {len(cells)} comparisons.{others}"
        )
        yield Finding("bad", "What is weakest", f"{text[0].upper()}{text[1:]}")
    else:
        text = (
            f"No part of the pairs is clearly weaker than the whole. Of {len(cells)} figures the "
            f"farthest below it is {cell_text(found, cells[0])}; one of so many is low by chance."
        )
        yield Finding("good", "What is weakest", text)


def _poor_calibration(found: Found) -> Figure | None:
    figure = figure_of(found, STUDENT, "ece")
    if figure is None or figure["value"] < _POOR_CALIBRATION:
        return None
    return figure


def _certainty(found: Found) -> Iterator[Finding]:
    """How far to trust the rest."""
    if found["num_queries"] < _FEW_QUERIES:
        text = (
            f"{count(found['num_queries'], 'query')} are few: the intervals are wide, and with so "
            "few they tend to be too narrow still. Read no figure here as settled."
        )
        yield Finding("bad", "How sure this is", text)


def _next_steps(found: Found) -> Iterator[str]:
    kept, difference = _retained(found), _difference(found, BASELINE)
    first = next(iter(kept.values()), None)
    is_wide = first is not None and has_interval(first) and first["high"] - first["low"] > _WIDE
    if found["num_queries"] < _FEW_QUERIES or is_wide:
        yield "Judge more queries: four times as many halve the intervals."
    if difference is not None and not _sides(found, difference)[0]:
        yield (
            "Have pairs of more queries labeled, or use a better teacher: so far a gain over the "
            "judged labels alone is not shown."
        )
    rise = _rise(found)
    if rise is not None and rise > _STILL_RISES:
        yield (
            f"Label more pairs: the learning curve still rises ({percent(rise)} of the AUC in its "
            "last step)."
        )
    elif rise is not None:
        yield "The learning curve is flat at its end: more pairs of the same kind gain little."
    if _keeps_nearly_all(found, kept):
        yield (
            "The student keeps nearly all: a better teacher is worth more than a larger student."
        )
    elif kept and not found.get("tune"):
        yield "Search temperature, weights and size of the student with tune."
    weakest = weakest_cells(found)[:1]
    if weakest and weakest[0].is_clear:
        yield f"Add transfer pairs like those of the weakest slice ({weakest[0].name})."
    if _poor_calibration(found) is not None:
        yield "Choose a threshold on judged dev pairs, and do not read the score as a share."


def _keeps_nearly_all(found: Found, kept: Mapping[str, Figure]) -> bool:
    """Whether retention is high, and no headline metric or AUC is clearly behind the teacher's."""
    if not kept or min(map(_at_least, kept.values())) < _NEARLY_ALL - _WIDE / 2:
        return False
    teacher = found.get("teacher") or ""
    metrics = (_difference(found, teacher) or {}).get("metrics") or {}
    for key in dict.fromkeys((*headlines(found), "auc", "ndcg_10")):
        gap, whole = metrics.get(key), figure_of(found, teacher, key)
        is_behind = is_better(gap, lower_is_better=key in lower_is_better(found)) is False
        if is_behind and is_known(gap) and is_known(whole):
            if abs(gap["value"]) > _CLEARLY_BEHIND * abs(whole["value"]):
                return False
    return True


def _at_least(figure: Figure) -> float:
    """The lower end of a figure's interval, or its value without one."""
    return figure["low"] if has_interval(figure) else figure["value"]


def _rise(found: Found) -> float | None:
    """How much AUC retention the last step of the learning curve gained; None without a curve."""
    points = (found.get("curve") or {}).get("points") or []
    kept: dict[int, list[float]] = {}
    for point in points:
        is_first = point["preset"] == points[0]["preset"]
        if is_first and "AUC" in point.get("retention", {}):
            kept.setdefault(point["labeled_pairs"], []).append(point["retention"]["AUC"])
    if len(kept) < 2:
        return None
    before, last = (sum(kept[num]) / len(kept[num]) for num in sorted(kept)[-2:])
    return last - before


def _key_figures(found: Found) -> Iterator[KeyFigure]:
    for key, figure in _retained(found).items():
        name = f"{metric_name(found, key)} retained"
        yield KeyFigure(name, percent(figure["value"]), percents(figure))
    difference = _difference(found, BASELINE)
    first = next(iter(headlines(found)), None)
    if difference is not None and is_known(figure := difference["metrics"].get(first)):
        resamples = (found.get("bootstrap") or {}).get("resamples", 1_000)
        p = p_value(figure.get("p"), num_resamples=resamples)
        details = ", ".join(part for part in (interval(figure, 4, sign=True), p) if part)
        name = f"{metric_name(found, first or '')} over the baseline"
        yield KeyFigure(name, number(figure["value"], 4, sign=True), details)
    yield from _speed_figure(found)


def _speed_figure(found: Found) -> Iterator[KeyFigure]:
    entries = found["scorers"]
    us_per_pair = (entries.get(STUDENT) or {}).get("us_per_pair")
    if not us_per_pair:
        return
    slow = {
        name: entry["us_per_pair"]
        for name, entry in entries.items()
        if entry.get("role") == "teacher" and entry.get("us_per_pair")
    }
    detail = ""
    if slow:
        name = max(slow, key=lambda one: slow[one])
        times = slow[name] / us_per_pair
        detail = (
            f"{name}: {speed(slow[name])} µs, {times:,.{0 if times >= 10 else 1}f} times as long"
        )
    yield KeyFigure("a pair, on one core", f"{speed(us_per_pair)} µs", detail)


def _on_agreement(found: Found) -> Verdict:
    """Agreement says how much was learned, and nothing about rightness."""
    teacher = found["teacher"]
    figures, texts = [], []
    for key in ("ndcg_10", "accuracy", "spearman"):
        figure, name = figure_of(found, STUDENT, key), metric_name(found, key)
        if figure is None:
            continue
        digits = decimals([figure])
        ends = interval(figure, digits)
        figures.append(KeyFigure(f"{name}, agreement", number(figure["value"], digits), ends))
        texts.append(f"{name} {number(figure['value'], digits)}{f' ({ends})' if ends else ''}")
    learned = f"Against the soft labels of the {teacher}: {listed(texts)}." if texts else ""
    findings = [
        Finding("open", "What the student has learned", learned),
        Finding("bad", "Whether the teachers are right", (
            "Nothing is known: no judged pair was used. Every figure below is agreement with the "
            "teachers; a student that agrees with a wrong teacher is as wrong.")),
        *_certainty(found),
    ]  # fmt: skip
    on = f"{count(found['num_pairs'], 'pair')} of {count(found['num_queries'], 'query')}"
    basis = f"Measured on {on} of the transfer set that the student was not trained on."
    steps = ("Judge some hundred pairs: they are a test (judged.dev_share = 0).",)
    headline = "How far the student agrees with its teachers; nothing is known about rightness"
    figures += list(_speed_figure(found))
    return Verdict(headline, basis, tuple(figures), tuple(findings), steps)
