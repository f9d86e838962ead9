"""The Rust crate and its program: golden pairs, errors, and `cargo test`."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from raydistill.serving.bundle import MODEL
from tests.bindings.golden import cargo_of_this_machine, check_bench, check_errors, check_scores

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
SOURCES = Path(__file__).parents[2] / "bindings" / "rust"
OLDEST = (1, 63)


@pytest.fixture(scope="module")
def environment(
    native_folder: Path, bundle_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    cargo = cargo_of_this_machine()
    if cargo is None:
        pytest.skip("no cargo on this machine")
    folders = f"{Path(cargo).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    found = subprocess.run([cargo, "--version"], capture_output=True, text=True, check=True).stdout
    version = tuple(map(int, re.findall(r"\d+", found)[:2]))
    if version < OLDEST:
        pytest.skip(f"{found.strip()}, not 1.63 or later")
    return {
        **os.environ, "PATH": folders, "RAYDISTILL_NATIVE": str(native_folder),
        "RAYDISTILL_MODEL": str(bundle_folder / MODEL),
        "CARGO_TARGET_DIR": str(tmp_path_factory.mktemp("target")),
    }  # fmt: skip


def cargo(*arguments: str, environment: dict[str, str]) -> str:
    done = subprocess.run(
        ["cargo", *arguments, "--offline", "--locked", "--release"], cwd=SOURCES, env=environment,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "warning" not in done.stderr
    return done.stdout


def test_the_program_scores_golden_pairs_and_says_what_is_wrong(
    environment: dict[str, str], bundle_folder: Path, tmp_path: Path
) -> None:
    cargo("build", environment=environment)
    program = Path(environment["CARGO_TARGET_DIR"]) / "release" / "score"
    check_scores([program], bundle_folder, tmp_path)
    check_errors([program], bundle_folder, tmp_path)
    check_bench([program], bundle_folder, tmp_path)


def test_the_crate_passes_its_tests(environment: dict[str, str]) -> None:
    """Threads at once, texts as strings and as bytes, memory after 100,000 calls."""
    told = cargo("test", environment=environment)
    assert "3 passed; 0 failed" in told and "1 passed; 0 failed" in told
