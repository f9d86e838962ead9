"""Permitted imports between packages and of third parties, and limits on package size.

Input: the parsed sources, which are not run. Imports inside functions count like those at the top
of a file; imports under TYPE_CHECKING do not count.
"""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

import raydistill

ROOT = Path(raydistill.__file__).parent
# A package may import those above it, and the third parties beside it. `runs` stands for
# `raydistill/runs/`; the first three and the last are single files.
THIRD_PARTIES = {
    "errors": "",
    "credentials": "",
    "progress": "",
    "serving.machine_code": "numba llvmlite",
    "serving.text": "numpy pyarrow",  # pyarrow: see ONLY_IN_FUNCTIONS
    "serving.units": "numpy",
    "serving.native": "numpy llvmlite",  # llvmlite: see ONLY_IN_FUNCTIONS
    "serving": "numpy",
    "serving.native.emit.text": "numpy",
    "serving.native.emit": "numpy numba llvmlite",
    "serving.explanation": "numpy",
    "files.stores": "pyarrow botocore fsspec",
    "files": "numpy pyarrow huggingface_hub",
    "files.inputs": "numpy pyarrow",
    "exchange": "numpy onnx",
    "config": "pydantic tomli_w",
    "data": "numpy pyarrow",
    "data.passes": "numpy pyarrow",
    "data.held_out": "numpy pyarrow",
    "data.scores": "numpy pyarrow",
    "runs": "numpy",
    "evaluation.metrics": "numpy",
    "evaluation.scoreboard": "numpy",
    "evaluation": "numpy pyarrow matplotlib tokenizers fasttext model2vec",
    "evaluation.comparison": "numpy pyarrow",
    "evaluation.report.sections": "",
    "evaluation.report": "jinja2 markupsafe matplotlib",
    "teachers.transformer": (
        "numpy pyarrow torch transformers safetensors jinja2 onnxruntime openvino"
    ),
    "teachers.heads": "numpy pyarrow torch safetensors",
    "teachers.generative": "numpy torch transformers",
    "teachers.shards": "numpy pyarrow",
    "teachers": "numpy pyarrow torch scipy lightgbm",
    "teachers.kinds": "numpy pyarrow torch",
    "student.lexicon": "numpy pyarrow torch",
    "student": "numpy pyarrow torch",
    "student.export": "numpy",
    "search": "numpy pyarrow pydantic matplotlib tomli_w",
    "candidates": "numpy pyarrow tantivy",
    "demo": "numpy pyarrow",
    "cluster.pools": "pyarrow ray",
    "cluster.workers": "ray torch",
    "cluster": "pyarrow ray torch optuna threadpoolctl",
    "stages.splits": "numpy pyarrow",
    "stages.fits": "numpy pyarrow torch",
    "stages.evaluation": "numpy pyarrow threadpoolctl",
    "stages": "numpy ray torch transformers tensorboardX",
    "stages.standalone": "numpy pyarrow ray threadpoolctl",
    "stages.scoring": "numpy pyarrow",
    "stages.quality": "numpy pyarrow torch",
    "stages.planning": "numpy pyarrow torch ray",
    "stages.verification": "numpy pyarrow",
    "server.explanations": "pydantic",
    "server": "numpy starlette pydantic pydantic_core orjson prometheus_client",
    "server.hosts": "pydantic starlette uvicorn httptools prometheus_client ray",
    "machine": "torch pyarrow",
    "cli.options": "",
    "cli.checks": "",
    "cli": "",
    "__main__": "",
}
ORDER = list(THIRD_PARTIES)
# A package that uses a library in one or two of its modules, and no more.
ONLY_IN = {
    ("serving.machine_code", "numba"): {
        *("serving.machine_code.compiled", "serving.machine_code.emitted"),
        "serving.machine_code.prefetch",
    },
    ("serving.machine_code", "llvmlite"): {"serving.machine_code.prefetch"},
    ("serving.native", "llvmlite"): {"serving.native.library"},
    ("serving.native.emit", "numba"): {"serving.native.emit.memory", "serving.native.emit.emitter"},
    ("serving.native.emit", "llvmlite"): {
        *("serving.native.emit.memory", "serving.native.emit.emitter"),
    },
    ("files", "huggingface_hub"): {"files.model_files", "files.bundles"},
    ("evaluation", "tokenizers"): {"evaluation.dataset_stats", "evaluation.word_models"},
    ("evaluation", "fasttext"): {"evaluation.word_models"},
    ("evaluation", "model2vec"): {"evaluation.word_models"},
    ("teachers.transformer", "onnxruntime"): {"teachers.transformer.runtimes"},
    ("teachers.transformer", "openvino"): {"teachers.transformer.runtimes"},
    ("teachers", "lightgbm"): {"teachers.trees"},
    ("cluster.workers", "torch"): {"cluster.workers.assigned_gpu"},
    ("cluster", "torch"): {"cluster.tune_trials", "cluster.placement"},
    ("cluster", "optuna"): {"cluster.tune_trials"},
    ("stages", "transformers"): {"stages.finetune"},
    ("stages", "ray"): {"stages.finetune", "stages.train"},
    ("machine", "torch"): {"machine.devices"},
    ("machine", "pyarrow"): {"machine.store"},
    ("server.hosts", "pydantic"): {"server.hosts.ray_serve"},
    ("server.hosts", "starlette"): {"server.hosts.ray_serve"},
    ("server.hosts", "uvicorn"): {"server.hosts.process", "server.hosts.connection"},
    ("server.hosts", "httptools"): {"server.hosts.connection"},
    ("server.hosts", "prometheus_client"): {"server.hosts.process"},
    ("server.hosts", "ray"): {"server.hosts.ray_serve"},
    ("stages.planning", "ray"): {"stages.planning.remote"},
    ("stages.standalone", "ray"): {"stages.standalone.curve"},
}
# A bundle is served without it: what reads Arrow tables is called by those who have it.
ONLY_IN_FUNCTIONS = {
    ("serving.text", "pyarrow"),
    ("serving.native", "llvmlite"),
    *{("machine", "torch"), ("machine", "pyarrow")},  # doctor runs where they are missing
}
# A bundle that is not on this machine is copied by those who have the packages below: the one
# import from below, inside a function.
FROM_BELOW = {("serving.scorer", "files.bundles")}
MOST_LINES = 400


