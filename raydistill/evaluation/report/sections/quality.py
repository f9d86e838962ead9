"""How good the scores are: metrics, retention, differences, a second source of labels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from raydistill.evaluation.report.sections.blocks import (
    Block,
    Bullets,
    Cell,
    Mark,
    Paragraph,
    Row,
    Section,
    Span,
    Table,
    Terms,
)
from raydistill.evaluation.report.sections.numbers import (
    BASELINE,
    MINUS,
    STUDENT,
    Figure,
    Found,
    count,
    decimals,
    figure_of,
    headlines,
    interval,
    is_agreement,
    is_better,
    is_known,
    known_name,
    listed,
    lower_is_better,
    metric_name,
    metrics_of,
    number,
    p_value,
    percent,
    percents,
    reference_of,
    speed,
    with_pairs,
)

_MEANINGS = {
    "auc": "area under the ROC curve over all pairs, whatever their query; 0.5 is chance.",
    "pr_auc": "area under the precision-recall curve (average precision) over all pairs.",
    "accuracy": "share of the pairs that are on the right side of the row's threshold.",
    "log_loss": "mean negative log likelihood of the labels; lower is better.",
    "ece": "mean gap between score and share of relevant pairs, over bins of the score; lower is "
    "better. Chance adds to it and to each resample, so it has no interval.",
    "spearman": "rank correlation of scores and labels over all pairs.",
    "ndcg_5": "order of the first 5 titles of a query, labels as gains; 1 is the best order.",
    "ndcg_10": "order of the first 10 titles of a query, labels as gains; 1 is the best order.",
    "mrr_10": "1 / the rank of the first relevant title, 0 below rank 10.",
    "precision_1": "share of the queries whose first title is relevant.",
    "precision_5": "share of relevant titles among the first 5.",
    "query_auc": "AUC within each query, then the mean over queries; 0.5 is chance.",
    "pairwise": "share of two titles of a query with different labels that are in the right order.",
}
_AGREEMENT_MEANINGS = {
    "accuracy": "share of the pairs that both call relevant, or both do not.",
    "log_loss": "against the soft label, whose own is the least possible; lower is better.",
}


def quality_section(found: Found) -> Section:
    """The metrics of all scorers."""
    blocks: list[Block] = [Paragraph(_basis(found))]
    for of, caption in (("queries", "Order within a query"), ("pairs", "All pairs together")):
        metrics = [one for one in metrics_of(found) if one["of"] == of and _is_known(found, one)]
        if metrics:
            blocks.append(
                _metric_table(found, metrics, caption=f"{caption}: {_counted(found, of)}")
            )
    blocks += _left_out(found)
    meanings = {**_MEANINGS, **(_AGREEMENT_MEANINGS if is_agreement(found) else {})}
    terms = [(one["name"], meanings.get(one["key"], "")) for one in metrics_of(found)]
    blocks.append(Terms("What the metrics are", tuple(term for term in terms if term[1])))
    title = "Agreement with the teachers" if is_agreement(found) else "Quality"
    return Section("quality", title, tuple(blocks))


def _basis(found: Found) -> str:
    drawn = found.get("bootstrap")
    intervals = (
        f" In small type: {drawn['level']:.0%} intervals, from {drawn['resamples']:,} resamples of "
        "the queries."
        if drawn
        else ""
    )
    if is_agreement(found):
        return (
            f"The labels are the soft labels of the {found['teacher']} at temperature 1, which "
            "therefore agrees with itself. It calls a pair relevant from a soft label of 0.5 on: "
            f"{percent(found['relevant_share'])} of the pairs.{intervals}"
        )
    share = found.get("relevant_share")
    relevant = "" if share is None else f", as are {percent(share)} of the pairs"
    threshold = f"; {_threshold_text(found)}" if _has(found, "accuracy") else ""
    return (
        f"A pair is relevant when its label is at least {found['relevant_at']:g}{relevant}"
        f"{threshold}.{intervals}"
    )


def _threshold_text(found: Found) -> str:
    """Where the thresholds of the accuracies come from."""
    if found.get("bundle"):
        return "accuracy is at the bundle's own threshold"
    split = (
        "held-out queries of the transfer set, where the teachers decide"
        if found.get("is_dev_drawn")
        else "the dev split"
    )
    return f"the threshold of each row's accuracy comes from {split}"


def _is_known(found: Found, metric: Mapping[str, Any]) -> bool:
    return any(figure_of(found, name, metric["key"]) for name in found["scorers"])


def _has(found: Found, key: str) -> bool:
    return any(one["key"] == key for one in found["metrics"])


def _counted(found: Found, of: str) -> str:
    if of == "pairs":
        return count(found["num_pairs"], "pair")
    queries = found.get("queries") or {"all": found["num_queries"]}
    if "both_kinds" not in queries:
        return count(queries["all"], "query")
    text = f"{count(queries['both_kinds'], 'query')} with relevant and other titles"
    if not _has_unequal(queries):
        return text
    unequal = count(queries["unequal_labels"], "query")
    return f"{text}; nDCG and pairwise agreement: {unequal} with different labels"


def _has_unequal(queries: Mapping[str, Any]) -> bool:
    """Whether nDCG and pairwise agreement count queries that the other metrics do not."""
    return bool(queries.get("unequal_labels", queries["both_kinds"]) != queries["both_kinds"])


def _left_out(found: Found) -> Iterator[Block]:
    """What was not measured."""
    queries, texts = found.get("queries") or {}, []
    if queries.get("left_out") and any(one["of"] == "queries" for one in found["metrics"]):
        texts.append(
            f"{count(queries['left_out'], 'query')} of {queries['all']:,} without both kinds of "
            "titles: left out of the metrics within a query"
            f"{' but nDCG and pairwise agreement' * _has_unequal(queries)}."
        )
    if found.get("num_unscored"):
        texts.append(f"{count(found['num_unscored'], 'test pair')} without a score: left out.")
    if texts:
        yield Paragraph(" ".join(texts), is_small=True)


def _metric_table(found: Found, metrics: Sequence[Mapping[str, Any]], *, caption: str) -> Table:
    entries = found["scorers"]
    digits = {
        one["key"]: decimals(figure_of(found, name, one["key"]) for name in entries)
        for one in metrics
    }
    has_speed = any(entry.get("us_per_pair") for entry in entries.values())
    rows = []
    for name, entry in entries.items():
        cells = [_figure_cell(figure_of(found, name, key), digits[key]) for key in digits]
        cells += [Cell(speed(entry.get("us_per_pair")))] if has_speed else []
        rows.append((Cell(with_pairs(name, entry, num_all=found["num_pairs"])), *cells))
    lower = lower_is_better(found)
    names = (f"{one['name']}{' ↓' if one['key'] in lower else ''}" for one in metrics)
    head = ("scorer", *names, *(("µs/pair",) if has_speed else ()))
    note = "↓: lower is better." if any(one["key"] in lower for one in metrics) else ""
    return Table(caption, head, tuple(rows), note=note)


def _figure_cell(figure: Figure | None, digits: int) -> Cell:
    if figure is None:
        return Cell("")
    return Cell(number(figure["value"], digits), interval(figure, digits))


def retention_section(found: Found) -> Section | None:
    """What each scorer keeps of the reference teacher, a row for each metric."""
    if is_agreement(found):
        return None
    have = dict.fromkeys(
        key for one in found["scorers"].values() for key in one.get("retention") or ()
    )
    order = [one["key"] for one in metrics_of(found)]
    keys = sorted(have, key=lambda key: order.index(key) if key in order else len(order))
    names = [name for name in _others(found) if any(figure_of(found, name, k, kind="retention")
                                                   for k in keys)]  # fmt: skip
    if not names:
        text = (
            f"None is given: {found['teacher']} has no scores of both relevant and other test "
            "pairs. Have test pairs scored too."
        )
        has_teacher = bool(found.get("teacher"))
        return Section("retention", "Retention", (Paragraph(text),)) if has_teacher else None
    return Section("retention", "Retention", (Paragraph(_retention_text(found)),
                                              _retention_table(found, keys, names)))  # fmt: skip


def _others(found: Found) -> list[str]:
    """Scorers that retention is of: the student and the baseline first, no teacher."""
    entries = found["scorers"]
    first = [name for name in (STUDENT, BASELINE) if name in entries]
    roles = ("student", "baseline", "reference")
    return first + [n for n, e in entries.items() if n not in first and e.get("role") in roles]


def _retention_text(found: Found) -> str:
    teacher = found["teacher"]
    text = (
        f"A scorer's metric / that of the {teacher}: 100% means that nothing was lost. For log "
        "loss, where lower is better, the ratio is turned round. AUC above chance counts from 0.5."
    )
    num_pairs = (found["scorers"].get(teacher) or {}).get("num_pairs", found["num_pairs"])
    if num_pairs < found["num_pairs"]:
        text += f" On the {num_pairs:,} test pairs that the {teacher} has scores of."
    return text


def _retention_table(found: Found, keys: Sequence[str], names: Sequence[str]) -> Table:
    rows: list[Row] = []
    spans: list[Figure] = []
    for key in keys:
        cells = []
        for name in names:
            figure = figure_of(found, name, key, kind="retention")
            is_drawn = name in (STUDENT, BASELINE) and _is_drawn(figure)
            if is_drawn and figure is not None:
                spans.append(figure)
            cells.append(retention_cell(figure, is_drawn=is_drawn))
        if any(cell.text for cell in cells):
            rows.append((Cell(metric_name(found, key)), *cells))
    shown = [with_pairs(name, found["scorers"][name], num_all=found["num_pairs"]) for name in names]
    caption = f"Retained of the {found['teacher']}"
    return Table(caption, ("metric", *shown), tuple(rows), axis=axis_of(spans))


def _is_drawn(figure: Figure | None) -> bool:
    return bool(figure and interval(figure, 2))


def retention_cell(figure: Figure | None, *, is_drawn: bool, mark: Mark = "") -> Cell:
    """A retention in percent with its interval, drawn too where it is to be."""
    if figure is None or not is_known(figure):
        return Cell("", mark=mark)
    span = Span(figure["low"], figure["value"], figure["high"]) if is_drawn else None
    return Cell(percent(figure["value"]), percents(figure), mark, span)


def axis_of(figures: Sequence[Figure], *, line: float = 1.0) -> tuple[float, float, float] | None:
    """The ends of an axis that holds all intervals, and the line that they are compared with."""
    if not figures:
        return None
    low = min([line, *(figure["low"] for figure in figures)])
    high = max([line, *(figure["high"] for figure in figures)])
    margin = 0.04 * (high - low) or 0.01
    return low - margin, high + margin, line


def differences_section(found: Found) -> Section | None:
    """Paired differences with their p-values, a row for each metric."""
    differences = found.get("differences") or []
    if not differences:
        return None
    lower = lower_is_better(found)
    rows: list[Row] = []
    for one in metrics_of(found):
        key = one["key"]
        figures = [difference["metrics"].get(key) for difference in differences]
        if any(is_known(figure) for figure in figures):
            cells = (_difference_cell(found, figure, key in lower) for figure in figures)
            name = f"{metric_name(found, key)}{' ↓' if key in lower else ''}"
            rows.append((Cell(name), *cells))
    heads = [f"{one['one']} {MINUS} {one['other']}" for one in differences]
    sizes = {one["num_pairs"] for one in differences}
    if len(sizes) > 1:
        heads = [f"{head} (on {one['num_pairs']:,} pairs)"
                 for head, one in zip(heads, differences, strict=True)]  # fmt: skip
    on = f", on {count(sizes.pop(), 'pair')}" if len(sizes) == 1 else ""
    marks = ("closer", "farther") if is_agreement(found) else ("better", "worse")
    note = (
        f"{marks[0].capitalize()}, {marks[1]}: the interval leaves out 0, and p < 0.05. p-values "
        f"are two-sided and not corrected for the number of comparisons ({len(rows) * len(heads)} "
        "here)."
    )
    if lower & {one["key"] for one in found["metrics"]}:
        note += " ↓: lower is better."
    table = Table(f"Differences{on}", ("metric", *heads), tuple(rows), note=note, marks=marks)
    text = (
        "The same resampled queries for both, so that what makes a query hard for both cancels out."
    )
    return Section("differences", "Differences", (Paragraph(text), table))


def _difference_cell(found: Found, figure: Figure | None, is_lower_better: bool) -> Cell:
    if figure is None or not is_known(figure):
        return Cell("")
    digits = 4
    resamples = (found.get("bootstrap") or {}).get("resamples", 1_000)
    p = p_value(figure.get("p"), num_resamples=resamples)
    detail = ", ".join(part for part in (interval(figure, digits), p) if part)
    better = is_better(figure, lower_is_better=is_lower_better)
    mark: Mark = "" if better is None else "better" if better else "worse"
    return Cell(number(figure["value"], digits, sign=True), detail, mark)


def other_labels_section(found: Found) -> Section | None:
    """The same scorers on the labels of a second source, on the pairs that both judged."""
    other = found.get("other_labels")
    if not other:
        return None
    keys = headlines(found) or [one["key"] for one in found["metrics"][:3]]
    head = ["scorer"]
    for key in keys:
        head += [f"{metric_name(found, key)}, {name}" for name in ("judged", other["name"])]
    rows = tuple(_two_sources(found, name, one, keys) for name, one in other["scorers"].items())
    caption = (
        f"Both on {count(other['num_pairs'], 'pair')} of {count(other['num_queries'], 'query')}"
    )
    blocks: list[Block] = [Paragraph(_other_text(found, other)),
                           Table(caption, tuple(head), rows)]  # fmt: skip
    agreed = _agreement_items(other.get("agreement_with_judged") or {})
    if agreed:
        blocks += [Paragraph("How far the two sources agree on these pairs:"), Bullets(agreed)]
    return Section("other-labels", "Two label sources", tuple(blocks))


def _other_text(found: Found, other: Mapping[str, Any]) -> str:
    text = (
        f"The same scores against a second source of labels, {other['name']}, on the test pairs "
        "that both judged. Where both rank the scorers alike, the result does not hang on who "
        "judged."
    )
    if other.get("num_missing"):
        text += f" {count(other['num_missing'], 'test pair')} have no label of it."
    if other.get("relevant_share") is not None and found.get("relevant_share") is not None:
        text += (
            f" It calls {percent(other['relevant_share'])} relevant; of all judged test pairs "
            f"{percent(found['relevant_share'])} are."
        )
    return text


def _two_sources(found: Found, name: str, entry: Mapping[str, Any], keys: Sequence[str]) -> Row:
    """A scorer's metrics by both sources, side by side."""
    cells = []
    for key in keys:
        two = [(entry.get(kind) or {}).get(key) for kind in ("judged_metrics", "metrics")]
        if "judged_metrics" not in entry:
            two[0] = figure_of(found, name, key)
        figures = [figure if is_known(figure) else None for figure in two]
        digits = decimals(figures)
        cells += [_figure_cell(figure, digits) for figure in figures]
    return Cell(name), *cells


def _agreement_items(agreed: Mapping[str, Any]) -> tuple[str, ...]:
    items = []
    for key, value in agreed.items():
        figure = value if isinstance(value, Mapping) else {"value": value}
        if not is_known(figure):
            continue
        name = known_name(key.removeprefix("num_"))
        shown = f"{figure['value']:,}" if isinstance(figure["value"], int) else (
            number(figure["value"], 3))  # fmt: skip
        ends = interval(figure, 3)
        items.append(f"{name}: {shown}{f' ({ends})' if ends else ''}")
    return tuple(items)


def headline_text(found: Found, keys: Sequence[str]) -> str:
    """`nDCG@10, AUC per query and AUC`."""
    return listed(metric_name(found, key) for key in keys)


def teacher_names(found: Found) -> list[str]:
    """The teachers and their stacks that have a row."""
    roles = ("teacher", "ensemble")
    reference = reference_of(found)
    names = [name for name, entry in found["scorers"].items() if entry.get("role") in roles]
    return sorted(names, key=lambda name: name != reference)
