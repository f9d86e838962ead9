"""The wheel, in an environment of its own with NumPy and numba alone, loads a bundle and scores."""

import json
import shutil
import subprocess
import sys
import venv
import zipfile
from dataclasses import asdict
from pathlib import Path

import llvmlite
import numba
import numpy as np
import pytest

from raydistill.serving.bundle import bundle_files
from raydistill.serving.feature_spec import FORMAT, NgramSpec
from raydistill.serving.lexicon import Lexicon
from raydistill.serving.scorer import Scorer

ROOT = Path(__file__).parents[1]
C_FILES = ("bench.c", "raydistill.h")
TITLES = ["Grey sofa, 3 seats", "sofa cover grey", "oak table", ""]
HEAVY = ["torch", "ray", "transformers", "pyarrow", "pydantic", "scipy", "lightgbm", "optuna"]
CODE = """
import importlib.util, json, sys
import raydistill
from raydistill import Scorer
scores = Scorer.load(sys.argv[1]).score("grey sofa", json.loads(sys.argv[2]))
heavy = [name for name in json.loads(sys.argv[3]) if importlib.util.find_spec(name)]
print(json.dumps({"scores": scores.tolist(), "heavy": heavy, "file": raydistill.__file__}))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy of the sources: setuptools writes beside them."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    skipped = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "raydistill", source / "raydistill", ignore=skipped)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    command = [
        *(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"),
        *("--disable-pip-version-check", "--wheel-dir", str(folder), str(source)),
    ]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    (found,) = folder.glob("*.whl")
    return found


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """With the match features, and weights that tell titles apart."""
    spec = NgramSpec("match", 10)
    rng = np.random.default_rng(0)
    num_inputs = 4 * 2 + spec.num_dense  # two bags of four columns
    arrays = {
        "embedding": rng.normal(size=(1 << 10, 4)).astype(np.float32),
        **Lexicon.from_idf(np.ones(1, np.float32)).to_arrays(),
        "dense_mean": np.zeros(spec.num_dense, np.float32),
        "dense_std": np.ones(spec.num_dense, np.float32),
        "weight_0": rng.normal(size=(1, num_inputs)).astype(np.float32) / 2,
        "bias_0": np.zeros(1, np.float32),
    }
    settings = {
        "format": FORMAT, "ngrams": asdict(spec), "temperature": 1.0, "threshold": 0.5,
        "max_query_chars": 200, "max_title_chars": 1_000,
    }  # fmt: skip
    folder = tmp_path / "bundle"
    folder.mkdir()
    for name, data in bundle_files(settings, arrays, golden=[], card="")[1].items():
        (folder / name).write_bytes(data)
    return folder


def make_environment(folder: Path, wheel: Path) -> Path:
    """Its Python: with NumPy and numba as they lie here, and the wheel installed by pip."""
    venv.create(folder)
    python = folder / "bin" / "python"
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    places = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    site = Path(places.stdout.strip())
    for module in (np, numba, llvmlite):
        package = Path(module.__file__).parent
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


@pytest.mark.slow
def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    package = {name for name in names if ".dist-info/" not in name}
    sources = {str(p.relative_to(ROOT)) for p in (ROOT / "raydistill").rglob("*.py")}
    others = {"py.typed", "demo/shop_words.toml", *(f"serving/native/{name}" for name in C_FILES)}
    assert package == sources | {f"raydistill/{name}" for name in others}


@pytest.mark.slow
def test_a_bundle_is_scored_with_numpy_and_numba_alone(
    wheel: Path, bundle: Path, tmp_path: Path
) -> None:
    python = make_environment(tmp_path / "environment", wheel)
    expected = Scorer.load(bundle).score("grey sofa", TITLES)
    command = [python, "-I", "-c", CODE, bundle, json.dumps(TITLES), json.dumps(HEAVY)]
    ran = subprocess.run(
        command, cwd=tmp_path, env={"HOME": str(tmp_path)}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout)
    assert found["scores"] == pytest.approx(expected.tolist(), abs=1e-6)
    assert np.std(expected) > 0.01
    assert found["heavy"] == []
    assert Path(found["file"]).is_relative_to(tmp_path / "environment")
    program = [python.with_name("raydistill"), "--help"]
    shown = subprocess.run(program, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert "score" in shown.stdout
