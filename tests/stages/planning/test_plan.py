"""plan: times by arithmetic, sizes of files, rates of a real teacher; nothing is written."""

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raydistill.cli.main import main
from raydistill.config.evaluation import PricesConfig
from raydistill.errors import UserError
from raydistill.files.folder import SUCCESS
from raydistill.runs.run_folder import Run
from raydistill.runs.shards import shards_to_score
from raydistill.stages.planning.measure import measure_teacher
from raydistill.stages.planning.plan import PlanOptions, make_plan
from raydistill.stages.planning.plan_text import plan_text
from raydistill.stages.planning.rates import Rate
from raydistill.stages.planning.sample import Sample, draw_sample
from raydistill.stages.planning.sizes import Sizes, sizes_of
from raydistill.stages.planning.stage_times import Estimator, Total, Workers
from tests.helpers.damage import files_of
from tests.helpers.runs import run_config

SIZES = Sizes(
    1_200_000, 1_000_000, {"train": 8_000, "dev": 1_000, "test": 1_000}, 20, "hand", is_exact=True
)
NONE = pa.table({"query": [], "title": []})


def run_of(raw_files: Path, folder: Path, **sections: object) -> Run:
    return Run(run_config(folder / "run", raw_files, Path("no-model"), **sections))


def times(run: Run, *rates: Rate, workers: Workers, us: float | None = 10.0) -> dict[str, float]:
    """The seconds of the stages that have some."""
    sample = Sample(NONE, 50.0, us, "hand")
    estimator = Estimator(run, run, SIZES, {rate.teacher: rate for rate in rates}, sample)
    return {one.stage: one.seconds for one in estimator.times(workers) if one.seconds is not None}


def test_the_times_are_pairs_by_rates(raw_files: Path, tmp_path: Path) -> None:
    """1,002,000 pairs are scored: the transfer set, dev and test."""
    run = run_of(raw_files, tmp_path)
    rate = Rate("tiny", 1_002.0, "given", on_gpu=True, start_s=5.0)
    for num in (1, 4):
        found = times(run, rate, workers=Workers(num, 8 * num))
        # 1,210,000 raw rows, the judged ones among them, at 10 µs of a core
        assert found == {"prepare": 12.1 / 8 / num, "label tiny": 1_000 / num + 5}
    on_cores = Rate("tiny", 501.0, "measured")
    run = run_of(raw_files, tmp_path, label={"num_gpus": 0})
    assert times(run, on_cores, workers=Workers(0, 4))["label tiny"] == 500


def test_too_few_cores_limit_a_gpu(raw_files: Path, tmp_path: Path) -> None:
    rate = Rate("tiny", 10_020.0, "measured", on_gpu=True, tokenised_per_s=2_004.0)
    assert rate.cores_a_gpu == 5
    run = run_of(raw_files, tmp_path)
    assert times(run, rate, workers=Workers(1, 8))["label tiny"] == 100
    assert times(run, rate, workers=Workers(1, 2))["label tiny"] == 250


def test_the_rate_of_a_core_says_nothing_of_a_gpu(raw_files: Path, tmp_path: Path) -> None:
    run = run_of(raw_files, tmp_path)
    measured = Rate("tiny", 100.0, "measured", device_name="Some CPU")
    assert "label tiny" not in times(run, measured, workers=Workers(2, 16))
    estimator = Estimator(run, run, SIZES, {"tiny": measured}, None)
    (how,) = [o.how for o in estimator.times(Workers(2, 16)) if o.stage == "label tiny"]
    assert how == (
        "not estimated on GPUs: 100 pairs/s on a core of Some CPU; --pairs-per-s tiny=N gives it"
    )


