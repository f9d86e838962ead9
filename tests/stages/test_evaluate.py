from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from raydistill.files.schema import LOGITS
from raydistill.runs.run_folder import Run
from raydistill.stages.evaluate import warn_if_behind
from raydistill.stages.evaluation.figures import BASELINE
from raydistill.stages.evaluation.scorers import partial_scorers
from raydistill.stages.measured import Scores, leave_out_unscored, measure_scorers, retained
from raydistill.stages.standalone.curve import measure_beside
from raydistill.teachers.judged_logits import stack_of
from tests.helpers.runs import run_config

NAN = float("nan")
LLM = "teacher llm"
Array = NDArray[np.float32]


def test_a_pair_that_one_teacher_could_not_score_counts_for_no_scorer() -> None:
    nan = float("nan")
    scored = {
        "teacher a": {"dev": np.array([0.1, 0.2]), "test": np.array([0.1, nan, 0.3])},
        "student": {"dev": np.array([0.3, 0.4]), "test": np.array([0.4, 0.5, 0.6])},
    }
    labels = {"dev": np.array([0.0, 1.0]), "test": np.array([0.0, 1.0, 1.0])}
    assert leave_out_unscored(scored, labels) == {"dev": 0, "test": 1}
    assert labels["test"].tolist() == [0.0, 1.0]
    assert scored["student"]["test"].tolist() == [0.4, 0.6]
    assert scored["teacher a"]["test"].tolist() == [0.1, 0.3]
    assert scored["student"]["dev"].tolist() == [0.3, 0.4]


def test_a_teacher_of_some_pairs_takes_none_away_from_the_others() -> None:
    nan = float("nan")
    scored = {
        "teacher a": {"dev": np.array([nan, 0.2]), "test": np.array([nan, nan, 0.3])},
        "teacher b": {"dev": np.array([0.1, 0.2]), "test": np.array([0.1, nan, 0.3])},
    }
    labels = {"dev": np.array([0.0, 1.0]), "test": np.array([0.0, 1.0, 1.0])}
    assert leave_out_unscored(scored, labels, but=["teacher a"]) == {"dev": 0, "test": 1}
    assert labels["test"].tolist() == [0.0, 1.0]
    assert np.isnan(scored["teacher a"]["test"]).tolist() == [True, False]


