"""A teacher of scores from files, beside a cross-encoder and alone."""

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raydistill.cluster.connection import Cluster
from raydistill.config.run_config import RunConfig
from raydistill.data import prepare_steps
from raydistill.errors import UserError
from raydistill.evaluation.report.markdown import section_markdown
from raydistill.evaluation.report.sections.process import coverage_section
from raydistill.files.folder import Folder
from raydistill.runs.lexicon_file import load_lexicon
from raydistill.runs.run_folder import Run
from raydistill.runs.shards import shards_to_score
from raydistill.search.sample import draw_sample
from raydistill.stages import label
from raydistill.stages.evaluation.scorers import coverage, partial_scorers, teacher_scores
from raydistill.stages.fits import scores
from raydistill.stages.measured import entry_of, leave_out_unscored
from raydistill.stages.train import train_role
from raydistill.student.batches import Loader
from raydistill.student.fit_files import student_fit
from raydistill.teachers.judged_logits import Judged, read_judged
from tests.helpers.logits import share_of_words
from tests.helpers.runs import parquet_files, run_config

TWO = Cluster(num_cores=2, num_gpus=0)
SCORE = {"score": "p", "kind": "logit"}


def pairs_of(run: Run) -> list[dict[str, str]]:
    """All pairs that a teacher scores, in order."""
    columns = ["query", "title"]
    tables = [s.folder.read_table(s.name, columns=columns) for s in shards_to_score(run)]
    found: list[dict[str, str]] = pa.concat_tables(tables).to_pylist()
    return found


def logit_of(pair: dict[str, str]) -> float:
    return 6 * share_of_words(pair["query"], pair["title"]) - 3


def is_scored(pair: dict[str, str]) -> bool:
    return len(pair["title"]) % 3 == 0


def write_scores(run: Run, path: Path) -> None:
    """A JSONL file with the scores of a third of the pairs, some spaces around the queries."""
    rows = [{"query": f" {pair['query']}  ", "title": pair["title"], "p": logit_of(pair)}
            for pair in pairs_of(run) if is_scored(pair)]  # fmt: skip
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def with_scores(run: Run, files: str, **sections: object) -> Run:
    """The run with a teacher of scores beside its own, or with other sections."""
    teachers = {**run.config.model_dump()["teachers"], "llm": {"scores": [files], **SCORE}}
    changed = {**run.config.model_dump(exclude_none=True), "teachers": teachers, **sections}
    return Run(RunConfig.model_validate(changed))


def logits(run: Run, name: str = "llm") -> np.ndarray:
    tables = [run.logits(name).read_table(shard.target) for shard in shards_to_score(run)]
    return np.concatenate([np.asarray(table["logit"].to_numpy()) for table in tables])


@pytest.fixture
def plain(raw_files: Path, tiny_bert: Path, prepared_dir: Path) -> Run:
    return Run(run_config(prepared_dir, raw_files, tiny_bert))


