import os
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from raydistill.cluster.connection import Cluster
from raydistill.config.teachers import ENGINE, TeacherConfig
from raydistill.errors import UserError
from raydistill.files.folder import Folder
from raydistill.files.model_files import model_fingerprint
from raydistill.files.schema import QUARANTINE
from raydistill.runs.run_folder import Run
from raydistill.runs.shards import missing_shards, pair_shards, shards_to_score
from raydistill.stages import label
from raydistill.stages.distill import is_complete
from raydistill.teachers.cross_encoder import Teacher
from raydistill.teachers.scoring_steps import read_tokens
from raydistill.teachers.shards.logits import count_bad
from tests.helpers.decoders import make_decoder
from tests.helpers.logits import label_without_ray, logits_of, score
from tests.helpers.models import make_bert
from tests.helpers.runs import run_config

ONE = Cluster(num_cores=1, num_gpus=0)
TWO = Cluster(num_cores=2, num_gpus=0)


@pytest.fixture
def prepared(raw_files: Path, tiny_bert: Path, prepared_dir: Path) -> Run:
    return Run(run_config(prepared_dir, raw_files, tiny_bert))


def broken_teacher(folder: Path, *, bad_word: str | None) -> Path:
    """A teacher that gives NaN: for every pair, or for those with a word."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    make_bert(folder, num_labels=1)
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    if bad_word is None:
        torch.nn.init.constant_(model.classifier.bias, float("nan"))
    else:
        word = AutoTokenizer.from_pretrained(folder).convert_tokens_to_ids(bad_word)
        with torch.no_grad():
            model.bert.embeddings.word_embeddings.weight[word] = float("nan")
    model.save_pretrained(folder)
    return folder


def with_teacher(run: Run, model: Path, **label_settings: float) -> Run:
    teachers = {"tiny": run.config.teachers["tiny"].model_copy(update={"model": str(model)})}
    settings = run.config.label.model_copy(update=label_settings)
    return Run(run.config.model_copy(update={"teachers": teachers, "label": settings}))


def test_a_teacher_that_gives_nan_is_stopped(prepared: Run, tmp_path: Path) -> None:
    broken = with_teacher(prepared, broken_teacher(tmp_path / "broken", bad_word=None))
    with pytest.raises(
        UserError, match=r"(\d+) of \1 pairs got no logit.*allows \d+; .*label.dtype"
    ):
        label_without_ray(broken, {prepared.pairs.shards()[0]})
    assert not broken.logits("tiny").shards()


def test_counts_of_before_an_addition_are_noticed(prepared: Run) -> None:
    """A job that ended between the last shard and _SUCCESS.json left what the first one wrote."""
    score(prepared, "tiny")
    logits = prepared.logits("tiny")
    done = logits.success() or {}
    assert is_complete("label", prepared)
    num_first = pair_shards(prepared)[prepared.pairs.shards()[0]]
    first = {"shards": 1, "rows_in": num_first, "rows_out": num_first, "quarantined": 0}
    logits.write_json("_SUCCESS.json", {**done, **first})
    files = logits_of(prepared)
    assert not is_complete("label", prepared)
    assert label.label_stage(prepared, ONE)
    found = logits.success() or {}
    assert {name: found[name] for name in first} == {name: done[name] for name in first}
    assert found["rows_scored"] == 0 and logits_of(prepared) == files
    assert is_complete("label", prepared) and not label.label_stage(prepared, ONE)


def test_a_pair_without_a_logit_is_null_and_in_quarantine(prepared: Run, tmp_path: Path) -> None:
    folder = broken_teacher(tmp_path / "broken", bad_word="blue")
    run = with_teacher(prepared, folder, max_bad_fraction=0.5)
    name = prepared.pairs.shards()[0]
    label_without_ray(run, {name})
    pairs = prepared.pairs.read_table(name)
    logits = run.logits("tiny").read_table(name)
    is_bad = np.array(
        ["blue" in f"{p['query']} {p['title']}".lower().split() for p in pairs.to_pylist()]
    )
    found = logits["logit"].is_null().to_numpy()
    assert 0 < is_bad.sum() <= found.sum() < 256  # "blue" also next to a comma
    assert found[is_bad].all()
    rejected = run.rejected_logits("tiny").read_table(name)
    assert rejected.schema.equals(QUARANTINE)
    assert rejected["row"].to_pylist() == np.flatnonzero(found).tolist()
    assert set(rejected["reason"].to_pylist()) == {"the teacher gave nan"}
    assert rejected["title"][0] == pairs["title"][int(rejected["row"][0].as_py())]
    assert count_bad(run.rejected_logits("tiny"), [name]) == found.sum()
    good = label_targets(prepared, name)
    scored = logits["logit"].to_numpy()
    assert np.allclose(scored[~found], good[~found], atol=1e-5)  # the neighbours' are unharmed


def test_bad_pairs_of_all_shards_are_counted_together(prepared: Run) -> None:
    """A few of each shard stop no shard; all together they may stop the run."""
    names = [shard.target for shard in shards_to_score(prepared)]
    num_rows = sum(shard.num_rows for shard in shards_to_score(prepared))
    few = pa.table([["pairs"] * 10, range(10), ["the teacher gave nan"] * 10, [""] * 10, [""] * 10],
                   schema=QUARANTINE)  # fmt: skip
    for at, name in enumerate(names):
        prepared.rejected_logits("tiny").write_table(name, few)
        allowed = with_teacher(
            prepared, Path(prepared.teacher("tiny").uri), max_bad_fraction=10 * (at + 1) / num_rows
        )
        assert label.count_rows(allowed, "tiny") == (num_rows, 10 * (at + 1))
    with pytest.raises(UserError, match=f"{10 * len(names)} of {num_rows:,} pairs got no logit"):
        label.count_rows(prepared, "tiny")


def label_targets(run: Run, name: str) -> np.ndarray:
    label_without_ray(run, {name})
    return np.asarray(run.logits("tiny").read_table(name)["logit"].to_numpy())


def test_pairs_of_lost_shards_are_counted(prepared: Run, caplog: pytest.LogCaptureFixture) -> None:
    shards = shards_to_score(prepared)
    tally = label._Tally("tiny", shards, num_actors=1)
    tally.log_losses()
    assert not caplog.messages
    tally.losses.machines.add("a")
    lost = [{"target": shards[at].target} for at in (0, 1, 1)]
    tally.losses.wasted.extend(lost)
    num_rows = shards[0].num_rows + 2 * shards[1].num_rows
    assert tally.wasted_rows == tally.summary()["wasted_rows"] == num_rows
    assert tally.summary()["lost_machines"] == 1
    tally.log_losses()
    assert f"1 machines were lost; 3 shards in work ({num_rows:,} pairs)" in caplog.text


@pytest.mark.ray
def test_a_shard_that_cannot_be_read_is_named_and_the_others_are_done(
    local_ray: None, prepared: Run
) -> None:
    name = prepared.pairs.shards()[2]
    prepared.pairs.write_bytes(name, b"no Parquet")
    with pytest.raises(RuntimeError, match=f"1 shards failed 3 times: {name}; .*ArrowInvalid"):
        label.label_stage(prepared, ONE)
    done = {shard.target for shard in shards_to_score(prepared)} - {name}
    assert set(logits_of(prepared)) == done
    assert prepared.logits("tiny").success() is None


@pytest.mark.ray
def test_every_shard_once_same_name_same_order_and_a_lost_file_again(
    local_ray: None, prepared: Run
) -> None:
    assert label.label_stage(prepared, TWO)
    found = logits_of(prepared)
    assert set(found) == {shard.target for shard in shards_to_score(prepared)}
    teacher = Teacher(
        Path(prepared.teacher("tiny").uri), device="cpu", dtype="float32", max_length=32
    )
    name = prepared.pairs.shards()[1]
    pairs, logits = prepared.pairs.read_table(name), prepared.logits("tiny").read_table(name)
    assert logits["pair_id"].equals(pairs["pair_id"])
    expected = teacher.logits(pairs["query"].to_pylist(), pairs["title"].to_pylist())
    assert np.allclose(logits["logit"].to_numpy(), expected, atol=1e-5)
    assert not label.label_stage(prepared, TWO)  # nothing left to do
    assert is_complete("label", prepared)
    (Path(prepared.logits("tiny").uri) / name).unlink()
    assert not is_complete("label", prepared)
    assert label.label_stage(prepared, ONE)
    assert logits_of(prepared) == found


def test_a_changed_teacher_is_another_folder(prepared: Run, tmp_path: Path) -> None:
    other = make_bert(tmp_path / "other", num_labels=1, seed=1)
    moved = make_bert(tmp_path / "moved", num_labels=1)
    config = prepared.config
    with_other, with_moved = (
        Run(config.model_copy(update={"teachers": {"tiny": config.teachers["tiny"].model_copy(
            update={"model": str(path)})}}))
        for path in (other, moved)
    )  # fmt: skip
    assert with_other.logits("tiny").uri != prepared.logits("tiny").uri
    assert with_moved.logits("tiny").uri == prepared.logits("tiny").uri


def own_teacher(run: Run, folder: Path) -> Run:
    """The run with a copy of its teacher that the test may change, as the driver has seen it."""
    shutil.copytree(run.teacher("tiny").uri, folder)
    own = with_teacher(run, folder)
    own.label_fingerprint("tiny")
    return own


def change_weights(folder: Path) -> None:
    """Another model of the same size and times."""
    weights = folder / "model.safetensors"
    before = weights.stat()
    make_bert(folder.with_name("other"), num_labels=1, seed=1)
    weights.write_bytes((folder.with_name("other") / "model.safetensors").read_bytes())
    os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert weights.stat().st_size == before.st_size


def test_a_model_changed_since_the_driver_saw_it_scores_nothing(
    prepared: Run, tmp_path: Path
) -> None:
    run = own_teacher(prepared, tmp_path / "model")
    work = label._Work.of(run, "tiny", ONE)
    change_weights(tmp_path / "model")
    item = {"folder": run.pairs.uri, "name": run.pairs.shards()[0], "target": "x.parquet"}
    message = rf"the model {tmp_path}/model is another one on \S+: .*submit the job again"
    with pytest.raises(UserError, match=message):
        work.make()
    with pytest.raises(UserError, match=message):
        work.before(item, b"")
    with pytest.raises(UserError, match=message):
        label.label_stage(run, ONE)
    assert not run.logits("tiny").exists()


@pytest.mark.ray
def test_a_model_that_is_another_one_on_the_workers_ends_in_a_line(
    local_ray: None, prepared: Run, tmp_path: Path
) -> None:
    run = own_teacher(prepared, tmp_path / "model")
    work, shards = label._Work.of(run, "tiny", TWO), missing_shards(run, "tiny")
    change_weights(tmp_path / "model")
    with pytest.raises(UserError, match="is another one on"):
        label._score(shards, work, label._Tally("tiny", shards, num_actors=2))
    assert not run.logits("tiny").shards()


def fine_tuned(run: Run, *, seed: int, scratch: Path) -> Run:
    """The run with a teacher as finetune leaves it."""
    teacher = TeacherConfig(base=str(run.config.teachers["tiny"].model))
    based = Run(run.config.model_copy(update={"teachers": {"tiny": teacher}}))
    folder, model = based.teacher("tiny"), make_bert(scratch, num_labels=1, seed=seed)
    folder.delete()
    folder.upload(model)
    folder.write_json("result.json", {})
    folder.write_json("_SUCCESS.json", {"fingerprint": "", "model": model_fingerprint(model)})
    return based


def test_a_teacher_that_was_fitted_again_adds_no_logits_to_those_of_the_old_one(
    prepared: Run, tmp_path: Path
) -> None:
    run = fine_tuned(prepared, seed=1, scratch=tmp_path / "1")
    label.check_teacher(run, "tiny")
    for _ in range(2):  # a job that goes on
        label.record_model(run, "tiny")
    label_without_ray(run, {run.pairs.shards()[0]})
    again = fine_tuned(prepared, seed=2, scratch=tmp_path / "2")
    assert again.logits("tiny").uri == run.logits("tiny").uri
    label.check_teacher(again, "tiny")
    with pytest.raises(UserError, match=rf"fitted again; delete {run.logits('tiny')} and "):
        label.label_stage(again, ONE)
    assert len(run.logits("tiny").shards()) == 1
    run.logits("tiny").delete()
    label.record_model(again, "tiny")


def test_a_fine_tuned_teacher_is_the_one_that_finetune_left(prepared: Run, tmp_path: Path) -> None:
    run = fine_tuned(prepared, seed=0, scratch=tmp_path / "0")
    change_weights(Path(run.teacher("tiny").uri))
    with pytest.raises(UserError, match=r"is another one.*delete the folder first"):
        label.check_teacher(run, "tiny")


def test_logits_of_another_engine_are_made_again(
    prepared: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("tiny", "trees")
    before = {name: prepared.logits(name).uri for name in names}
    trees = prepared.trees_fingerprint()
    monkeypatch.setattr("raydistill.runs.fingerprints.ENGINE", ENGINE + 1)
    assert all(prepared.logits(name).uri != before[name] for name in names)
    assert prepared.trees_fingerprint() == trees


def test_a_prompt_is_read_by_both_steps_and_makes_other_logits(
    prepared: Run, tmp_path: Path
) -> None:
    teachers = {"tiny": TeacherConfig(model=str(make_decoder(tmp_path / "decoder")))}
    with pytest.raises(UserError, match="is a decoder"):
        label.label_stage(Run(prepared.config.model_copy(update={"teachers": teachers})), ONE)
    plain = Run(prepared.config.model_copy(update={"teachers": teachers}))
    prompt = "Query: {query}\nDocument: {title}\n"
    teachers = {"tiny": teachers["tiny"].model_copy(update={"prompt": prompt})}
    settings = prepared.config.label.model_copy(update={"max_length": 200})
    config = prepared.config.model_copy(update={"teachers": teachers, "label": settings})
    run, name = Run(config), prepared.pairs.shards()[0]
    assert run.logits("tiny").uri != plain.logits("tiny").uri
    label.check_teacher(run, "tiny")
    label_without_ray(run, {name})
    pairs = prepared.pairs.read_table(name).slice(0, 20)
    folder = Path(run.teacher("tiny").uri)
    teacher = Teacher(folder, device="cpu", dtype="float32", max_length=200, prompt=prompt)
    expected = teacher.logits(pairs["query"].to_pylist(), pairs["title"].to_pylist())
    found = run.logits("tiny").read_table(name)["logit"].to_numpy()[:20]
    assert np.allclose(found, expected, atol=1e-4) and np.std(expected) > 0


def test_rows_of_another_schema_are_refused(prepared: Run, tmp_path: Path) -> None:
    folder = Folder(str(tmp_path / "odd"))
    folder.write_table("part-00000.parquet", pa.table({"pair_id": [1], "query": ["a"]}))
    item = {"target": "x.parquet", "folder": folder.uri, "name": "part-00000.parquet"}
    with pytest.raises(ValueError, match="has not the expected schema"):
        read_tokens(item, b"", model=prepared.teacher_model("tiny"), max_length=32)


def test_stages_out_of_order(
    prepared: Run, raw_files: Path, tiny_bert: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="run `prepare` first"):
        label.label_stage(Run(run_config(tmp_path / "other", raw_files, tiny_bert)), ONE)
    raw = Run(prepared.config.model_copy(update={"teachers": {
        "tiny": prepared.config.teachers["tiny"].model_copy(
            update={"model": None, "base": str(tiny_bert)})}}))  # fmt: skip
    with pytest.raises(UserError, match="not fine-tuned yet: run `finetune` first"):
        label.label_stage(raw, ONE)
