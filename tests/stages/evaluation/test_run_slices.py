"""Columns of the judged files as slices, read again by query and title."""

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from raydistill.config.loading import to_config
from raydistill.data.bucket_layout import BucketLayout, bucket_of
from raydistill.data.pairs import collapse, group_keys, pair_ids
from raydistill.errors import UserError
from raydistill.evaluation.metrics.bootstrap import Draws
from raydistill.evaluation.scoreboard.scored_pairs import ScoredPairs
from raydistill.files.folder import SUCCESS
from raydistill.runs.run_folder import Run
from raydistill.stages.evaluation.reread_rows import check_files_of_report
from raydistill.stages.evaluation.run_slices import further_values, run_slices, slices_of
from raydistill.stages.evaluation.split_pairs import SplitPairs
from raydistill.teachers.judged_logits import Judged
from tests.helpers.runs import run_config

QUERIES = ["sofa", "sofa", "lamp", "lamp"]
TITLES = ["Sofa", "Chair", "Lamp", "Sofa"]
LABELS = np.array([1, 0, 1, 0], np.float32)


def pairs() -> SplitPairs:
    ids = pair_ids(pa.array(QUERIES), pa.array(TITLES))
    table = pa.table({"pair_id": ids, "query": QUERIES, "title": TITLES, "weight": [1.0] * 4})
    return SplitPairs(table, Judged(np.empty((4, 0), np.float32), LABELS, np.array([0, 0, 1, 1])))


def scored() -> ScoredPairs:
    teacher, student = np.array([[0.9, 0.2, 0.6, 0.4], [0.8, 0.1, 0.3, 0.7]], np.float32)
    scores = {"teacher tiny": teacher, "student": student, "BM25": student}
    return ScoredPairs(LABELS, pairs().groups_B, 0.5, scores, uncalibrated=["BM25"])


def run_of(tmp_path: Path, **evaluate: object) -> Run:
    file = tmp_path / "judged.csv"
    file.write_text(
        "query,title,label,category,searches\n"
        "sofa,Sofa,1,seats,90\nsofa,Chair,0,seats,90\n lamp ,Lamp,1,lights,10\n"
        "lamp,Sofa,0,,10\ndesk,Desk,1,desks,1\nlamp,Sofa,1,lights,10\n"
    )
    judged = {"input": [str(file)]}
    teachers = {"tiny": {"model": "no-model"}}
    return Run(run_config(tmp_path / "run", tmp_path, Path("no-model"), judged=judged,
                          evaluate=evaluate, teachers=teachers))  # fmt: skip


def test_columns_are_read_again_and_matched_by_query_and_title(tmp_path: Path) -> None:
    run = run_of(tmp_path, slices=["category", "category"], weight="searches")
    assert further_values(run, pairs()) == {
        "category": ["seats", "seats", "lights", ""],  # of the first of two equal pairs
        "searches": ["90", "90", "10", "10"],
    }
    found = {one.name: one for one in slices_of(run, pairs(), scored(), teacher="teacher tiny")}
    assert [*found["category"].cells] == ["seats", "lights"]
    head = found["popularity of the query"].cells
    assert head["head"].tolist() == [True, True, False, False] and [*head] == ["head", "tail"]


def test_every_cell_has_its_figures_and_references_are_left_out(tmp_path: Path) -> None:
    run, draws = run_of(tmp_path, slices=["category"]), Draws(resamples=100)
    found = run_slices(run, pairs(), scored(), teacher="teacher tiny", draws=draws)
    by_name = {one["slice"]: one for one in found}
    seen = by_name["query seen in training"]
    assert "pairs.hold_out" in seen["note"]
    (cell,) = seen["cells"]
    assert (cell["cell"], cell["num_pairs"], cell["num_queries"]) == ("unseen", 4, 2)
    assert set(cell["metrics"]) == {"teacher tiny", "student"}
    assert cell["metrics"]["student"]["auc"]["value"] == 0.75
    assert cell["retention"]["query_auc"]["value"] == 0.5
    assert [cell["num_pairs"] for cell in by_name["category"]["cells"]] == [2, 1]
    assert "disagreement of the teachers" not in by_name  # there is one


@pytest.mark.parametrize("dedupe", [True, False])
def test_queries_that_are_in_the_transfer_set_are_looked_up_in_the_shards_of_their_keys(
    tmp_path: Path, dedupe: bool
) -> None:
    """Without `hold_out`; with `dedupe` no other shard is read: one of them has no rows at all."""
    judged, others = pairs(), pa.table({"query": ["lamps"], "title": ["x"]})
    layout = BucketLayout(64, 64, increment=0)
    (bucket,) = bucket_of(group_keys(others), 64).tolist()
    run = run_of(tmp_path)
    rules = run.config.pairs.model_copy(update={"hold_out": False, "dedupe": dedupe})
    run = Run(run.config.model_copy(update={"pairs": rules}))
    (tmp_path / "pairs").mkdir()
    (tmp_path / "pairs" / "a.csv").write_text("query,title\nlamps,x\n")
    run.write_manifest(run.manifest)
    names = {f"{layout.name(bucket)}.parquet": 1}
    run.pairs.write_table(next(iter(names)), collapse(others, dedupe=True))
    if dedupe:
        wanted = set(bucket_of(group_keys(judged.table), 64).tolist())
        free = next(at for at in range(64) if at not in wanted)
        run.pairs.write_bytes(f"{layout.name(free)}.parquet", b"no Parquet")
        names[f"{layout.name(free)}.parquet"] = 1
    done = {"shards": names, "increments": [{"layouts": {"": asdict(layout)}}]}
    run.pairs.write_json(SUCCESS, {"fingerprint": run.prepare_fingerprint("pairs"), **done})
    slices = slices_of(run, judged, scored(), teacher="teacher tiny")
    (one,) = [one for one in slices if one.name == "query seen in training"]
    assert {name: mask.tolist() for name, mask in one.cells.items()} == {
        "seen": [False, False, True, True], "unseen": [True, True, False, False],
    }  # fmt: skip


def test_a_missing_column_is_named_before_anything_runs(tmp_path: Path) -> None:
    run = run_of(tmp_path, slices=["categories"])
    with pytest.raises(
        UserError, match=r"no column 'categories' .* did you mean 'category'\?; name"
    ):
        check_files_of_report(run.config)
    check_files_of_report(run_of(tmp_path, slices=["category"]).config)


def test_pairs_of_the_transfer_set_have_no_columns_of_judged_files(tmp_path: Path) -> None:
    content = run_of(tmp_path).config.model_dump(mode="json", exclude_none=True)
    del content["judged"]
    with pytest.raises(UserError, match=r"evaluate names the columns shop, asked, but the test"):
        to_config({**content, "evaluate": {"slices": ["shop"], "weight": "asked"}}, name="run.toml")
    pairs = {**content["pairs"], "source": "month"}
    config = to_config({**content, "pairs": pairs, "evaluate": {"slices": ["source"]}}, name="r")
    assert config.evaluate.slices == ("source",)
