"""The user's cache folder: its location and its permitted owners."""

import os
import tempfile
from pathlib import Path

import pytest

from raydistill.serving.machine_code.cache_folder import _temporary


def temporary_place() -> Path:
    """The folder that holds the one made where there is no home."""
    folder = _temporary("compiled-1")
    assert folder is not None
    return folder.parent


def test_folders_of_others_are_not_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    base = tmp_path / f"raydistill-{os.getuid()}"
    assert temporary_place() == base

    base.chmod(0o770)  # whoever may write there could leave code
    assert temporary_place() == tmp_path
    base.chmod(0o700)

    mine = base.rename(tmp_path / "mine")
    base.symlink_to(mine)
    assert temporary_place() == tmp_path

    base.unlink()
    base.write_text("")
    assert temporary_place() == tmp_path

    base.unlink()
    mine.rename(base)
    monkeypatch.setattr(os, "getuid", lambda: 12_345)
    foreign = tmp_path / "raydistill-12345"
    foreign.mkdir(mode=0o700)
    os.chown(foreign, 54_321, -1) if os.geteuid() == 0 else None
    assert temporary_place() == tmp_path
