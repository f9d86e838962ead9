"""A run file as short as it can be."""

from pathlib import Path

import pytest

MINIMAL = """
run_dir = "runs/x"
[pairs]
input = "pairs.csv"
[judged]
input = ["judged.csv"]
[teachers.a]
model = "some/folder"
[teachers.b]
base = "other/folder"
"""


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "run.toml"
    path.write_text(MINIMAL)
    return str(path)
