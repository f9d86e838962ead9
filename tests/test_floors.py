"""The house: a module imports only from lower floors, and heavy libraries stay in their rooms."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import raydistill

ROOT = Path(raydistill.__file__).parent
FLOORS = [
    {"errors", "schema", "section"},
    {"overrides", "tuning"},
    {"config", "hashing", "prefetch", "progress"},
    {"words", "cleaning"},
    {"pairs", "labels", "stacking", "ngrams", "bags", "metrics", "shop_text"},
    {"synthetic", "storage", "optimizers", "exchange"},
    {"inputs"},
    {"readers", "store", "loader", "tokens", "student", "scorer", "report"},
    {"packing"},
    {"teacher", "ledger"},
    {"run", "dataset"},
    {"shards", "judged", "labeling", "scoring", "cluster"},
    {"inspection", "learning", "space", "samples"},
    {"trials"},
    {"finals", "plots"},
    {"stages.tasks", "stages.fit"},
    {"stages.prepare", "stages.finetune", "stages.label", "stages.synthesize"},
    {"stages.train"},
    {"stages.export"},
    {"stages.evaluate", "stages.search"},
    {"stages.tune"},
    {"stages.distill"},
    {"cli"},
]
FLOOR = {name: at for at, names in enumerate(FLOORS) for name in names}
ONLY_IN = {
    "torch": {"packing", "teacher", "student", "optimizers", "exchange", "learning", "stages"},
    "transformers": {"tokens", "teacher", "stages.finetune"},
    "ray": {"cluster", "stages"},
}


def modules() -> list[str]:
    names = [p.relative_to(ROOT).with_suffix("").as_posix() for p in ROOT.rglob("*.py")]
    return sorted(n.replace("/", ".") for n in names if not n.endswith("__init__"))


@cache
def imports(name: str) -> tuple[str, ...]:
    """Every imported module of a file, also those inside functions; not those for types alone."""
    return tuple(_imports(name))


def _imports(name: str) -> Iterator[str]:
    tree = ast.parse((ROOT / (name.replace(".", "/") + ".py")).read_text())
    for_types = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in for_types:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("name", modules())
def test_imports_only_lower_floors(name: str) -> None:
    assert name in FLOOR, f"{name} has no floor yet"
    for imported in imports(name):
        inner = imported.removeprefix("raydistill.")
        if imported.startswith("raydistill.") and inner in FLOOR:
            assert FLOOR[inner] < FLOOR[name], f"{name} imports {inner}"


@pytest.mark.parametrize("name", modules())
def test_heavy_libraries_stay_in_their_rooms(name: str) -> None:
    for imported in imports(name):
        rooms = ONLY_IN.get(imported.split(".")[0])
        assert rooms is None or name in rooms or name.split(".")[0] in rooms, f"{name}: {imported}"


def test_the_scorer_needs_numpy_and_numba_only() -> None:
    import subprocess
    import sys

    code = (
        "import sys, raydistill.scorer\n"
        "heavy = {'torch', 'ray', 'transformers', 'pyarrow', 'pydantic'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
