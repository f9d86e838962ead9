from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from raydistill.cluster import Cluster
from raydistill.config import LabelConfig
from raydistill.errors import UserError
from raydistill.run import Run
from raydistill.shards import SCORED_SPLITS, missing_shards, shards_to_score
from raydistill.stages import label, prepare
from raydistill.storage import Folder
from raydistill.teacher import Teacher
from tests.conftest import make_bert, run_config

ONE = Cluster(num_cores=1, num_gpus=0)
TWO = Cluster(num_cores=2, num_gpus=0)


@pytest.fixture
def prepared(raw_files: Path, tiny_bert: Path, prepared_dir: Path) -> Run:
    return Run(run_config(prepared_dir, raw_files, tiny_bert))


@pytest.mark.ray
def test_a_lost_logits_file_is_scored_again(local_ray: None, prepared: Run) -> None:
    from raydistill.stages import distill

    label.run(prepared, TWO)
    before = logits_of(prepared)
    assert distill.is_complete("label", prepared)
    (Path(prepared.logits("tiny").uri) / prepared.pairs.shards()[0]).unlink()
    assert not distill.is_complete("label", prepared)
    assert label.run(prepared, TWO)
    assert logits_of(prepared) == before


def test_a_teacher_that_gives_nan_is_stopped(prepared: Run, tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForSequenceClassification

    folder = make_bert(tmp_path / "broken", num_labels=1)
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    torch.nn.init.constant_(model.classifier.bias, float("nan"))
    model.save_pretrained(folder)
    labeler = label.Labeler(
        model=str(folder), logits=str(tmp_path / "out"), settings=prepared.config.label
    )
    shard = shards_to_score(prepared)[0]
    with pytest.raises(UserError, match=r"the teacher gave nan for .*label.dtype"):
        labeler({"folder": shard.folder.uri, "name": shard.name, "target": shard.target})
    assert not (tmp_path / "out").exists()


def logits_of(run: Run) -> dict[str, bytes]:
    folder = run.logits("tiny")
    names = [*folder.shards()] + [
        f"judged/{split}/{name}"
        for split in SCORED_SPLITS
        for name in (folder / "judged" / split).shards()
    ]
    return {name: folder.read_bytes(name) for name in names}


def label_without_ray(run: Run, names: set[str] | None = None) -> None:
    settings = run.config.label
    labeler = label.Labeler(
        model=run.teacher("tiny").uri,
        logits=run.logits("tiny").uri,
        settings=settings,
    )
    for shard in missing_shards(run, "tiny"):
        if names is None or shard.target in names:
            labeler({"folder": shard.folder.uri, "name": shard.name, "target": shard.target})


@pytest.mark.ray
def test_every_shard_once_same_name_same_order(local_ray: None, prepared: Run) -> None:
    assert label.run(prepared, TWO)
    found = logits_of(prepared)
    assert set(found) == {shard.target for shard in shards_to_score(prepared)}
    settings = LabelConfig()
    teacher = Teacher(
        Path(prepared.teacher("tiny").uri), device="cpu", dtype="float32", max_length=32,
        tokens_per_batch=settings.tokens_per_batch,
    )  # fmt: skip
    name = prepared.pairs.shards()[1]
    pairs, logits = prepared.pairs.read_table(name), prepared.logits("tiny").read_table(name)
    assert logits["pair_id"].equals(pairs["pair_id"])
    expected = teacher.logits(pairs["query"].to_pylist(), pairs["title"].to_pylist())
    assert np.allclose(logits["logit"].to_numpy(), expected, atol=1e-5)
    assert not label.run(prepared, TWO)  # nothing left to do


@pytest.mark.ray
def test_a_cut_off_labeling_does_only_the_rest(
    local_ray: None, prepared: Run, raw_files: Path, tiny_bert: Path, tmp_path: Path
) -> None:
    some = set(prepared.pairs.shards()[:3])
    label_without_ray(prepared, some)
    folder = prepared.logits("tiny")
    times = {name: (Path(folder.uri) / name).stat().st_mtime_ns for name in some}
    label.run(prepared, TWO)
    assert {n: (Path(folder.uri) / n).stat().st_mtime_ns for n in some} == times
    done = folder.success()
    assert done is not None
    scored = sum(s.num_rows for s in shards_to_score(prepared) if s.target not in some)
    assert done["rows_scored"] == scored
    other = Run(run_config(tmp_path / "whole", raw_files, tiny_bert))
    prepare.run(other)
    label_without_ray(other)
    assert logits_of(other) == logits_of(prepared)  # the same bytes as in one go


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


def test_rows_of_another_schema_are_refused(prepared: Run, tmp_path: Path) -> None:
    folder = Folder(str(tmp_path / "odd"))
    folder.write_table("part-00000.parquet", pa.table({"pair_id": [1], "query": ["a"]}))
    labeler = label.Labeler(
        model=prepared.teacher("tiny").uri, logits=str(tmp_path / "out"),
        settings=prepared.config.label,
    )  # fmt: skip
    with pytest.raises(ValueError, match="has another schema"):
        labeler({"target": "x.parquet", "folder": folder.uri, "name": "part-00000.parquet"})


def test_stages_out_of_order(
    prepared: Run, raw_files: Path, tiny_bert: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="run `prepare` first"):
        label.run(Run(run_config(tmp_path / "other", raw_files, tiny_bert)), ONE)
    raw = Run(prepared.config.model_copy(update={"teachers": {
        "tiny": prepared.config.teachers["tiny"].model_copy(
            update={"model": None, "base": str(tiny_bert)})}}))  # fmt: skip
    with pytest.raises(UserError, match="not fine-tuned yet: run `finetune` first"):
        label.run(raw, ONE)


@pytest.mark.ray
def test_actors_are_placed_on_fractions_of_gpus() -> None:
    """Two GPUs that Ray only believes in: four labelers of half a GPU each."""
    import subprocess
    import sys

    code = (
        "import raydistill.cluster, ray, logging\n"
        "ray.init(num_cpus=3, num_gpus=2, include_dashboard=False, log_to_driver=False,\n"
        "         logging_level='error', object_store_memory=100 * 2**20)\n"
        "from raydistill.cluster import connect\n"
        "from raydistill.config import ClusterConfig\n"
        "from raydistill.stages.tasks import run_actors\n"
        "found = connect(ClusterConfig())\n"
        "assert found.num_gpus == 2 and found.num_actors(gpus_each=0.5) == 4\n"
        "def make():\n"
        "    import time, ray\n"
        "    def work(item):\n"
        "        time.sleep(1.0)\n"
        "        return {'gpus': [int(g) for g in ray.get_gpu_ids()]}\n"
        "    return work\n"
        "done = list(run_actors([{}] * 12, make, num_actors=4, gpus=0.5))\n"
        "print(sorted({tuple(d['gpus']) for d in done}), len(done))\n"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip().endswith("[(0,), (1,)] 12")
