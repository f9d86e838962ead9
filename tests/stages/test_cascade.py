"""A teacher that learns from another one, with Ray and tiny real models."""

from pathlib import Path

import pytest

from raydistill.cli.main import main
from raydistill.config.teachers import TeacherConfig
from raydistill.runs.run_folder import Run
from raydistill.stages import distill
from raydistill.stages.fits.finetune_pairs import learned_file
from tests.helpers.prepared import prepare_here
from tests.helpers.runs import run_config


@pytest.fixture
def run(raw_files: Path, tiny_bert: Path, encoder: Path, tmp_path: Path) -> Run:
    teachers = {
        "small": TeacherConfig(base=str(encoder), learns_from="llm"),
        "llm": TeacherConfig(model=str(tiny_bert)),
    }
    config = run_config(
        tmp_path / "run", raw_files, tiny_bert, teachers=teachers, finetune={"max_pairs": 300}
    )
    (tmp_path / "run.toml").write_text(config.to_toml())
    return prepare_here(config, num_shards=3)


def test_finetune_and_label_take_turns(run: Run) -> None:
    assert distill.plan(run) == [
        "prepare", "finetune", "label", "finetune", "label", "train", "export", "evaluate",
    ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_each_stage_does_what_can_be_done(
    local_ray: None, run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = str(tmp_path / "run.toml")
    assert main(["finetune", "--config", file]) == 2
    assert "small learns from llm, which has not scored all pairs yet" in capsys.readouterr().err
    assert main(["label", "--config", file]) == 0  # llm alone
    assert "small waits: it learns from llm, which has not" in capsys.readouterr().err
    assert distill.awaited(run, "small") is None and not distill.is_complete("label", run)
    assert main(["label", "--config", file]) == 2
    assert "small is not fine-tuned yet: run `finetune` first" in capsys.readouterr().err
    assert main(["finetune", "--config", file]) == 0
    done = Run(run.config).teacher("small").success()
    assert done is not None and done["rows_in"] == 300
    folder, name = learned_file(Run(run.config), "small")
    assert folder.read_table(name).num_rows == 300
    assert main(["label", "--config", file]) == 0
    assert distill.is_complete("finetune", run) and distill.is_complete("label", run)
    assert main(["label", "--config", file]) == 0
    assert "nothing left to do" in capsys.readouterr().out