def test_a_student_behind_the_judged_only_one_is_named(caplog: pytest.LogCaptureFixture) -> None:
    def warn(other: str, **values: float) -> None:
        metrics = {key: {"value": value, "p": 0.0123} for key, value in values.items()}
        warn_if_behind([{"one": "student", "other": other, "metrics": metrics}])

    warn(BASELINE, auc=0.0, ndcg_10=0.01)
    warn("teacher a", auc=-0.1)
    assert not caplog.messages
    warn(BASELINE, auc=-0.01, ndcg_10=0.01)
    expected = "the baseline on judged labels only is better: AUC 0.0100 higher, p = 0.012;"
    assert expected in caplog.text and "nDCG" not in caplog.text


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A run whose only teacher is one of scores; a label of 0.75 is relevant."""
    (tmp_path / "s.csv").write_text("query,title,score\na,b,1\n")
    teachers = {"llm": {"scores": [str(tmp_path / "s.csv")]}}
    return Run(run_config(tmp_path / "run", tmp_path, Path("no-model"), teachers=teachers))


def f32(*values: float) -> Array:
    return np.array(values, np.float32)


def some_scores(*, dev: Array, test: Array) -> tuple[dict[str, Scores], Scores]:
    """A teacher with these scores beside a student that scores all; labels 1, 0, 1, 0."""
    student = {"dev": f32(0.4, 0.1, 0.3, 0.2), "test": f32(0.4, 0.1, 0.15, 0.2)}
    labels = {"dev": f32(1, 0, 1, 0), "test": f32(1, 0, 1, 0)}
    return {LLM: {"dev": dev, "test": test}, "student": student}, labels


def test_a_teacher_without_dev_pairs_has_no_accuracy_and_the_student_keeps_its_own(
    run: Run,
) -> None:
    scored, labels = some_scores(dev=f32(NAN, NAN, NAN, NAN), test=f32(0.9, 0.1, NAN, NAN))
    assert partial_scorers(run) == [LLM]
    assert leave_out_unscored(scored, labels, but=[LLM]) == {"dev": 0, "test": 0}
    entries = measure_scorers(run, scored, labels, partial=[LLM])
    student, llm = entries["student"], entries[LLM]
    assert student["threshold"] == pytest.approx(0.25)  # of all dev pairs, of which 2 are relevant
    assert (student["num_pairs"], student["accuracy"], student["auc"]) == (4, 0.75, 0.75)
    assert (llm["num_pairs"], llm["auc"]) == (2, 1.0)
    assert llm["accuracy"] is None and llm["threshold"] is None
    kept = retained(run, scored, labels, entries=entries, name="student", reference=LLM)
    assert kept == {"AUC": 1.0, "AUC above chance": 1.0}  # both order the first two pairs rightly


def test_without_a_scored_test_pair_the_student_is_measured_and_retains_nothing(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    scored, labels = some_scores(dev=f32(0.9, 0.1, NAN, NAN), test=f32(NAN, NAN, NAN, NAN))
    num_unscored, entries = measure_beside(run, scored, labels, teacher=LLM)
    assert num_unscored == 0 and list(entries) == ["student"]
    assert entries["student"]["num_pairs"] == 4 and "retention" not in entries["student"]
    assert "teacher llm has scores of too few judged pairs: left out" in caplog.text
    kept = retained(run, scored, labels, entries=entries, name="student", reference=LLM)
    assert kept == {}


def test_stacks_of_partial_teachers_are_measured_on_their_own_pairs(tmp_path: Path) -> None:
    (tmp_path / "s.csv").write_text("query,title,score\na,b,1\n")
    scores = {"scores": [str(tmp_path / "s.csv")]}
    teachers = {"one": scores, "two": scores, "f": {"model": "no-model"}}

    def partial(**weights: float) -> list[str]:
        labels = {"weights": weights}
        config = run_config(tmp_path / "run", tmp_path, Path("no-model"),
                            teachers={name: teachers[name] for name in weights},
                            soft_labels=labels)  # fmt: skip
        return partial_scorers(Run(config))

    own = ["teacher one", "teacher two"]
    assert partial(one=1, two=1, f=1) == own
    assert partial(one=1, two=0, f=0) == [*own, "teacher ensemble"]
    assert partial(one=1, two=3) == [*own, "teacher ensemble", "teacher mean"]


def test_trees_stay_where_a_teacher_has_no_dev_pair_and_it_is_said_once(
    raw_files: Path, tmp_path: Path, prepared_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "s.csv").write_text("query,title,score\na,b,1\n")
    teachers = {"llm": {"scores": [str(tmp_path / "s.csv")]}}
    config = run_config(
        prepared_dir, raw_files, Path("no-model"), teachers=teachers, trees={"enabled": True}
    )
    run = Run(config)
    for shard in run.judged("dev").shards():
        pairs = run.judged("dev").read_table(shard)
        good = pa.array([6 * label - 3 for label in pairs["label"].to_pylist()], pa.float32())
        none = pa.nulls(pairs.num_rows, pa.float32())
        for name, logits in {"trees": good, "llm": none}.items():
            table = pa.table([pairs["pair_id"], logits], schema=LOGITS)
            run.logits(name).write_table(f"judged/dev/{shard}", table)
    for _ in range(3):
        assert stack_of(run).weights == {"llm": 0.5, "trees": 0.5}
    assert caplog.text.count("a logit of llm to fit a weight on: the mean weight of trees") == 1
