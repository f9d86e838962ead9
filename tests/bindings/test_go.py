"""The Go package and its program: golden pairs, errors, and `go test` with the race detector."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from raydistill.serving.bundle import MODEL
from tests.bindings.golden import check_bench, check_errors, check_scores

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]  # Go compiles its library once
SOURCES = Path(__file__).parents[2] / "bindings" / "go"


@pytest.fixture(scope="module")
def environment(native_folder: Path) -> dict[str, str]:
    if shutil.which("go") is None or shutil.which("gcc") is None:
        pytest.skip("no go, or no gcc, on this machine")
    return {
        **os.environ, "CGO_ENABLED": "1", "CGO_CFLAGS": f"-O2 -I{native_folder}",
        "CGO_LDFLAGS": f"-L{native_folder} -Wl,-rpath,{native_folder}", "GOPROXY": "off",
    }  # fmt: skip


def go(*arguments: str | Path, environment: dict[str, str]) -> str:
    done = subprocess.run(
        ["go", *arguments], cwd=SOURCES, env=environment, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_program_scores_golden_pairs_and_says_what_is_wrong(
    environment: dict[str, str], bundle_folder: Path, tmp_path: Path
) -> None:
    program = tmp_path / "score"
    go("build", "-o", program, "./score", environment=environment)
    check_scores([program], bundle_folder, tmp_path)
    check_errors([program], bundle_folder, tmp_path)
    check_bench([program], bundle_folder, tmp_path)


def test_the_package_passes_its_tests(environment: dict[str, str], bundle_folder: Path) -> None:
    """Goroutines at once, a scorer that is closed meanwhile, memory after 100,000 calls."""
    go("vet", "./...", environment=environment)
    assert subprocess.run(["gofmt", "-l", SOURCES], capture_output=True, check=True).stdout == b""
    settings = {**environment, "RAYDISTILL_MODEL": str(bundle_folder / MODEL)}
    told = go("test", "-count=1", "-v", ".", environment=settings)
    assert told.count("--- PASS") == 3 and "SKIP" not in told
    raced = go("test", "-race", "-count=1", "-v", "-run", "Scorer", ".", environment=settings)
    assert raced.count("--- PASS") == 2  # not memory: the detector's own grows
