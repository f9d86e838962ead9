"""A bundle with golden pairs, and a folder with the library and its header."""

from pathlib import Path

import pytest

from raydistill.serving.bundle import BUNDLE_FORMAT, bundle_files
from raydistill.serving.native import build
from raydistill.serving.native.emit.model_file import model_bytes
from raydistill.serving.native.layout import aligned
from raydistill.serving.scorer import Scorer
from tests.serving.native.cases import EXTREME, odd_pairs, random_bundle

ESCAPED = [  # what needs an escape, and what looks like one
    ("grey\tsofa\n", "a sofa,\r\ngrey\t"), ("\0sofa\0", "so\0fa"), ("\\", "\\t\\n\\\\sofa \\\t"),
    ("\\0", "C:\\new\\table"), ("AT&amp;T", "caf\u00e9 \ufb01ne &#x1F6CB; 5' 6\" rug"),
]  # fmt: skip


@pytest.fixture(scope="session")
def bundle_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of random numbers, whose golden pairs are odd texts; made without training."""
    settings, arrays = random_bundle(word_dim=8, units=True)
    settings |= {"format": BUNDLE_FORMAT}
    model = model_bytes(settings, arrays)
    pairs = [*ESCAPED, *EXTREME, *odd_pairs(180)]
    queries, titles = zip(*pairs, strict=True)
    scores = Scorer(settings, aligned(model)).score_pairs(queries, titles)
    golden = [
        {"query": query, "title": title, "score": float(f"{score:.7g}")}
        for (query, title), score in zip(pairs, scores, strict=True)
    ]
    folder = tmp_path_factory.mktemp("bundle")
    for name, data in bundle_files(settings, model, golden=golden, card="")[1].items():
        (folder / name).write_bytes(data)
    return folder


@pytest.fixture(scope="session")
def native_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `raydistill.h` and this machine's `libraydistill.so`."""
    if build.own_target() is None:
        pytest.skip("there is no library for this CPU")
    folder = tmp_path_factory.mktemp("native")
    if build.copy_library(folder).suffix == ".o":
        pytest.skip("no linker made a library on this machine")
    return folder
