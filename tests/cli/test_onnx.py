"""`raydistill onnx`: what it writes and prints, and mistakes."""

import json
import re
from pathlib import Path

import pytest

from raydistill.cli.main import main
from raydistill.serving.scorer import Scorer
from tests.helpers.bundles import make_bundle

DOCS = Path(__file__).parents[2] / "docs"


def test_it_writes_a_model_and_says_what(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ort = pytest.importorskip("onnxruntime", reason="needs raydistill[bench]")
    bundle, output = make_bundle(tmp_path / "bundle"), tmp_path / "new" / "student.onnx"
    assert main(["onnx", "--bundle", str(bundle), "--output", str(output)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["output"] == [str(output)] and found["bytes"] == output.stat().st_size
    assert found["inputs"] == ["ids", "offsets", "dense"] and found["opset"] == 13
    facts = ort.InferenceSession(output).get_modelmeta().custom_metadata_map
    assert facts["bundle"] == found["bundle"] == Scorer.load(bundle).settings["fingerprint"]


@pytest.mark.parametrize("output", ["student.txt", "s3://bucket/student.onnx", "folder.onnx"])
def test_a_target_that_is_none_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], output: str
) -> None:
    (tmp_path / "folder.onnx").mkdir()
    target = output if "://" in output else str(tmp_path / output)
    assert main(["onnx", "--bundle", str(tmp_path), "--output", target]) == 2
    assert "ends in .onnx" in capsys.readouterr().err


def test_the_page_has_an_example_that_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("onnxruntime", reason="needs raydistill[bench]")
    monkeypatch.chdir(tmp_path)
    bundle = make_bundle(tmp_path / "bundle")
    assert main(["onnx", "--bundle", str(bundle), "--output", "student.onnx"]) == 0
    pages = [page.read_text() for page in sorted(DOCS.glob("serving*.md"))]
    section = "".join(pages).partition("\n## ONNX" if len(pages) > 1 else "## ONNX")[2]
    (code, *_) = re.findall(r"^```python\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
    capsys.readouterr()
    exec(compile(code, "serving.md", "exec"), {})
    scores = Scorer.load(bundle).score("grey sofa", ["Sofa, 3 seats, grey", "Sofa cover, grey"])
    shown = [float(number) for number in re.findall(r"\d\.\d+", capsys.readouterr().out)]
    assert shown == pytest.approx(list(scores), abs=1e-5)
