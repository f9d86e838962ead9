"""Scores of files, looked up by shards; the right answer is a dict."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raydistill.config.data import ScoreInputs
from raydistill.data.chunks import write_index
from raydistill.data.manifest import find_files
from raydistill.data.pairs import group_keys, pair_ids
from raydistill.data.prepare_steps import plan_parts
from raydistill.data.scores import index as scores_index
from raydistill.data.scores.columns import ScoreRule
from raydistill.data.scores.index import (
    ScoreFiles,
    ScoreIndex,
    gather_scores,
    merge_scores,
    scatter_scores,
)
from raydistill.files.folder import Folder


def build(root: Path, rows: dict[str, list[object]], *, num_buckets: int) -> tuple[ScoreFiles, int]:
    """The index of a file in two row groups; and the pairs with different scores."""
    pq.write_table(pa.table(rows), root / "scores.parquet", row_group_size=3)
    rules = ScoreInputs(input=(str(root / "scores.parquet"),), score_columns=("z",))
    index = Folder(str(root / "index"))
    index.claim("run")
    files = ScoreFiles(rules, ScoreRule("logit", ("z",)), index, Folder(str(root / "bad")))
    parts = [scatter_scores(item, files=files) for item in plan_parts(find_files(rules))]
    chunks = [chunk for part in parts for chunk in part["chunks"]]
    write_index(files.chunks, scores_index.INDEX, chunks)
    done = [
        gather_scores(item, files=files, num_buckets=num_buckets)
        for item in scores_index.plan_gather(num_buckets)
    ]
    return files, sum(one["averaged"] for one in done)


def shard_of(pairs: list[tuple[str, str]]) -> pa.Table:
    queries, titles = (pa.array(column) for column in zip(*pairs, strict=True))
    return pa.table({"pair_id": pair_ids(queries, titles), "query": queries, "title": titles})


@pytest.mark.parametrize("num_buckets", [1, 5])
def test_the_pairs_of_a_shard_find_their_scores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, num_buckets: int
) -> None:
    monkeypatch.setattr(scores_index, "CHUNK_ROWS", 2)  # several chunks a part
    rows = {
        "query": ["sofa", " sofa ", "lamp", "sofa", "", "drill", "lamp"],
        "title": ["oak", "oak", "red  lamp", "red", "x", "18 v", "blue"],
        "z": [1.0, 3.0, 5.0, 7.0, 9.0, float("nan"), -2.0],
    }
    files, num_averaged = build(tmp_path, rows, num_buckets=num_buckets)
    assert num_averaged == 1  # "sofa", "oak": 1 and 3, after cleaning
    pairs = [("lamp", "red lamp"), ("sofa", "oak"), ("sofa", "green"), ("lamp", "blue"),
             ("sofa", "red"), ("drill", "18 v"), ("sofa", "oak")]  # fmt: skip
    found = ScoreIndex(files.index, num_buckets).logits(shard_of(pairs))
    assert found.to_pylist() == [5.0, 2.0, None, -2.0, 7.0, None, 2.0]
    assert (
        ScoreIndex(files.index, num_buckets).logits(shard_of(pairs).slice(0, 0)).to_pylist() == []
    )
    bad = pa.concat_tables(files.quarantine.read_table(n) for n in files.quarantine.shards())
    reasons = dict(zip(bad["row"].to_pylist(), bad["reason"].to_pylist(), strict=True))
    assert reasons == {4: "query is empty", 5: "column z is null or not a number"}


def test_equal_pairs_become_one_whatever_their_order() -> None:
    keys, rule = np.array([7, 7, 9, 7], np.uint64), ScoreRule("probability", ("p",))
    rows = pa.table({"key": keys, "pair_id": [1, 1, 2, 3],
                     "value": pa.array([0.2, 0.8, 1.0, 0.5], pa.float32())})  # fmt: skip
    merged, num_averaged = merge_scores(rows, rule)
    assert merged["pair_id"].to_pylist() == [1, 3, 2] and num_averaged == 1
    assert np.allclose(merged["logit"], [0, 0, 6.9068], atol=1e-4)  # the mean of 0.2 and 0.8 is 0.5
    assert merge_scores(rows.take([3, 1, 2, 0]), rule)[0].equals(merged)


def test_a_resumed_part_is_not_read_again(tmp_path: Path) -> None:
    rows: dict[str, list[object]] = {"query": ["a"], "title": ["b"], "z": [1.0]}
    files, _ = build(tmp_path, rows, num_buckets=1)
    (item,) = plan_parts(find_files(files.rules))
    (tmp_path / "scores.parquet").unlink()
    assert scatter_scores(item, files=files)["counts"] == {"rows_in": 1, "quarantined": 0}


def test_keys_of_a_shard_are_those_of_the_index() -> None:
    pairs = shard_of([("Sofa  ", "x"), ("sofa", "y")])
    assert len(set(group_keys(pairs).tolist())) == 1
