"""verify and repair of other layouts: drawn splits, files added later, pairs that may repeat."""

import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from raydistill.config.run_config import RunConfig
from raydistill.demo.shop import Shop
from raydistill.runs.run_folder import Run
from raydistill.stages import prepare
from raydistill.stages.verification.repair import repair
from raydistill.stages.verification.verify import verify_run
from tests.helpers import damage
from tests.helpers.logits import score
from tests.helpers.runs import parquet_files, run_config

pytestmark = pytest.mark.ray
KINDS = ("drawn splits", "an increment", "no dedupe")


def prepared(kind: str, folder: Path, raw_files: Path, model: Path, shop: Shop) -> Run:
    """A run after prepare; with files added later, the second time."""
    raw = Path(shutil.copytree(raw_files, folder / "raw"))
    pairs = {"shard_rows": 256, "dedupe": kind != "no dedupe"}
    config = run_config(folder / "run", raw, model, pairs=pairs)
    if kind == "drawn splits":
        content = config.model_dump(mode="json", exclude_none=True)
        config = RunConfig.model_validate({**content, "judged": None})
    prepare.prepare_stage(Run(config))
    if kind == "an increment":
        again = shop.transfer_pairs(0, num_rows=600)  # some are known: they get weights
        pq.write_table(again, raw / "pairs" / "later-0.parquet")
        pq.write_table(shop.transfer_pairs(9, num_rows=600), raw / "pairs" / "later-1.parquet")
        prepare.prepare_stage(Run(config))
    return Run(config)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_prepare_makes_the_same_bytes_again(
    local_ray: None, kind: str, raw_files: Path, tiny_bert: Path, tmp_path: Path, shop: Shop
) -> None:
    run = prepared(kind, tmp_path, raw_files, tiny_bert, shop)
    found = verify_run(run, on_cluster=False)
    assert found.findings == []
    assert found.parts["label tiny"].startswith("to do: 0 of ")
    before = parquet_files(run)
    folder = Path(run.root.uri)
    pattern = "part-a001-*" if kind == "an increment" else "part-*"
    damage.flip(sorted((folder / "pairs").glob(pattern))[-1])
    sorted((folder / "pairs").glob("part-0*"))[0].unlink()
    if kind == "an increment":
        damage.truncate(sorted((folder / "pairs" / "_weights").glob("*"))[0])
    if kind == "drawn splits":
        damage.flip(folder / "held_out" / "test" / "part-00000.parquet")
    found = verify_run(Run(run.config), on_cluster=False)
    assert len(found.damaged) == 2 + (kind != "no dedupe")
    assert not repair(Run(run.config), found.damaged).remain
    assert prepare.prepare_stage(Run(run.config))
    assert parquet_files(run) == before
    assert verify_run(Run(run.config), on_cluster=False).findings == []


@pytest.mark.slow
def test_shards_of_later_files_are_to_do_and_no_damage(
    local_ray: None, raw_files: Path, tiny_bert: Path, tmp_path: Path, shop: Shop
) -> None:
    raw = Path(shutil.copytree(raw_files, tmp_path / "raw"))
    config = run_config(tmp_path / "run", raw, tiny_bert, pairs={"shard_rows": 256})
    prepare.prepare_stage(Run(config))
    score(Run(config), "tiny")
    num = len(list(Path(config.run_dir).glob("logits/tiny-*/**/*.parquet")))
    pq.write_table(shop.transfer_pairs(9, num_rows=600), raw / "pairs" / "later.parquet")
    prepare.prepare_stage(Run(config))
    found = verify_run(Run(config), on_cluster=False)
    assert found.damaged == []
    assert found.parts["label tiny"].startswith(f"to do: {num} of ")
    score(Run(config), "tiny")
    found = verify_run(Run(config), on_cluster=False)
    assert found.damaged == []
    assert found.parts["label tiny"].startswith("complete: ")
