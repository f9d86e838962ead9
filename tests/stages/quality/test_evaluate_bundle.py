"""A bundle on a judged file of a shop: rows, retention of a teacher, reports, exit codes.

The bundle scores a title by the share of the query's words in it.
"""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raydistill.cli.main import main
from raydistill.config.data import to_judged_config
from raydistill.errors import UserError
from raydistill.evaluation.metrics.bootstrap import Draws
from raydistill.files.folder import SUCCESS
from raydistill.serving.scorer import Scorer
from raydistill.stages.quality.evaluate_bundle import BundleEvaluation, console, evaluate_bundle
from tests.helpers.bundles import make_overlap_bundle
from tests.helpers.prepared import prepare_here
from tests.helpers.runs import run_config

NUM_QUERIES = 12


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return make_overlap_bundle(tmp_path / "bundle")


@pytest.fixture
def judged(tmp_path: Path) -> Path:
    """Per query: its word in the title is Exact; of the last query it is the other way round."""
    lines = ["suche\tname\tmarke\tnote"]
    for n in range(NUM_QUERIES):
        notes = ("Exact", "Irrelevant") if n < NUM_QUERIES - 1 else ("Irrelevant", "Exact")
        lines += [f"sofa {n}\tsofa {n}\toak\t{notes[0]}", f"sofa {n}\tglue\toak\t{notes[1]}"]
    path = tmp_path / "judged.tsv"
    path.write_text("\n".join(lines))
    return path


@pytest.fixture
def command(bundle: Path, judged: Path) -> list[str]:
    return [
        *("evaluate", "--bundle", str(bundle), "--judged", str(judged), "--query", "suche"),
        *("--title", "name,marke", "--label", "note", "--grade", "Exact=1"),
        *("--grade", "Irrelevant=0", "--resamples", "100"),
    ]


def plan(bundle: Path, judged: Path, *teachers: str, **options: object) -> BundleEvaluation:
    given = {
        "input": [str(judged)], "query": "suche", "title": ["name", "marke"], "label": "note",
        "grades": {"Exact": 1.0, "Irrelevant": 0.0},
    }  # fmt: skip
    rules, scorer = to_judged_config(given), Scorer.load(bundle)
    return BundleEvaluation(
        scorer, rules, teachers=teachers, max_length=32, draws=Draws(100), **options
    )


def test_rows_without_a_teacher(bundle: Path, judged: Path) -> None:
    found = evaluate_bundle(plan(bundle, judged))
    assert found["schema"] == 2 and found["kind"] == "judged" and found["teacher"] is None
    roles = {name: entry["role"] for name, entry in found["scorers"].items()}
    lexical = ("word overlap", "character trigrams", "BM25")
    assert roles == {"student": "student", **dict.fromkeys(lexical, "reference")}
    student, overlap = (found["scorers"][name] for name in ("student", "word overlap"))
    share = (NUM_QUERIES - 1) / NUM_QUERIES  # of the queries that the overlap ranks right
    for metric in ("auc", "query_auc", "pairwise", "precision_1", "accuracy"):
        assert student["metrics"][metric]["value"] == pytest.approx(share)
    assert overlap["metrics"]["query_auc"]["value"] == pytest.approx(share)
    assert student["threshold"] == pytest.approx(0.6) and overlap["threshold"] is None
    assert overlap["metrics"]["accuracy"] is None and overlap["metrics"]["log_loss"] is None
    assert found["num_pairs"] == 2 * NUM_QUERIES and found["num_queries"] == NUM_QUERIES
    assert "the student's threshold is the bundle's, 0.6000" in console(found)


def test_figures_are_plain_json(bundle: Path, judged: Path) -> None:
    found = evaluate_bundle(plan(bundle, judged))
    assert json.loads(json.dumps(found, allow_nan=False))["schema"] == 2


@pytest.mark.slow
def test_a_teacher_is_scored_here_and_retention_is_of_it(
    bundle: Path, judged: Path, tiny_bert: Path
) -> None:
    found = evaluate_bundle(plan(bundle, judged, str(tiny_bert), f"other={tiny_bert}"))
    names = [f"teacher {tiny_bert.name}", "teacher other", "teacher ensemble", "student"]
    assert list(found["scorers"])[:4] == names and found["teacher"] == "teacher ensemble"
    metrics = [found["scorers"][name]["metrics"]["auc"]["value"] for name in names]
    assert metrics[0] == metrics[1] == pytest.approx(metrics[2])
    kept = found["scorers"]["student"]["retention"]["auc"]["value"]
    assert kept == pytest.approx(metrics[3] / metrics[2])
    assert [(one["one"], one["other"]) for one in found["differences"]] == [
        ("student", name) for name in names[:3]
    ]


