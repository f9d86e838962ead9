"""The latency of a bundle from C: compiles `serving/native/bench.c` and runs it in turns.

Needs a C compiler. The library and the model file are those that other programs use.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from raydistill.errors import UserError
from raydistill.evaluation.latency import Pair, Timed
from raydistill.serving.bundle import MODEL, current_bundle
from raydistill.serving.native import build

_SOURCE = Path(build.__file__).with_name("bench.c")
_SHOWN = 300  # characters of a compiler's message


def from_c(bundle: Path, pairs: Sequence[Pair], *, batch: int, folder: Path) -> Timed:
    """Times the bundle in a program of C, whose files are written to `folder`.

    Raises:
        UserError: there is no C compiler, or it fails; no library fits this CPU.
        WorkError: the native library cannot be made.
    """
    compiler = shutil.which(os.environ.get("CC", "cc")) or shutil.which("gcc")
    if compiler is None:
        raise UserError("no C compiler (cc, gcc, or CC in the environment)")
    lines = folder / "pairs.tsv"
    lines.write_text("".join(f"{_plain(query)}\t{_plain(title)}\n" for query, title in pairs))
    program, model = folder / "bench", current_bundle(bundle) / MODEL
    library = build.copy_library(folder)
    flags = ["-O2", "-std=c11", f"-I{folder}", f"-Wl,-rpath,{folder}", "-o", str(program)]
    _run([compiler, *flags, str(_SOURCE), str(library), "-lm"])
    num_calls = {"alone": 0, "batch": 0}

    def timed(kind: str, seconds: float) -> list[float]:
        titles = batch if kind == "batch" else 1
        given = (str(seconds), str(titles), str(num_calls[kind]))
        found = _run([str(program), str(model), str(lines), *given]).split()
        num_calls[kind] += len(found)
        return [int(nanoseconds) / 1_000 for nanoseconds in found]

    timed("alone", 0)
    return timed


def _plain(text: str) -> str:
    """A text without the characters that end a field."""
    return " ".join(text.split())


def _run(command: Sequence[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        told = " ".join(done.stderr.split())[:_SHOWN]
        raise UserError(f"{Path(command[0]).name} failed: {told}")
    return done.stdout
