"""The wrappers and programs in C and C++, with checks of addresses and for leaks and races."""

import shutil
import subprocess
from pathlib import Path

import pytest

from raydistill.serving.bundle import MODEL
from tests.bindings.golden import check_bench, check_errors, check_scores, run

pytestmark = pytest.mark.timeout(900)  # where the library is not in the cache
ROOT = Path(__file__).parents[2]
BINDINGS, HERE = ROOT / "bindings", Path(__file__).parent
COMPILERS = {".c": ("cc", "-std=c11"), ".cpp": ("c++", "-std=c++17")}


def compiled(source: Path, native: Path, folder: Path, *flags: str) -> Path:
    """A program, with every warning an error."""
    name, standard = COMPILERS[source.suffix]
    compiler = shutil.which(name)
    if compiler is None:
        pytest.skip(f"no {name} on this machine")
    program = folder / source.stem
    command: list[str | Path] = [
        *(compiler, standard, "-O1", "-Wall", "-Wextra", "-Werror", "-pedantic", *flags),
        *("-I", native, "-I", BINDINGS / "c", "-I", BINDINGS / "cpp", source, "-L", native),
        *("-lraydistill", f"-Wl,-rpath,{native}", "-pthread", "-o", program),
    ]
    subprocess.run(command, check=True)
    return program


@pytest.mark.slow
@pytest.mark.parametrize("source", ["c/score.c", "cpp/score.cpp"])
def test_the_program_scores_golden_pairs_and_says_what_is_wrong(
    source: str, bundle_folder: Path, native_folder: Path, tmp_path: Path
) -> None:
    """A leak or a wrong address makes the program fail."""
    flags = ("-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
    program = compiled(BINDINGS / source, native_folder, tmp_path, *flags)
    check_scores([program], bundle_folder, tmp_path)
    check_errors([program], bundle_folder, tmp_path)
    check_bench([program], bundle_folder, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("source", ["threads.c", "threads.cpp"])
def test_threads_share_a_scorer(
    source: str, bundle_folder: Path, native_folder: Path, tmp_path: Path
) -> None:
    """A race makes the program fail."""
    program = compiled(HERE / source, native_folder, tmp_path, "-g", "-fsanitize=thread")
    done = run([program], bundle_folder / MODEL)
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout == b"100,000 calls, 0 wrong\n"