def test_a_base_learns_on_cores_at_an_eighth_of_its_rate(raw_files: Path, tmp_path: Path) -> None:
    """2 epochs x (8 x 8,000 + 1,000 of dev) = 130,000 passes at 4 x 325 pairs/s."""
    teachers = {"tiny": {"base": "no-model"}}
    run = run_of(raw_files, tmp_path, teachers=teachers, finetune={"epochs": 2})
    estimator = Estimator(run, run, SIZES, {"tiny": Rate("tiny", 325.0, "measured")}, None)
    stage = estimator._finetune("tiny", Workers(0, 4))
    assert (stage.seconds, stage.gpus, stage.cpu_hours) == (100.0, 0.0, 400 / 3_600)
    on_gpu = Estimator(run, run, SIZES, {"tiny": Rate("tiny", 5e5, "given", on_gpu=True)}, None)
    assert on_gpu._finetune("tiny", Workers(8, 64)).seconds is None


def test_money_is_hours_by_prices(raw_files: Path, tmp_path: Path) -> None:
    run = run_of(raw_files, tmp_path)
    rate = Rate("tiny", 1_002_000 / 3_600, "given", on_gpu=True)  # an hour of one GPU
    sample = Sample(NONE, 50.0, 3_600e6 / 1_210_000, "hand")  # an hour of a core
    estimator = Estimator(run, run, SIZES, {"tiny": rate}, sample)
    total = Total(Workers(2, 4), estimator.times(Workers(2, 4)))
    prices = PricesConfig(gpu_hour=2.0, cpu_hour=0.1, gpu_kw=0.6)
    money, kwh = total.bill(prices)
    assert money == pytest.approx(1.0 * 2 + 1.0 * 0.1)
    assert kwh is None  # no power of a core is given
    assert total.bottleneck == "label tiny"
    assert total.label_seconds == pytest.approx(1_800)


def test_a_short_stage_says_nothing_of_a_long_one(raw_files: Path, tmp_path: Path) -> None:
    """Most of 78 s are the start of Ray; of 7,800 s they are not."""
    run = run_of(raw_files, tmp_path)
    estimator = Estimator(run, run, SIZES, {}, None)
    short, long = ({"rows_in": 20_000, "seconds": seconds} for seconds in (78.0, 7_800.0))
    assert estimator._scaled("train", short, 40_000, by="pairs").seconds == 156
    stage = estimator._scaled("train", short, 1_000_000, by="pairs")
    assert (stage.seconds, stage.how) == (
        None,
        "not estimated: 78 s for 20,000 pairs are mostly the start; --like a larger run",
    )
    assert estimator._scaled("train", long, 1_000_000, by="pairs").seconds == 390_000


# --- sizes


def test_rows_are_those_of_the_footers(raw_files: Path, tmp_path: Path) -> None:
    sizes = sizes_of(run_of(raw_files, tmp_path), num_pairs=None)
    assert (sizes.num_raw, sizes.is_exact) == (3_000, False)
    assert sizes.num_judged == {"dev": 120, "test": 120, "train": 960}
    assert sizes.num_scored == 3_240
    assert sizes.num_shards == round(3_000 / (512 * 0.75))


def test_rows_of_text_are_estimated_from_bytes(raw_files: Path, tmp_path: Path) -> None:
    lines = "".join(f"sofa {n:05d},grey sofa number {n:05d}\n" for n in range(40_000))
    (tmp_path / "pairs.csv").write_text("query,title\n" + lines)
    run = run_of(raw_files, tmp_path, pairs={"input": [str(tmp_path / "pairs.csv")]})
    sizes = sizes_of(run, num_pairs=None)
    assert sizes.num_raw == pytest.approx(40_000, rel=0.01)
    assert "bytes of text" in sizes.source


def test_a_packed_text_does_not_tell_its_rows(raw_files: Path, tmp_path: Path) -> None:
    (tmp_path / "pairs.csv.gz").write_bytes(gzip.compress(b"query,title\nsofa,grey sofa\n"))
    run = run_of(raw_files, tmp_path, pairs={"input": [str(tmp_path / "pairs.csv.gz")]})
    with pytest.raises(UserError, match=r"does not tell its number of rows .* give --pairs N"):
        sizes_of(run, num_pairs=None)
    assert sizes_of(run, num_pairs=5_000).num_raw == 5_000