@pytest.mark.slow
def test_a_teacher_that_reads_less_names_the_option(
    command: list[str], tiny_bert: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command, "--teacher", str(tiny_bert)]) == 2  # it has 64 positions
    err = capsys.readouterr().err
    assert "--teacher tiny: " in err and "--max-length sets label.max_length" in err


def test_two_teachers_of_one_name_are_refused(bundle: Path, judged: Path) -> None:
    with pytest.raises(UserError, match="two teachers have the name 'bert'"):
        evaluate_bundle(plan(bundle, judged, "a/bert", "b/bert"))


def test_a_teacher_of_the_ensembles_name_is_refused(bundle: Path, judged: Path) -> None:
    with pytest.raises(UserError, match="the name is that of the mean of all; give NAME=m"):
        evaluate_bundle(plan(bundle, judged, "a=m", "ensemble=m"))


def test_single_texts_have_no_lexical_rows_and_no_metric_of_a_query(tmp_path: Path) -> None:
    path = tmp_path / "texts.csv"
    path.write_text("title,label\n" + "".join(f"text {n},{n % 2}\n" for n in range(20)))
    scorer = Scorer.load(make_overlap_bundle(tmp_path / "b", single_texts=True))
    rules = to_judged_config({"input": [str(path)], "query": ""})
    found = evaluate_bundle(BundleEvaluation(scorer, rules, draws=Draws(100)))
    assert list(found["scorers"]) == ["student"]
    assert all(metric["of"] == "pairs" for metric in found["metrics"])


# --- the command


@pytest.mark.slow
def test_the_command_prints_a_table_and_writes_a_report(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command, "--output", str(tmp_path / "out")]) == 0
    out = capsys.readouterr().out
    assert "24 rows: 24 pairs; 12 queries" in out and "word overlap" in out
    found = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert found["data"]["rows"]["judged"]["rows_in"] == 24
    text = (tmp_path / "out" / "report.md").read_text()
    assert "accuracy is at the bundle's own threshold" in text
    assert "dev split" not in text and "### Some pairs" in text
    assert (tmp_path / "out" / "report.html").read_text().startswith("<!DOCTYPE html>")


