import subprocess
import sys
from pathlib import Path

import pytest

from raydistill.serving.native.library import Library
from tests.serving.native import fuzz

pytestmark = pytest.mark.timeout(900)  # where the library is not in the cache
ROOT = Path(__file__).parents[3]


def run(library: Library, seed: int, rounds: int) -> list[str]:
    command = [sys.executable, "-m", fuzz.__name__, str(library.file), str(seed), str(rounds)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (done.returncode, done.stderr)
    return done.stdout.split()


@pytest.mark.slow
def test_no_false_model_makes_the_library_read_outside(library: Library) -> None:
    accepted, *codes = run(library, seed=0, rounds=500)
    assert int(accepted) > 30 and codes == ["0"]


@pytest.mark.slow
def test_no_false_model_makes_an_index_wrong(checked_library: Library) -> None:
    accepted, *codes = run(checked_library, seed=1, rounds=500)
    assert int(accepted) > 30 and codes == ["0"]