def test_prepared_rows_are_exact_and_scaled(prepared_dir: Path, raw_files: Path) -> None:
    run = Run(run_config(prepared_dir, raw_files, Path("no-model")))
    done = run.pairs.success() or {}
    sizes = sizes_of(run, num_pairs=None)
    assert sizes.is_exact and sizes.num_raw == 3_000 and sizes.num_shards == len(done["shards"])
    assert sizes.num_pairs == done["rows_out"]
    scaled = sizes_of(run, num_pairs=3_000_000)
    assert scaled.num_pairs == 1_000 * done["rows_out"] and not scaled.is_exact


# --- a real teacher


def test_the_sample_is_of_the_raw_files_and_of_the_shards(
    prepared_dir: Path, raw_files: Path, tmp_path: Path
) -> None:
    before = draw_sample(run_of(raw_files, tmp_path / "new"), num_pairs=500)
    after = draw_sample(Run(run_config(prepared_dir, raw_files, Path("m"))), num_pairs=500)
    assert before.pairs.num_rows == after.pairs.num_rows == 500
    assert before.pairs.schema == after.pairs.schema
    assert before.core_us is not None and before.core_us > 0 and after.core_us is None
    raw = {row["title"].casefold() for n in range(3)
           for row in pq.read_table(raw_files / f"pairs/part-{n}.parquet").to_pylist()}  # fmt: skip
    assert {title.casefold() for title in before.pairs["title"].to_pylist()} <= raw
    assert not (tmp_path / "new").exists()


def test_a_teacher_is_measured_before_anything_is_prepared(
    raw_files: Path, tiny_bert: Path, tmp_path: Path
) -> None:
    run = Run(run_config(tmp_path / "run", raw_files, tiny_bert))
    sample = draw_sample(run, num_pairs=300)
    found = measure_teacher(run, "tiny", sample.pairs, seconds=0.001, device="cpu")
    assert found is not None
    assert found["rows"] == 256 and found["device"] == "cpu"  # stopped after the first timed part
    assert min(found["read_s"], found["score_s"], found["write_s"]) > 0
    assert 256 * 4 < found["tokens"] <= 256 * 32
    assert 4 < found["bytes_each"] < 40
    assert not (tmp_path / "run").exists()


def test_a_base_is_measured_with_a_random_head(
    raw_files: Path, tiny_bert: Path, tmp_path: Path
) -> None:
    teachers = {"tiny": {"base": str(tiny_bert)}}
    run = Run(run_config(tmp_path / "run", raw_files, tiny_bert, teachers=teachers))
    pairs = draw_sample(run, num_pairs=64).pairs
    found = measure_teacher(run, "tiny", pairs, seconds=1, device="cpu")
    assert found is not None and found["rows"] == 64


def test_the_trees_are_not_estimated_before_they_are_fitted(
    raw_files: Path, tiny_bert: Path, tmp_path: Path
) -> None:
    run = Run(run_config(tmp_path / "run", raw_files, tiny_bert, trees={"enabled": True}))
    assert measure_teacher(run, "trees", NONE, seconds=1, device="cpu") is None


