"""`raydistill explain` and `raydistill neighbors`: output, mistakes, exit codes."""

import json
import logging
import subprocess
import sys
import time
from pathlib import Path

import pytest

from raydistill.cli import explain_command
from raydistill.cli.explain_command import driver_lines, pair_of
from raydistill.cli.main import main
from raydistill.errors import UserError
from raydistill.serving.bundle import bundle_files
from raydistill.serving.explanation.attribution import Driver
from raydistill.serving.feature_spec import NgramSpec
from raydistill.serving.native.emit.model_file import model_bytes
from tests.helpers.explained import linear_arrays, settings_of

SPEC = NgramSpec("bert2dnn", 12)
ROWS = {"ipad": [4.0, 0.0], "tablet": [0.6, 0.8], "sofa": [0.0, 1.0]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    settings = settings_of(SPEC)
    model = model_bytes(settings, linear_arrays(SPEC, rows=ROWS))
    found = bundle_files(settings, model, golden=[], card="", ngrams=list(ROWS))[1]
    for name, data in found.items():
        (tmp_path / name).write_bytes(data)
    return tmp_path


def test_explain_prints_the_drivers(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # 5 + 11 n-grams: the row of ipad counts a quarter on each side.
    given = ["--bundle", str(folder), "ipad case", "ipad case with \x1b[31mstand red"]
    assert main(["explain", *given, "--top", "2"]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "query  ipad case" in out and "logit  +2.000; without words +0.000" in out
    assert f" +1.000 {' ' * 12}|{'+' * 12} n-gram of the query  ipad" in out
    assert "more (--top shows them)" in out and "relevant (from 0.5000)" in out
    assert main(["explain", *given, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found["drivers"]) == 16 and found["method"] == "integrated gradients"
    assert abs(sum(one["value"] for one in found["drivers"]) - found["explained_logit"]) < 1e-6


def test_bars_go_to_both_sides() -> None:
    drivers = [Driver("a", "x", -2.0), Driver("a", "y", 1.0, "a note"), Driver("a", "z", 0.5)]
    assert list(driver_lines(drivers, top=2)) == [
        f" -2.000 {'-' * 12}|{' ' * 12} a  x",
        f" +1.000 {' ' * 12}|{'+' * 6}{' ' * 6} a  y [a note]",
        f" +0.500 {' ' * 25} 1 more (--top shows them)",
    ]


def test_a_call_that_compiles_says_so(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("raydistill"), "propagate", True)
    monkeypatch.setattr(explain_command, "_PATIENCE_S", 0.001)
    caplog.set_level(logging.INFO)
    with explain_command._says_why_it_takes_long():
        last_s = time.monotonic() + 60
        while "compiled on their first call" not in caplog.text:
            assert time.monotonic() < last_s
            time.sleep(0.01)


def test_the_texts_of_a_command_are_a_pair() -> None:
    assert pair_of({}, ["q", "t"]) == ("q", "t")
    several = {"title": ["title", "brand"]}
    assert pair_of(several, ["q", "t", "b"]) == ("q", "t b") and pair_of(several, ["q", "t b"])
    assert pair_of({"single_texts": True}, ["t"]) == ("", "t")
    for settings, texts in (({}, ["q"]), ({"single_texts": True}, ["q", "t"]), (several, ["q"])):
        with pytest.raises(UserError, match="give "):
            pair_of(settings, texts)


def test_neighbors_of_the_bundle_and_of_a_file(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["neighbors", "--bundle", str(folder), "iPad", "--top", "1"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "ipad: nearest by trained n-gram embeddings, of 3", "+0.600  tablet",
    ]  # fmt: skip
    pairs = folder / "pairs.csv"
    pairs.write_text("query,title\nsofa,ipad sofa\nsofa,sofa and ipad\n")
    given = ["--bundle", str(folder), "ipad", "--pairs", str(pairs), "--json"]
    assert main(["neighbors", *given]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["neighbors"] == [{"text": "sofa", "cosine": 0.0}]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["explain", "--bundle", "{0}/none", "a", "b"], "no bundle in"),
        (["explain", "--bundle", "{0}", "a"], 'give "query" "title"'),
        (["neighbors", "--bundle", "{0}", "tablte"], "close to it: tablet"),
        (["neighbors", "--bundle", "{0}", "a b c"], "give one word, or two"),
        (["neighbors", "--bundle", "{0}", "ipad", "--vectors", "words"], "no word vectors"),
        (["neighbors", "--bundle", "{0}", "ipad", "--pairs", "none.csv"], "no such input"),
    ],
)
def test_a_mistake_is_one_line(
    folder: Path, arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([one.format(folder) for one in arguments]) == 2
    err = capsys.readouterr().err
    assert words in err and len(err.splitlines()) == 1


@pytest.mark.slow
def test_neither_command_loads_torch_or_ray(folder: Path) -> None:
    code = (
        "import sys\nfrom raydistill.cli.main import main\n"
        "for given in (['explain', 'ipad', 'sofa'], ['neighbors', 'ipad']):\n"
        "    assert main([*given, '--bundle', sys.argv[1]]) == 0\n"
        "print({'torch', 'ray', 'transformers', 'pyarrow', 'pydantic'} & set(sys.modules))"
    )
    command = [sys.executable, "-c", code, str(folder)]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert out.splitlines()[-1] == "set()"
