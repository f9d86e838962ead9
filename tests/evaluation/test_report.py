"""Reports in Markdown, from figures written by hand."""

from raydistill.evaluation.report import coverage_section, table_rows, tune_markdown
from raydistill.search.results import FAILED, STOPPED, UNTUNED, US_PER_PAIR


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


def test_a_scorer_of_fewer_pairs_says_so() -> None:
    entry = {"auc": 0.5, "accuracy": 0.5, "log_loss": 0.5, "ece": 0.5}
    scorers = {"teacher a": {**entry, "num_pairs": 7}, "student": {**entry, "num_pairs": 1_000}}
    rows = table_rows({"num_pairs": 1_000, "scorers": scorers})
    assert [row[0] for row in rows] == ["teacher a (of 7 pairs)", "student"]


def test_the_coverage_names_the_dataset_of_each_split() -> None:
    covered = {"llm": {"pairs": 1, "of": 4, "share": 0.25, "dev": 1, "test": 0, "unmatched": 0}}
    drawn = "\n".join(coverage_section(covered, sources={"dev": "held_out", "test": "held_out"}))
    assert "| held out dev | held out test |" in drawn and "judged" not in drawn
    assert "| held out dev | judged test |" in "\n".join(
        coverage_section(covered, sources={"dev": "held_out", "test": "judged"})
    )