@pytest.mark.ray
def test_a_task_of_ray_measures_the_same(
    local_ray: None,
    raw_files: Path,
    tiny_bert: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from raydistill.cluster import places
    from raydistill.stages.planning.remote import measure_in_task

    run = Run(run_config(tmp_path / "run", raw_files, tiny_bert))
    pairs = draw_sample(run, num_pairs=64).pairs
    found = measure_in_task(run, "tiny", pairs, seconds=1, wants_gpu=True)
    assert found is not None and (found["rows"], found["device"]) == (64, "cpu")
    broken = Run(run_config(tmp_path / "run", raw_files, tmp_path / "none"))
    with pytest.raises(UserError, match="no teacher model"):
        measure_in_task(broken, "tiny", pairs, seconds=1, wants_gpu=False)
    monkeypatch.setattr(places, "_WAIT_S", 0.1)
    with (
        places.needing([("run_dir", str(tmp_path / "gone"))], []),
        pytest.raises(UserError, match=f"does not see {tmp_path}/gone/"),
    ):
        measure_in_task(run, "tiny", pairs, seconds=1, wants_gpu=False)


def test_a_finished_run_tells_its_rate(labeled: Run) -> None:
    shards = shards_to_score(labeled)
    summary = {
        "fingerprint": labeled.label_fingerprint("tiny"), "rows_scored": 4_000, "rows_per_s": 400,
        "rows_in": sum(shard.num_rows for shard in shards), "shards": len(shards),
        "seconds": 13.0, "actors": 4, "device": "cuda", "device_name": "H",
    }  # fmt: skip
    labeled.logits("tiny").write_json(SUCCESS, summary)
    before = files_of(Path(labeled.root.uri))
    plan = make_plan(labeled, like=labeled, options=PlanOptions({}, num_gpus=8), on_cluster=False)
    rate = plan.rates["tiny"]
    assert (rate.pairs_per_s, rate.on_gpu, rate.start_s) == (100.0, True, 3.0)
    assert [total.workers.num_gpus for total in plan.totals] == [1, 2, 4, 8]
    assert plan.complete == ["prepare", "label"]
    text = plan_text(plan, prices=PricesConfig())
    assert "100 pairs/s a GPU of H; as finished: 4,000 pairs in 13 s with 4 workers" in text
    assert "not estimated, and not in these sums: train student, train baseline" in text
    assert files_of(Path(labeled.root.uri)) == before
    next(Path(labeled.root.uri).glob("logits/*/part-*")).unlink()
    again = make_plan(labeled, like=labeled, options=PlanOptions({}), on_cluster=False)
    assert again.complete == ["prepare"]  # `distill` scores it again


# --- the command


@pytest.fixture
def run_file(raw_files: Path, tiny_bert: Path, tmp_path: Path) -> str:
    prices = {"prices": {"gpu_hour": 3.6, "currency": "EUR"}}
    config = run_config(tmp_path / "run", raw_files, tiny_bert, cluster={"gpus": 3, **prices})
    (tmp_path / "run.toml").write_text(config.to_toml())
    return str(tmp_path / "run.toml")


def test_the_command_prints_a_plan(
    run_file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """1,000,000 raw rows and 240 judged ones at 1,000 pairs/s of a GPU."""
    given = ["plan", "--config", run_file, "--pairs-per-s", "1000", "--pairs", "1_000_000"]
    assert main([*given, "--cores", "4", "--sample", "64", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [plan["workers"] for plan in found["plans"]] == [1, 2, 3]
    assert [plan["label_hours"] for plan in found["plans"]] == pytest.approx(
        [1_000.24 / 3_600 / num for num in (1, 2, 3)]
    )
    assert all(plan["gpu_hours"] == pytest.approx(1_000.24 / 3_600) for plan in found["plans"])
    assert main([*given, "--sample", "64"]) == 0
    out = capsys.readouterr().out
    assert "about 1,000,000 raw rows (--pairs 1,000,000)" in out
    assert "1,000 pairs/s a GPU; given" in out
    assert "GPUs   label" in out and "EUR" in out and "longest stage" in out
    assert not (tmp_path / "run").exists()


def test_without_gpus_the_table_is_of_cores(
    run_file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["plan", "--config", run_file, "--gpus", "0", "--pairs-per-s", "tiny=100"]
    assert main([*given, "--cores", "6", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["unit"], [plan["workers"] for plan in found["plans"]]) == ("core", [1, 2, 4, 6])
    assert found["plans"][-1]["gpu_hours"] == 0


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("fast", "--pairs-per-s fast: write 4000 or TEACHER=4000"),
        ("tiny=0", "--pairs-per-s tiny=0: give a number above 0"),
        ("tiny=inf", "--pairs-per-s tiny=inf: give a number above 0"),
        ("huge=4", "--pairs-per-s huge: no such teacher; there are tiny"),
    ],
)
def test_mistakes_are_one_line(
    run_file: str, option: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", "--config", run_file, "--pairs-per-s", option]) == 2
    err = capsys.readouterr().err
    assert words in err and len(err.splitlines()) == 1


def test_like_names_a_run(
    run_file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", "--config", run_file, "--like", str(tmp_path / "none")]) == 2
    assert "no run folder, it has no run.toml" in capsys.readouterr().err
