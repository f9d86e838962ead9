"""A second source of labels, from files, beside labels and scores written by hand."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from raydistill.config.data import JudgedConfig
from raydistill.data.pairs import pair_ids
from raydistill.errors import UserError
from raydistill.evaluation.metrics.bootstrap import Draws
from raydistill.evaluation.scoreboard.scored_pairs import ScoredPairs
from raydistill.stages.evaluation.other_labels import agreement, other_labels
from raydistill.stages.evaluation.split_pairs import SplitPairs
from raydistill.teachers.judged_logits import Judged

QUERIES = ["sofa", "sofa", "lamp", "lamp", "desk"]
TITLES = ["Sofa", "Chair", "Lamp", "Sofa", "Desk"]
LABELS = np.array([1, 0, 1, 0, 1], np.float32)
SCORES = np.array([0.9, 0.2, 0.3, 0.4, 0.5], np.float32)
DRAWS = Draws(resamples=100)


def pairs() -> SplitPairs:
    ids = pair_ids(pa.array(QUERIES), pa.array(TITLES))
    table = pa.table({"pair_id": ids, "query": QUERIES, "title": TITLES})
    groups = np.array([0, 0, 1, 1, 2])
    return SplitPairs(table, Judged(np.empty((5, 0), np.float32), LABELS, groups))


def scored() -> ScoredPairs:
    return ScoredPairs(LABELS, pairs().groups_B, 0.5, {"student": SCORES}, {"student": 0.35})


def rules(path: Path, **other: object) -> JudgedConfig:
    given = {"input": str(path), "label": "grade", "scale": [0, 4], "name": "LLM", **other}
    return JudgedConfig.model_validate({"input": [str(path)], "label": "human", "other": given})


def test_scorers_are_measured_on_both_labels_of_the_pairs_that_have_both(tmp_path: Path) -> None:
    path = tmp_path / "other.csv"
    path.write_text(
        "query,title,grade\n sofa ,Sofa,4\nsofa,Chair,3\nlamp,Lamp,1\nlamp,Sofa,0\nlamp,Sofa,2\n"
        "desk,Desk,\nanother,Pair,4\n"
    )
    found = other_labels(rules(path, relevant_at=0.6), scored(), pairs(), draws=DRAWS)
    assert found is not None
    counts = {key: found[key] for key in ("num_pairs", "num_queries", "num_missing")}
    assert counts == {"num_pairs": 4, "num_queries": 2, "num_missing": 1}
    assert (found["name"], found["relevant_at"], found["relevant_share"]) == ("LLM", 0.6, 0.5)
    assert (found["num_rows"], found["num_unusable"]) == (7, 1)
    student = found["scorers"]["student"]
    # Others: 1, 0.75, 0.25, 0.25; relevant 0 and 1. Scores 0.9, 0.2, 0.3, 0.4: 2 of 4 couples.
    assert student["metrics"]["auc"]["value"] == 0.5
    assert student["metrics"]["accuracy"]["value"] == 0.5  # relevant from 0.35 on: 0 and 3
    assert student["judged_metrics"]["auc"]["value"] == 0.75  # relevant: 0 and 2
    same = found["agreement_with_judged"]
    assert same["same_decision"] == 0.5 and same["kappa"] == 0
    assert same["mean_difference"] == pytest.approx((0 + 0.75 - 0.75 + 0.25) / 4)


def test_another_column_of_the_same_file_is_enough(tmp_path: Path) -> None:
    path = tmp_path / "judged.csv"
    rows = zip(QUERIES, TITLES, LABELS, strict=True)
    lines = [f"{query},{title},{label},{1 - label}" for query, title, label in rows]
    path.write_text("\n".join(["query,title,human,llm", *lines]))
    given = {"input": [str(path)], "label": "human", "other": {"label": "llm"}}
    found = other_labels(JudgedConfig.model_validate(given), scored(), pairs(), draws=DRAWS)
    assert found is not None and found["num_pairs"] == 5 and found["name"] == "other"
    assert found["agreement_with_judged"]["kappa"] == pytest.approx(-12 / 13)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("query,title,grade\nsofa,Bed,4\n", "no row of .* is of a test pair; .* 'Bed', the test"),
        ("query,title,grade\nsofa,Sofa,\n", "none of the 1 rows .* label is null or not a num"),
        ("query,title,grade\nsofa,Sofa,good\n", r"judged.other has .*'good' .*judged.other.grades"),
        ("query,title,grade\nsofa,Sofa,1\nlamp,Lamp,5\n", "1 of the 2 outside 0..4: .*other.scale"),
        ("query,title,grade\n", "none of the 0 rows .*: there is no row; name the columns"),
        ("query,title,score\nsofa,Sofa,4\n", r"no column 'grade' .* \[judged\.other\]"),
    ],
)
def test_files_without_a_label_of_a_pair_are_refused(
    tmp_path: Path, text: str, message: str
) -> None:
    path = tmp_path / "other.csv"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        other_labels(rules(path), scored(), pairs(), draws=DRAWS)


def test_agreement_of_labels_by_hand() -> None:
    one, other = np.array([1, 1, 0, 0], np.float32), np.array([1, 0, 0, 0], np.float32)
    found = agreement(one, other, relevant=(one >= 0.5, other >= 0.5))
    # 3 of 4 equal; by chance 1/2 x 1/4 + 1/2 x 3/4 = 1/2.
    assert found["same_decision"] == 0.75 and found["kappa"] == 0.5
    assert found["mean_difference"] == 0.25
    found = agreement(one[:2], one[:2], relevant=(one[:2] >= 0.5, one[:2] >= 0.5))
    assert found["kappa"] is None and found["spearman"] is None


def test_without_other_labels_there_is_nothing_to_read() -> None:
    given = JudgedConfig.model_validate({"input": ["gone.csv"]})
    assert other_labels(given, scored(), pairs(), draws=DRAWS) is None
