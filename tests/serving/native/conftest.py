"""The library of this machine, emitted once and then read from the cache."""

import pytest

from raydistill.serving.native.build import built_library, own_target
from raydistill.serving.native.layout import aligned
from raydistill.serving.native.library import Library, Model
from tests.serving.native.cases import default_model


@pytest.fixture(scope="session")
def target() -> str:
    target = own_target()
    if target is None:
        pytest.skip("there is no library for this CPU")
    return target


@pytest.fixture(scope="session")
def library(target: str) -> Library:
    return Library(built_library(target))


@pytest.fixture(scope="session")
def checked_library(target: str) -> Library:
    """The library with a check of every index."""
    return Library(built_library(target, checked=True))


@pytest.fixture(scope="session")
def model(library: Library) -> Model:
    return Model(aligned(default_model()), library)
