"""The whole of metrics.json, of a small run in this process without Ray."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch

from raydistill.files.folder import SUCCESS
from raydistill.files.schema import COUNTS, LOGITS
from raydistill.runs.run_folder import Run
from raydistill.runs.shards import shards_to_score
from raydistill.stages import evaluate, export
from raydistill.stages.distill import is_complete
from raydistill.student import fit_files
from raydistill.teachers.transformer.device import device_use
from tests.helpers.fits import run_fit, start
from tests.helpers.logits import share_of_words, write_logits
from tests.helpers.prepared import prepare_here
from tests.helpers.runs import run_config


def finish(run: Run) -> None:
    """What is between prepare and evaluate: logits of the teachers, students, the bundle."""
    for dataset in run.config.datasets:
        done = (run.root / dataset).success() or {}
        num = sum(done["shards"].values())
        counts = {**dict.fromkeys(COUNTS, 0), "rows_in": num, "rows_out": num, "seconds": 2.0}
        (run.root / dataset).write_json(SUCCESS, {**done, **counts})
    write_logits(run)
    for shard in shards_to_score(run):  # the other teacher scores a half
        pairs = shard.folder.read_table(shard.name, columns=["pair_id", "query", "title"])
        logits = [
            None if len(row["title"]) % 2 else 4 * share_of_words(row["query"], row["title"]) - 1
            for row in pairs.to_pylist()
        ]
        table = pa.table([pairs["pair_id"], pa.array(logits, pa.float32())], schema=LOGITS)
        run.logits("llm").write_table(shard.target, table)
    for name in run.config.teacher_names:
        summary = {"fingerprint": run.label_fingerprint(name), "rows_in": 9, "rows_out": 9}
        run.logits(name).write_json(SUCCESS, {**summary, "seconds": 3_600.0, "actors": 2})
    for role in run.roles:
        fit, state = start(run, role)
        run_fit(fit, state)
        fit_files.write_student(fit, state, use=device_use("cpu", dtype=torch.float32))
        fit_files.write_success(fit, seconds=1.0)
    export.export_stage(run)


@pytest.fixture(scope="module")
def run(raw_files: Path, tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("evaluated")
    (folder / "llm.csv").write_text("query,title,score\na,b,1\n")
    teachers = {"tiny": {"model": str(tiny_bert)}, "llm": {"scores": [str(folder / "llm.csv")]}}
    config = run_config(
        folder / "run", raw_files, tiny_bert, teachers=teachers, pairs={"dedupe": False},
        judged={"other": {"name": "again"}}, cluster={"prices": {"cpu_hour": 0.5}},
        evaluate={"slices": ["label"], "resamples": 100},
    )  # fmt: skip
    prepared = prepare_here(config, num_shards=3)
    finish(prepared)
    assert evaluate.evaluate_stage(prepared)
    return prepared


@pytest.fixture
def found(run: Run) -> dict[str, Any]:
    return run.report.read_json("metrics.json") or {}


@pytest.mark.slow
def test_every_scorer_has_its_role_and_pairs(found: dict[str, Any]) -> None:
    assert (found["schema"], found["kind"], found["relevant_at"]) == (2, "judged", 0.75)
    roles = {name: entry["role"] for name, entry in found["scorers"].items()}
    assert roles.items() >= {
        "teacher tiny": "teacher", "teacher llm": "teacher", "teacher ensemble": "ensemble",
        "student": "student", "baseline on judged labels only": "baseline",
        "word overlap": "reference", "character trigrams": "reference", "BM25": "reference",
    }.items()  # fmt: skip
    whole, half = found["scorers"]["teacher tiny"], found["scorers"]["teacher llm"]
    assert whole["num_pairs"] == found["num_pairs"] > half["num_pairs"] > 0
    assert found["scorers"]["BM25"]["metrics"]["log_loss"] is None
    assert found["scorers"]["student"]["us_per_pair"] > 0 and found["single_us"] > 0
    assert found["queries"]["all"] == found["num_queries"]
    compared = [entry["other"] for entry in found["differences"]]
    assert compared[0] == "baseline on judged labels only" and "teacher ensemble" in compared
    json.dumps(found, allow_nan=False)


@pytest.mark.slow
def test_slices_other_labels_and_costs_are_there(found: dict[str, Any]) -> None:
    slices = {one["slice"]: one for one in found["slices"]}
    assert {"query seen in training", "query length in words", "label"} < set(slices)
    assert "disagreement of the teachers" in slices
    assert sum(cell["num_pairs"] for cell in slices["label"]["cells"]) == found["num_pairs"]
    other = found["other_labels"]
    assert other["name"] == "again" and other["num_missing"] == 0
    assert other["agreement_with_judged"]["kappa"] == 1  # they are the judged labels themselves
    student = found["scorers"]["student"]["metrics"]["auc"]["value"]
    assert other["scorers"]["student"]["metrics"]["auc"]["value"] == student
    costs = {one["stage"]: one for one in found["cost"]["stages"]}
    assert costs["label tiny"]["cpu_hours"] == 2 and costs["label tiny"]["money"] == 1
    assert found["cost"]["money_total"] > 2 and found["cost"]["kwh_total"] is None
    assert found["training"]["student"]["losses"][-1]["loss"] > 0
    assert len(found["cases"]["student_lower"]) > 0 and found["curve"] is None


@pytest.mark.slow
def test_a_report_is_complete_with_all_its_files_only(run: Run) -> None:
    assert not evaluate.evaluate_stage(run) and is_complete("evaluate", run)
    run.report.delete_file("metrics.json")
    assert not is_complete("evaluate", run)
    assert evaluate.evaluate_stage(run) and is_complete("evaluate", run)
    assert run.report.read_json("metrics.json") is not None

    # Killed between two files of a report with other settings.
    run.report.delete_file("report.md")
    (run.report / "report.md" / "is a folder").write_bytes("x", b"")
    other = run.config.evaluate.model_copy(update={"seed": 1})
    with pytest.raises(OSError, match=r"report\.md"):
        evaluate.evaluate_stage(Run(run.config.model_copy(update={"evaluate": other})))
    assert (run.report.read_json("metrics.json") or {})["bootstrap"]["seed"] == 1
    assert run.report.success() is None and not is_complete("evaluate", run)
    (run.report / "report.md").delete()
    assert evaluate.evaluate_stage(run) and is_complete("evaluate", run)


@pytest.mark.slow
def test_the_report_is_made_again_when_what_it_shows_changes(run: Run) -> None:
    assert not evaluate.evaluate_stage(run)
    assert {"metrics.json", "report.html", "report.md"} < set(run.report.files())
    fingerprint = run.report_fingerprint()

    def changed(section: str, **fields: object) -> Run:
        part = getattr(run.config, section).model_copy(update=fields)
        return Run(run.config.model_copy(update={section: part}))

    prices = run.config.cluster.prices.model_copy(update={"gpu_hour": 1.0})
    assert changed("cluster", prices=prices).report_fingerprint() != fingerprint
    assert changed("evaluate", seed=1).report_fingerprint() != fingerprint
    assert changed("judged", other=None).report_fingerprint() != fingerprint
    assert changed("cluster", gpus=4).report_fingerprint() == fingerprint
    assert changed("evaluate", seed=1).train_fingerprint("student") == run.train_fingerprint(
        "student"
    )
    curve = {"student": run.train_fingerprint("student"), "points": []}
    (run.root / "curve").write_json("curve.json", {**curve, "student": "another"})
    assert run.own_curve() is None and run.report_fingerprint() == fingerprint
    (run.root / "curve").write_json("curve.json", curve)
    assert run.own_curve() == curve and run.report_fingerprint() != fingerprint
    (run.root / "curve").delete()
