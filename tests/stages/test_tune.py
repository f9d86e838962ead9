from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raydistill.cluster.connection import Cluster
from raydistill.config.loading import load_config, read_overlay
from raydistill.errors import UserError
from raydistill.files.pieces import shard_pieces
from raydistill.files.schema import LOGITS
from raydistill.runs.run_folder import TUNED, Run
from raydistill.runs.shards import pair_shards, shards_to_score
from raydistill.search.results import FAILED, FINISHED, STOPPED
from raydistill.search.sample import draw_sample
from raydistill.search.trial import run_trial, trial_fit
from raydistill.stages import tune
from raydistill.student import fit_files
from raydistill.teachers.judged_logits import fitted_stack, read_judged, stack_of
from tests.helpers.logits import share_of_words
from tests.helpers.runs import run_config

SPACE = {
    "soft_labels.temperature": {"low": 0.5, "high": 4.0, "log": True},
    "soft_labels.weights": {"spread": 1.0},
    "student.hidden": {"choices": [[16, 8], [8]]},
    "ngrams.word_dim": {"choices": [4, 8]},  # the lexicon has 4 columns: with 8 a trial fails
}
TUNE = {
    "num_trials": 6, "sample_pairs": 1_000, "max_epochs": 1, "num_final": 1, "final_seeds": 1,
    "space": SPACE,
}  # fmt: skip


def write_two_teachers(run: Run) -> None:
    """`good` knows the share of the query's words in the title, `noise` knows nothing."""
    for shard in shards_to_score(run):
        pairs = shard.folder.read_table(shard.name)
        rng = np.random.default_rng(len(pairs))
        rows = pairs.select(["query", "title"]).to_pylist()
        good = [6 * share_of_words(row["query"], row["title"]) - 3 for row in rows]
        for name, logits in {"good": good, "noise": rng.normal(size=len(rows)).tolist()}.items():
            table = pa.table([pairs["pair_id"], pa.array(logits, pa.float32())], schema=LOGITS)
            run.logits(name).write_table(shard.target, table)


@pytest.fixture
def labeled(raw_files: Path, tiny_bert: Path, prepared_dir: Path) -> Run:
    teachers = {name: {"model": str(tiny_bert)} for name in ("good", "noise")}
    labels = {"weights": "fitted"}
    config = run_config(
        prepared_dir, raw_files, tiny_bert, teachers=teachers, soft_labels=labels, tune=TUNE
    )
    run = Run(config)
    write_two_teachers(run)
    return run


@pytest.mark.ray
def test_fitted_weights_make_the_soft_labels_and_the_fingerprint(labeled: Run) -> None:
    stack = fitted_stack(labeled)
    assert stack.weights["good"] > 0.8
    targets = fit_files.student_fit(labeled, "student").targets
    assert targets.weights == tuple(stack.weights.values()) and targets.bias == stack.bias
    dev = read_judged(labeled, "dev")
    assert len(dev.labels_B) == stack.num_pairs and len(set(dev.groups_B.tolist())) > 10
    labels = labeled.config.soft_labels.model_copy(update={"weights": {"good": 1.0, "noise": 1.0}})
    equal = labeled.config.model_copy(update={"soft_labels": labels})
    assert Run(equal).train_fingerprint("student") != labeled.train_fingerprint("student")
    assert stack_of(Run(equal)).weights == {"good": 0.5, "noise": 0.5}


@pytest.mark.ray
def test_a_sample_is_read_as_the_run_folder_is(labeled: Run) -> None:
    everything = draw_sample(labeled, counted=labeled.config.teacher_names, num_pairs=10**6, seed=0)
    assert everything.shards == pair_shards(labeled)
    task = tune.search_context(labeled)
    assert task.sample.num_pairs == 1_000 and set(task.sample.shards) == set(everything.shards)
    for name, rows in task.sample.shards.items():
        some, all_rows = (s.logits["good"].read_table(name) for s in (task.sample, everything))
        ids, logits = (all_rows[column].to_pylist() for column in ("pair_id", "logit"))
        logit_of = dict(zip(ids, logits, strict=True))
        assert rows == len(set(some["pair_id"].to_pylist())) < all_rows.num_rows
        assert [logit_of[i] for i in some["pair_id"].to_pylist()] == some["logit"].to_pylist()
    values = {
        "soft_labels.temperature": 2.0, "soft_labels.weights.noise": 0.0, "student.hidden": 1,
        "ngrams.word_dim": 0,
    }  # fmt: skip
    fit = trial_fit(task, values)
    name = next(iter(task.sample.shards))
    (piece,) = shard_pieces(name, fit.shards[name])
    part = fit.targets.for_piece(piece, fit.folder.read_table(name))
    there = trial_fit(task, {**values, "soft_labels.temperature": 1.0})
    same = there.targets.for_piece(piece, there.folder.read_table(name))
    assert part * 2 == pytest.approx(same)  # `match` learns the logits of the soft labels
    assert fit.run.config.student.hidden == (8,) and fit.num_pairs == 1_000


