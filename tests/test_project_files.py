"""The jobs, the recipes; what no source file and no test module holds."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import raydistill
from raydistill.config.loading import load_config
from raydistill.runs.run_folder import STAGES

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("file", [*ROOT.glob("jobs/*.toml"), *ROOT.glob("docs/recipes/*.toml")])
def test_every_run_file_is_valid(file: Path) -> None:
    assert load_config(str(file)).teachers


@pytest.mark.parametrize("stage", [*STAGES, "tune", "distill"])
def test_every_stage_has_a_job(stage: str) -> None:
    assert (ROOT / "jobs" / f"{stage}.py").is_file()


@pytest.mark.ray
def test_a_job_runs_from_the_checkout(raw_files: Path) -> None:
    command = [
        sys.executable, "-m", "jobs.label", "--config", "jobs/demo.toml", "--dry-run",
        "--set", f"pairs.input={raw_files}/pairs",
        "--set", f"judged.input={raw_files}/judged.parquet",
    ]  # fmt: skip
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    assert "shard_rows = 4096" in found.stdout


# Which registry packages come from is the user's configuration of pip and others.
REGISTRIES = re.compile(
    r"download\.pytorch|(pypi|pythonhosted|crates|golang|anaconda)\.(org|io|com)|maven\.(org|apache)"
    r"|registry\.npmjs"
)


def test_no_file_names_the_host_of_a_package_registry() -> None:
    folders = ("raydistill", "tests", "docs", "deploy", "jobs", "bindings", ".github", ".ci")
    files = [file for name in folders for file in (ROOT / name).rglob("*") if file.is_file()]
    files += [file for file in ROOT.iterdir() if file.is_file()]
    for file in files:
        if "__pycache__" in file.parts or "target" in file.parts:
            continue
        found = REGISTRIES.search(file.read_bytes().decode(errors="replace"))
        assert found is None, f"{file}: {found}"


# `python -O` removes asserts: data would pass unchecked.
PACKAGE = Path(raydistill.__file__).parent
FILES = sorted([*PACKAGE.rglob("*.py"), *(PACKAGE.parent / "jobs").rglob("*.py")])


def test_nothing_is_checked_by_an_assert() -> None:
    for file in FILES:
        text = file.read_text()
        if not re.search(r"\bassert\b|AssertionError", text):
            continue
        tree = ast.parse(text)
        lines = [node.lineno for node in ast.walk(tree) if isinstance(node, ast.Assert)]
        names = [
            node.lineno
            for node in ast.walk(tree)
            if isinstance(node, ast.Raise)
            and node.exc
            and "AssertionError" in ast.unparse(node.exc)
        ]
        assert not lines and not names, (
            f"{file}: lines {lines + names}: raise UserError, or another error"
        )


@pytest.mark.slow
def test_checks_hold_under_python_o() -> None:
    code = (
        "import pyarrow as pa; from raydistill.serving.text.hashing import hash_texts\n"
        "try: hash_texts(pa.array(['a', None]))\n"
        "except ValueError as error: print(error)"
    )
    found = subprocess.run(
        [sys.executable, "-O", "-c", code], capture_output=True, text=True, check=True
    )
    assert found.stdout.startswith("1 of 2 texts are null, the first in row 1")


def test_what_test_modules_share_lies_in_helpers_or_conftest() -> None:
    for file in sorted((ROOT / "tests").rglob("*.py")):
        text = file.read_text()
        if "from tests." not in text:
            continue
        tree = ast.parse(text)
        names = [n.module or "" for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)]
        shared = [name for name in names if name.split(".")[0] == "tests"]
        wrong = [name for name in shared if name.split(".")[-1].startswith(("test_", "conftest"))]
        assert not wrong, f"{file} imports {wrong}: move what it needs to tests/helpers"
