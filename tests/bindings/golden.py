r"""Pairs as lines of the sample programs in `bindings/`, and what the programs print.

A line is the query, a tab and the title. In a text `\t`, `\n`, `\r`, `\0` and `\\` stand for a tab,
a line feed, a carriage return, NUL and a backslash.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest

from raydistill.serving.bundle import GOLDEN, MODEL, current_bundle, read_settings

_ESCAPES = str.maketrans(
    {"\\": r"\\", "\t": r"\t", "\n": r"\n", "\r": r"\r", "\0": r"\0"}  # one pass: none is twice
)
TOLERANCE = 1e-6  # of a score
_ESCAPE = r"line 2 has a wrong escape: \t \n \r \0 and \\ are allowed"
_BAD_LINES = {  # what a program says of a second line that it cannot read
    b"no tab": "line 2 has no tab",
    b"a\tb\tc": "line 2 has more than one tab",
    b"a\\x\tb": _ESCAPE,
    b"a\tb\\": _ESCAPE,
}
_BAD_FILES = {
    "cut.rdm": "not complete",
    "text.rdm": "no model file",
    "empty.rdm": "no model file",
    "other.rdm": "a model file for another version of the library",
    "none.rdm": "No such file",
}


def cargo_of_this_machine() -> str | None:
    """The program, also where rustup has put it outside of PATH."""
    home = Path(os.environ.get("CARGO_HOME", Path.home() / ".cargo"))
    return shutil.which("cargo", path=f"{os.environ.get('PATH', '')}{os.pathsep}{home / 'bin'}")


def lines_of(pairs: Iterable[tuple[str, str]]) -> bytes:
    """Pairs as the programs read them."""
    escaped = ((query.translate(_ESCAPES), title.translate(_ESCAPES)) for query, title in pairs)
    return "".join(f"{query}\t{title}\n" for query, title in escaped).encode("utf-8", "replace")


def golden_lines(bundle: Path) -> tuple[bytes, list[float]]:
    """The lines of a bundle's golden pairs, and their scores."""
    pairs = read_settings(current_bundle(bundle) / GOLDEN)["pairs"]
    return (
        lines_of((pair["query"], pair["title"]) for pair in pairs),
        [pair["score"] for pair in pairs],
    )


def run(
    program: Sequence[str | Path], *arguments: str | Path, given: bytes = b""
) -> subprocess.CompletedProcess[bytes]:
    """A program with bytes as its standard input."""
    return subprocess.run([*program, *arguments], input=given, capture_output=True, check=False)


def check_scores(program: Sequence[str | Path], bundle: Path, folder: Path) -> None:
    """Compare what a program prints for the golden pairs, from standard input and from a file."""
    lines, scores = golden_lines(bundle)
    (folder / "pairs.tsv").write_bytes(lines)
    model = current_bundle(bundle) / MODEL
    piped = run(program, model, given=lines)
    assert piped.returncode == 0, piped.stderr.decode()
    assert run(program, model, folder / "pairs.tsv").stdout == piped.stdout
    assert run(program, model, given=lines[:-1]).stdout == piped.stdout  # no line feed at the end
    assert [float(score) for score in piped.stdout.split()] == pytest.approx(
        scores, rel=0, abs=TOLERANCE
    )
    assert run(program, model).stdout == b""


def check_errors(program: Sequence[str | Path], bundle: Path, folder: Path) -> None:
    """A program ends with 1 and the reason for a wrong file or line, with 2 for wrong arguments."""
    model = current_bundle(bundle) / MODEL
    data = model.read_bytes()
    (folder / "cut.rdm").write_bytes(data[:10_000])
    (folder / "text.rdm").write_bytes(b"text " * 1_000)
    (folder / "empty.rdm").write_bytes(b"")
    (folder / "other.rdm").write_bytes(data[:8] + b"\x63" + data[9:])
    for name, reason in _BAD_FILES.items():
        done = run(program, folder / name, given=b"a\tb\n")
        told = done.stderr.decode()
        assert done.returncode == 1 and done.stdout == b"", told
        assert f"{folder / name}: {reason}".lower() in told.lower(), told
    assert run(program, model, folder / "none.tsv").returncode == 1
    for line, reason in _BAD_LINES.items():
        done = run(program, model, given=b"sofa\tgrey sofa\n" + line + b"\n")
        assert done.returncode == 1 and reason in done.stderr.decode(), (line, done.stderr)
        assert len(done.stdout.split()) == 1  # the line before it has its score
    with open("/dev/full", "wb") as full:
        lines, _ = golden_lines(bundle)
        done = subprocess.run(
            [*program, model], input=lines, stdout=full, stderr=subprocess.PIPE, check=False
        )
        assert done.returncode == 1
    for arguments in ((), ("--bench", model), (model, model, model)):
        done = run(program, *arguments)
        assert done.returncode == 2 and b"usage: score" in done.stderr


def check_bench(program: Sequence[str | Path], bundle: Path, folder: Path) -> None:
    """A program times calls, and prints its figures as JSON."""
    lines, _ = golden_lines(bundle)
    (folder / "pairs.tsv").write_bytes(lines)
    model = current_bundle(bundle) / MODEL
    done = run(program, "--bench", model, folder / "pairs.tsv", "0.2")
    assert done.returncode == 0, done.stderr.decode()
    found = json.loads(done.stdout)
    assert list(found) == ["language", "alone_us", "alone_p99_us", "batch_us", "pairs"]
    assert 0 < found["alone_us"] <= found["alone_p99_us"] and 0 < found["batch_us"] < 10_000
    assert found["pairs"] >= 101  # a call each