class Import(NamedTuple):
    """`module` is the file's name where it is one of ours, else the third party's."""

    module: str
    is_ours: bool
    line: int
    is_top: bool  # done as soon as the module is imported
    is_for_types: bool


def modules() -> list[str]:
    names = [path.relative_to(ROOT).with_suffix("").parts for path in ROOT.rglob("*.py")]
    return sorted(".".join(parts) for parts in names)


MODULES = modules()


def is_package_file(module: str) -> bool:
    return module.split(".")[-1] == "__init__"


def package_of(module: str) -> str:
    return module.rpartition(".")[0] or module


def path_of(module: str) -> Path:
    return ROOT / (module.replace(".", "/") + ".py")


@cache
def imports(module: str) -> tuple[Import, ...]:
    found: list[Import] = []
    collect(ast.parse(path_of(module).read_text()), found, is_top=True, is_for_types=False)
    return tuple(found)


def collect(node: ast.AST, found: list[Import], *, is_top: bool, is_for_types: bool) -> None:
    """Add every import below a node; expressions have none."""
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        for name, is_ours in imported(node):
            found.append(Import(name, is_ours, node.lineno, is_top, is_for_types))
    is_top = is_top and not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    is_guard = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    others = node.orelse if is_guard and isinstance(node, ast.If) else []
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.expr):
            types = is_for_types or (is_guard and child not in others)
            collect(child, found, is_top=is_top and not types, is_for_types=types)


