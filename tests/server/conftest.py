"""A server of a small bundle, shared by the tests that change nothing."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from raydistill.server.app import create_app
from raydistill.server.limits import Settings
from raydistill.serving.scorer import Scorer
from tests.helpers.server import Client, golden_bundle, served


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return golden_bundle(tmp_path_factory.mktemp("bundles") / "one")


@pytest.fixture(scope="session")
def scorer(bundle: Path) -> Scorer:
    return Scorer.load(bundle)


@pytest.fixture(scope="session")
def address(bundle: Path) -> Iterator[str]:
    with served(
        create_app(bundle, settings=Settings(max_titles=1_000, max_body_bytes=1 << 20))
    ) as at:
        yield at


@pytest.fixture(scope="session")
def explains(scorer: Scorer) -> None:
    """The functions that read texts are compiled: on a new machine that takes a minute."""
    from raydistill.serving.explanation.attribution import Explainer

    Explainer(scorer).explain("grey sofa", "Sofa")


@pytest.fixture
def client(address: str) -> Iterator[Client]:
    client = Client(address)
    yield client
    client.close()
