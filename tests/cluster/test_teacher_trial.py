"""A teacher that fails ends a job with a message of one line before data is prepared."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from raydistill.cli.main import main
from raydistill.cluster import places
from raydistill.cluster import teacher_trial as teachers
from raydistill.cluster.connection import Cluster
from raydistill.config.run_config import RunConfig
from raydistill.config.teachers import TeacherConfig
from raydistill.errors import UserError
from raydistill.runs.run_folder import Run
from raydistill.stages import distill, label
from raydistill.teachers.kinds import cross_encoder
from raydistill.teachers.kinds.registry import teacher_of
from tests.helpers.checkpoints import damaged, reconfigured, without
from tests.helpers.decoders import make_decoder
from tests.helpers.logits import write_done
from tests.helpers.models import make_roberta
from tests.helpers.own_code import make_own
from tests.helpers.runs import run_config

ONE = Cluster(num_cores=1, num_gpus=0)


def config_of(run_dir: Path, raw: Path, teacher: TeacherConfig, **sections: object) -> RunConfig:
    teachers = {"tiny": teacher}
    return run_config(run_dir, raw, Path("no-model"), teachers=teachers, **sections)


def no_tokenizer(source: Path, folder: Path) -> Path:
    shutil.copytree(source, folder)
    for name in ("vocab.txt", "tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    return folder


def pointer(source: Path, folder: Path) -> Path:
    shutil.copytree(source, folder)
    (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n")
    return folder


BROKEN: dict[str, tuple[Callable[[Path, Path], Path], str]] = {
    "no_head": (lambda bert, f: damaged(bert, f, without("classifier")), "classifier.weight"),
    "no_layer": (lambda bert, f: damaged(bert, f, without("attention")), "layer.0.attention"),
    "no_tokenizer": (no_tokenizer, "no tokenizer in"),
    "pointer": (pointer, "is a Git LFS pointer"),
    "own_code": (lambda bert, f: make_own(f, bert), "set trust_remote_code = true"),
    "decoder": (lambda bert, f: make_decoder(f), "is a decoder"),
    "outputs": (lambda bert, f: reconfigured(bert, f, id2label=None), '"num_labels": 1'),
    "roberta": (lambda bert, f: make_roberta(f, bert), "reads 62 wordpieces (64 positions"),
}
OF_A_BASE = ("no_layer", "no_tokenizer", "pointer", "own_code", "roberta")


@pytest.mark.parametrize(
    ("kind", "name"),
    [*(("model", name) for name in BROKEN), *(("base", name) for name in OF_A_BASE)],
)
def test_a_broken_teacher_is_one_line_before_prepare(
    tiny_bert: Path,
    raw_files: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    kind: str,
    name: str,
) -> None:
    make, message = BROKEN[name]
    teacher = TeacherConfig.model_validate({kind: str(make(tiny_bert, tmp_path / "model"))})
    config = config_of(tmp_path / "run", raw_files, teacher, label={"max_length": 64})
    (tmp_path / "run.toml").write_text(config.to_toml())
    capfd.readouterr()
    assert main(["distill", "--config", str(tmp_path / "run.toml")]) == 2
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("raydistill: error: ")
    assert message in lines[0]
    assert not (tmp_path / "run").exists()


def test_nobody_is_asked_on_the_terminal(
    tiny_bert: Path,
    raw_files: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def ask(*_: object) -> str:
        raise AssertionError("a question")

    monkeypatch.setattr("builtins.input", ask)
    source = str(make_own(tmp_path / "model", tiny_bert))
    for kind in ("model", "base"):
        config = config_of(
            tmp_path / f"run-{kind}", raw_files, TeacherConfig.model_validate({kind: source})
        )
        with pytest.raises(UserError, match="trust_remote_code"):
            distill.run_all(Run(config))
    assert "own" not in sys.modules


@pytest.mark.slow
def test_a_teacher_of_another_language_is_found_in_the_raw_files(
    tiny_bert: Path, raw_files: Path, tmp_path: Path
) -> None:
    (tmp_path / "pairs.csv").write_text("q,t\n" + "диван,серый диван\n" * 9)
    (tmp_path / "judged.csv").write_text("q,t,label\n" + "диван,серый диван,1\n" * 9)
    teacher = TeacherConfig(model=str(tiny_bert))
    english = Run(config_of(tmp_path / "english", raw_files, teacher))
    teachers.check_teacher(english, "tiny")  # that it reads one run's texts says nothing of others'
    sections = config_of(tmp_path / "run", tmp_path, teacher).model_dump()
    for name in ("pairs", "judged"):
        file = str(tmp_path / f"{name}.csv")
        sections[name] |= {"input": [file], "query": "q", "title": "t"}
    run = Run(RunConfig.model_validate(sections))
    assert teachers.sample_pairs(run) == (("диван", "серый диван"),)
    with pytest.raises(UserError, match=r"100% of the characters.*\[UNK\] \(as in 'диван'\)"):
        distill.run_all(run)


def test_the_sample_is_of_the_shards_once_they_are_there(
    tiny_bert: Path, raw_files: Path, prepared_dir: Path
) -> None:
    run = Run(config_of(prepared_dir, raw_files, TeacherConfig(model=str(tiny_bert))))
    shard = run.pairs.read_table(run.pairs.shards()[0]).slice(0, 200)
    first = next(iter(zip(*(shard[name].to_pylist() for name in ("query", "title")), strict=True)))
    assert teachers.sample_pairs(run)[0] == first


def verdict_on(run: Run) -> bool | None:
    return teachers.verdict_on(run, teacher_of(run, "tiny"))


def count_loads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    found: list[Path] = []
    check = cross_encoder.check_model

    def counted(folder: Path, **given: object) -> bool:
        found.append(folder)
        return check(folder, **given)  # type: ignore[arg-type]

    monkeypatch.setattr(cross_encoder, "check_model", counted)
    monkeypatch.setattr(teachers, "_tried", {})
    monkeypatch.setattr(teachers, "_encoders", set())
    return found


@pytest.mark.slow
def test_a_teacher_is_tried_once_a_process(
    tiny_bert: Path, raw_files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(config_of(tmp_path / "run", raw_files, TeacherConfig(model=str(tiny_bert))))
    loads = count_loads(monkeypatch)
    assert verdict_on(run) is None
    for _ in range(2):
        teachers.check_teachers(run, ("label", "train"), connect=lambda: None)
        label.check_teacher(run, "tiny")
    assert loads == [tiny_bert] and verdict_on(run)
    longer = run.config.label.model_copy(update={"max_length": 40})
    label.check_teacher(Run(run.config.model_copy(update={"label": longer})), "tiny")
    assert len(loads) == 2


def test_what_is_complete_loads_no_model(
    tiny_bert: Path, raw_files: Path, prepared_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(config_of(prepared_dir, raw_files, TeacherConfig(model=str(tiny_bert))))
    loads = count_loads(monkeypatch)
    logits = run.logits("tiny")
    for shard in label.shards_to_score(run):
        logits.write_bytes(shard.target, b"")
    write_done(run, "tiny")
    teachers.check_teachers(run, ("label",), connect=lambda: None)
    assert not label.label_stage(run, ONE) and not loads


@pytest.mark.ray
def test_a_model_too_large_for_the_driver_is_tried_in_a_task(
    local_ray: None,
    tiny_bert: Path,
    raw_files: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(teachers, "free_memory_bytes", lambda: 1_000)
    loads = count_loads(monkeypatch)
    run = Run(config_of(tmp_path / "run", raw_files, TeacherConfig(model=str(tiny_bert))))
    teachers.check_teacher(run, "tiny", connect=lambda: ONE)
    assert not loads and verdict_on(run)
    broken = damaged(tiny_bert, tmp_path / "broken", without("classifier"))
    run = Run(config_of(tmp_path / "run", raw_files, TeacherConfig(model=str(broken))))
    with pytest.raises(UserError, match=r"^the checkpoint in .*lacks 2 weights"):
        teachers.check_teacher(run, "tiny", connect=lambda: ONE)


@pytest.mark.ray
def test_a_task_first_looks_for_the_run_folder(
    local_ray: None,
    tiny_bert: Path,
    raw_files: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The driver has the folder, the machine of the task does not: it is gone when the task runs.

    Before `prepare` no machine has one, and none is looked for.
    """
    monkeypatch.setattr(teachers, "free_memory_bytes", lambda: 1_000)
    monkeypatch.setattr(places, "_WAIT_S", 0.1)
    monkeypatch.setattr(teachers, "_tried", {})
    run = Run(config_of(tmp_path / "run", raw_files, TeacherConfig(model=str(tiny_bert))))

    def connect() -> Cluster:
        (tmp_path / "run").rename(tmp_path / "elsewhere")
        return ONE

    run.root.claim("run")
    with (
        pytest.raises(UserError, match=rf"does not see {tmp_path}/run/_RAYDISTILL"),
        distill.where_models_are_seen(run),
    ):
        teachers.check_teachers(run, ("label",), connect=connect)
    with distill.where_models_are_seen(run):
        teachers.check_teachers(run, ("label",), connect=lambda: ONE)
    assert verdict_on(run)


