"""Mistakes of users: one line of error message, exit code 2, no traceback."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from raydistill.cli.main import main
from raydistill.errors import WorkError
from raydistill.files.folder import Folder

GOOD = """
run_dir = "{dir}/run"
[pairs]
input = ["{dir}/pairs.csv"]
[judged]
input = ["{dir}/judged.csv"]
[teachers.a]
model = "{dir}/model"
"""


@pytest.fixture
def file(tmp_path: Path) -> str:
    (tmp_path / "pairs.csv").write_text("query,title\nsofa,grey sofa\n")
    (tmp_path / "judged.csv").write_text("query,title,label\nsofa,grey sofa,1\n")
    (tmp_path / "run.toml").write_text(GOOD.format(dir=tmp_path))
    return str(tmp_path / "run.toml")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["prepare", "--config", "{dir}/none.toml"], "no such config file"),
        (["prepare", "--config", "{file}", "--set", "train.epoch=1"], "unknown field train.epoch"),
        (
            ["finetune", "--config", "{file}", "--set", "teachers.a={{base='{dir}/no'}}"],
            "no teacher model",
        ),
        (["label", "--config", "{file}"], "no teacher model"),
        (["label", "--config", "{file}", "--set", "teachers.a={{model='no/such-model'}}"], "hub"),
        (
            ["train", "--config", "{file}", "--set", "soft_labels.weights={{b=1}}"],
            "one weight per teacher",
        ),
        (["score", "--bundle", "{dir}", "--input", "x.csv", "--output", "y.csv"], "no bundle in"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    file: str, tmp_path: Path, arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [a.format(dir=tmp_path, file=file) for a in arguments]
    assert main(given) == 2
    err = capsys.readouterr().err
    assert words in err
    assert err.startswith("raydistill: error: ") and len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("pairs.title=text", "no column 'text' in"),
        ("pairs.input=nowhere/*.csv", "no such input: nowhere/*.csv"),
        ("judged.label=grade", "no column 'grade' in"),
    ],
)
def test_mistakes_about_input_are_found_before_any_work(
    file: str, override: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["prepare", "--config", file, "--set", override]) == 2
    err = capsys.readouterr().err
    assert words in err
    assert err.startswith("raydistill: error: ") and len(err.splitlines()) == 1


@pytest.fixture
def model(tmp_path: Path) -> None:
    """A teacher as far as a dry run looks at it."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")


@pytest.mark.usefixtures("model")
def test_dry_run_touches_nothing(
    file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["distill", "--config", file, "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "shard_rows = 65536" in out
    assert out.count("to do") == 5  # nothing to fine-tune
    assert f"writes to {tmp_path}/run\n" in out and "files: judged 1, pairs 1\n" in out
    assert "all shards that prepare writes\n" in out and "asks for 1 worker of one core\n" in out
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("model")
def test_a_reader_that_leaves_gets_no_traceback(
    file: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """As `raydistill distill --dry-run | head`."""
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as pipe:
        monkeypatch.setattr("sys.stdout", pipe)
        assert main(["distill", "--config", file, "--dry-run"]) == 141
    assert capfd.readouterr().err == ""


@pytest.mark.usefixtures("model")
def test_output_may_be_closed(file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As `raydistill distill --dry-run >&-`."""
    monkeypatch.setattr("sys.stdout", None)
    assert main(["distill", "--config", file, "--dry-run"]) == 0


def test_help_names_every_stage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    out = capsys.readouterr().out
    assert all(
        stage in out for stage in ("prepare", "finetune", "label", "train", "export", "score")
    )


@pytest.mark.usefixtures("model")
@pytest.mark.parametrize("is_verbose", [False, True])
def test_work_that_failed_is_one_line_and_exit_code_1(
    file: str,
    is_verbose: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(self: object) -> None:
        raise WorkError("2 shards failed 3 times: a, b; the first: exit code 3")

    monkeypatch.setattr("raydistill.runs.run_folder.Run.check_owner", fail)
    given = ["distill", "--config", file, "--dry-run", *(["--verbose"] if is_verbose else [])]
    assert main(given) == 1
    err = capsys.readouterr().err
    last = err.splitlines()[-1]
    assert last.startswith(
        "raydistill: failed: 2 shards failed 3 times: a, b; the first: exit code"
    )
    assert ("Traceback" in err) == is_verbose
    assert (len(err.splitlines()) == 1) != is_verbose


@pytest.mark.ray
def test_why_ray_did_not_start_is_said() -> None:
    """Its processes write to a stderr that is closed while it starts."""
    code = (
        "import os, ray\n"
        "def fail(**settings):\n"
        "    os.write(2, b'no space left for the object store\\n')\n"
        "    raise RuntimeError('The current node timed out during startup.')\n"
        "ray.init = fail\n"
        "from raydistill.cluster.connection import connect\n"
        "from raydistill.config.run_config import ClusterConfig\n"
        "from raydistill.errors import WorkError\n"
        "try:\n"
        "    connect(ClusterConfig())\n"
        "except WorkError as error:\n"
        "    print(error)\n"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout == (
        "Ray did not start: The current node timed out during startup.; its last output: no "
        "space left for the object store\n"
    )


def test_sigterm_is_told_from_ctrl_c_whatever_a_library_makes_of_it(
    file: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ray raises a KeyboardInterrupt of its own for an error of a signal's handler."""

    def wait(*_: object) -> None:
        try:
            signal.raise_signal(signal.SIGTERM)
        except KeyboardInterrupt:
            raise KeyboardInterrupt from None

    monkeypatch.setattr("raydistill.cli.stage_commands.read_run", wait)
    before = signal.getsignal(signal.SIGTERM)
    assert main(["prepare", "--config", file]) == 143
    said = capsys.readouterr().err
    assert said == "raydistill: stopped by SIGTERM; run the same command to resume\n"
    assert signal.getsignal(signal.SIGTERM) == before


_SLOW_TO_END = """
import sys, time
from raydistill.cli.main import _sigterm_unwinds
from raydistill.files.folder import Folder
from raydistill.runs.lease import Lease
with _sigterm_unwinds(), Lease(Folder(sys.argv[1]), "train"):
    try:
        print("works", flush=True)
        time.sleep(600)
    finally:
        time.sleep(600)  # as the end of a fit's workers on a loaded machine
"""


@pytest.mark.parametrize("is_read", [True, False])
def test_after_sigterm_the_lease_and_the_last_line_do_not_wait_for_the_workers(
    tmp_path: Path, *, is_read: bool
) -> None:
    """`ray job stop` gives 3 s, then it kills. Nobody may read the line any more."""
    Folder(str(tmp_path)).claim("run")
    command = [sys.executable, "-c", _SLOW_TO_END, str(tmp_path)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) as job:
        assert job.stdout is not None and job.stdout.readline() == "works\n"
        assert (tmp_path / "train.json").exists()
        assert job.stderr is not None
        if not is_read:
            job.stderr.close()
        job.send_signal(signal.SIGTERM)
        assert job.wait(timeout=60) == 143
        if is_read:
            said = job.stderr.read()
            assert said == "raydistill: stopped by SIGTERM; run the same command to resume\n"
    assert not (tmp_path / "train.json").exists()
