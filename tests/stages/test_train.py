from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from raydistill.errors import UserError
from raydistill.run import Run
from raydistill.schema import LOGITS
from raydistill.shards import shards_to_score
from raydistill.stages import train
from tests.conftest import run_config


def share_of_words(query: str, title: str) -> float:
    words = query.lower().split()
    return sum(word in title.lower() for word in words) / len(words)


def write_logits(run: Run) -> None:
    """A teacher whose logit is 6 x (share of the query's words in the title) - 3."""
    for shard in shards_to_score(run):
        pairs = shard.folder.read_table(shard.name)
        logits = [
            6 * share_of_words(r["query"], r["title"]) - 3
            for r in pairs.select(["query", "title"]).to_pylist()
        ]
        table = pa.table([pairs["pair_id"], pa.array(logits, pa.float32())], schema=LOGITS)
        run.logits("tiny").write_table(shard.target, table)


@pytest.fixture
def labeled(raw_files: Path, tiny_bert: Path, prepared_dir: Path) -> Run:
    run = Run(run_config(prepared_dir, raw_files, tiny_bert))
    write_logits(run)
    return run


def fit(job: train.Job, state: train.State, *, saves: list[Path] | None = None) -> list[str]:
    lines: list[str] = []

    def save(current: train.State) -> None:
        if saves is not None:
            path = saves[0].with_name(f"{len(saves)}.pt")
            current.save(path)
            saves.append(path)

    train.fit_student(job, state, rank=0, num_workers=1, device="cpu", save=save, log=lines.append)
    return lines


def test_the_student_learns_what_the_teacher_says(labeled: Run) -> None:
    job = train.make_job(labeled, "student")
    train._measure_features(job)
    state = train.new_state(job, device="cpu")
    lines = fit(job, state)
    assert state.history[-1]["loss"] < state.history[0]["loss"] - 0.01
    assert len(state.history) == 2
    ends = [line for line in lines if "dev AUC" in line]
    assert ["epoch 1/2" in ends[0], "epoch 2/2" in ends[1]] == [True, True]
    assert state.best_auc == max(epoch["dev_auc"] for epoch in state.history)
    pairs = labeled.pairs.read_table(labeled.pairs.shards()[0])
    state.student.load_state_dict(state.best)
    loader = train.Loader(
        job.folder, job.targets, spec=job.spec, idf_V=train.load_features(job.output)["idf"]
    )
    features, targets = loader.shard(labeled.pairs.shards()[0])
    logits = train.predict(state.student, features, device="cpu")
    assert np.corrcoef(logits, targets)[0, 1] > 0.9
    assert len(pairs) == len(targets)


def test_a_fit_cut_off_within_an_epoch_ends_with_the_same_bytes(
    labeled: Run, tmp_path: Path
) -> None:
    config = labeled.config.train.model_copy(
        update={"checkpoint_every_windows": 1, "window_shards": 1}
    )
    run = Run(labeled.config.model_copy(update={"train": config}))
    job = train.make_job(run, "student")
    train._measure_features(job)
    whole = train.new_state(job, device="cpu")
    saves = [tmp_path / "saves"]
    fit(job, whole, saves=saves)
    assert len(saves) - 1 == 2 * len(job.shards)  # each window of both epochs
    resumed = train.new_state(job, device="cpu")
    resumed.load(saves[2], device="cpu")
    assert (resumed.epoch, resumed.window) == (0, 2)
    fit(job, resumed)
    for name, value in whole.student.state_dict().items():
        assert torch.equal(value, resumed.student.state_dict()[name]), name
    assert [e["dev_auc"] for e in resumed.history] == [e["dev_auc"] for e in whole.history]


def test_the_judged_only_student_needs_no_teacher(raw_files: Path, prepared_dir: Path) -> None:
    run = Run(run_config(prepared_dir, raw_files, Path("no-model")))
    job = train.make_job(run, "judged_only")
    train._measure_features(job)
    state = train.new_state(job, device="cpu")
    fit(job, state)
    assert len(state.history) == 2 and np.isfinite(state.best_auc)


def test_the_plan_has_every_pair_and_no_judged_one(labeled: Run) -> None:
    # Shards of the dev and test splits have the same names as those of the pairs.
    rows = {n: labeled.pairs.read_table(n).num_rows for n in labeled.pairs.shards()}
    assert train.make_job(labeled, "student").shards == rows


def test_missing_logits_are_named(labeled: Run) -> None:
    name = labeled.pairs.shards()[0]
    (Path(labeled.logits("tiny").uri) / name).unlink()
    with pytest.raises(UserError, match=r"tiny has not scored 1 of the shards: run `label` first"):
        train.make_job(labeled, "student")


def test_what_makes_another_student(labeled: Run) -> None:
    def with_(section: str, **fields: object) -> Run:
        changed = getattr(labeled.config, section).model_copy(update=fields)
        return Run(labeled.config.model_copy(update={section: changed}))

    base = labeled.student("student").uri
    assert with_("labels", temperature=2.0).student("student").uri != base
    assert with_("ngrams", preset="bert2dnn").student("student").uri != base
    assert with_("train", num_workers=4).student("student").uri == base
    judged = labeled.student("judged_only").uri
    assert with_("labels", temperature=2.0).student("judged_only").uri == judged
