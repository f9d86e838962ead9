"""A generative reranker as a teacher of a run: its trial, `label`, its fingerprint."""

from pathlib import Path

import numpy as np
import pytest

from raydistill.cluster.connection import Cluster
from raydistill.cluster.teacher_trial import check_teacher
from raydistill.config.prompt import Question
from raydistill.errors import UserError
from raydistill.runs.run_folder import Run
from raydistill.stages import label
from raydistill.teachers.causal import CausalTeacher
from tests.helpers.decoders import CAUSAL_PROMPT, make_causal
from tests.helpers.logits import label_without_ray
from tests.helpers.runs import run_config

pytestmark = pytest.mark.slow
TEACHER = {"prompt": CAUSAL_PROMPT, "instruction": "Sells it?"}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_causal(tmp_path_factory.mktemp("models") / "qwen")


def run_of(folder: Path, raw_files: Path, model: Path, **settings: object) -> Run:
    teachers = {"tiny": {"causal": str(model), **TEACHER, **settings}}
    config = run_config(folder, raw_files, model, teachers=teachers, label={"max_length": 160})
    return Run(config)


def check_logits(run: Run, model: Path, name: str) -> None:
    pairs, logits = run.pairs.read_table(name), run.logits("tiny").read_table(name)
    assert logits["pair_id"].equals(pairs["pair_id"])
    teacher = CausalTeacher(
        model, device="cpu", dtype="float32", max_length=160,
        question=Question(CAUSAL_PROMPT, "Sells it?"), shares=False,
    )  # fmt: skip
    expected = teacher.logits(pairs["query"].to_pylist(), pairs["title"].to_pylist())
    assert np.std(expected) > 0.1
    assert logits["logit"].to_numpy() == pytest.approx(expected, abs=1e-4)


def test_the_steps_of_a_shard(prepared_dir: Path, raw_files: Path, model: Path) -> None:
    run = run_of(prepared_dir, raw_files, model)
    name = run.pairs.shards()[0]
    label_without_ray(run, {name})
    check_logits(run, model, name)


@pytest.mark.ray
def test_label(local_ray: None, prepared_dir: Path, raw_files: Path, model: Path) -> None:
    run = run_of(prepared_dir, raw_files, model)
    assert label.label_stage(run, Cluster(num_cores=1, num_gpus=0))
    check_logits(run, model, run.pairs.shards()[1])
    done = run.logits("tiny").success()
    assert done is not None and done["rows_out"] == done["rows_in"] > 0
    assert not label.label_stage(run, Cluster(num_cores=1, num_gpus=0))  # nothing left to do


def test_what_is_asked_is_in_the_fingerprint(tmp_path: Path, raw_files: Path, model: Path) -> None:
    changes: list[dict[str, object]] = [
        {},
        {"instruction": "Fits it?"},
        {"prompt": CAUSAL_PROMPT + " "},
        {"yes": "Yes", "no": "no"},
        {"yes": "yes", "no": "sofa"},
        {"no": ""},
    ]
    found = {
        run_of(tmp_path, raw_files, model, **change).label_fingerprint("tiny") for change in changes
    }
    assert len(found) == len(changes)


def test_the_trial_comes_before_prepare(tmp_path: Path, raw_files: Path, model: Path) -> None:
    check_teacher(run_of(tmp_path, raw_files, model), "tiny")
    with pytest.raises(UserError, match="yes = 'certainly' is not one token"):
        check_teacher(run_of(tmp_path, raw_files, model, yes="certainly", no="no"), "tiny")
