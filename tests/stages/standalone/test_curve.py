import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raydistill.cli.main import main
from raydistill.cluster.connection import Cluster
from raydistill.cluster.train_job import run_workers as ray_fit
from raydistill.errors import UserError
from raydistill.files.schema import LOGITS
from raydistill.runs.run_folder import Run
from raydistill.stages.standalone import curve
from raydistill.student import fit_files
from tests.helpers.runs import with_train

CORES = Cluster(num_cores=2, num_gpus=0)


def write_subset(run: Run, share: float) -> tuple[set[int], dict[int, float]]:
    """The pairs of a share, as one shard: their places by id are not kept, texts and labels are."""
    whole = curve.whole_set(run)
    to = run.root / "curve" / "subsets" / f"{share}"
    item = {"share": share, "name": "a.parquet", "shards": sorted(whole.shards), "to": to.uri}
    result = curve._write_subset({**item, "is_there": False}, whole=whole)
    rows = to.read_table("a.parquet")
    assert rows.num_rows == result["rows"]
    assert curve._write_subset({**item, "is_there": True}, whole=whole) == result
    labels = dict(zip(rows["pair_id"].to_pylist(), rows["label"].to_pylist(), strict=True))
    return set(labels), labels


def test_subsets_are_nested_and_carry_the_logits_of_soft_labels(labeled: Run) -> None:
    name = labeled.pairs.shards()[0]
    logits = labeled.logits("tiny").read_table(name)
    without = logits["pair_id"][0].as_py()  # a pair that the teacher could not score
    first = [None, *logits["logit"].to_pylist()[1:]]
    table = logits.set_column(1, "logit", [first]).cast(LOGITS)
    labeled.logits("tiny").write_table(name, table)
    tenth, _ = write_subset(labeled, 0.1)
    third, labels = write_subset(labeled, 0.3)
    num_all = sum(fit_files.student_fit(labeled, "student").shards.values())
    assert tenth < third and without not in third
    assert abs(len(tenth) - 0.1 * num_all) < 60 and abs(len(third) - 0.3 * num_all) < 90
    ids, values = table["pair_id"].to_pylist(), table["logit"].to_pylist()
    mine = [(labels[i], z) for i, z in zip(ids, values, strict=True) if i in third]
    assert len(mine) > 50 and np.allclose(*zip(*mine, strict=True))


def test_single_texts_have_no_overlap_with_a_query(labeled: Run) -> None:
    pairs = labeled.config.pairs.model_copy(update={"query": ""})
    single = replace(labeled, config=labeled.config.model_copy(update={"pairs": pairs}))
    assert list(curve._without_model(labeled)) == [curve.OVERLAP]
    assert not curve._without_model(single)


@pytest.mark.parametrize("share", [0.0, -0.1, 1.5])
def test_a_share_that_is_none(share: float) -> None:
    with pytest.raises(UserError, match="give more than 0"):
        curve.CurveSettings(shares=(share,))


def test_options_that_are_no_values(
    labeled: Run,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "run.toml").write_text(labeled.config.to_toml())
    command = ["evaluate", "--config", str(tmp_path / "run.toml"), "--curve"]
    assert main([*command, "--curve-presets", "mach"]) == 2
    assert main([*command, "--curve-shares", "1,x"]) == 2
    errors = capsys.readouterr().err
    assert "no preset 'mach'" in errors and "--curve-shares 1,x" in errors


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_curve_whose_worker_dies_goes_on_with_the_students_that_are_missing(
    local_ray: None,
    labeled: Run,
    tmp_path: Path,
) -> None:
    """The worker dies in the second student, when the newest checkpoint is of the first."""
    run = with_train(labeled, checkpoint_every_windows=1, dtype="float32")
    settings = curve.CurveSettings(shares=(0.2, 1.0))
    was_killed = tmp_path / "killed"

    def loop(config: dict[str, Any]) -> None:
        say, students = config["log"], []

        def log(line: str) -> None:
            say(line)
            students.extend([line] if line.startswith("curve ") else [])
            if len(students) == 2 and "dev AUC" in line and not was_killed.exists():
                was_killed.touch()
                os.kill(os.getpid(), signal.SIGKILL)

        curve.curve_loop({**config, "log": log})

    left = curve.prepare_points(run, settings)
    ray_fit(
        loop, {"points": left}, name="killed", storage=run.root / "_fits", cluster=CORES,
        num_workers=1, gpus_each=0.0,
    )  # fmt: skip
    assert was_killed.exists()
    first_ns = Path(left[0].output.uri, "weights.pt").stat().st_mtime_ns
    found = curve.fit_curve(run, settings, CORES)  # nothing is left to fit
    assert Path(left[0].output.uri, "weights.pt").stat().st_mtime_ns == first_ns
    assert left[1].output.uri == run.student("student").uri
    assert [Path(one.output.uri, "last.pt").exists() for one in left] == [False, True]
    pairs = [one["labeled_pairs"] for one in found["points"]]
    assert pairs == [sum(point.shards.values()) for point in left] and pairs[0] < 0.25 * pairs[1]
    whole = run.student("student").success() or {}
    assert [entry["epoch"] for entry in whole["evaluations"]] == [1, 2]  # from the start
    assert 0.5 < found["points"][0]["auc"] < found["others"]["teacher tiny"]["auc"] + 0.05
    assert found["others"][curve.OVERLAP]["auc"] > 0.5
    folder = Path(run.root.uri, "curve")
    assert {file.name for file in folder.glob("curve.*")} == {"curve.json", "curve.md", "curve.svg"}
    assert not (folder / "subsets").exists()
    again = curve.fit_curve(run, settings, CORES)
    assert again == found
