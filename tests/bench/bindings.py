"""One core: the programs of bindings/ beside Python's Scorer, on one model and the same pairs.

    python tests/bench/bindings.py --bundle BUNDLE --pairs FILE [--rounds 5] [--seconds 4]

Builds the program of each language whose tools are found. Each prints the scores of all pairs, that
are compared with those of Python, and then times calls (`score --bench`) in turns with the others:
strings of the language in, scores out; one pair alone, and one query with 100 titles, others each
time. A figure is the median of the rounds. Lines are those with code: of the scorer that is reused,
and of the program.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402

from raydistill.serving.bundle import MODEL, current_bundle  # noqa: E402
from raydistill.serving.native.build import copy_library  # noqa: E402
from raydistill.serving.native.layout import describe, read_model  # noqa: E402
from raydistill.serving.scorer import Scorer  # noqa: E402
from tests.bindings.golden import TOLERANCE, lines_of  # noqa: E402

BINDINGS = ROOT / "bindings"
BATCH, WARM_UP = 100, 200
FIGURES = ("alone_us", "alone_p99_us", "batch_us")
Pair = tuple[str, str]


class Language(NamedTuple):
    """How a program is built and what counts as its lines."""

    build: Callable[[Path, Path], list[str]]  # folder of the library, folder for files: a command
    scorer: tuple[str, ...]  # files and folders in bindings/
    program: tuple[str, ...] = ()


def c(native: Path, folder: Path) -> list[str]:
    return [compiled(needed("cc"), "-std=c11", "c/score.c", native, folder / "score-c")]


def cpp(native: Path, folder: Path) -> list[str]:
    return [compiled(needed("c++"), "-std=c++17", "cpp/score.cpp", native, folder / "score-cpp")]


def compiled(compiler: str, standard: str, source: str, native: Path, program: Path) -> str:
    flags = ["-O2", standard, f"-I{native}", f"-L{native}", f"-Wl,-rpath,{native}"]
    run([compiler, *flags, str(BINDINGS / source), "-lraydistill", "-o", str(program)])
    return str(program)


def go(native: Path, folder: Path) -> list[str]:
    flags = {
        "CGO_CFLAGS": f"-O2 -I{native}",
        "CGO_LDFLAGS": f"-L{native} -Wl,-rpath,{native}",
    }
    program = folder / "score-go"
    run([needed("go"), "build", "-o", str(program), "./score"], cwd=BINDINGS / "go", **flags)
    return [str(program)]


def rust(native: Path, folder: Path) -> list[str]:
    path = f"{os.environ['PATH']}{os.pathsep}{Path.home() / '.cargo/bin'}"
    settings = {"PATH": path, "CARGO_TARGET_DIR": str(folder), "RAYDISTILL_NATIVE": str(native)}
    command = [needed("cargo", path), "build", "--release", "--offline", "--quiet"]
    run(command, cwd=BINDINGS / "rust", **settings)
    return [str(folder / "release" / "score")]


def java(native: Path, folder: Path, *, newest: int = 99) -> list[str]:
    """With the newest JDK in /usr/lib/jvm that is not above a version."""
    home = newest_jdk(newest)
    told = run([str(home / "bin" / "java"), "-version"], is_error=True)
    version = int(told.split('"')[1].split(".")[0])
    jar = folder / f"raydistill-{version}.jar"
    run(["bash", str(BINDINGS / "java" / "build.sh"), str(jar)],
        **{"JDK17" if version < 22 else "JDK22": str(home)})  # fmt: skip
    flags = ["--add-modules", "jdk.incubator.foreign"] if version < 22 else []
    flags += ["--enable-native-access=ALL-UNNAMED", "-Xshare:auto"]
    library = f"-Draydistill.library={next(native.glob('libraydistill.*'))}"
    return [str(home / "bin" / "java"), *flags, library, "-jar", str(jar)]


def java17(native: Path, folder: Path) -> list[str]:
    return java(native, folder, newest=17)


def newest_jdk(newest: int) -> Path:
    def version(home: Path) -> int:
        words = (home / "release").read_text().partition('JAVA_VERSION="')[2]
        return int(words.split(".")[0].split('"')[0])

    homes = [home.parent for home in Path("/usr/lib/jvm").glob("*/release")]
    homes = [home for home in homes if (home / "bin" / "javac").is_file()]
    homes = [home for home in homes if version(home) <= newest]
    if not homes:
        raise FileNotFoundError("javac")
    return max(homes, key=version)


def python(native: Path, folder: Path) -> list[str]:
    return [sys.executable, __file__, "score"]


# Of two versions of a class the one for Java 21 and newer.
JAVA = ("21/raydistill/Native", *(f"common/raydistill/{name}" for name in
                                  ("Scorer", "Workspace", "Pool")))  # fmt: skip
JAVA_FILES = tuple(f"java/src/{name}.java" for name in JAVA)
LANGUAGES = {
    "c": Language(c, ("c/scorer.h",), ("c/score.c",)),
    "cpp": Language(cpp, ("cpp/raydistill.hpp",), ("cpp/score.cpp",)),
    "rust": Language(
        rust, ("rust/src/lib.rs", "rust/src/pages.rs", "rust/build.rs"), ("rust/src/main.rs",)
    ),
    "go": Language(go, ("go/scorer.go",), ("go/score/main.go",)),
    "java": Language(java, JAVA_FILES, ("java/src/common/raydistill/Score.java",)),
    "java17": Language(java17, JAVA_FILES, ("java/src/common/raydistill/Score.java",)),
    "python": Language(python, ()),
}


def needed(name: str, path: str | None = None) -> str:
    found = shutil.which(name, path=path)
    if found is None:
        raise FileNotFoundError(name)
    return found


def run(
    command: list[str], *, cwd: Path | None = None, is_error: bool = False, **settings: str
) -> str:
    """What a command prints; CalledProcessError if it fails."""
    done = subprocess.run(
        command, cwd=cwd, env={**os.environ, **settings}, capture_output=True, text=True, check=True
    )
    return done.stderr if is_error else done.stdout


def lines_of_code(names: tuple[str, ...]) -> int:
    """Lines that are neither empty nor comments."""
    found = 0
    for name in names:
        place = BINDINGS / name
        for file in [place] if place.is_file() else place.rglob("*.*"):
            is_comment = False
            for line in file.read_text().splitlines():
                text = line.strip()
                is_comment = is_comment or text.startswith("/*")
                found += bool(text) and not is_comment and not text.startswith("//")
                is_comment = is_comment and "*/" not in text
    return found


def bench_python(model: Path, pairs: list[Pair], seconds: float) -> dict[str, float]:
    """What the programs do, in Python."""
    scorer = scorer_of(model)
    queries, titles = [pair[0] for pair in pairs], [pair[1] for pair in pairs]

    def timed(size: int) -> list[float]:
        found: list[float] = []
        at, call, end = 0, -WARM_UP // size, 0.0
        while call < 1 or time.perf_counter() < end:
            at = 0 if at + size > len(titles) else at
            if call == 0:
                end = time.perf_counter() + seconds / 2
            start = time.perf_counter()
            scorer.score(queries[at], titles[at : at + size])
            if call >= 0:
                found.append(1e6 * (time.perf_counter() - start))
            at, call = at + size, call + 1
        return found

    alone, batches = timed(1), timed(BATCH)
    return {
        "alone_us": statistics.median(alone),
        "alone_p99_us": float(np.percentile(alone, 99)),
        "batch_us": statistics.median(batches) / BATCH,
        "pairs": len(alone) + BATCH * len(batches),
    }


def scorer_of(model: Path) -> Scorer:
    header = describe(read_model(model))
    return Scorer({"temperature": header["temperature"]}, read_model(model))


def programs(native: Path, folder: Path, chosen: list[str]) -> dict[str, list[str]]:
    found = {}
    for name in chosen:
        try:
            found[name] = LANGUAGES[name].build(native, folder)
        except FileNotFoundError as error:
            print(f"not measured: {name}: no {error}")
        except subprocess.CalledProcessError as error:
            print(f"not measured: {name}: {error.stderr.strip()[-500:]}")
    return found


def check(command: list[str], model: Path, file: Path, expected: list[float]) -> float:
    """The largest difference of a program's scores from those of Python."""
    scores = np.array(run([*command, str(model), str(file)]).split(), np.float64)
    apart = float(np.abs(scores - expected).max())
    assert len(scores) == len(expected) and apart <= TOLERANCE, (command, apart)
    return apart


