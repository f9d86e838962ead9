"""Local copies of remote folders: complete, and within the size limit."""

import os
import time
from pathlib import Path

import pytest

from raydistill.errors import UserError
from raydistill.files.copies import MAX_GIB, cached_copy, copies_folder, max_cache_bytes, trim
from raydistill.files.folder import Folder


def entry(folder: Path, name: str, *, num_bytes: int, hours_ago: float) -> Path:
    (folder / name / "model").mkdir(parents=True)
    (folder / name / "model" / "weights").write_bytes(b"x" * num_bytes)
    then_s = time.time() - 3_600 * hours_ago
    os.utime(folder / name, (then_s, then_s))
    return folder / name


def test_the_least_used_copies_go_first(tmp_path: Path) -> None:
    old, older, recent, kept = (
        entry(tmp_path, name, num_bytes=1_000, hours_ago=hours)
        for name, hours in {"old": 30, "older": 40, "recent": 0.5, "kept": 50}.items()
    )
    trim(tmp_path, max_bytes=3_500, keep=kept)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["kept", "old", "recent"]
    trim(tmp_path, max_bytes=0, keep=kept)  # what was used within the hour may be being read
    assert sorted(p.name for p in tmp_path.iterdir()) == ["kept", "recent"]
    assert not old.exists() and not older.exists() and recent.exists()


def test_a_copy_is_made_once_and_a_failed_one_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    calls = []

    def copy(target: Path) -> None:
        calls.append(target)
        (target / "x").write_text("1")
        if len(calls) == 1:
            raise OSError("cut off")

    with pytest.raises(OSError, match="cut off"):
        cached_copy("key", copy)
    assert list(copies_folder().iterdir()) == []
    first = cached_copy("key", copy)
    assert cached_copy("key", copy) == first == copies_folder() / "key"
    assert len(calls) == 2


def test_a_new_copy_pushes_out_old_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv(MAX_GIB, "0.000001")  # 1,073 bytes
    old = entry(copies_folder(), "old", num_bytes=1_000, hours_ago=2)
    new = cached_copy("new", lambda target: (target / "x").write_bytes(b"x" * 500) and None)
    assert new.exists() and not old.exists()
    for given in ("much", "inf", "nan"):
        monkeypatch.setenv(MAX_GIB, given)
        with pytest.raises(UserError, match=f"RAYDISTILL_CACHE_GIB = '{given}'"):
            max_cache_bytes()


def test_there_may_be_no_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", "/proc/nowhere")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    assert cached_copy("key", lambda target: None).is_relative_to(tmp_path)


@pytest.mark.server
def test_a_folder_that_changes_while_it_is_copied_is_no_copy(
    s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bundle or a model that is written meanwhile: its files may be of two."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = Folder(s3) / "changing"
    folder.write_bytes("a", b"old")

    def copy(*arguments: object, **options: object) -> None:
        (tmp_path / "copied").touch()
        folder.write_bytes("b", b"new")

    monkeypatch.setattr("pyarrow.fs.copy_files", copy)
    with pytest.raises(UserError, match="changed while it was copied"):
        folder.download()
    assert list(copies_folder().iterdir()) == []