def imported(node: ast.AST) -> Iterator[tuple[str, bool]]:
    if isinstance(node, ast.Import):
        for alias in node.names:
            yield resolved(alias.name)
    elif isinstance(node, ast.ImportFrom):
        assert node.level == 0 and node.module, f"line {node.lineno}: name the package in full"
        for alias in node.names:
            name, is_ours = resolved(f"{node.module}.{alias.name}")
            yield (name, is_ours) if name in MODULES or not is_ours else resolved(node.module)


def resolved(name: str) -> tuple[str, bool]:
    """Our module of that name, or the first part of a third party's."""
    first, _, rest = name.partition(".")
    if first != "raydistill":
        return first, False
    if not rest:
        return "__init__", True
    return (f"{rest}.__init__" if f"{rest}.__init__" in MODULES else rest), True


def place(module: str, found: Import) -> str:
    return f"{path_of(module).relative_to(ROOT.parent)}:{found.line} imports {found.module}"


INSIDE = [module for module in MODULES if module != "__init__"]


def test_a_module_imports_its_package_and_those_above_it() -> None:
    for module in INSIDE:
        package = package_of(module)
        assert package in ORDER, f"{package} has no place in the order of packages"
        for found in imports(module):
            if not found.is_ours or found.is_for_types:
                continue
            assert found.module != "__init__", f"{place(module, found)}: name the module itself"
            if (module, found.module) in FROM_BELOW and not found.is_top:
                continue
            other = package_of(found.module)
            assert other in ORDER and ORDER.index(other) <= ORDER.index(package), (
                f"{place(module, found)}, which is in {other}: {package} stands above it"
            )


def test_a_module_uses_the_third_parties_of_its_package() -> None:
    for module in MODULES:
        package = package_of(module)
        allowed = THIRD_PARTIES.get(package, "").split()
        for found in imports(module):
            if found.is_ours or found.is_for_types or found.module in sys.stdlib_module_names:
                continue
            use = (package, found.module)
            assert found.module in allowed, f"{place(module, found)}: {package} may use {allowed}"
            assert module in ONLY_IN.get(use, {module}), (
                f"{place(module, found)}: {ONLY_IN[use]} may"
            )
            assert not (found.is_top and use in ONLY_IN_FUNCTIONS), (
                f"{place(module, found)} at its top"
            )


def test_no_third_party_is_allowed_that_nobody_uses() -> None:
    used = {
        (package_of(module), found.module)
        for module in MODULES
        for found in imports(module)
        if not found.is_ours and not found.is_for_types
    }
    allowed = {(package, name) for package in ORDER for name in THIRD_PARTIES[package].split()}
    assert allowed <= used, f"not used: {sorted(allowed - used)}"
    named = {(*use, module) for use, some in ONLY_IN.items() for module in some}
    real = {
        (package_of(module), found.module, module)
        for module in MODULES
        for found in imports(module)
    }
    assert named <= real, f"not used: {sorted(named - real)}"


def test_the_root_imports_the_scorer_when_it_is_asked_for() -> None:
    for found in imports("__init__"):
        if found.is_ours:
            assert found.module == "serving.scorer", place("__init__", found)
            assert not found.is_top, place("__init__", found)


def cycle(edges: dict[str, set[str]]) -> list[str]:
    """Modules of which each imports the next, and the last the first; none if there is no cycle."""
    done: set[str] = set()

    def follow(module: str, above: list[str]) -> list[str]:
        if module in above:
            return [*above[above.index(module) :], module]
        if module in done:
            return []
        for other in sorted(edges.get(module, set())):
            if round_trip := follow(other, [*above, module]):
                return round_trip
        done.add(module)
        return []

    return next((found for module in sorted(edges) if (found := follow(module, []))), [])


