"""Two students on the same judged pairs: files, test splits of runs, and sides that do not fit.

A scores a title by the share of the query's words in it, B by minus that: A ranks every query
right, B wrong.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raydistill.cli.main import main
from raydistill.config.data import to_judged_config
from raydistill.errors import UserError
from raydistill.evaluation.comparison.comparison_text import comparison_markdown, comparison_text
from raydistill.evaluation.metrics.bootstrap import Draws
from raydistill.files.folder import SUCCESS, Folder
from raydistill.runs.run_folder import RUN_FILE, Run
from raydistill.serving.bundle import CURRENT
from raydistill.stages.quality.compare import compare, write
from raydistill.stages.quality.sides import Sides, open_side, pairs_of_files, pairs_of_runs
from tests.helpers.bundles import make_overlap_bundle
from tests.helpers.prepared import prepare_here
from tests.helpers.runs import run_config

pytestmark = pytest.mark.slow

NUM_QUERIES = 1_000  # a third of them is the test split of `prepare_here`
NAME = "0123456789abcdef"  # of a bundle
DRAWS = Draws(100, 0)
SECOND = 1 / np.log2(3)  # nDCG where the only relevant title is second
Make = Callable[..., Run]


def rows(num: int = NUM_QUERIES, *, first: int = 0) -> list[dict[str, Any]]:
    """Two titles a query: one that has its word is relevant, the other is not."""
    names = [f"word{n}" for n in range(first, first + num)]
    relevant = [{"query": n, "title": f"{n} oak", "label": 1.0} for n in names]
    return relevant + [{"query": n, "title": "glue stick", "label": 0.0} for n in names]


@pytest.fixture
def bundles(tmp_path: Path) -> tuple[str, str]:
    one = make_overlap_bundle(tmp_path / "a")
    return str(one), str(make_overlap_bundle(tmp_path / "b", weight=-1.0))


@pytest.fixture
def judged(tmp_path: Path) -> Path:
    pq.write_table(pa.Table.from_pylist(rows(30)), tmp_path / "judged.parquet")
    return tmp_path / "judged.parquet"


def compared(bundles: tuple[str, str], judged: Path, **options: Any) -> dict[str, Any]:  # noqa: ANN401
    sides = Sides(*map(open_side, bundles))
    rules = to_judged_config({"input": [str(judged)]})
    return compare(sides, pairs_of_files(rules), draws=DRAWS, **options)


def test_two_bundles_on_a_judged_file(bundles: tuple[str, str], judged: Path) -> None:
    found = compared(bundles, judged)
    values = {side: found["scorers"][side]["metrics"] for side in ("A", "B")}
    assert values["A"]["auc"]["value"] == 1.0 and values["B"]["auc"]["value"] == 0.0
    assert values["B"]["ndcg_10"]["value"] == pytest.approx(SECOND)
    difference = found["difference"]["metrics"]["ndcg_10"]  # B - A, of every query alike
    assert difference["value"] == pytest.approx(SECOND - 1)
    assert difference["low"] == pytest.approx(SECOND - 1) == difference["high"]
    assert difference["p"] == pytest.approx(2 / 101)
    moved = found["moved"]
    assert (moved["better"], moved["worse"], moved["equal"]) == (0, 30, 0)
    worse = moved["queries"]["worse"]
    assert len(worse) == 20 and moved["queries"]["better"] == []
    assert worse[0]["titles"][0] == {"title": "glue stick", "label": 0.0, "before": 2, "after": 1}


def test_auc_of_each_query_may_decide(bundles: tuple[str, str], judged: Path) -> None:
    case = compared(bundles, judged, by="query_auc")["moved"]["queries"]["worse"][0]
    assert (case["before"], case["after"], case["change"]) == (1.0, 0.0, -1.0)


def test_a_student_does_not_differ_from_itself(bundles: tuple[str, str], judged: Path) -> None:
    found = compared((bundles[0], bundles[0]), judged)
    assert found["difference"]["metrics"]["auc"] == {"value": 0, "low": 0, "high": 0, "p": 1.0}
    assert found["moved"]["equal"] == 30
    assert found["moved"]["queries"] == {"better": [], "worse": []}


def test_the_comparison_is_written_as_text_and_json(
    bundles: tuple[str, str], judged: Path, tmp_path: Path
) -> None:
    found = compared(bundles, judged)
    text = comparison_text(found)
    assert "nDCG@10" in text and "better in B 0, worse 30, equal 0" in text
    assert comparison_markdown(found).count("rank in A") == 20
    assert write(found, str(tmp_path / "out")).endswith("compare.md")
    assert json.loads((tmp_path / "out" / "compare.json").read_text()) == found


def test_texts_of_users_are_no_markup(bundles: tuple[str, str], tmp_path: Path) -> None:
    path, query = tmp_path / "j.jsonl", "<script>alert(1)</script> | x"
    pairs = [(query, "x | <b>", 1), (query, "glue", 0)]
    lines = [json.dumps(dict(zip(("query", "title", "label"), p, strict=True))) for p in pairs]
    path.write_text("\n".join(lines))
    text = comparison_markdown(compared(bundles, path))
    assert "<script" not in text and "<b>" not in text and "\\|" in text


def test_pairs_of_one_kind_are_refused(bundles: tuple[str, str], tmp_path: Path) -> None:
    path = tmp_path / "j.csv"
    path.write_text("query,title,label\na,b,1\na,c,0.6\n")
    with pytest.raises(UserError, match=r"2 of the 2 judged pairs are relevant.*--relevant-at"):
        compared(bundles, path)


def test_titles_of_other_columns_are_refused(tmp_path: Path) -> None:
    one = make_overlap_bundle(tmp_path / "a")
    other = make_overlap_bundle(tmp_path / "b", title=["title", "brand"], max_title_chars=50)
    sides = Sides(open_side(str(one)), open_side(str(other)))
    with pytest.raises(UserError, match="--title COLUMNS"):
        sides.settings(has_title=False)
    assert sides.settings(has_title=True)["max_title_chars"] == 50


# --- runs


@pytest.fixture
def make_run(tmp_path: Path) -> Make:
    def make(name: str, judged: list[dict[str, Any]], weight: float, **fields: object) -> Run:
        """A prepared run with a student and its bundle, as far as a comparison reads them."""
        raw = tmp_path / f"raw-{name}"
        raw.mkdir()
        for file in ("pairs", "judged.parquet"):
            pq.write_table(pa.Table.from_pylist(judged), raw / file)
        scores = raw / "scores.parquet"
        pq.write_table(pa.Table.from_pylist([{**judged[0], "score": 1.0}]), scores)
        teachers = {"own": {"scores": str(scores)}}
        config = run_config(
            tmp_path / name, raw, Path("no-model"), judged=fields, teachers=teachers
        )
        run = prepare_here(config, num_shards=1)
        run.root.write_bytes(RUN_FILE, config.resolved.to_toml().encode())
        make_overlap_bundle(tmp_path / name / "bundle" / NAME, weight=weight)
        run.bundle.write_json(CURRENT, {"bundle": NAME})
        fingerprint = run.train_fingerprint("student")
        student = {"fingerprint": fingerprint, "weights": "first"}
        run.student("student").write_json(SUCCESS, student)
        settings = config.export.fingerprint_fields()
        run.bundle.write_json(SUCCESS, {**student, "bundle": NAME, "settings": settings})
        return run

    return make


def sides_of(*runs: Run) -> Sides:
    return Sides(*(open_side(run.root.uri) for run in runs))


def test_two_runs_with_one_test_split(make_run: Make) -> None:
    one, other = make_run("a", rows(), 1.0), make_run("b", rows(), -1.0)
    sides = sides_of(one, other)
    found = compare(sides, pairs_of_runs(sides), draws=DRAWS)
    assert found["num_pairs"] == found["sides"]["A"]["num_pairs"] > 500
    assert found["relevant_at"] == 0.75 and found["sides"]["B"]["kind"] == "run"
    assert found["moved"]["worse"] == found["num_queries"]


def test_runs_with_other_test_splits_are_compared_on_the_common_pairs(
    make_run: Make, caplog: pytest.LogCaptureFixture
) -> None:
    one, other = make_run("a", rows(), 1.0), make_run("b", rows(first=200), -1.0)
    sides = sides_of(one, other)
    common = pairs_of_runs(sides)
    assert 500 < common.pairs.table.num_rows < min(common.num_of_sides)
    assert "the test splits of the runs differ" in caplog.text
    text = comparison_text(compare(sides, common, draws=DRAWS))
    assert "those in the test splits of both" in text


def test_runs_without_common_pairs_are_refused_with_the_way_out(make_run: Make) -> None:
    sides = sides_of(make_run("a", rows(30), 1.0), make_run("b", rows(30, first=90), 1.0))
    with pytest.raises(UserError, match=r"only 0 are in both.*--judged INPUT"):
        pairs_of_runs(sides)


def test_runs_with_other_labels_or_thresholds_are_refused(make_run: Make) -> None:
    swapped = [{**row, "label": 1 - row["label"]} for row in rows()]
    one, other = make_run("a", rows(), 1.0), make_run("b", swapped, 1.0)
    with pytest.raises(UserError, match="have other labels in B than in A"):
        pairs_of_runs(sides_of(one, other))
    third = make_run("c", rows(), 1.0, relevant_at=0.5)
    with pytest.raises(UserError, match=r"0.75 in A and of 0.5 in B: give --relevant-at"):
        pairs_of_runs(sides_of(one, third))
    assert pairs_of_runs(sides_of(one, third), relevant_at=0.6).relevant_at == 0.6


def test_a_bundle_has_no_test_split(make_run: Make, bundles: tuple[str, str]) -> None:
    sides = Sides(open_side(make_run("c", rows(30), 1.0).root.uri), open_side(bundles[0]))
    with pytest.raises(UserError, match=r"is a bundle, which has no test split.*--judged"):
        pairs_of_runs(sides)


@pytest.mark.parametrize("path", ["", f"/{RUN_FILE}"])
def test_a_run_needs_the_bundle_of_its_student(make_run: Make, path: str) -> None:
    run = make_run("a", rows(30), 1.0)
    assert open_side(f"{run.root.uri}{path}").kind == "run"
    done = run.student("student").success() or {}
    run.student("student").write_json(SUCCESS, {**done, "weights": "of a second fit"})
    with pytest.raises(UserError, match=r"no bundle of the current student .* run `export` first"):
        open_side(f"{run.root.uri}{path}")


def test_a_run_folder_whose_teacher_is_elsewhere_is_not_checked(
    make_run: Make, caplog: pytest.LogCaptureFixture
) -> None:
    """The student's name depends on the teachers' files, which a copied folder does not have."""
    run = make_run("a", rows(30), 1.0)
    Path(run.config.teachers["own"].scores[0].path).unlink()
    assert open_side(run.root.uri).kind == "run"
    assert "cannot be checked here: " in caplog.text and "scores.parquet" in caplog.text


def test_no_such_side_is_an_error() -> None:
    with pytest.raises(UserError, match="no bundle in"):
        open_side("no/such/place")


@pytest.mark.server
def test_everything_may_lie_on_an_object_store(
    s3: str, bundles: tuple[str, str], judged: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = Folder(s3) / "compared"
    for name, bundle in zip("ab", bundles, strict=True):
        (root / name).upload(Path(bundle))
    root.write_bytes("judged.parquet", judged.read_bytes())
    of_file = ["--judged", f"{root}/judged.parquet", "--resamples", "100"]
    command = ["compare", f"{root}/a", f"{root}/b", *of_file, "--output", f"{root}/out"]
    assert main([*command, "--fail-under", "B.auc=0.5"]) == 3
    assert "B.auc = 0.0000" in capsys.readouterr().err
    found = (root / "out").read_json("compare.json") or {}
    assert found["sides"]["A"]["path"] == f"{root}/a" and found["num_pairs"] == 60
    command = ["evaluate", "--bundle", f"{root}/a", *of_file, "--output", f"{root}/report"]
    assert main([*command, "--fail-under", "auc=0.5"]) == 0
    assert {"metrics.json", "report.md", "report.html"} == set((root / "report").files())