def test_wrong_scores_are_one_line_before_anything_runs(plain: Run, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.csv"):
        with_scores(plain, str(tmp_path / "none.csv")).logits("llm")
    (tmp_path / "s.csv").write_text("query,title,score\na,b,1\n")
    with pytest.raises(UserError, match=r"no column 'p' .* name the columns in \[teachers\.llm\]"):
        label.check_teacher(with_scores(plain, str(tmp_path / "s.csv")), "llm")


@pytest.mark.ray
def test_some_pairs_have_a_score_and_a_resumed_job_writes_the_same_bytes(
    local_ray: None, plain: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "raydistill")
    path, pairs = tmp_path / "s.jsonl", pairs_of(plain)
    write_scores(plain, path)
    twice = next(pair for pair in pairs if is_scored(pair))
    with path.open("a") as file:  # another shop's pair, a bad row, and one pair with two scores
        file.write('{"query": "no such", "title": "pair", "p": 1}\n{"query": "a", "title": "b"}\n')
        file.write(json.dumps({**twice, "p": logit_of(twice) + 2}) + "\n")
    run = with_scores(plain, str(path), teachers={"llm": {"scores": str(path), **SCORE}})
    assert label.label_stage(run, TWO)
    expected = [logit_of(p) + (p == twice) if is_scored(p) else np.nan for p in pairs]
    assert np.allclose(logits(run), expected, equal_nan=True, atol=1e-5)
    num_scored = int(np.isfinite(expected).sum())
    done, index = run.logits("llm").success() or {}, run.teacher("llm").success() or {}
    assert done["absent"] == len(pairs) - num_scored and done["quarantined"] == 0
    assert (index["averaged"], index["quarantined"], done["unmatched"]) == (1, 1, 1)
    assert f"{num_scored:,} of {len(pairs):,} pairs have a score" in caplog.text
    before = parquet_files(run)
    run.logits("llm").delete_file("_SUCCESS.json")
    (Path(run.logits("llm").uri) / run.pairs.shards()[1]).unlink()
    run.teacher("llm").delete()
    assert label.label_stage(Run(run.config), TWO)
    assert parquet_files(run) == before
    path.write_text(path.read_text() + '{"query": "new", "title": "row", "p": 1}\n')
    assert Run(run.config).logits("llm").uri != run.logits("llm").uri  # scored again, elsewhere


@pytest.mark.ray
def test_scores_of_other_pairs_are_an_error_with_an_example(
    local_ray: None, plain: Run, tmp_path: Path
) -> None:
    (tmp_path / "s.csv").write_text("query,title,p\nno such,pair,1\n")
    teachers = {"llm": {"scores": str(tmp_path / "s.csv"), **SCORE}}
    run = with_scores(plain, "", teachers=teachers)
    with pytest.raises(UserError, match=r"none of the 1 scores .* query 'no such' with title 'pai"):
        label.label_stage(run, TWO)
    (tmp_path / "s.csv").write_text("query,title,p\na,b,x\nc,d,0\ne,f,\n")
    with pytest.raises(
        UserError, match=r"2 of the 3 rows of scores.*column p is null or not a num"
    ):
        label.label_stage(Run(with_scores(plain, "", teachers=teachers).config), TWO)


@pytest.mark.ray
def test_an_example_is_of_the_first_part_that_has_one(
    local_ray: None, plain: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the other parts no row is clean, and they end at any time."""
    monkeypatch.setattr(prepare_steps, "PART_ROWS", 1)  # a part a row
    queries = ["", "no such", "nor this", ""]
    rows = pa.table({"query": queries, "title": ["t"] * 4, "p": [1.0] * 4})
    pq.write_table(rows, tmp_path / "s.parquet", row_group_size=1)
    teachers = {"llm": {"scores": str(tmp_path / "s.parquet"), **SCORE}}
    run = with_scores(plain, "", teachers=teachers)
    with pytest.raises(UserError, match=r"none of the 2 scores .* query 'no such' with title 't'"):
        label.label_stage(run, TWO)
    assert (run.teacher("llm").success() or {})["examples"] == [["no such", "t"]]


def test_scores_of_no_judged_pair_without_a_transfer_set(plain: Run) -> None:
    plain.pairs.write_json("_SUCCESS.json", {**(plain.pairs.success() or {}), "shards": {}})
    for name in plain.pairs.shards():
        plain.pairs.delete_file(name)
    error = scores._no_match(plain, "llm", {"rows_out": 3, "examples": [["q", "t"]]})
    assert f"the run has query {pairs_of(plain)[0]['query']!r}" in str(error)
    assert "none of the 3" in str(scores._no_match(plain, "llm", {"rows_out": 3, "examples": []}))


@pytest.mark.ray
def test_scores_on_s3_give_the_logits_that_local_ones_give(
    local_ray: None, s3: str, plain: Run, tmp_path: Path
) -> None:
    write_scores(plain, tmp_path / "s.jsonl")
    (Folder(s3) / "llm").write_bytes("s.jsonl", (tmp_path / "s.jsonl").read_bytes())
    (Folder(s3) / "scored").upload(Path(plain.root.uri))
    teachers = {"llm": {"scores": f"{s3}/llm/*.jsonl", **SCORE}}
    run = with_scores(plain, "", teachers=teachers, run_dir=f"{s3}/scored")
    assert label.label_stage(run, TWO)
    expected = [logit_of(p) if is_scored(p) else np.nan for p in pairs_of(plain)]
    assert np.allclose(logits(run), expected, equal_nan=True, atol=1e-5)


@pytest.mark.ray
def test_a_student_learns_from_scores_alone_and_beside_a_model(
    local_ray: None, plain: Run, tmp_path: Path
) -> None:
    write_scores(plain, tmp_path / "s.jsonl")
    both = with_scores(plain, str(tmp_path / "s.jsonl"))
    assert label.label_stage(both, TWO)
    assert student_fit(both, "student").folder.uri == both.pairs.uri  # every pair has a target
    judged = {split: read_judged(both, split) for split in ("dev", "test")}
    covered = coverage(both, judged)
    assert covered["tiny"]["share"] == 1 and 0.2 < covered["llm"]["share"] < 0.5
    alone = with_scores(plain, "", teachers={"llm": both.config.model_dump()["teachers"]["llm"]})
    with pytest.raises(UserError, match="run `train`"):
        student_fit(alone, "student")
    assert train_role(alone, "student", TWO)
    _check_alone(alone)
    _check_report(both, judged, covered)


def _check_report(run: Run, judged: dict[str, Judged], covered: dict[str, dict[str, Any]]) -> None:
    """The teacher of some pairs is measured on these, the others on all."""
    scored, partial = teacher_scores(run), partial_scorers(run)
    labels = {split: one.labels_B for split, one in judged.items()}
    assert partial == ["teacher llm"]
    assert leave_out_unscored(scored, labels, but=partial) == {"dev": 0, "test": 0}
    num_pairs = int(np.isfinite(judged["test"].logits_BM[:, 1]).sum())
    assert entry_of(run, scored["teacher llm"], labels)["num_pairs"] == num_pairs
    ensemble = entry_of(run, scored["teacher ensemble"], labels)
    assert ensemble["num_pairs"] == len(labels["test"])
    assert covered["llm"]["test"] == num_pairs < len(labels["test"]) == covered["tiny"]["test"]
    section = coverage_section({"coverage": covered})
    assert section is not None and f" {num_pairs:,} |" in section_markdown(section)


def _check_alone(run: Run) -> None:
    """A student of scores alone has seen the scored pairs and no other, with their logits."""
    fit = student_fit(run, "student")
    pairs = pa.concat_tables(run.pairs.read_table(name) for name in run.pairs.shards())
    expected = [logit_of(pair) for pair in pairs.to_pylist() if is_scored(pair)]
    _, targets = Loader(fit.folder, fit.targets, spec=fit.spec, lexicon=load_lexicon(run)).read_all(
        fit.shards
    )
    assert np.allclose(targets, expected, atol=1e-5)
    assert fit.num_pairs == fit.num_epochs * len(expected)
    assert (run.student("student").success() or {})["pairs"] == fit.num_pairs
    sample = draw_sample(run, counted=run.config.teacher_names, num_pairs=10**6, seed=0)
    assert sample.num_pairs == len(expected)
