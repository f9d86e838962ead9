"""Runs without judged pairs to learn from: splits of the transfer set, agreement in the report."""

import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from raydistill.config.run_config import RunConfig
from raydistill.data.pairs import query_keys
from raydistill.data.passes.scatter import plan_scatter, scatter_parts
from raydistill.errors import UserError
from raydistill.evaluation.dataset_stats import inspect_run
from raydistill.evaluation.report.console import console_table
from raydistill.files.schema import COUNTS
from raydistill.runs.run_folder import Run
from raydistill.runs.shards import pair_shards, shards_to_score, split_shards
from raydistill.search.space import dimensions
from raydistill.stages import evaluate, export, prepare
from raydistill.stages.distill import is_complete
from raydistill.stages.splits.drawn import draw_splits
from raydistill.student import fit_files
from raydistill.teachers.transformer.device import device_use
from tests.helpers.fits import run_fit, start
from tests.helpers.logits import write_done, write_logits
from tests.helpers.runs import parquet_files, run_config


def unjudged(config: RunConfig, **judged: object) -> Run:
    """The run without [judged], or with some other settings of it."""
    content = config.model_dump(mode="json", exclude_none=True)
    content["judged"] = {**content["judged"], **judged} if judged else None
    return Run(RunConfig.model_validate(content))


def train(run: Run) -> None:
    """Train, export and evaluate in this process."""
    for name in run.config.teacher_names:
        write_done(run, name)
    for role in run.roles:
        fit, state = start(run, role)
        run_fit(fit, state)
        fit_files.write_student(fit, state, use=device_use("cpu", dtype=torch.float32))
        fit_files.write_success(fit, seconds=1.0)
    export.export_stage(run)
    evaluate.evaluate_stage(run)


def keys_of(run: Run, split: str) -> set[int]:
    folder = run.split(split)
    tables = [folder.read_table(name, columns=["query"])["query"] for name in folder.shards()]
    return {key for table in tables for key in query_keys(table).tolist()}


@pytest.mark.slow
def test_without_judged_pairs_the_report_is_of_agreement(
    local_ray: None, raw_files: Path, tiny_bert: Path, tmp_path: Path
) -> None:
    run = unjudged(run_config(tmp_path / "run", raw_files, tiny_bert))
    assert prepare.prepare_stage(run)
    again = unjudged(run_config(tmp_path / "run", raw_files, tiny_bert))
    assert not prepare.prepare_stage(again) and is_complete("prepare", again)
    done = (run.root / "held_out").success()
    assert done is not None
    assert done["rows_in"] == sum(done[name] for name in COUNTS[1:])
    folder = run.pairs
    pairs = [folder.read_table(name, columns=["query"])["query"] for name in folder.shards()]
    train_keys = {key for table in pairs for key in query_keys(table).tolist()}
    dev, test = keys_of(run, "dev"), keys_of(run, "test")
    assert dev and test and not dev & test and not (dev | test) & train_keys
    targets = {shard.target for shard in shards_to_score(run)}
    assert {"held_out/dev/part-00000.parquet", "held_out/test/part-00000.parquet"} < targets

    write_logits(run)
    train(run)
    found = run.report.read_json("metrics.json")
    assert found is not None and found["kind"] == "agreement" and found["relevant_at"] is None
    assert found["num_pairs"] == sum(split_shards(run, "test").values())
    entries = found["scorers"]
    assert [name for name in entries if entries[name]["role"] != "reference"] == [
        "teacher tiny", "student"
    ]  # fmt: skip
    own, student = (entries[name]["metrics"] for name in ("teacher tiny", "student"))
    assert own["spearman"]["value"] == own["ndcg_10"]["value"] == own["accuracy"]["value"] == 1
    assert 0.5 < student["spearman"]["value"] < 1
    assert found["other_labels"] is None and found["cost"]["money_total"] is None
    report = run.report.read_bytes("report.md").decode()
    assert "agreement with the teachers" in report
    assert "held out dev" in report and "judged dev" not in report
    assert "agreement with the teachers" in console_table(found)
    for word in ("accuracy", "etention", "etained", "baseline on judged"):
        assert word not in report and word not in console_table(found)
    card = (run.bundle / run.bundle.success()["bundle"]).read_bytes("README.md").decode()  # type: ignore[index]
    assert "Agreement with the teachers" in card and "AUC" not in card
    done = run.student("student").success()
    assert done is not None
    assert done["dev_agreement"] == max(one["dev_agreement"] for one in done["evaluations"])
    assert inspect_run(run)["datasets"].keys() == {"held out dev", "held out test", "pairs"}


@pytest.mark.slow
def test_judged_pairs_are_the_test_alone(
    local_ray: None, raw_files: Path, tiny_bert: Path, tmp_path: Path
) -> None:
    run = unjudged(run_config(tmp_path / "run", raw_files, tiny_bert), dev_share=0)
    assert prepare.prepare_stage(run)
    judged = pq.read_table(raw_files / "judged.parquet")
    keys = set(query_keys(judged["query"]).tolist())
    assert keys_of(run, "test") == keys
    assert keys_of(run, "dev") and not keys_of(run, "dev") & keys
    assert sum(split_shards(run, "test").values()) <= judged.num_rows
    write_logits(run)
    train(run)
    found = run.report.read_json("metrics.json")
    assert found is not None
    roles = {name: entry["role"] for name, entry in found["scorers"].items()}
    assert {name for name, role in roles.items() if role != "reference"} == {
        "teacher tiny", "student"
    }  # fmt: skip
    assert found["kind"] == "judged" and found["is_dev_drawn"]
    assert "pairs)" not in console_table(found)  # all are measured on all pairs
    report = run.report.read_bytes("report.md").decode()
    assert "held-out queries of the transfer set, where the teachers decide" in report


