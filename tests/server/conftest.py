"""A server of a small bundle, shared by the tests that change nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from raydistill.server.app import create_app
from raydistill.server.limits import Settings
from raydistill.serving.scorer import Scorer
from tests.helpers import chromium
from tests.helpers.bundles import make_overlap_bundle
from tests.helpers.page_case import golden, sigmoid
from tests.helpers.server import Client, golden_bundle, served, served_bundle

if TYPE_CHECKING:
    from playwright.sync_api import Browser


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


@pytest.fixture(scope="module")
def overlap(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle whose score is sigmoid(4 x share of the query's words in the title)."""
    pairs = [
        golden("oak table", title, sigmoid(4 * share))
        for title, share in (("table of oak", 1), ("table", 0.5), ("sofa", 0))
    ]
    folder = tmp_path_factory.mktemp("bundles") / "overlap"
    return make_overlap_bundle(folder, weight=4.0, golden=[*pairs, golden("lone", "sofa", 0.5)])


@pytest.fixture(scope="module")
def url(overlap: Path) -> Iterator[str]:
    with served_bundle(overlap) as found:
        yield found


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    yield from chromium.browsers()