@pytest.mark.ray
@pytest.mark.parametrize("metric", ["log_loss", "ece", "ndcg_10"])
def test_a_trial_reports_the_best_so_far(labeled: Run, metric: str) -> None:
    config = labeled.config.model_copy(
        update={"tune": labeled.config.tune.model_copy(update={"metric": metric})}
    )
    task = tune.search_context(Run(config))
    values = {
        "soft_labels.temperature": 1.0, "soft_labels.weights.noise": 0.0, "student.hidden": 0,
        "ngrams.word_dim": 0,
    }  # fmt: skip
    found: list[dict[str, float]] = []
    run_trial(task, values, report=found.append, time_us=lambda *_: 7.0)
    assert [entry["pairs"] for entry in found] == [250, 500, 750, 1_000]  # 16 even batches
    assert found[-1]["done_share"] == 1 and found[-1]["us_per_pair"] == 7
    aucs = [entry["auc"] for entry in found]
    assert aucs == sorted(aucs) and metric in found[-1]


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_from_a_space_to_an_overlay_that_train_takes(labeled: Run, tmp_path: Path) -> None:
    cluster = Cluster(num_cores=2, num_gpus=0)
    assert tune.tune_stage(labeled, cluster)
    table = pq.read_table(labeled.tune.path(tune.TRIALS))
    rows = table.to_pylist()
    assert len(rows) == 6 and {row["state"] for row in rows} <= {FINISHED, STOPPED, FAILED}
    for row in rows:  # a mistake in one trial is written down, and the others go on
        is_wrong = row["ngrams.word_dim"] > 4
        assert (row["state"] == FAILED) == is_wrong
        assert (row["error"] is not None) == is_wrong
    assert any(row["state"] == FAILED for row in rows)
    assert "the search has 4 columns" in next(row["error"] for row in rows if row["error"])
    found = labeled.tune.read_json(TUNED)
    assert found is not None and next(f["name"] for f in found["finals"]) == "untuned"
    assert len(found["finals"]) == 2
    report = labeled.tune.read_bytes(tune.REPORT).decode()
    assert found["verdict"] in report and "settings.svg" in report
    assert labeled.tune.exists("settings.svg")
    _check_overlay(labeled, found, tmp_path)
    assert not tune.tune_stage(labeled, cluster)
    labeled.tune.delete_file("_SUCCESS.json")  # as if killed just before the end
    assert tune.tune_stage(labeled, cluster)  # neither trials nor students are made again
    assert pq.read_table(labeled.tune.path(tune.TRIALS)).equals(table)


def _check_overlay(run: Run, found: dict[str, object], tmp_path: Path) -> None:
    """The student of the chosen settings is there already: `train` with the overlay finds it."""
    file = tmp_path / "run.toml"
    file.write_text(run.config.to_toml())
    overlay = read_overlay(f"{run.tune.uri}/{tune.BEST}")
    tuned = Run(load_config(str(file), overlays=[overlay]))
    assert tuned.student("student").success() is not None
    final = next(f for f in found["finals"] if f["name"] == found["chosen"])  # type: ignore[attr-defined]
    assert final["students"][0]["fingerprint"] == tuned.train_fingerprint("student")
    assert run.tune.read_bytes(tune.BEST).decode().startswith(f"# {found['verdict']}\n")


@pytest.mark.ray
def test_shards_without_logits_are_found_first(labeled: Run) -> None:
    labeled.logits("noise").delete()
    with pytest.raises(UserError, match="noise has not scored"):
        tune.search_context(labeled)


@pytest.mark.parametrize(
    ("settings", "cluster", "num"),
    [
        ({}, Cluster(8, 0), 8),
        ({"num_workers": 3}, Cluster(8, 0), 2),
        ({"num_workers": 9}, Cluster(8, 0), 1),  # it waits for a cluster that grows
        ({"num_gpus": 0.5, "num_workers": 2}, Cluster(8, 3), 3),
    ],
)
def test_finals_are_trained_as_many_at_once_as_fit(
    settings: dict[str, float], cluster: Cluster, num: int, tmp_path: Path
) -> None:
    run = Run(run_config(tmp_path, tmp_path, tmp_path, train=settings))
    assert tune._side_by_side(run, cluster) == num
