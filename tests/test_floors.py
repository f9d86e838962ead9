"""The house: a module imports only from lower floors, and heavy libraries stay in their rooms."""

import ast
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import pytest

import raydistill

ROOT = Path(raydistill.__file__).parent
FLOORS = [
    {
        "errors",
        "schema",
        "section",
        "durable",
        "texts",
        "device",
        "token_budget",
        "pieces",
        "markup",
        "prompt",
        "characters",
        "trial_pairs",
    },
    {"decoding", "unit_names"},
    {"overrides", "tuning", "teaching", "training", "cache", "input_config", "formats"},
    {"compiled"},
    {"config", "hashing", "prefetch", "progress", "retry", "csv_scan", "raw_rows"},
    {"cleaning", "unit_table"},
    {"csv_fields", "text_columns", "json_rows", "rejects"},
    {"csv_dialect", "grades"},
    {"delimited"},
    {"words"},
    {"numerals"},
    {"units"},
    {"keys"},
    {"pairs", "labels", "stacking", "lexicon", "bags", "metrics", "shop_text", "terms"},
    {"matching"},
    {"features"},
    {"ngrams"},
    {"synthetic", "storage", "optimizers", "exchange", "retrieval", "bundle_check"},
    {"streams"},
    {"inputs", "lease", "model_files", "bundle"},
    {"readers", "store", "loader", "tokens", "student", "scorer", "report", "identity"},
    {"packing", "prompt_tokenizer", "model_loading", "tokenizer_check"},
    {"padded_model"},
    {"teacher", "ledger"},
    {"vocabulary", "clean_rows"},
    {"run", "dataset", "catalogue"},
    {"input_checks"},
    {"shards", "judged", "labeling", "scoring", "cluster", "trees"},
    {"inspection", "learning", "curve", "space", "samples"},
    {"trials"},
    {"finals", "plots"},
    {"stages.worker_exits"},
    {"stages.tasks", "stages.placement"},
    {"stages.fit", "stages.teachers"},
    {"stages.prepare", "stages.finetune", "stages.synthesize", "stages.candidates"},
    {"stages.lexicon"},
    {"stages.trees"},
    {"stages.train", "stages.label"},
    {"stages.export"},
    {"stages.evaluate", "stages.search"},
    {"stages.tune"},
    {"stages.distill", "stages.curve"},
    {"cli"},
]
FLOOR = {name: at for at, names in enumerate(FLOORS) for name in names}
ONLY_IN = {
    "torch": {
        "device",
        "packing",
        "model_loading",
        "padded_model",
        "tokenizer_check",
        "teacher",
        "vocabulary",
        "student",
        "optimizers",
        "exchange",
        "learning",
        "stages",
    },
    "transformers": {"tokens", "prompt_tokenizer", "model_loading", "stages.finetune"},
    "lightgbm": {"trees"},
    "ray": {"cluster", "stages"},
}


def modules() -> list[str]:
    names = [p.relative_to(ROOT).with_suffix("").as_posix() for p in ROOT.rglob("*.py")]
    return sorted(n.replace("/", ".") for n in names if not n.endswith("__init__"))


@cache
def parse(name: str) -> ast.Module:
    return ast.parse((ROOT / (name.replace(".", "/") + ".py")).read_text())


@cache
def imports(name: str) -> tuple[str, ...]:
    """Every imported module of a file, also those inside functions; not those for types alone."""
    tree = parse(name)
    for_types = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    return tuple(_imported(node for node in ast.walk(tree) if id(node) not in for_types))


def _imported(nodes: Iterable[ast.AST]) -> Iterator[str]:
    for node in nodes:
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


def loads(name: str) -> set[str]:
    """Libraries and modules that come with the import of a module of ours, whatever is called."""
    found, left = set(), {name}
    while left:
        found |= left
        new = {inner for one in left if one in FLOOR for inner in _imported(parse(one).body)}
        left = {inner.removeprefix("raydistill.") for inner in new} - found
    return {one.split(".")[0] for one in found}


@pytest.mark.parametrize("name", ["cli", "stages.distill", "stages.prepare"])
def test_a_mistake_is_found_before_heavy_libraries_are_loaded(name: str) -> None:
    assert not loads(name) & {"ray", "torch", "transformers"}


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