def test_a_cycle_is_found() -> None:
    assert cycle({"a": {"b", "d"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert cycle({"a": {"b", "c"}, "b": {"c"}}) == []


def test_no_module_imports_one_that_imports_it() -> None:
    edges = {
        module: {f.module for f in imports(module) if f.is_ours and not f.is_for_types}
        for module in INSIDE
    }
    found = cycle(edges)
    assert not found, " imports ".join(found)


def test_a_package_has_two_to_ten_files() -> None:
    for package in ORDER:
        if path_of(package).exists():
            continue
        files = [m for m in MODULES if package_of(m) == package and not is_package_file(m)]
        assert 2 <= len(files) <= 10, f"{package} has {len(files)} files: {files}"


def test_a_file_has_at_most_400_lines() -> None:
    for module in MODULES:
        num_lines = len(path_of(module).read_text().splitlines())
        assert num_lines <= MOST_LINES, f"{path_of(module)} has {num_lines} lines: make it two"


def loaded_with(module: str) -> set[str]:
    """Third parties that come with the import of a module of ours, whatever is called."""
    seen, waiting, libraries = set[str](), [module], set[str]()
    while waiting:
        current = waiting.pop()
        if current in seen:
            continue
        seen.add(current)
        for found in imports(current):
            if found.is_top and found.is_ours:
                waiting.append(found.module)
            elif found.is_top:
                libraries.add(found.module)
    return libraries


@pytest.mark.parametrize("module", ["__main__", "cli.main", "stages.distill", "stages.prepare"])
def test_a_mistake_is_found_before_heavy_libraries_are_loaded(module: str) -> None:
    heavy = loaded_with(module) & {"ray", "torch", "transformers"}
    assert not heavy, f"{path_of(module)} loads {sorted(heavy)}"


@pytest.mark.slow
def test_the_scorer_needs_numpy_alone() -> None:
    code = (
        "import sys\nfrom raydistill import Scorer\n"
        "ours = {name.partition('.')[0] for name in sys.modules} - sys.stdlib_module_names\n"
        "print(Scorer.__module__, *sorted(ours - set(sys.argv)))"
    )
    command = [sys.executable, "-c", code]
    found = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert found[0] == "raydistill.serving.scorer"
    heavy = {"numba", "llvmlite", "torch", "ray", "transformers", "pyarrow", "pydantic"}
    assert "numpy" in found and not heavy & set(found), found


@pytest.mark.slow
@pytest.mark.parametrize(
    "modules, absent",
    [
        (
            "raydistill.teachers.kinds.trees raydistill.teachers.kinds.scores "
            "raydistill.cluster.workers.assigned_gpu raydistill.stages.fits.lexicon",
            "torch transformers ray.train",
        ),
        ("raydistill.teachers.kinds.cross_encoder", "ray.train scipy.optimize lightgbm"),
        ("raydistill.stages.train", "transformers lightgbm"),
    ],
)
def test_a_worker_imports_no_library_that_its_work_does_not_need(modules: str, absent: str) -> None:
    """Each new worker waits for its imports: torch takes 1.2 s, transformers 0.9."""
    code = f"import sys\nimport {', '.join(modules.split())}\nprint(*sys.modules)"
    command = [sys.executable, "-c", code]
    found = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert not set(absent.split()) & set(found)


def test_nothing_is_imported_by_a_string() -> None:
    for module in MODULES:
        text = path_of(module).read_text()
        for way in ("import_module", "__import__"):
            assert way not in text, f"{module} uses {way}: write the import out"


def test_the_page_of_packages_says_which_folders_come_after_the_one_around_them() -> None:
    page = (ROOT.parent / "docs/architecture.md").read_text()
    (sentence,) = re.findall(r"but for (.*?),\s+which come after", page, re.DOTALL)
    said = [name.strip("/").replace("/", ".") for name in re.findall(r"`([\w/]+)/`", sentence)]
    around = [name.rpartition(".")[0] for name in ORDER]
    late = [
        name
        for name, outer in zip(ORDER, around, strict=True)
        if outer in ORDER and ORDER.index(outer) < ORDER.index(name)
    ]
    assert said == late