def cut_off(run: Run) -> None:
    """As a kill while the pairs are read leaves it: the splits are drawn, one part is cleaned."""
    run.write_manifest(run.manifest)
    (pairs,) = prepare._datasets(run)
    assert draw_splits(run, pairs)
    assert not pairs.begin_chunks()
    part = plan_scatter(pairs, run.manifest.pairs[0])[-1]
    scatter_parts(part, dataset=pairs, held_out=prepare._held_out(run, pairs))


@pytest.mark.ray
def test_a_file_mended_after_the_draw_gives_other_splits(
    local_ray: None, raw_files: Path, tmp_path: Path
) -> None:
    raw = Path(shutil.copytree(raw_files, tmp_path / "raw"))
    config = run_config(tmp_path / "run", raw, Path("no-model"))
    cut_off(unjudged(config))
    before = parquet_files(unjudged(config))
    path = raw / "pairs" / "part-0.parquet"
    rows = pq.read_table(path)
    titles = pa.array([f"Mended {title}" for title in rows["title"].to_pylist()])
    pq.write_table(rows.set_column(rows.column_names.index("title"), "title", titles), path)
    run = unjudged(config)
    assert prepare.prepare_stage(run)
    assert pair_shards(run) and split_shards(run, "dev") and not prepare.prepare_stage(run)
    whole = unjudged(run_config(tmp_path / "whole", raw, Path("no-model")))
    prepare.prepare_stage(whole)
    assert parquet_files(run) == parquet_files(whole)
    assert before.items() - parquet_files(run).items()  # the splits of before had other titles


@pytest.mark.ray
def test_splits_of_other_files_are_drawn_again_or_refused(
    local_ray: None, raw_files: Path, tmp_path: Path
) -> None:
    config = run_config(tmp_path / "run", raw_files, Path("no-model"))
    run = unjudged(config)
    prepare.prepare_stage(run)
    expected, folder = parquet_files(run), run.root / "held_out"
    folder.write_json("_SUCCESS.json", {**(folder.success() or {}), "fingerprint": "another"})
    with pytest.raises(UserError, match=r"held_out was drawn from other files .* another run_dir"):
        prepare.prepare_stage(unjudged(config))
    run.pairs.delete_file("_SUCCESS.json")
    assert prepare.prepare_stage(unjudged(config))
    assert parquet_files(run) == expected and split_shards(run, "dev")


@pytest.mark.ray
def test_too_few_queries_and_other_shares(local_ray: None, raw_files: Path, tmp_path: Path) -> None:
    raw = tmp_path / "raw.csv"
    raw.write_text("query,title\n" + "".join(f"word{n} sofa,grey sofa\n" for n in range(6)))
    config = run_config(tmp_path / "run", raw_files, Path("no-model"), pairs={"input": [str(raw)]})
    with pytest.raises(UserError, match=r"too few queries; give more pairs, or larger pairs.dev_"):
        prepare.prepare_stage(unjudged(config))
    larger = config.pairs.model_copy(update={"dev_share": 0.3, "test_share": 0.3})
    run = unjudged(config.model_copy(update={"pairs": larger}))
    assert prepare.prepare_stage(run)
    assert split_shards(run, "dev") and split_shards(run, "test") and pair_shards(run)


def test_other_settings_are_named(raw_files: Path, tmp_path: Path) -> None:
    config = run_config(tmp_path / "run", raw_files, Path("no-model"))
    for with_judged in (Run(config), unjudged(config, dev_share=0)):
        settings = with_judged.prepare_settings()
        assert settings != unjudged(config).prepare_settings()
    assert "held_out" not in Run(config).prepare_settings()  # as before
    assert "dev_share" not in config.pairs.fingerprint_fields()


@pytest.mark.parametrize(
    ("judged", "metric", "is_right"),
    [
        ({}, "agreement", True),
        ({}, "ndcg_10", True),
        ({"dev_share": 0}, "ndcg_10", True),
        ({"dev_share": 0}, "agreement", False),
        ({"dev_share": 0.2}, "agreement", False),
    ],
)
def test_a_search_compares_with_the_teachers(
    raw_files: Path, tmp_path: Path, judged: dict[str, object], metric: str, is_right: bool
) -> None:
    tune = {"space": {"soft_labels.temperature": {"low": 1, "high": 2}}, "metric": metric}
    config = run_config(tmp_path / "run", raw_files, Path("no-model"), tune=tune)
    run = unjudged(config, **judged)
    if is_right:
        assert len(dimensions(run.config)) == 1
        return
    with pytest.raises(UserError, match=r'for runs without judged pairs; "spearman" is'):
        dimensions(run.config)


def test_a_search_does_not_move_what_it_compares_with(raw_files: Path, tmp_path: Path) -> None:
    space = {"soft_labels.bias": {"low": -1, "high": 1}}
    config = run_config(tmp_path / "run", raw_files, Path("no-model"), tune={"space": space})
    with pytest.raises(UserError, match=r"soft_labels.bias needs judged dev pairs"):
        dimensions(unjudged(config).config)
    assert len(dimensions(config)) == 1
