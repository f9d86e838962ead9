"""The report in Markdown and on the console, from figures written by hand."""

from __future__ import annotations

import json
from typing import Any

import pytest

from raydistill.evaluation.report.console import console_table
from raydistill.evaluation.report.markdown import markdown, tune_markdown
from raydistill.evaluation.report.sections.numbers import (
    count,
    decimals,
    interval,
    is_better,
    number,
    p_value,
    percent,
    speed,
)
from raydistill.evaluation.report.sections.outline import sections
from raydistill.evaluation.report.sections.verdict import verdict
from raydistill.search.results import FAILED, STOPPED, UNTUNED, US_PER_PAIR, without_nan
from tests.helpers import figures


def titles(found: dict[str, Any]) -> list[str]:
    return [section.title for section in sections(found)]


def said(found: dict[str, Any]) -> str:
    """All sentences of the verdict."""
    words = verdict(found)
    findings = (f"{one.kind}: {one.text}" for one in words.findings)
    return "\n".join([words.headline, words.basis, *findings, *words.next_steps])


def test_numbers_have_the_digits_that_their_intervals_allow() -> None:
    wide, narrow = (
        {"value": 0.5, "low": 0.4, "high": 0.6},
        {"value": 0.5, "low": 0.499, "high": 0.5},
    )
    assert decimals([wide]) == 2 and decimals([narrow]) == 4 and decimals([None]) == 4
    assert decimals([{"value": 0.76, "low": 0.748, "high": 0.772}]) == 3
    assert number(-0.0102, 3) == "\u22120.010" and number(-0.0001, 2, sign=True) == "0.00"
    assert interval(wide, 2) == "0.40 to 0.60" and interval({"value": 1.0}, 2) == ""
    assert percent(0.98678) == "98.7%" and percent(1.0) == "100.0%"
    assert [speed(us) for us in (7.91, 48.1, 4139.9, None)] == ["7.9", "48", "4,140", ""]
    assert p_value(2 / 1_001, num_resamples=1_000) == "p ≤ 0.002"
    assert p_value(0.012, num_resamples=1_000) == "p = 0.012"
    assert [count(1, "query"), count(1_048, "query"), count(2, "pair")] == [
        "1 query", "1,048 queries", "2 pairs",
    ]  # fmt: skip


def test_a_full_report_has_all_sections() -> None:
    assert titles(figures.full()) == [
        "Retention", "Quality", "Differences", "Two label sources", "Slices", "Cases",
        "Scores and labels", "Quality and speed", "Learning curve", "Training", "Search", "Stack",
        "Coverage", "Rows", "Cost", "The data",
    ]  # fmt: skip


def test_what_is_absent_leaves_no_heading() -> None:
    bare = figures.without(
        "differences", "other_labels", "slices", "charts", "cases", "curve", "cost", "coverage",
        "stack", "stages", "training", "tune", "data",
    )  # fmt: skip
    assert titles(bare) == ["Retention", "Quality", "Quality and speed"]
    for name in ("charts", "cases", "slices", "differences", "coverage", "training", "queries"):
        bare.pop(name)
    assert titles(bare) == ["Retention", "Quality", "Quality and speed"]
    for entry in bare["scorers"].values():
        entry |= {"us_per_pair": None, "retention": {}}
    assert titles(bare) == ["Retention", "Quality"]
    assert "None is given: teacher ensemble has no scores" in markdown(bare)


@pytest.mark.parametrize("name", figures.VARIANTS)
def test_the_console_table_is_narrow(name: str) -> None:
    table = console_table(figures.VARIANTS[name]())
    assert max(map(len, table.splitlines())) < 120
    assert "\x1b" not in table


def test_the_console_table_has_the_main_figures() -> None:
    lines = console_table(figures.full()).splitlines()
    student = next(line.split() for line in lines if line.startswith("student"))
    assert student == [
        "student", "0.8400", "0.7306", "0.7608", "0.7052", "0.5841", "98.7", "98.1-99.2", "98.7",
        "98.1-99.2", "7.9",
    ]  # fmt: skip
    assert "* on 5,000 of 6,558 pairs: teacher minilm" in console_table(figures.one_teacher())


def test_the_table_of_metrics() -> None:
    text = markdown(figures.full())
    assert "Order within a query: 911 queries with relevant and other titles" in text
    assert "| student | 0.802 (0.790 to 0.813) | 0.840 (0.828 to 0.851) |" in text
    assert "137 queries of 1,048 without both kinds of titles: left out of the metrics" in text
    found = figures.full()
    found["queries"]["unequal_labels"] = 1_000  # such as titles of 0.25 and 0.5, none relevant
    text = markdown(found)
    assert (
        "911 queries with relevant and other titles; nDCG and pairwise agreement: 1,000 queries "
        "with different labels" in text
    )
    assert "out of the metrics within a query but nDCG and pairwise agreement." in text
    assert "| nDCG\\@10 | 98.7% (98.1 to 99.2%) | 97.6% (97.0 to 98.1%) |" in text
    assert "| BM25 | 0.686 (0.674 to 0.697) |" in text  # no log loss of what is no probability


