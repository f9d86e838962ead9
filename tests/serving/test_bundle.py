"""A bundle is complete and of one export, also if another is written during the load."""

import json
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raydistill.errors import UserError
from raydistill.files.folder import Folder
from raydistill.serving.bundle import (
    ARRAYS,
    BUNDLE,
    CARD,
    CURRENT,
    GOLDEN,
    bundle_files,
    bundle_fingerprint,
    read_bundle,
)
from raydistill.serving.feature_spec import FORMAT
from raydistill.stages.export import _point_to


def made(number: int) -> tuple[str, dict[str, bytes]]:
    """A bundle whose settings and arrays both say a number."""
    settings = {"format": FORMAT, "number": number}
    arrays = {"embedding": np.full((50, 8), number, np.float32)}
    golden = [{"query": "a", "title": "b", "score": 0.5}]
    return bundle_files(settings, arrays, golden=golden, card="# A card")


def write(folder: Folder, files: dict[str, bytes]) -> None:
    for name, data in files.items():
        folder.write_bytes(name, data)


def test_every_file_holds_the_fingerprint(tmp_path: Path) -> None:
    name, files = made(1)
    write(Folder(str(tmp_path)), files)
    settings, arrays = read_bundle(tmp_path)
    assert settings["fingerprint"] == name and settings["number"] == 1
    assert list(arrays) == ["embedding"]
    with np.load(tmp_path / ARRAYS) as stored:
        assert bytes(stored["fingerprint"]).decode() == name
    assert json.loads(files[GOLDEN])["fingerprint"] == name and name.encode() in files[CARD]
    assert made(1) == (name, files)  # the same content, the same bytes


@pytest.mark.parametrize("changed", ["settings", "values", "shape", "dtype", "name"])
def test_the_fingerprint_is_of_all_that_decides_a_score(changed: str) -> None:
    def of(number: int, array: np.ndarray[Any, Any], name: str = "a") -> str:
        return bundle_fingerprint({"number": number}, {name: array})

    array = np.arange(6, dtype=np.float32)
    others = {
        "settings": of(2, array),
        "values": of(1, array + 1),
        "shape": of(1, array.reshape(2, 3)),
        "dtype": of(1, array.view(np.int32)),
        "name": of(1, array, "b"),
    }
    assert others[changed] != of(1, array)


@pytest.mark.parametrize("other", [BUNDLE, ARRAYS, GOLDEN])
def test_files_of_two_bundles_are_refused(tmp_path: Path, other: str) -> None:
    (one, files), (two, others) = made(1), made(2)
    write(Folder(str(tmp_path)), {**files, other: others[other]})
    with pytest.raises(UserError, match="are not of one bundle") as told:
        read_bundle(tmp_path)
    assert one in str(told.value) and two in str(told.value) and other in str(told.value)


def test_a_file_without_a_fingerprint_is_refused(tmp_path: Path) -> None:
    write(Folder(str(tmp_path)), made(1)[1])
    np.savez(tmp_path / ARRAYS, embedding=np.ones((50, 8), np.float32))
    with pytest.raises(UserError, match=r"arrays\.npz is of none"):
        read_bundle(tmp_path)


def test_scores_need_no_golden_pairs(tmp_path: Path) -> None:
    write(Folder(str(tmp_path)), made(1)[1])
    (tmp_path / GOLDEN).unlink()
    assert read_bundle(tmp_path)[0]["number"] == 1


@pytest.mark.parametrize("content", ["{}", '{"bundle": "../elsewhere"}'])
def test_a_pointer_that_names_no_bundle(tmp_path: Path, content: str) -> None:
    (tmp_path / CURRENT).write_text(content)
    with pytest.raises(UserError, match=r"current\.json names no bundle"):
        read_bundle(tmp_path)


def test_the_newest_is_read_and_the_last_three_are_kept(tmp_path: Path) -> None:
    run = Folder(str(tmp_path / "run"))
    run.claim("run")
    bundles, names = run / "bundle", []
    for number in (1, 2, 3, 2, 4, 5):
        name, files = made(number)
        write(bundles / name, files)
        _point_to(bundles, name)
        names.append(name)
        assert read_bundle(Path(bundles.uri))[0]["number"] == number
    there = sorted(p.name for p in Path(bundles.uri).iterdir() if p.is_dir())
    assert there == sorted([names[5], names[4], names[3]])
    assert read_bundle(Path(bundles.uri) / names[3])[0]["number"] == 2  # by its own name


def test_a_server_that_loads_meanwhile_gets_one_bundle(tmp_path: Path) -> None:
    run = Folder(str(tmp_path / "run"))
    run.claim("run")
    exported = [made(number) for number in range(3)]
    over = threading.Event()

    def export() -> None:
        while not over.is_set():
            for name, files in exported:
                write(run / "bundle" / name, files)
                _point_to(run / "bundle", name)

    first, files = exported[0]
    write(run / "bundle" / first, files)
    _point_to(run / "bundle", first)
    thread = threading.Thread(target=export)
    thread.start()
    try:
        seen, start_s = set(), time.monotonic()
        while len(seen) < 3 and time.monotonic() - start_s < 30:
            settings, arrays = read_bundle(Path((run / "bundle").uri))
            assert set(arrays["embedding"].ravel()) == {settings["number"]}
            seen.add(settings["number"])
    finally:
        over.set()
        thread.join()
    assert len(seen) == 3