@pytest.mark.slow
def test_figures_under_their_bound_give_exit_code_3(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    good = ["--fail-under", "auc=0.5", "--fail-over", "log_loss=3"]
    assert main([*command, *good]) == 0
    assert "fell short" not in capsys.readouterr().err
    assert main([*command, *good, "--fail-under", "ndcg_10=0.99", "--fail-under", "auc=0.95"]) == 3
    lines = [line for line in capsys.readouterr().err.splitlines() if "fell short" in line]
    assert [line.split(" = ")[0] for line in lines] == [
        "raydistill: fell short: student.ndcg_10",
        "raydistill: fell short: student.auc",
    ]
    assert lines[1].startswith("raydistill: fell short: student.auc = 0.9167 (95 % interval ")
    assert lines[1].endswith("the bound is at least 0.95")


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--config", "run.toml"], "not both"),
        (["--curve"], "--curve is for evaluate with --config, not with --bundle"),
        (["--set", "a=b"], "--set is for evaluate with --config"),
        (["--fail-under", "auk=0.5"], "did you mean student.auc?"),
        (["--fail-under", "retention.auc=0.9"], "give --teacher MODEL"),
        (["--scale", "0"], "--scale 0: give the two ends"),
        (["--scale", "0,3"], "scale and grades"),
        (["--relevant-at", "7"], "relevant_at: Input should be less than or equal to 1, not 7.0"),
        (["--grade", "Exact"], "--grade Exact: give WORD=LABEL"),
        (["--slice", "year"], "no column 'year'"),
        pytest.param(["--teacher", "no/such/model"], "no/such/model", marks=pytest.mark.slow),
        (["--query", "q"], "no column 'q'"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(
    command: list[str], more: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command, *more]) == 2
    err = capsys.readouterr().err
    assert words in err and err.startswith("raydistill: error: ") and len(err.splitlines()) == 1


def test_as_many_resamples_are_needed_as_in_a_run_file(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_:
        main([*command, "--resamples", "99"])
    assert exit_.value.code == 2
    assert "--resamples: 99 is too few for an interval: give at least" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ([], "give --config RUN.TOML (a run), or --bundle BUNDLE with --judged INPUT"),
        (["--bundle", "b"], "--bundle needs --judged INPUT"),
        (["--config", "r.toml", "--judged", "j"], "--judged is for evaluate with --bundle"),
        (["--config", "r.toml", "--csv-quote", "'"], "--csv-quote is for evaluate with --bundle"),
        (["--config", "r.toml", "--curve", "--fail-under", "auc=1"], "leave --curve"),
    ],
)
def test_the_two_forms_are_not_mixed(
    given: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", *given]) == 2
    assert words in capsys.readouterr().err


@pytest.mark.slow
def test_the_report_of_a_complete_run_is_held_to_its_bounds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("pairs", "judged.parquet"):
        rows = [{"query": f"q{n}", "title": "t", "label": 1.0, "score": 1.0} for n in range(9)]
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / name)
    teachers = {"llm": {"scores": [str(tmp_path / "judged.parquet")]}}
    config = run_config(tmp_path / "run", tmp_path, Path("no-model"), teachers=teachers)
    run = prepare_here(config, num_shards=1)
    auc = {"value": 0.9, "low": 0.8, "high": 0.95}
    student = {"metrics": {"auc": auc}, "retention": {"auc": auc}}
    run.report.write_json(
        "metrics.json", {"teacher": "teacher llm", "scorers": {"student": student}}
    )
    for name in ("report.md", "report.html"):
        run.report.write_bytes(name, b"")
    run.report.write_json(SUCCESS, {"fingerprint": run.report_fingerprint()})
    (tmp_path / "run.toml").write_text(config.resolved.to_toml())
    command = ["evaluate", "--config", str(tmp_path / "run.toml")]
    assert main([*command, "--fail-under", "retention.auc=0.9"]) == 0
    assert main([*command, "--fail-under", "retention.auc=0.97", "--fail-under", "auc=0.8"]) == 3
    assert capsys.readouterr().err.splitlines()[-1] == (
        "raydistill: fell short: retention.auc = 0.9000 (95 % interval 0.8000 to 0.9500): "
        "the bound is at least 0.97"
    )
    assert main([*command, "--fail-under", "teacher.auc=0.9"]) == 2
    assert "no figure 'teacher.auc'" in capsys.readouterr().err


@pytest.mark.parametrize("number", ["-1", "x"])
def test_a_seed_that_numpy_refuses_is_found_before_files_are_read(
    number: str, command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as error:
        main([*command, "--seed", number])
    assert error.value.code == 2 and "--seed" in capsys.readouterr().err


@pytest.mark.slow
def test_the_exit_code_of_the_process(command: list[str]) -> None:
    whole = [sys.executable, "-m", "raydistill", *command, "--fail-under", "auc=0.99"]
    found = subprocess.run(whole, capture_output=True, text=True)
    assert found.returncode == 3 and "student.auc = 0.9167" in found.stderr
    whole[-1] = "auc=0.9"
    assert subprocess.run(whole, capture_output=True).returncode == 0


@pytest.mark.slow
def test_compare_as_a_command(
    bundle: Path, judged: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = make_overlap_bundle(tmp_path / "other", weight=-1.0)
    of_file = [
        *("--judged", str(judged), "--query", "suche", "--title", "name", "--label", "note"),
        *("--grade", "Exact=1", "--grade", "Irrelevant=0", "--resamples", "100"),
    ]
    command = ["compare", str(bundle), str(other), *of_file, "--output", str(tmp_path / "out")]
    assert main([*command, "--fail-under", "A.auc=0.9", "--fail-over", "difference.ece=9"]) == 0
    assert main([*command, "--fail-under", "difference.auc=-0.002"]) == 3
    assert "difference.auc = -0.8333" in capsys.readouterr().err
    assert main(["compare", str(bundle), str(other), "--label", "note"]) == 2
    assert "--label is for --judged INPUT" in capsys.readouterr().err
    assert np.isfinite(json.loads((tmp_path / "out" / "compare.json").read_text())["num_pairs"])
