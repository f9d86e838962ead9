"""Judged pairs in `prepare`: splits, held-out queries, labels that differ."""

from pathlib import Path

import pytest

from raydistill.errors import UserError
from raydistill.files.schema import SPLITS
from raydistill.runs.run_folder import Run
from raydistill.stages import prepare
from tests.helpers.runs import run_over


@pytest.mark.ray
def test_a_split_without_both_kinds_is_named(
    local_ray: None, raw_files: Path, tmp_path: Path
) -> None:
    run = run_over(tmp_path, raw_files, judged={"relevant_at": 0.0})
    with pytest.raises(UserError, match=r"judged train split has \d+ pairs, .* needs both kinds"):
        prepare.prepare_stage(run)


@pytest.mark.ray
def test_held_out_queries_are_in_no_pair(local_ray: None, raw_files: Path, tmp_path: Path) -> None:
    run = run_over(tmp_path, raw_files)
    prepare.prepare_stage(run)
    queries = {
        split: {
            q.lower()
            for name in run.judged(split).shards()
            for q in run.judged(split).read_table(name)["query"].to_pylist()
        }
        for split in ("train", "dev", "test")
    }
    transfer = {
        q.lower() for n in run.pairs.shards() for q in run.pairs.read_table(n)["query"].to_pylist()
    }
    assert not queries["train"] & queries["dev"]
    assert not (queries["train"] | queries["dev"]) & queries["test"]
    assert queries["dev"] and queries["test"]
    assert not transfer & (queries["dev"] | queries["test"])
    assert transfer & queries["train"]


def write_judged(path: Path, queries: list[str]) -> None:
    """Two judged pairs a query, one relevant and one not."""
    rows = "".join(f"{query},{query} {label},{label}\n" for query in queries for label in (0, 1))
    path.write_text("query,title,label\n" + rows)


def read_queries(run: Run, split: str, name: str) -> list[str]:
    return [str(query) for query in run.judged(split).read_table(name)["query"].to_pylist()]


@pytest.mark.ray
def test_judgments_that_differ_are_averaged_and_counted(
    local_ray: None, raw_files: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Grades of several raters: one pair has E, E and S, mean 0.7; one has twice I."""
    queries = [f"{letter}{n}" for letter in "abcdefgh" for n in range(5)]
    rows = [f"{query},{query} {grade},{grade}" for query in queries for grade in "EI"]
    rows += ["sofa,x,E", "sofa,y,I", "sofa,x,S", "sofa,y,i", "sofa,x,e", "sofa,z,Q"]
    grades = {"E": 1.0, "S": 0.1, "I": 0.0}
    (tmp_path / "judged.csv").write_text("\n".join(["query,title,label", *rows]))
    judged = {"input": str(tmp_path / "judged.csv"), "grades": grades}
    run = run_over(tmp_path / "run", raw_files, judged=judged)
    with caplog.at_level("WARNING", logger="raydistill"):
        assert prepare.prepare_stage(run)
    assert "judged: 1 pairs have rows with different labels: each has their mean" in caplog.text
    done = (run.root / "judged").success()
    assert done and done["conflicting_labels"] == 1 and done["duplicates"] == 3
    assert done["quarantined"] == 1 and "conflicting_labels" not in (run.pairs.success() or {})
    tables = [run.judged(s).read_table(n) for s in SPLITS for n in run.judged(s).shards()]
    pairs = [row for table in tables for row in table.to_pylist()]
    labels = {row["title"]: row["label"] for row in pairs if row["query"] == "sofa"}
    assert labels == pytest.approx({"x": 0.7, "y": 0.0})
    rejected = run.root / "quarantine" / "judged"
    (reject,) = rejected.read_table(rejected.shards()[0]).to_pylist()
    assert reject["reason"] == "label is not among the grades: E, S, I"


@pytest.mark.ray
def test_an_input_can_be_a_split_of_its_own(local_ray: None, tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "pairs.csv").write_text("query,title\ntap,x\nsofas,y\nlamp,z\nrug,w\n")
    pairs = {"input": str(tmp_path / "raw" / "pairs.csv")}
    words = [f"{letter}{n}" for letter in "abcdefgh" for n in range(5)]
    write_judged(tmp_path / "judged.csv", [*words, "tap", "rug"])
    write_judged(tmp_path / "test.csv", ["sofa", "TAPS"])
    write_judged(tmp_path / "dev.csv", ["sofas", "lamp"])
    given = [
        {"path": str(tmp_path / "judged.csv")},
        {"path": str(tmp_path / "test.csv"), "split": "test"},
        {"path": str(tmp_path / "dev.csv"), "split": "dev"},
    ]
    run = run_over(tmp_path / "run", tmp_path / "raw", pairs=pairs, judged={"input": given})
    assert prepare.prepare_stage(run)
    queries = {
        split: {q for n in run.judged(split).shards() for q in read_queries(run, split, n)}
        for split in ("train", "dev", "test")
    }
    # Test comes before dev (sofas), and both before the rest (tap).
    assert queries == {"train": {*words, "rug"}, "dev": {"lamp"}, "test": {"sofa", "TAPS"}}
    done = run.pairs.success()
    assert done and done["rows_out"] == 1 and done["held_out"] == 3
    done = (run.root / "judged").success()
    assert done and done["rows_out"] == 2 * (len(words) + 4) and done["held_out"] == 4
    moved = [*given[:2], {**given[2], "split": "train"}]
    with pytest.raises(UserError, match=r"dev\.csv was prepared with split = 'dev', not 'train'"):
        prepare.prepare_stage(
            run_over(tmp_path / "run", tmp_path / "raw", pairs=pairs, judged={"input": moved})
        )