def test_a_difference_is_named_better_only_if_its_interval_leaves_out_0() -> None:
    row = next(line for line in markdown(figures.full()).splitlines() if "| log loss ↓ | " in line
               and "p = " in line)  # fmt: skip
    # Student minus baseline, ensemble, minilm, trees: less log loss is better.
    cells = [cell.strip() for cell in row.strip("|").split("|")][1:]
    assert [cell.rpartition(", ")[2] for cell in cells] == [
        "better",
        "worse",
        "p = 0.610)",
        "better",
    ]


def test_an_interval_and_its_p_value_must_agree_for_better() -> None:
    near = {"value": 0.0076, "low": 0.00001, "high": 0.0158, "p": 0.056}
    assert is_better(near, lower_is_better=False) is None
    assert is_better(near | {"p": 0.04}, lower_is_better=False) is True
    assert is_better(near | {"p": 0.04}, lower_is_better=True) is False
    assert is_better(near | {"low": -0.1, "p": 0.04}, lower_is_better=False) is None


def test_the_verdict_of_a_good_student() -> None:
    text = said(figures.full())
    assert text.startswith(
        "The student keeps 98.7% of the nDCG@10 and 98.7% of the AUC of the teacher ensemble and "
        "is better than training on the judged labels only\n"
    )
    assert (
        "good: Significantly ahead in nDCG@10 (+0.0081, +0.0026 to +0.0130, p = 0.004), AUC" in text
    )
    assert "Teacher ensemble: behind in nDCG@10 (\u22120.0102, \u22120.0157 to" in text
    assert "Teacher minilm: no clear difference in nDCG@10, AUC per query and AUC. Teacher" in text
    assert "bad: Query length: 1 word, with 95.8% of nDCG@10 retained (94.0 to 97.4%)" in text
    assert "less than of all pairs together, also where the interval is widened for 45" in text
    assert "the learning curve still rises (0.9% of the AUC" in text


def test_the_verdict_of_a_small_test_is_careful() -> None:
    text = said(figures.few())
    assert text.startswith("20 queries are too few for a verdict. The student keeps 98.7% of")
    assert (
        "open: No clear difference in nDCG@10 (+0.0081, " in text
        and "do not show that distilling helps" in text
    )
    assert "20 queries are few" in text and "Judge more queries" in text
    assert "P@5" not in markdown(figures.few()).split("## Differences")[0]  # nobody has it
    assert (
        "Significantly" not in text and "nearly all" not in text and "part" not in text
    )  # its cells have under 100 pairs


def test_the_verdict_when_the_baseline_wins() -> None:
    found = figures.full()
    for figure in found["differences"][0]["metrics"].values():
        figure |= {"value": -0.01, "low": -0.02, "high": -0.001}
    text = said(found)
    assert "yet training on the judged labels only is better" in text
    assert "bad: Significantly behind in nDCG@10 (" in text
    assert "use a better teacher" in text


def test_nearly_all_is_not_said_where_a_metric_is_clearly_behind() -> None:
    found = figures.full()
    for figure in found["scorers"]["student"]["retention"].values():
        figure |= {"value": 0.99, "low": 0.985, "high": 0.995}
    assert "keeps nearly all" in said(found)  # 0.0102 behind is 1.3 % of the AUC
    gap = found["differences"][1]["metrics"]["auc"]
    gap |= {"value": -0.016, "low": -0.02, "high": -0.012}  # of 0.7708: 2.1 %
    assert "keeps nearly all" not in said(found)
    gap |= {"high": 0.001}  # not significant
    assert "keeps nearly all" in said(found)


def test_the_note_on_losses_names_the_baseline_only_where_it_is() -> None:
    assert "or judged labels for the baseline" in markdown(figures.full())
    text = markdown(figures.agreement())
    assert "against the fit's targets, the soft labels: compare" in text
    assert "judged labels for the baseline" not in text


def test_a_search_whose_test_split_has_no_auc_shows_an_empty_cell() -> None:
    tune = figures.full()["tune"]
    for final in tune["finals"]:
        for student in final["students"]:
            student["test"] |= {"auc": float("nan")}
    tune = json.loads(json.dumps(without_nan(tune), allow_nan=False))
    assert "|  |" in tune_markdown(tune) and "nan" not in tune_markdown(tune).lower()


