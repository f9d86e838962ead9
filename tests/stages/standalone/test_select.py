import json
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest

from raydistill.cli.main import main
from raydistill.config.run_config import RunConfig
from raydistill.data.pairs import query_keys
from raydistill.errors import UserError
from raydistill.files.folder import SUCCESS
from raydistill.files.schema import LOGITS
from raydistill.runs.run_folder import Run
from raydistill.runs.shards import shards_to_score
from raydistill.serving.bundle import CURRENT
from raydistill.stages.standalone.select import SCORE, Choice, select_pairs
from tests.helpers.bundles import make_bundle
from tests.helpers.logits import write_logits
from tests.helpers.prepared import prepare_here
from tests.helpers.runs import run_config, run_over


@pytest.fixture
def labeled(raw_files: Path, tiny_bert: Path, tmp_path: Path) -> Run:
    """A run whose teacher `tiny` has scored all pairs, by arithmetic."""
    run = prepare_here(run_config(tmp_path / "run", raw_files, tiny_bert), num_shards=3)
    write_logits(run)
    return run


def all_pairs(run: Run) -> pa.Table:
    names = ["pair_id", "query", "title"]
    return pa.concat_tables([run.pairs.read_table(n, columns=names) for n in run.pairs.shards()])


def judged_pairs(run: Run) -> pa.Table:
    folders = [run.judged(split) for split in ("dev", "test")]
    return pa.concat_tables([f.read_table(n) for f in folders for n in f.shards()])


NAME = "b" * 16  # of a bundle


def with_bundle(run: Run, **settings: object) -> Run:
    make_bundle(Path((run.bundle / NAME).uri), **settings)
    run.bundle.write_json(CURRENT, {"bundle": NAME})
    return run


def select(run: Run, output: Path, budget: int, **fields: object) -> pa.Table:
    select_pairs(run, Choice(budget, str(output), **fields))  # type: ignore[arg-type]
    return pq.read_table(output)


def test_at_random_in_turns_over_the_queries(labeled: Run, tmp_path: Path) -> None:
    found = select(labeled, tmp_path / "a.parquet", 400)
    assert found.column_names == ["query", "title", "pair_id"] and found.num_rows == 400
    there = all_pairs(labeled)
    assert set(found["pair_id"].to_pylist()) <= set(there["pair_id"].to_pylist())
    whole, some = Counter(there["query"].to_pylist()), Counter(found["query"].to_pylist())
    # As many pairs of each query, as long as it has some; one more of the last queries.
    most = max(some.values())
    assert all(some[query] >= min(num, most - 1) for query, num in whole.items())
    dev_and_test = set(judged_pairs(labeled)["query"].to_pylist())
    assert not dev_and_test & set(some)


def test_the_same_seed_gives_the_same_pairs_and_a_smaller_budget_the_first(
    labeled: Run, tmp_path: Path
) -> None:
    first = select(labeled, tmp_path / "a.parquet", 100)
    again = select(labeled, tmp_path / "b.parquet", 100)
    more = select(labeled, tmp_path / "c.parquet", 300)
    other = select(labeled, tmp_path / "d.parquet", 100, seed=1)
    assert first.equals(again) and first.equals(more.slice(0, 100)) and not first.equals(other)


def test_labeled_pairs_are_left_out_and_two_rounds_are_one(labeled: Run, tmp_path: Path) -> None:
    whole = select(labeled, tmp_path / "whole.parquet", 200)
    for shard in shards_to_score(labeled):  # logits for the first half alone: a round
        ids = shard.folder.read_table(shard.name, columns=["pair_id"])["pair_id"]
        bought = np.isin(ids.to_numpy(), whole["pair_id"].to_numpy()[:100])
        logits = pa.array(np.zeros(len(ids), np.float32), mask=~bought)
        labeled.logits("tiny").write_table(shard.target, pa.table([ids, logits], schema=LOGITS))
    second = select(labeled, tmp_path / "second.parquet", 100, teacher="tiny")
    assert second.equals(whole.slice(100))