def measured(given: argparse.Namespace, folder: Path) -> dict[str, dict[str, float]]:
    """Figures by language."""
    # Imported here: it takes longer than all that the program in Python needs.
    from raydistill.stages.standalone.bench import read_pairs

    native = folder / "native"
    native.mkdir()
    copy_library(native)
    model = current_bundle(given.bundle) / MODEL
    pairs = list(islice(read_pairs(given.pairs, query="query", title="title"), given.num))
    file = folder / "pairs.tsv"
    file.write_bytes(lines_of(pairs))
    queries, titles = zip(*pairs, strict=True)
    expected = scorer_of(model).score_pairs(queries, titles).tolist()
    commands = programs(native, folder, given.languages.split(","))
    apart = {
        name: check(command, model, file, expected)
        for name, command in commands.items()
        if name != "python"
    }
    rounds: dict[str, list[dict[str, float]]] = {name: [] for name in commands}
    for _ in range(given.rounds):
        for name, command in commands.items():
            arguments = ["--bench", str(model), str(file), str(given.seconds)]
            rounds[name].append(json.loads(run([*command, *arguments])))
    found = {
        name: {key: statistics.median(each[key] for each in some) for key in FIGURES}
        for name, some in rounds.items()
    }
    for name in commands:
        language = LANGUAGES[name]
        found[name]["scorer_lines"] = lines_of_code(language.scorer)
        found[name]["program_lines"] = lines_of_code(language.program)
        found[name]["apart"] = apart.get(name, 0.0)
    return found


