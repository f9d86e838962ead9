"""Folders on an S3 server that fails at random, from a seed: the same bytes, and nothing left."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pyarrow as pa
import pytest

from raydistill.data.identities import look_at
from raydistill.files import retry
from raydistill.files.folder import Folder
from raydistill.files.inputs.input_files import expand_inputs
from raydistill.files.inputs.readers import read_raw
from raydistill.stages import prepare
from tests.helpers.proxy import PASSING, Proxy, proxy_of
from tests.helpers.runs import run_config

pytestmark = [pytest.mark.server, pytest.mark.slow]


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(retry, "FIRST_WAIT_S", 0.01)
    retry.take()
    yield
    retry.take()


@pytest.fixture(params=["s3", "seaweed"])
def store(request: pytest.FixtureRequest) -> Iterator[Proxy]:
    """A proxy of moto's server, or of SeaweedFS."""
    request.getfixturevalue(request.param)
    with proxy_of(os.environ["AWS_ENDPOINT_URL"], bucket="bucket") as found:
        yield found


def some_table(rng: np.random.Generator, num_rows: int) -> pa.Table:
    words = rng.integers(0, 10**4, num_rows).astype(str)
    return pa.table({"query": words, "title": np.char.add("title ", words)})


def use(folder: Folder) -> dict[str, Any]:
    """What the stages do with a folder, and all that they read."""
    rng = np.random.default_rng(0)
    folder.claim("run")
    for number in range(12):
        folder.write_table(f"part-{number:05d}.parquet", some_table(rng, 400 + number))
    folder.write_bytes("large", rng.bytes(3 << 20))
    folder.write_table("pieces.parquet", some_table(rng, 150_000))
    (folder / "raw").write_bytes("a.csv", b"query,title\n" + b"sofa,a grey sofa\n" * 20_000)
    folder.write_json("_SUCCESS.json", {"rows": 1})
    folder.delete_file("part-00003.parquet")
    (folder / "gone").write_bytes("x", b"x")
    (folder / "gone").delete()
    pieces = folder.open_rows("pieces.parquet", by_range=True)
    csv = expand_inputs([(folder / "raw").uri])
    return {
        "shards": folder.shards(),
        "success": folder.success(),
        "exists": [folder.exists(name) for name in ("large", "gone", "part-00003.parquet")],
        "files": {name: folder.read_bytes(name) for name in folder.files()},
        "span": [folder.read_span("large", at, at + 70_000) for at in range(0, 3 << 20, 300_000)],
        "rows": pieces.read(65_000, 140_000, ["title"])["title"].to_pylist(),
        "digest": look_at(csv[0], whole=True).digest,
        # A stream cannot be resumed: its item of work is done again, as in `cluster/tasks.py`.
        "csv": retry.tried(lambda: sum(len(raw.rows) for raw in read_raw(csv[0])), tries=20),
        "copy": sorted(p.name for p in folder.download().iterdir()),
    }


@pytest.mark.parametrize("seed", range(2))
def test_faults_at_random_change_nothing(
    store: Proxy, seed: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    calm = use(Folder(str(tmp_path / "run")))
    store.fail_at_random(0.2, seed=seed)
    found = use(Folder(store.uri) / f"faults-{tmp_path.name}")
    given = store.given.total()
    store.fail_at_random(0.0, seed=0)
    assert found == calm
    assert given >= 10 and set(store.given) <= set(PASSING)
    tried_again = retry.take()
    assert sum(tried_again.values()) >= 1 and "tried again" in caplog.text


@pytest.mark.ray
@pytest.mark.usefixtures("local_ray")
def test_a_stage_under_faults_ends_with_the_same_bytes(
    s3: str, prepared_dir: Path, raw_files: Path, tmp_path: Path
) -> None:
    from raydistill.runs.run_folder import Run

    calm = Folder(str(prepared_dir / "pairs"))
    with proxy_of(os.environ["AWS_ENDPOINT_URL"], bucket="bucket") as store:
        faulty = Folder(store.uri) / f"stage-{tmp_path.name}"
        store.fail_at_random(0.1, seed=7)
        prepare.prepare_stage(Run(run_config(faulty.uri, raw_files, Path("no-model"))))
        assert store.given.total() >= 3
        store.fail_at_random(0.0, seed=0)
        pairs = faulty / "pairs"
        assert pairs.shards() == calm.shards()
        assert all(pairs.read_bytes(name) == calm.read_bytes(name) for name in pairs.shards())


_WRITES = """
import os, sys
from raydistill.files.folder import Folder
folder = Folder(sys.argv[1])
folder.write_bytes("0", b"x")  # the parent has a client
for number in range(int(sys.argv[2])):
    child = os.fork()
    if child == 0:
        data = bytes([number]) * (8 << 20)
        for at in range(1_000):
            folder.write_bytes(f"{number}-{at}", data)
        os._exit(0)
    print(child, flush=True)
os._exit(0)
"""


def test_killed_writers_leave_whole_objects_and_no_uploads(store: Proxy, tmp_path: Path) -> None:
    """Six processes, forked, in the middle of PUTs of 8 MB."""
    folder = Folder("s3://bucket") / f"kill-{tmp_path.name}"
    parent = subprocess.Popen(
        [sys.executable, "-c", _WRITES, folder.uri, "4"], stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    children = [int(parent.stdout.readline()) for _ in range(4)]
    parent.wait()
    deadline_s = time.monotonic() + 60
    while len(folder.files()) < 6 and time.monotonic() < deadline_s:
        time.sleep(0.01)
    for child in children:
        time.sleep(0.013)
        os.kill(child, signal.SIGKILL)
    time.sleep(0.3)
    names = folder.files()
    assert len(names) >= 6
    for name in names[1:]:
        assert folder.read_bytes(name) == bytes([int(name[0])]) * (8 << 20)
    uploads = boto3.session.Session().client("s3").list_multipart_uploads(Bucket="bucket")
    assert not uploads.get("Uploads")
