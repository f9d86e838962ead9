"""Memory and threads of a JVM that scores: one query with 100 titles a call, in 1, 2 and 8 threads.

    python tests/bench/java_load.py --bundle BUNDLE --pairs FILE [--rounds 3] [--seconds 4]

On Java 17 and on the newest JDK in /usr/lib/jvm, in turns. Memory is VmRSS: before the scorer is
loaded, after two seconds in one thread, and at the end. A figure is the median of the rounds.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from itertools import islice
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from raydistill.serving.bundle import MODEL, current_bundle  # noqa: E402
from raydistill.serving.native.build import copy_library  # noqa: E402
from raydistill.stages.standalone.bench import read_pairs  # noqa: E402
from tests.bench.bindings import java, java17  # noqa: E402

SOURCE = ROOT / "tests" / "bench" / "java" / "Load.java"


def command(program: list[str], folder: Path) -> list[str]:
    """What runs Load, from the command that runs the program."""
    *flags, _, jar = program
    classes = folder / Path(jar).stem
    compiler = str(Path(program[0]).with_name("javac"))
    subprocess.run([compiler, "-d", classes, "-cp", jar, SOURCE], check=True)
    return [*flags, "-cp", f"{classes}:{jar}", "Load"]


def write_pairs(given: argparse.Namespace, file: Path) -> None:
    """Pairs of one line each; characters that break lines become spaces."""
    pairs = islice(read_pairs(given.pairs, query="query", title="title"), 10_000)
    lines = ("\t".join(" ".join(text.split()) or "-" for text in pair) for pair in pairs)
    file.write_text("\n".join(lines))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", required=True, type=Path)
    parser.add_argument("--pairs", required=True, help="a file with columns query, title")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        native = folder / "native"
        native.mkdir()
        copy_library(native)
        write_pairs(given, folder / "pairs.tsv")
        commands = {
            language.__name__: command(language(native, folder), folder)
            for language in (java17, java)
        }
        model = current_bundle(given.bundle) / MODEL
        rounds: dict[str, list[dict[str, float]]] = {key: [] for key in commands}
        for _ in range(given.rounds):
            for key, program in commands.items():
                arguments = [*program, str(model), str(folder / "pairs.tsv"), str(given.seconds)]
                done = subprocess.run(arguments, capture_output=True, text=True, check=True)
                rounds[key].append(json.loads(done.stdout))
    figures = {
        f"{key}_{figure}": statistics.median(each[figure] for each in some)
        for key, some in rounds.items()
        for figure in some[0]
    }
    for figure, value in figures.items():
        print(f"{figure:34}{value:12,.1f}")
    print(json.dumps({"bench": "java_load", "figures": figures}))


if __name__ == "__main__":
    main()