def own_program(arguments: list[str]) -> None:
    """`score --bench MODEL PAIRS SECONDS` in Python; the lines have no escapes."""
    _, model, file, seconds = arguments
    lines = Path(file).read_text().split("\n")[:-1]
    pairs = [(query, title) for query, title in (line.split("\t") for line in lines)]
    found = bench_python(Path(model), pairs, float(seconds))
    print(json.dumps({"language": "python", **found}))


def main() -> None:
    if sys.argv[1:2] == ["score"]:
        own_program(sys.argv[2:])
        return
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", required=True, type=Path)
    parser.add_argument("--pairs", required=True, help="a file with columns query, title")
    parser.add_argument("--num", type=int, default=10_000, help="pairs that are used")
    parser.add_argument("--languages", default=",".join(LANGUAGES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
        found = measured(given, Path(folder))
    print(f"{'':8}{'alone us':>10}{'p99 us':>10}{'batch us':>10}{'scorer':>8}{'program':>8}  apart")
    for name, row in found.items():
        times = "".join(f"{row[key]:10.2f}" for key in FIGURES)
        lines = "".join(f"{row.get(key, 0):8.0f}" for key in ("scorer_lines", "program_lines"))
        print(f"{name:8}{times}{lines}  {row.get('apart', 0):.1e}")
    figures = {f"{name}_{key}": round(value, 9) for name, row in found.items()
               for key, value in row.items()}  # fmt: skip
    print(json.dumps({"bench": "bindings", "figures": figures}))


if __name__ == "__main__":
    main()
