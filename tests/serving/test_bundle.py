"""A bundle is complete and of one export, also if another is written during the load."""

import json
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from raydistill.errors import UserError
from raydistill.files.folder import Folder
from raydistill.serving.bundle import (
    BUNDLE,
    BUNDLE_FORMAT,
    CARD,
    CURRENT,
    GOLDEN,
    MODEL,
    bundle_files,
    read_bundle,
)
from raydistill.serving.feature_spec import NgramSpec
from raydistill.serving.lexicon import Lexicon
from raydistill.serving.native.emit.model_file import model_bytes
from raydistill.serving.native.layout import describe
from raydistill.serving.scorer import Scorer
from raydistill.stages.export import _point_to


@cache
def model(number: int, *, temperature: float = 1.0) -> bytes:
    """A model file whose table holds a number."""
    spec = NgramSpec("bert2dnn", 8)
    settings = {"ngrams": asdict(spec), "temperature": temperature, "threshold": 0.5,
                "max_query_chars": 50, "max_title_chars": 50}  # fmt: skip
    arrays = {
        "embedding": np.full((256, 2), number, np.float32),
        **Lexicon.from_idf(np.ones(1, np.float32)).to_arrays(),
        **{name: np.empty(0, np.float32) for name in ("dense_mean", "dense_std")},
        **{"weight_0": np.ones((1, 2), np.float32), "bias_0": np.zeros(1, np.float32)},
    }
    return model_bytes(settings, arrays)


def made(number: int) -> tuple[str, dict[str, bytes]]:
    """A bundle whose settings and model both say a number."""
    settings = {"format": BUNDLE_FORMAT, "number": number}
    golden = [{"query": "a", "title": "b", "score": 0.5}]
    return bundle_files(settings, model(number), golden=golden, card="# A card")


def write(folder: Folder, files: dict[str, bytes]) -> None:
    for name, data in files.items():
        folder.write_bytes(name, data)


def test_every_file_belongs_to_the_bundle(tmp_path: Path) -> None:
    name, files = made(1)
    write(Folder(str(tmp_path)), files)
    settings, mapped = read_bundle(tmp_path)
    assert settings["fingerprint"] == name and settings["number"] == 1
    assert mapped.tobytes() == model(1)
    found = {"bytes": len(mapped), "checksum": f"{describe(mapped)['checksum']:016x}"}
    assert settings["model"] == found
    assert json.loads(files[GOLDEN])["fingerprint"] == name and name.encode() in files[CARD]
    assert made(1) == (name, files)  # the same content, the same bytes


def test_the_fingerprint_is_of_all_that_decides_a_score() -> None:
    def of(number: int, content: bytes) -> str:
        settings = {"format": BUNDLE_FORMAT, "number": number}
        return bundle_files(settings, content, golden=[], card="")[0]

    others = {of(1, model(1)), of(2, model(1)), of(1, model(2)), of(1, model(1, temperature=2.0))}
    assert len(others) == 4


@pytest.mark.parametrize("other", [BUNDLE, MODEL, GOLDEN])
def test_files_of_two_bundles_are_refused(tmp_path: Path, other: str) -> None:
    (_, files), (_, others) = made(1), made(2)
    write(Folder(str(tmp_path)), {**files, other: others[other]})
    with pytest.raises(UserError, match="are not of one bundle") as told:
        read_bundle(tmp_path)
    assert (other if other != BUNDLE else MODEL) in str(told.value)


def test_a_bundle_of_another_version_is_refused(tmp_path: Path) -> None:
    write(Folder(str(tmp_path)), made(1)[1])
    settings = json.loads((tmp_path / BUNDLE).read_text())
    (tmp_path / BUNDLE).write_text(json.dumps({**settings, "format": 9}))
    with pytest.raises(UserError, match="bundle format 9; this raydistill reads 11"):
        read_bundle(tmp_path)


@pytest.mark.parametrize("changed", [{"number": 2}, {"model": None}, {"fingerprint": "0" * 16}])
def test_settings_that_were_changed_are_refused(tmp_path: Path, changed: dict[str, object]) -> None:
    """The native library reads the model file alone; numba would read other settings."""
    write(Folder(str(tmp_path)), made(1)[1])
    settings = json.loads((tmp_path / BUNDLE).read_text())
    (tmp_path / BUNDLE).write_text(json.dumps({**settings, **changed}))
    with pytest.raises(UserError, match=r"bundle\.json was changed after the export"):
        read_bundle(tmp_path)


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "cut": lambda data: data[: len(data) // 2], "empty": lambda data: b"",
    "text": lambda data: b"{}", "zeros": lambda data: bytes(len(data)),
    "another size": lambda data: data[:16] + b"\1" + data[17:],
}  # fmt: skip


@pytest.mark.parametrize("name", [*DAMAGE, "missing"])
def test_a_damaged_model_is_a_users_error(name: str, tmp_path: Path) -> None:
    write(Folder(str(tmp_path)), made(1)[1])
    if name == "missing":
        (tmp_path / MODEL).unlink()
    else:
        (tmp_path / MODEL).write_bytes(DAMAGE[name](model(1)))
    with pytest.raises(UserError, match=r"bundle|no model file|export it again"):
        Scorer.load(tmp_path)


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
            settings, mapped = read_bundle(Path((run / "bundle").uri))
            assert mapped.tobytes() == model(settings["number"])
            seen.add(settings["number"])
    finally:
        over.set()
        thread.join()
    assert len(seen) == 3


@pytest.mark.parametrize(
    "content", [b"", b"[1]", b"null", b'"x"', b'{"format": ', b"\xff\xfe", b"{}", b"NaN"]
)
def test_a_damaged_bundle_json_is_a_users_error(content: bytes, tmp_path: Path) -> None:
    (tmp_path / MODEL).write_bytes(model(1))
    (tmp_path / BUNDLE).write_bytes(content)
    with pytest.raises(UserError, match=r"bundle\.json|bundle format None"):
        Scorer.load(tmp_path)


def test_golden_pairs_are_not_read_to_load(tmp_path: Path) -> None:
    """Half a megabyte of JSON would be most of the time of a load."""
    for name, content in made(1)[1].items():
        (tmp_path / name).write_bytes(content[:-20] if name == "golden.json" else content)
    assert read_bundle(tmp_path)[0]["format"] == BUNDLE_FORMAT
