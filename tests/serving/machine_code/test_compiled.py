"""The cache of compiled code: invalidation, location and permitted owners."""

import ast
import logging
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import numba
import numpy as np
import pytest

from raydistill.serving.machine_code import cache_folder, compiled, emitted

PACKAGE = Path(compiled.__file__).parents[2]
# A function of one file that calls functions, or freezes constants, of another one.
NGRAM = (
    "import numpy as np\n"
    "from raydistill.serving.tokenizer import char_ngrams\n"
    "ids = np.zeros(4, np.int32)\n"
    "char_ngrams(np.arange(65, 69, dtype=np.uint32), 3, np.uint64(40), ids, 0)\n"
    "stats = char_ngrams.stats\n"
    "print(ids.sum(), sum(stats.cache_hits.values()), stats.cache_path)"
)
STEM = (
    "import numpy as np\n"
    "from raydistill.data.query_key import stem\n"
    "found = stem(np.array([57, 57, 57, 115], np.uint32), 4)\n"
    "print(found, sum(stem.stats.cache_hits.values()), stem.stats.cache_path)"
)


def start(code: str, package: Path, environment: Mapping[str, str]) -> subprocess.Popen[str]:
    kept = {k: v for k, v in os.environ.items() if k not in ("NUMBA_CACHE_DIR", "XDG_CACHE_HOME")}
    return subprocess.Popen(
        [sys.executable, "-c", code],
        env={**kept, "PYTHONPATH": str(package), "PYTHONDONTWRITEBYTECODE": "1", **environment},
        cwd=package, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def run(code: str, package: Path, environment: Mapping[str, str]) -> tuple[str, str]:
    process = start(code, package, environment)
    output, errors = process.communicate()
    assert process.returncode == 0, errors
    return output.strip(), errors


@pytest.fixture
def package(tmp_path: Path) -> Path:
    skipped = shutil.ignore_patterns("__pycache__")
    shutil.copytree(PACKAGE, tmp_path / "code" / "raydistill", ignore=skipped)
    return tmp_path / "code"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("code", "changed", "old", "new"),
    [
        (NGRAM, "serving/text/hashing.py", "_SHIFT = np.uint64(33)", "_SHIFT = np.uint64(29)"),
        (STEM, "serving/units/numerals.py", "return 48 <= code <= 57", "return 48 <= code <= 56"),
    ],
)
def test_a_change_of_another_file_is_compiled(
    package: Path, tmp_path: Path, code: str, changed: str, old: str, new: str
) -> None:
    warm = {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    first = run(code, package, warm)[0].split()
    again = run(code, package, warm)[0].split()
    assert again == [first[0], "1", first[2]]  # it is found
    file = package / "raydistill" / changed
    text, stat = file.read_text(), file.stat()
    assert old in text
    file.write_text(text.replace(old, new))
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # nor does its size tell
    assert file.stat().st_size == stat.st_size
    found = run(code, package, warm)[0].split()
    fresh = run(code, package, {"XDG_CACHE_HOME": str(tmp_path / "other")})[0].split()
    assert found[0] == fresh[0] != first[0] and found[1] == "0"
    assert len(list((tmp_path / "cache" / "raydistill").iterdir())) == 2


@pytest.mark.slow
def test_without_a_home_a_temporary_folder_is_shared(tmp_path: Path) -> None:
    environment = {"HOME": "/proc/nonexistent", "TMPDIR": str(tmp_path)}
    both = [start(STEM, PACKAGE.parent, environment) for _ in range(2)]  # at the same time
    outputs = [process.communicate() for process in both]
    base = tmp_path / f"raydistill-{os.getuid()}"
    for process, (output, errors) in zip(both, outputs, strict=True):
        assert process.returncode == 0
        assert errors.count("\n") == 1 and errors.startswith("compiled code is kept in "), errors
        assert output.startswith("4 ") and f"{base}/compiled-" in output
    assert base.stat().st_mode & 0o777 == 0o700 and len(list(base.iterdir())) == 1
    assert run(STEM, PACKAGE.parent, environment)[0].startswith("4 1 ")  # a hit


@pytest.mark.parametrize(
    "environment",
    [
        {"HOME": ""},
        {"HOME": "nowhere"},
        {"XDG_CACHE_HOME": "/dev/null"},
        {"NUMBA_CACHE_DIR": "/proc/none"},
    ],
)
def test_one_warning_a_process(
    environment: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    for name in ("HOME", "XDG_CACHE_HOME", "NUMBA_CACHE_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(numba.config, "CACHE_DIR", "")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(cache_folder, "_WARNED", set())
    compiled.cache_folder.cache_clear()
    try:
        with caplog.at_level(logging.WARNING, "raydistill"):
            assert compiled.cache_folder() == compiled.cache_folder()
        assert len(caplog.records) == 1 and str(tmp_path) in caplog.text
    finally:
        compiled.cache_folder.cache_clear()


@pytest.mark.slow
def test_where_nothing_can_be_written_it_works(tmp_path: Path) -> None:
    environment = {"HOME": "/proc/none", "TMPDIR": "/proc/none"}
    code = "import tempfile; tempfile._candidate_tempdir_list = lambda: ['/proc/none']\n" + STEM
    output, errors = run(code, PACKAGE.parent, environment)
    assert output == "4 0 None"
    assert errors.count("\n") == 1 and "kept in memory alone" in errors


@pytest.mark.slow
def test_a_package_without_sources_works(package: Path, tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "compileall", "-q", "-b", str(package)], check=True, cwd=tmp_path
    )
    for file in package.rglob("*.py"):
        file.unlink()
    output, _ = run(STEM, package, {"XDG_CACHE_HOME": str(tmp_path / "cache")})
    assert output.split()[0] == "4"


def test_numba_is_left_as_it_was() -> None:
    numba.config.reload_config()  # another test may have changed the environment
    before = numba.config.CACHE_DIR, numba.config.CACHE_LOCATOR_CLASSES
    folder = compiled.cache_folder()

    @compiled.compiled
    def ours(x: int) -> int:
        return x + 1

    @numba.njit(cache=True)
    def theirs(x: int) -> int:
        return x + 1

    assert ours(1) == 2 and folder is not None
    assert Path(ours.stats.cache_path).parent == folder
    assert folder not in Path(theirs.stats.cache_path).parents
    assert (numba.config.CACHE_DIR, numba.config.CACHE_LOCATOR_CLASSES) == before


def test_old_versions_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    now_s = time.time()
    for number in range(7):
        folder = tmp_path / f"compiled-{number:016x}"
        folder.mkdir()
        age_days = 9 - number if number != 2 else 0.5
        os.utime(folder, (now_s, now_s - age_days * 86_400))
    (tmp_path / "compiled-notes").mkdir()  # another program's
    (tmp_path / "compiled-00000000000000ff").symlink_to(tmp_path / "compiled-notes")
    mine = compiled.cache_folder.__wrapped__()
    left = sorted(p.name[-2:] for p in tmp_path.iterdir() if not p.is_symlink() and p != mine)
    assert left == ["02", "04", "05", "06", "es"] and mine.parent == tmp_path
    assert (tmp_path / "compiled-00000000000000ff").is_symlink()
    for number in range(20, 26):  # of today: they may all be in use
        (tmp_path / f"compiled-{number:016x}").mkdir()
    compiled.cache_folder.__wrapped__()
    assert {f"compiled-{number:016x}" for number in range(20, 26)} <= set(os.listdir(tmp_path))


@pytest.mark.slow
def test_the_hash_holds_all_that_compiled_code_is_made_of() -> None:
    """Every file with a compiled function, and every module of ours that such a file imports."""
    hashed = compiled.sources()
    for path in PACKAGE.rglob("*.py"):
        name, text = path.relative_to(PACKAGE).as_posix(), path.read_text()
        nodes = list(ast.walk(ast.parse(text)))
        if path not in (Path(compiled.__file__), Path(emitted.__file__)):
            imported = [n.module or "" for n in nodes if isinstance(n, ast.ImportFrom)]
            assert "numba" not in imported, f"{name}: compile by {compiled.__name__}"
            assert (compiled.__name__ in imported) <= (name in hashed), name
        if name not in hashed:
            continue
        assert hashed[name] == path.read_bytes()
        for node in nodes:
            if isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{name} imports from {'.' * node.level}: name the package"
                if (node.module or "").startswith("raydistill."):
                    module = str(node.module).split(".", 1)[1].replace(".", "/")
                    assert f"{module}.py" in hashed, f"{name} imports {module}"
                if node.module == "raydistill":
                    wrong = [a.name for a in node.names if (PACKAGE / f"{a.name}.py").exists()]
                    assert not wrong, f"{name}: write from raydistill.{wrong[0]} import ..."
            if isinstance(node, ast.Import):
                assert not any(a.name.startswith("raydistill") for a in node.names), name


@pytest.mark.slow
def test_the_hash_is_the_same_in_every_process() -> None:
    code = "from raydistill.serving.machine_code.compiled import fingerprint; print(fingerprint())"
    found, _ = run(code, PACKAGE.parent, {"PYTHONHASHSEED": "7"})
    assert found == compiled.fingerprint() != ""


def test_files_that_no_compiled_code_needs_change_nothing() -> None:
    found = compiled.sources()
    needed = {"serving/featurize.py", "serving/units/normalization.py", "data/query_key.py"}
    assert needed <= set(found)
    assert not {"files/folder.py", "files/retry.py", "__init__.py"} & set(found)


def test_a_borrowing_function_counts_no_references_and_makes_no_array() -> None:
    @compiled.borrowing
    def total(values: np.ndarray) -> float:
        return float(values[1:].sum())

    @compiled.borrowing
    def makes(num: int) -> int:
        return len(np.empty(num))

    assert total(np.arange(4.0)) == 6
    assert total.targetoptions["_nrt"] is False
    with pytest.raises(numba.core.errors.TypingError, match="Only accept returning of array"):
        makes(3)


def test_a_borrowing_function_returns_no_array() -> None:
    """A caller would take it for its own, and free it."""
    numbers = re.compile(r"None|int|float|bool|np\.\w+|tuple\[((int|float|bool|np\.\w+)(, )?)+\]")
    num_found = 0
    for name, source in compiled.sources().items():
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef) and node.returns:
                names = [ast.unparse(each).partition("(")[0] for each in node.decorator_list]
                if "borrowing" in names:
                    assert numbers.fullmatch(ast.unparse(node.returns)), f"{name}: {node.name}"
                    num_found += 1
    assert num_found > 50
