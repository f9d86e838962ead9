import platform
import shutil
import subprocess
from pathlib import Path

import pytest

from raydistill.serving.native.library import Library, Model
from tests.serving.native.cases import default_model, odd_pairs

pytestmark = pytest.mark.timeout(900)  # where the library is not in the cache
ROOT = Path(__file__).parents[3]
HEADER = ROOT / "raydistill" / "serving" / "native"


@pytest.fixture(scope="module")
def program(library: Library, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The C program, beside a model; linked with the library, or with its object."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None or platform.system() != "Linux":
        pytest.skip("no C compiler on this machine")
    folder = tmp_path_factory.mktemp("c")
    (folder / "model.rdm").write_bytes(default_model())
    binary = shutil.copy(library.file, folder / f"libraydistill{library.file.suffix}")
    subprocess.run(
        [compiler, "-std=c11", "-O2", "-Wall", "-Wextra", "-Werror", "-pedantic", "-I", HEADER,
         ROOT / "bindings" / "c" / "score.c", binary, f"-Wl,-rpath,{folder}", "-lm",
         "-o", folder / "score"], check=True,
    )  # fmt: skip
    return folder / "score"


def test_it_prints_the_scores(program: Path, model: Model) -> None:
    pairs = [p for p in odd_pairs(60) if not set("".join(p)) & {"\t", "\n", "\r", "\0"}]
    text = "".join(f"{query}\t{title}\n" for query, title in pairs)
    (program.parent / "pairs.tsv").write_text(text, newline="")
    command = [program, program.parent / "model.rdm"]
    queries, titles = zip(*pairs, strict=True)
    expected = [f"{score:.7f}" for score in model.score_pairs(queries, titles)]
    by_name = subprocess.run([*command, program.parent / "pairs.tsv"], capture_output=True,
                             text=True, check=True).stdout.split()  # fmt: skip
    piped = subprocess.run(command, input=text.encode(), capture_output=True, check=True).stdout
    assert len(pairs) > 30
    assert by_name == piped.decode().split() == expected


def test_it_says_what_is_wrong(program: Path) -> None:
    folder = program.parent
    (folder / "cut.rdm").write_bytes(default_model()[:10_000])
    (folder / "text.rdm").write_bytes(b"text " * 1_000)
    for name, reason in (
        ("cut.rdm", "not complete"),
        ("text.rdm", "no model file"),
        ("none.rdm", "No such file"),
    ):
        done = subprocess.run([program, folder / name], input="", capture_output=True, text=True)
        assert done.returncode == 1 and f"{name}: {reason}" in done.stderr
    done = subprocess.run(
        [program, folder / "model.rdm"], input="a line", capture_output=True, text=True
    )
    assert done.returncode == 1 and done.stderr == "line 1 has no tab\n"