def test_the_encoder_of_word_vectors_is_tried_too(
    tiny_bert: Path, raw_files: Path, tmp_path: Path
) -> None:
    broken = damaged(tiny_bert, tmp_path / "broken", without("word_embeddings"))
    words = {"word_encoder": str(broken)}
    teacher = TeacherConfig(model=str(tiny_bert))
    run = Run(config_of(tmp_path / "run", raw_files, teacher, ngrams=words))
    with pytest.raises(UserError, match=r"^word vectors \(ngrams\.word_encoder.*lacks 1 weights"):
        distill.run_all(run)
    run = Run(config_of(tmp_path / "run", raw_files, teacher, ngrams={**words, "word_dim": 0}))
    teachers.check_teachers(run, ("train",), connect=lambda: None)


@pytest.mark.ray
def test_trusted_code_scores_in_the_actors(
    local_ray: None, tiny_bert: Path, raw_files: Path, prepared_dir: Path, tmp_path: Path
) -> None:
    source = str(make_own(tmp_path / "own", tiny_bert, kind="last"))
    teacher = TeacherConfig(model=source, trust_remote_code=True)
    run = Run(config_of(prepared_dir, raw_files, teacher))
    assert label.label_stage(run, ONE)
    assert verdict_on(run) is False
    done = run.logits("tiny").success()
    assert done is not None and done["quarantined"] == 0


def test_a_quantised_model_needs_its_library(
    tiny_bert: Path, raw_files: Path, tmp_path: Path
) -> None:
    """That is said here, and no cluster is asked."""
    quantised = {"quant_method": "bitsandbytes", "load_in_8bit": True}
    folder = reconfigured(tiny_bert, tmp_path / "quantised", quantization_config=quantised)
    run = Run(config_of(tmp_path / "run", raw_files, TeacherConfig(model=str(folder))))

    def connect() -> Cluster:
        raise AssertionError(json.dumps("a cluster"))

    with pytest.raises(UserError, match="bitsandbytes"):
        teachers.check_teachers(run, ("label",), connect=connect)