def test_poor_calibration_is_said() -> None:
    found = figures.full()
    found["scorers"]["student"]["metrics"]["ece"] = {"value": 0.1, "low": 0.08, "high": 0.12}
    assert "a score is off by 0.100 on average (0.080 to 0.120)" in said(found)


def test_a_slice_that_is_low_by_chance_is_not_called_weak() -> None:
    found = figures.full()
    found["slices"] = found["slices"][:1]
    assert "good: No part of the pairs is clearly weaker than the whole. Of 6 figures" in said(
        found
    )


def test_what_is_shown_is_said_before_what_is_not() -> None:
    found = figures.full()
    for at in (0, 1):  # nDCG@10 and AUC per query are not shown to differ, AUC is worse
        for key in ("ndcg_10", "query_auc"):
            found["differences"][at]["metrics"][key] |= {"value": 0.0, "low": -0.01, "high": 0.01}
        found["differences"][at]["metrics"]["auc"] |= {"value": -0.02, "low": -0.03, "high": -0.01}
    text = said(found)
    assert "bad: Significantly behind in AUC (" in text and "no clear difference in nDCG@10" in text
    assert "Teacher ensemble: behind in AUC (" in text and "level" not in text


def test_a_gain_in_one_metric_is_not_one_in_all() -> None:
    found = figures.full()
    for key in ("ndcg_10", "query_auc"):
        found["differences"][0]["metrics"][key] |= {"value": 0.001, "low": -0.004, "high": 0.006}
    assert "and is better in AUC than training on the judged labels only\n" in said(found)
    found["differences"][0]["metrics"]["auc"] |= {"low": -0.001}
    assert "but is not shown to be better than training on the judged" in said(found)
    found["differences"][0]["metrics"]["auc"] |= {"low": 0.001}
    found["differences"][0]["metrics"]["ndcg_10"] |= {"value": -0.02, "low": -0.03, "high": -0.01}
    assert "; it is better in AUC and worse in nDCG@10 than training on" in said(found)


def test_a_weak_slice_is_one_among_as_many_figures() -> None:
    found = figures.full()
    for cell in (cell for one in found["slices"] for cell in one["cells"]):
        cell["retention"] = {key: figures.figure(0.987, 0.02) for key in ("auc", "ndcg_10")}
    cell = found["slices"][2]["cells"][0]
    # High end 98.0 %, below 98.1 %, the low end of all pairs; 0.987 / 0.98 = 2 standard errors.
    cell["retention"] = {
        k: {"value": 0.966, "low": 0.952, "high": 0.98} for k in ("auc", "ndcg_10")
    }
    assert "No part of the pairs is clearly weaker" in said(found)
    cell["retention"] = {
        k: {"value": 0.94, "low": 0.926, "high": 0.954} for k in ("auc", "ndcg_10")
    }
    text = said(found)
    # Both figures are of one part.
    assert "bad: Query length: 1 word, with 94.0% of" in text and "other part" not in text
    cell["num_queries"] = 3  # resamples of three queries give no usable interval
    assert "No part of the pairs is clearly weaker" in said(found)


def test_a_test_on_queries_of_the_transfer_set_is_said() -> None:
    found = figures.full()
    assert "; 3,200 of these pairs have a query of the transfer set." in said(found)
    del found["slices"][0]["cells"][0]
    assert "1,048 queries that this run has trained nothing on." in said(found)
    assert "trained nothing" not in said(figures.without("slices"))


def test_figures_without_an_interval_leave_no_empty_brackets() -> None:
    found = figures.full()
    found["scorers"]["student"]["metrics"]["ece"] = {"value": 0.1, "low": None, "high": None}
    assert "off by 0.100 on average. The order" in said(found)


def test_a_teacher_that_is_faster_is_not_0_times_as_slow() -> None:
    found = figures.full()
    del found["scorers"]["teacher minilm"]
    found["scorers"]["teacher trees"]["us_per_pair"] = 4.0
    detail = verdict(found).figures[-1].detail
    assert detail == "teacher trees: 4.0 µs, 0.5 times as long"


def test_agreement_is_named_so() -> None:
    found = figures.agreement()
    text = markdown(found)
    assert "nothing is known about rightness" in text and "Nothing is known: no judged pair" in text
    assert "## Agreement with the teachers" in text and "same decision" in text
    for word in ("accuracy", "Retention", "retained", "judged dev"):
        assert word not in text.replace("judged.dev_share", ""), word
    assert "agreement with the teachers" in console_table(found)
    assert (
        "Closer, farther: the interval leaves out 0, and p &lt; 0.05" in text
        and ", better" not in text
    )


