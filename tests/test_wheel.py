"""Wheels in environments of their own, with NumPy alone or NumPy and numba, score a bundle."""

import json
import re
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path
from types import ModuleType

import llvmlite
import numba
import numpy as np
import pytest

from raydistill.serving.native.build import built_library, own_target
from raydistill.serving.scorer import Scorer
from tests.helpers.bundles import make_bundle

pytestmark = pytest.mark.timeout(900)  # where the library is not in the cache
ROOT = Path(__file__).parents[1]
C_FILES = ("bench.c", "raydistill.h")
TITLES = ["Grey sofa, 3 seats", "sofa cover grey", "oak table", ""]
HEAVY = ["torch", "ray", "transformers", "pyarrow", "pydantic", "scipy", "lightgbm", "optuna"]
CODE = """
import importlib.util, json, sys, time
started = time.perf_counter()
import raydistill
from raydistill import Scorer
scores = Scorer.load(sys.argv[1]).score("grey sofa", json.loads(sys.argv[2]))
seconds = time.perf_counter() - started
heavy = [name for name in json.loads(sys.argv[3]) if importlib.util.find_spec(name)]
ours = {name.partition(".")[0] for name in sys.modules}
print(json.dumps({"scores": scores.tolist(), "heavy": heavy, "file": raydistill.__file__,
                  "has_numba": "numba" in ours, "seconds": seconds}))
"""


def make_wheel(folder: Path, *, library: Path | None) -> Path:
    """Built from a copy of the sources, as `make wheel` does: setuptools writes beside them."""
    source = folder / "source"
    skipped = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "raydistill", source / "raydistill", ignore=skipped)
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    if library is not None:
        (source / "raydistill/serving/native/lib").mkdir()
        shutil.copy(library, source / "raydistill/serving/native/lib")
    command = [
        *(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"),
        *("--disable-pip-version-check", "--wheel-dir", str(folder), str(source)),
    ]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    (found,) = folder.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def plain_wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_wheel(tmp_path_factory.mktemp("wheel"), library=None)


@pytest.fixture(scope="module")
def native_wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With the library for this machine, where a linker made one."""
    target = own_target()
    library = built_library(target) if target else None
    if library is None or library.suffix == ".o":
        pytest.skip("no library for this CPU, or no linker that could make one")
    return make_wheel(tmp_path_factory.mktemp("wheel"), library=library)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return make_bundle(tmp_path / "bundle")


def make_environment(folder: Path, wheel: Path, *modules: ModuleType) -> Path:
    """Its Python: with some modules as they lie here, and the wheel installed by pip."""
    venv.create(folder)
    python = folder / "bin" / "python"
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    places = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    site = Path(places.stdout.strip())
    for module in modules:
        package = Path(str(module.__file__)).parent
        (site / package.name).symlink_to(package)
        libraries = package.with_name(f"{package.name}.libs")
        if libraries.exists():
            (site / libraries.name).symlink_to(libraries)
    install = [
        *(sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet"),
        *("--no-index", "--no-deps", "--disable-pip-version-check", str(wheel)),
    ]
    installed = subprocess.run(install, capture_output=True, text=True, check=False)
    assert installed.returncode == 0, installed.stderr
    return python


def score(python: Path, bundle: Path) -> subprocess.CompletedProcess[str]:
    """Score TITLES in an environment, with an empty home."""
    home = python.parents[2]
    command = [python, "-I", "-c", CODE, bundle, json.dumps(TITLES), json.dumps(HEAVY)]
    return subprocess.run(
        command, cwd=home, env={"HOME": str(home)}, capture_output=True, text=True, check=False
    )


@pytest.mark.slow
def test_the_wheel_holds_the_package_and_nothing_else(plain_wheel: Path) -> None:
    names = set(zipfile.ZipFile(plain_wheel).namelist())
    package = {name for name in names if ".dist-info/" not in name}
    sources = {str(p.relative_to(ROOT)) for p in (ROOT / "raydistill").rglob("*.py")}
    others = {"py.typed", "demo/shop_words.toml", *(f"serving/native/{name}" for name in C_FILES)}
    others |= {f"evaluation/report/page.{end}" for end in ("html", "css")}
    page = ROOT / "raydistill" / "server" / "page"
    others |= {f"server/page/{file.name}" for file in page.iterdir()}
    assert package == sources | {f"raydistill/{name}" for name in others}
    assert plain_wheel.name.endswith("-py3-none-any.whl")


@pytest.mark.slow
def test_a_bundle_is_scored_with_numpy_alone(
    native_wheel: Path, bundle: Path, tmp_path: Path
) -> None:
    assert re.search(r"-py3-none-manylinux_\d+_\d+_\w+\.whl$", native_wheel.name)
    python = make_environment(tmp_path / "environment", native_wheel, np)
    ran = score(python, bundle)
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout)
    expected = Scorer.load(bundle).score("grey sofa", TITLES)
    assert found["scores"] == expected.tolist() and np.std(expected) > 0.01
    assert found["heavy"] == [] and not found["has_numba"]
    assert Path(found["file"]).is_relative_to(tmp_path / "environment")
    command = [python, "-I", "-m", "raydistill.serving.native", tmp_path / "for_c"]
    subprocess.run(command, check=True, capture_output=True)
    copied = {file.name for file in (tmp_path / "for_c").iterdir()}
    assert copied == {"libraydistill.so", "raydistill.h"}


@pytest.mark.slow
def test_without_a_library_numba_scores(plain_wheel: Path, bundle: Path, tmp_path: Path) -> None:
    python = make_environment(tmp_path / "environment", plain_wheel, np, numba, llvmlite)
    ran = score(python, bundle)
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout)
    expected = Scorer.load(bundle).score("grey sofa", TITLES)
    assert found["scores"] == pytest.approx(expected.tolist(), abs=1e-6)
    assert found["heavy"] == [] and found["has_numba"]
    program = [python.with_name("raydistill"), "--help"]
    shown = subprocess.run(program, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert "score" in shown.stdout


@pytest.mark.slow
def test_without_both_the_error_says_what_to_install(
    plain_wheel: Path, bundle: Path, tmp_path: Path
) -> None:
    ran = score(make_environment(tmp_path / "environment", plain_wheel, np), bundle)
    assert ran.returncode == 1
    assert "pip install 'raydistill[numba]'" in ran.stderr.splitlines()[-1]