def test_uncertain_pairs_are_preferred(labeled: Run, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no student in"):
        select(labeled, tmp_path / "a.parquet", 300, strategy="uncertain")
    run = with_bundle(labeled)
    by_chance = select(run, tmp_path / "chance.parquet", 300, strategy="random")
    uncertain = select(run, tmp_path / "uncertain.parquet", 300, strategy="uncertain")
    means = [np.abs(t[SCORE].to_numpy() - 0.5).mean() for t in (by_chance, uncertain)]
    assert means[1] < means[0]
    assert len(set(uncertain["pair_id"].to_pylist())) == 300


def with_shard(run: Run, pairs: pa.Table) -> Run:
    """The run with one more shard of the transfer set."""
    done = (run.root / "pairs").success()
    assert done is not None
    run.pairs.write_table("part-99999.parquet", pairs)
    shards = {**done["shards"], "part-99999.parquet": pairs.num_rows}
    (run.root / "pairs").write_json(SUCCESS, {**done, "shards": shards})
    return run


@pytest.mark.parametrize("strategy", ["random", "uncertain"])
def test_a_student_of_several_title_columns(labeled: Run, tmp_path: Path, strategy: str) -> None:
    run = with_bundle(labeled, title=["title", "brand"])
    assert SCORE in select(run, tmp_path / "a.parquet", 10, strategy=strategy).column_names


def test_a_student_that_cannot_be_loaded(
    labeled: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = with_bundle(labeled, format=1)
    found = select(run, tmp_path / "a.parquet", 10)
    assert found.column_names == ["query", "title", "pair_id"] and found.num_rows == 10
    assert "without the column student_score: bundle format 1;" in caplog.text
    with pytest.raises(UserError, match="bundle format 1;"):
        select(run, tmp_path / "b.parquet", 10, strategy="uncertain")


def test_queries_of_dev_and_test_that_are_not_held_out(
    raw_files: Path, tiny_bert: Path, tmp_path: Path
) -> None:
    config = run_config(tmp_path / "run", raw_files, tiny_bert, pairs={"hold_out": False})
    run = prepare_here(config, num_shards=2)
    held_out = judged_pairs(run).drop_columns("label")
    keys = query_keys(held_out["query"])
    num_free = int((~np.isin(query_keys(all_pairs(run)["query"]), keys)).sum())
    upper = [query.upper() for query in held_out["query"].to_pylist()]  # of the same key
    run = with_shard(run, held_out.set_column(1, "query", pa.array(upper)))
    found = select(run, tmp_path / "a.parquet", 10**6)
    assert found.num_rows == num_free
    assert not set(upper) & set(found["query"].to_pylist())
    all_of_them = select(run, tmp_path / "b.parquet", 10**6, judged=True)
    assert all_of_them.num_rows == num_free + held_out.num_rows


def test_copies_of_a_pair_are_selected_once(
    raw_files: Path, tiny_bert: Path, tmp_path: Path
) -> None:
    config = run_config(tmp_path / "run", raw_files, tiny_bert, pairs={"dedupe": False})
    run = prepare_here(config, num_shards=2)
    distinct = all_pairs(run).num_rows
    expected = select(run, tmp_path / "a.parquet", 50)
    shard = run.pairs.read_table("part-00000.parquet")
    run = with_shard(run, pa.concat_tables([shard, shard]))
    assert select(run, tmp_path / "b.parquet", 50).equals(expected)
    assert select(run, tmp_path / "c.parquet", 10**6).num_rows == distinct


def test_judged_pairs_come_first_if_they_are_asked_for(labeled: Run, tmp_path: Path) -> None:
    judged = set(judged_pairs(labeled)["pair_id"].to_pylist())
    found = select(labeled, tmp_path / "a.parquet", len(judged) + 10, judged=True)
    ids = found["pair_id"].to_pylist()
    assert set(ids[: len(judged)]) == judged and not judged & set(ids[len(judged) :])
    few = select(labeled, tmp_path / "b.parquet", 20, judged=True)
    assert few["pair_id"].to_pylist() == ids[:20]


def test_a_budget_above_all_pairs_takes_all(
    labeled: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    found = select(labeled, tmp_path / "a.parquet", 10**6)
    assert sorted(found["pair_id"].to_pylist()) == sorted(all_pairs(labeled)["pair_id"].to_pylist())
    assert "all of them are taken" in caplog.text
    with pytest.raises(UserError, match="tiny has a logit for all"):
        select(labeled, tmp_path / "b.parquet", 10, teacher="tiny")


def test_no_file_is_overwritten(labeled: Run, tmp_path: Path) -> None:
    own = tmp_path / "own.parquet"
    own.write_bytes(b"mine")
    with pytest.raises(UserError, match="was not written by `select`"):
        select(labeled, own, 10)
    assert own.read_bytes() == b"mine"
    output = tmp_path / "a.parquet"
    select(labeled, output, 10)
    before = output.read_bytes()
    assert not select_pairs(labeled, Choice(10, str(output)))["is_new"]
    with pytest.raises(UserError, match="made with other budget"):
        select(labeled, output, 11)
    assert output.read_bytes() == before
    with pytest.raises(UserError, match="lies in the run folder"):
        select(labeled, Path(labeled.root.uri) / "a.parquet", 10)
    pairs = Path(labeled.config.pairs.input[0].path)
    with pytest.raises(UserError, match="would be an input of"):
        select(labeled, pairs / "a.parquet", 10)


def test_csv_jsonl_and_s3(labeled: Run, tmp_path: Path, s3: str) -> None:
    expected = select(labeled, tmp_path / "a.parquet", 50)
    select_pairs(labeled, Choice(50, str(tmp_path / "a.csv")))
    assert pacsv.read_csv(tmp_path / "a.csv").equals(expected)
    select_pairs(labeled, Choice(50, str(tmp_path / "a.jsonl")))
    assert pa.Table.from_pylist(
        [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    ).equals(expected)
    output = f"{s3}/rounds/a.parquet"
    assert select_pairs(labeled, Choice(50, output))["is_new"]
    assert not select_pairs(labeled, Choice(50, output))["is_new"]


def test_the_command(labeled: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run.toml").write_text(labeled.config.to_toml())
    command = ["select", "--config", str(tmp_path / "run.toml"), "--budget", "1_0"]
    command += ["--output", str(tmp_path / "a.csv")]
    assert main(command) == 0
    out = capsys.readouterr().out
    assert "10 pairs of 10 queries" in out and "in the table of" not in out
    assert main(command) == 0
    assert "nothing left to do" in capsys.readouterr().out
    assert main([*command, "--strategy", "best"]) == 2
    assert "no strategy 'best'; give random or uncertain" in capsys.readouterr().err
    assert main([*command, "--teacher", "tinny"]) == 2
    assert "did you mean tiny?" in capsys.readouterr().err
    assert main([*command, "--output", str(tmp_path / "a.xlsx")]) == 2
    assert "give a .parquet, .csv or .jsonl file" in capsys.readouterr().err


def test_the_command_says_which_columns_to_name(
    raw_files: Path, tiny_bert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    titles = {"title": ["title", "query"]}
    config = run_config(tmp_path / "run", raw_files, tiny_bert, pairs=titles, judged=titles)
    prepare_here(config, num_shards=2)
    (tmp_path / "run.toml").write_text(config.to_toml())
    command = ["select", "--config", str(tmp_path / "run.toml"), "--budget", "10"]
    assert main([*command, "--output", str(tmp_path / "a.csv")]) == 0
    assert 'with query = "query", title = "title" in the table' in capsys.readouterr().out


def with_scores(run: Run, file: Path, *names: str) -> Run:
    """The run with teachers of scores from one file, which are not labeled."""
    pq.write_table(pa.table({"query": ["a"], "title": ["b"], "score": [0.5]}), file)
    of_scores = {name: {"scores": [str(file)], "kind": "probability"} for name in names}
    given = run.config.model_dump(mode="json", exclude_none=True)
    return Run(RunConfig.model_validate({**given, "teachers": {**given["teachers"], **of_scores}}))


def test_the_teacher_of_scores_is_the_one_that_labels(labeled: Run, tmp_path: Path) -> None:
    file = tmp_path / "labels" / "1.parquet"
    file.parent.mkdir()
    one = with_scores(labeled, file, "llm")
    with pytest.raises(UserError, match="llm has no logits for"):
        select(one, tmp_path / "a.parquet", 10)
    two = with_scores(labeled, file, "llm", "api")
    with pytest.raises(UserError, match=r"scores from files \(llm, api\): name the one"):
        select(two, tmp_path / "b.parquet", 10)
    with pytest.raises(UserError, match="would be an input of teachers"):
        select(one, file, 10)


def test_before_prepare(tmp_path: Path, raw_files: Path) -> None:
    with pytest.raises(UserError, match="run `prepare` first"):
        select(run_over(tmp_path / "run", raw_files), tmp_path / "a.csv", 10)
