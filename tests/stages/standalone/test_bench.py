"""The command on a tiny bundle: a table, a line of JSON, mistakes."""

import json
import shutil
import sys
from pathlib import Path

import pytest

from raydistill.cli.main import main
from raydistill.evaluation.latency import Skipped
from raydistill.stages.standalone import bench
from raydistill.teachers.transformer.runtimes import Shape
from tests.helpers.bundles import make_bundle
from tests.helpers.models import make_bert

PAIRS = [("grey sofa", "sofa, grey"), ("drill", "drill 18 V"), ("lamp", "desk lamp")]
TINY = {"BERT-Base": Shape(32, 1, 2, 64), "TinyBERT-4L-312": Shape(16, 1, 2, 32)}


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    golden = [{"query": query, "title": title, "score": 0.5} for query, title in PAIRS]
    return make_bundle(tmp_path / "bundle", golden=golden)


@pytest.mark.slow
@pytest.mark.timeout(400)  # emits the native library, unless the cache has it
def test_all_contestants_are_compared(bundle: Path, tmp_path: Path) -> None:
    teacher = make_bert(tmp_path / "model", num_labels=2)
    plan = bench.Bench(
        bundle, str(teacher), seconds=0.2, names=("torch float32", "packed float32"), batch=5
    )
    found = bench.run(plan, bench.golden_pairs(bundle), shapes=TINY)
    models = {(row.model, row.runtime) for row in found.rows}
    assert {model for model, _ in models} >= {"student", "teacher", *TINY}
    assert ("student", "C") in models or not shutil.which("cc"), found.skipped
    figures = json.loads(bench.to_json(found))["figures"]
    assert figures["single_vs_teacher_best"] > 1 and figures["batch_vs_bert_base_best"] > 1
    assert {"single_us", "single_vs_tinybert_best", "batch_us_per_pair"} <= set(figures)
    assert found.text().startswith("3 pairs; median bytes: query 5, title 10; a batch is")


@pytest.mark.slow
def test_what_is_not_installed_is_said(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fasttext", None)
    plan = bench.Bench(bundle, seconds=0.05, names=())
    found = bench.run(plan, PAIRS, shapes={})
    (missing,) = [each for each in found.skipped if each.model == "fastText"]
    assert missing == Skipped("fastText", "Python", "fasttext is not installed")
    assert "not measured: fastText, Python: fasttext is not installed" in found.text()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--bundle", "{dir}"], "no pairs in golden.json"),
        (["--bundle", "{dir}", "--pairs", "{dir}/pairs.csv"], "no bundle in"),
        (["--bundle", "{bundle}", "--pairs", "{dir}/none.csv"], "none.csv"),
        (["--bundle", "{bundle}", "--pairs", "{dir}/pairs.csv", "--title", "name"], "no column"),
        (["--bundle", "{bundle}", "--runtimes", "tensorrt"], "no 'tensorrt'; there are torch"),
        (["--bundle", "{bundle}", "--teacher", "{dir}/none"], "none"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    bundle: Path,
    tmp_path: Path,
    arguments: list[str],
    words: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "pairs.csv").write_text("query,title\nsofa,grey sofa\n")
    given = [each.format(dir=tmp_path, bundle=bundle) for each in arguments]
    assert main(["bench", *given]) == 2
    err = capsys.readouterr().err
    assert words in err
    assert err.startswith("raydistill: error: ") and len(err.splitlines()) == 1


def test_pairs_without_a_text_are_left_out(tmp_path: Path) -> None:
    file = tmp_path / "pairs.jsonl"
    file.write_text('{"query": "a", "title": "b"}\n{"query": "c", "title": null}\n')
    assert bench.read_pairs(str(file), query="query", title="title") == [("a", "b")]
    assert bench.read_pairs(str(file), query="", title="title") == [("", "b")]