def test_a_partial_teacher() -> None:
    text = markdown(figures.one_teacher())
    assert "| teacher minilm (of 5,000 pairs) |" in text
    assert "On the 5,000 test pairs that the teacher minilm has scores of." in text
    assert "student \u2212 teacher minilm (on 5,000 pairs)" in text
    assert "- 12 scores of minilm are of no such pair" in text


def test_two_label_sources_are_compared_on_the_same_pairs() -> None:
    text = markdown(figures.full())
    assert "### Both on 2,000 pairs of 320 queries" in text
    assert "| student | 0.830 (0.810 to 0.848) | 0.820 (0.800 to 0.838) |" in text
    assert "4,558 test pairs have no label of it" in text and "- same decision: 0.871" in text


def test_the_loss_of_a_fit_is_drawn_by_epoch() -> None:
    section = next(s for s in sections(figures.full()) if s.key == "training")
    charts = section.blocks[1].charts  # type: ignore[union-attr]
    assert [chart.title for chart in charts] == [
        "Training loss: student", "Training loss: baseline on judged labels only",
        "Dev AUC by epoch", "Dev log loss by epoch",
    ]  # fmt: skip
    assert len(charts[0].series[0].points) == 100 and len(charts[1].series[0].points) == 10
    assert charts[0].series[0].points[-1] == pytest.approx((5, 0.002))
    assert len(charts[0].table.rows) == 20


def test_a_bundle_without_a_run() -> None:
    found = figures.without("stages", "data", "training", "stack", "tune", "curve", "coverage",
                            "slices")  # fmt: skip
    text = markdown(found | {"bundle": "models/<b>"})
    assert "1,048 queries. The bundle: models/&lt;b&gt;." in text
    assert "accuracy is at the bundle's own threshold" in text and "dev split" not in text
    assert "has seen" not in text


def test_a_case_adds_up() -> None:
    text = markdown(figures.full())
    assert (
        "- 12x24 air filter → Filtrete 12 in. x 24 in. Air Filter Cover Plate (label 0.33" in text
    )
    assert "“Filtrete”; \u22120.20 without words, +0.05 by all else: logit +1.20" in text


def test_small_cells_of_a_slice_are_marked() -> None:
    found = figures.full()
    table = next(s for s in sections(found) if s.key == "slices").blocks[1]
    marks = {row[0].text: {cell.mark for cell in row} for row in table.rows}  # type: ignore[union-attr]
    assert marks["Cyrillic"] == {"muted"} and marks["Latin"] == {""}
    assert "fewer than 100 pairs" in markdown(found)


def test_costs_that_are_not_set_are_not_shown() -> None:
    found = figures.full()
    assert "| stage | pairs | s | EUR | kWh |" in markdown(found)
    for stage in found["cost"]["stages"]:
        stage |= {"money": None, "kwh": None}
    found["cost"] |= {"money_total": None, "kwh_total": None}
    text = markdown(found)
    assert "| stage | pairs | s |" in text and "| total |" not in text


def test_the_report_of_a_search_has_all_it_found() -> None:
    students = [
        {"dev": {"auc": 0.7 + at, "log_loss": 0.5}, "test": {"auc": 0.6, "log_loss": 0.4},
         "us_per_pair": 20.0 - at}
        for at in (0.0, 0.02)
    ]  # fmt: skip
    row = {
        "name": "b",
        "state": STOPPED,
        "auc": 0.8,
        US_PER_PAIR: 30.0,
        "settings": {"a.b": 0.123456},
    }
    text = tune_markdown(
        {
            "metric": "auc", "verdict": "No gain.", "num_sample": 1_000, "chosen": UNTUNED,
            "states": {STOPPED: 1, FAILED: 1}, "finals": [{"name": UNTUNED, "students": students}],
            "best_trials": [row], "front": [row], "plots": ["settings.svg"],
            "errors": [{"name": "c", "error": "no"}],
        }
    )  # fmt: skip
    # Means and standard deviations of two seeds: 0.71 and 0.02 / sqrt(2); the faster of both.
    assert "| untuned | 0.7100 ± 0.0141 | 0.5000 ± 0.0000 | 0.6000 ± 0.0000 |" in text
    assert "| 20.0 |" in text  # 20.0 and 19.98
    assert "| b, stopped | 0.8000 | 30.0 | a.b = 0.1235 |" in text
    assert "- c: no" in text and "1 failed, 1 stopped" in text and "(settings.svg)" in text


def test_the_coverage_names_the_dataset_of_each_split() -> None:
    found = figures.one_teacher() | {"sources": {"dev": "held_out", "test": "held_out"}}
    assert "| held out dev | held out test |" in markdown(found)
    found |= {"sources": {"dev": "held_out", "test": "judged"}}
    assert "| held out dev | judged test |" in markdown(found)
