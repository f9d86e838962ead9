"""No source file of raydistill has an assert: `python -O` removes it, and with it the check."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import raydistill
from raydistill.errors import UserError
from raydistill.files.inputs.input_files import InputFile
from raydistill.runs.run_folder import Run
from tests.helpers.runs import run_config

PACKAGE = Path(raydistill.__file__).parent
FILES = sorted([*PACKAGE.rglob("*.py"), *(PACKAGE.parent / "jobs").rglob("*.py")])


@pytest.mark.parametrize(
    "file", FILES, ids=lambda file: file.relative_to(PACKAGE.parent).as_posix()
)
def test_nothing_is_checked_by_an_assert(file: Path) -> None:
    tree = ast.parse(file.read_text())
    lines = [node.lineno for node in ast.walk(tree) if isinstance(node, ast.Assert)]
    names = [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Raise) and node.exc and "AssertionError" in ast.unparse(node.exc)
    ]
    assert not lines and not names, f"lines {lines + names}: raise UserError, or another error"


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


def test_names_that_are_none_are_refused(tmp_path: Path) -> None:
    run = Run(run_config(tmp_path, tmp_path, tmp_path))
    with pytest.raises(ValueError, match=r"no split 'train2' .* 'test'"):
        run.judged("train2")
    with pytest.raises(ValueError, match=r"no student 'teacher'; .* 'judged_only'"):
        run.train_fingerprint("teacher")
    with pytest.raises(ValueError, match="teacher tiny has no base"):
        run.finetune_fingerprint("tiny")
    with pytest.raises(UserError, match=r"a\.xlsx is of no known format; give \.parquet, "):
        _ = InputFile("a.xlsx", 1).format
