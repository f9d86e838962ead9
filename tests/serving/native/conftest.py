"""The library of this machine, emitted once and then read from the cache."""

from pathlib import Path

import pytest

from raydistill.serving.native.build import (
    built_libraries,
    built_library,
    own_target,
    own_targets,
)
from raydistill.serving.native.layout import aligned
from raydistill.serving.native.library import Library, Model
from tests.serving.native.cases import default_model

ARM64 = ("linux-aarch64", "linux-aarch64-dot")


@pytest.fixture(scope="session")
def target() -> str:
    target = own_target()
    if target is None:
        pytest.skip("there is no library for this CPU")
    return target


@pytest.fixture(scope="session")
def libraries(target: str) -> dict[str, Path]:
    """Files by target, of this machine and of arm64; emitted together."""
    return built_libraries([*own_targets(), *ARM64])


@pytest.fixture(scope="session")
def library(libraries: dict[str, Path], target: str) -> Library:
    return Library(libraries[target])


@pytest.fixture(scope="session")
def checked_library(target: str) -> Library:
    """The library with a check of every index."""
    return Library(built_library(target, checked=True))


@pytest.fixture(scope="session")
def model(library: Library) -> Model:
    return Model(aligned(default_model()), library)
