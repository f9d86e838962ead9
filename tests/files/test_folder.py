import os
import pickle
import signal
import threading
import time
from pathlib import Path

import pyarrow as pa
import pytest
from fsspec.implementations.local import LocalFileSystem
from pyarrow import fs

from raydistill.errors import UserError
from raydistill.files.folder import MARKER, Folder
from raydistill.files.model_files import model_fingerprint


@pytest.fixture(params=["local", pytest.param("s3", marks=pytest.mark.server)])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Folder:
    if request.param == "local":
        return Folder(str(tmp_path / "run"))
    return Folder(request.getfixturevalue("s3")) / f"storage-{tmp_path.name}"


def test_what_is_written_is_read(folder: Folder) -> None:
    rows = pa.table({"a": [1, 2, 3], "b": ["x", "y", "z"]})
    (folder / "pairs").write_table("part-00000.parquet", rows)
    assert (folder / "pairs").read_table("part-00000.parquet").equals(rows)
    assert (folder / "pairs").read_table("part-00000.parquet", columns=["b"]).column_names == ["b"]
    folder.write_json("x.json", {"n": 1})
    assert folder.read_json("x.json") == {"n": 1}
    assert folder.read_json("none.json") is None


def test_shards_are_whole_files_only(folder: Folder) -> None:
    assert folder.shards() == []
    for name in ("part-1.parquet", "part-0.parquet", ".part-2.parquet.tmp", "_SUCCESS.json"):
        folder.write_bytes(name, b"x")
    assert folder.shards() == ["part-0.parquet", "part-1.parquet"]


def test_same_rows_same_bytes(folder: Folder) -> None:
    rows = pa.table({"a": list(range(1000))})
    folder.write_table("a.parquet", rows)
    folder.write_table("b.parquet", rows)
    assert folder.read_bytes("a.parquet") == folder.read_bytes("b.parquet")


def test_bytes_are_written_as_they_are(folder: Folder) -> None:
    folder.write_bytes("x.gz", b"hello")  # Arrow would compress by the ending of the name
    assert folder.read_bytes("x.gz") == b"hello"


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path / "run"))
    folder.write_bytes("kept", b"old")
    with pytest.raises(TypeError):
        folder.write_bytes("kept", 7)  # type: ignore[arg-type]
    assert folder.read_bytes("kept") == b"old"
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["kept"]


def test_folders_travel_and_move(folder: Folder, tmp_path: Path) -> None:
    folder.claim("run")
    source = tmp_path / "model"
    (source / "sub").mkdir(parents=True)
    (source / "config.json").write_text("{}")
    (source / "sub" / "vocab.txt").write_text("a")
    target = pickle.loads(pickle.dumps(folder / "teacher"))
    target.upload(source)
    local = target.download()
    assert (local / "sub" / "vocab.txt").read_text() == "a"
    assert model_fingerprint(local) == model_fingerprint(source)
    target.write_bytes("config.json", b"{ }")
    assert model_fingerprint(target.download()) != model_fingerprint(source)
    target.delete()
    assert not target.exists()


def test_only_an_empty_folder_or_one_of_ours_is_claimed(folder: Folder) -> None:
    folder.check_claim("run")  # is not there yet
    (folder / "shop").write_bytes("pairs.csv", b"query,title")
    with pytest.raises(UserError, match=rf"no run folder of raydistill.*{MARKER}.*holds shop;"):
        folder.claim("run")
    assert not folder.exists(MARKER)
    ours = folder / "shop" / "run"
    ours.claim("run")
    ours.write_bytes("run.toml", b"")
    ours.claim("run")
    with pytest.raises(UserError, match="holds a run of layout 1, not a candidates"):
        ours.claim("candidates")
    if folder.is_local:
        with pytest.raises(UserError, match=r"lies in .*run, which raydistill made"):
            (ours / "pairs" / "inner").claim("run")
    ours.write_json(MARKER, {"kind": "run", "layout": 99})
    with pytest.raises(UserError, match="a run of layout 99, not a run of layout 1"):
        ours.claim("run")


@pytest.mark.parametrize("marker", [b"", b"[]", b"{"])
def test_a_damaged_marker_is_none(tmp_path: Path, marker: bytes) -> None:
    folder = Folder(str(tmp_path / "run"))
    folder.write_bytes(MARKER, marker)
    with pytest.raises(UserError, match="holds a None of layout None, not a run"):
        folder.claim("run")


def test_uris_have_one_form(tmp_path: Path) -> None:
    assert Folder(f"file://{tmp_path}/a%20b").uri == f"{tmp_path}/a b"
    assert Folder("s3://b/run/?endpoint_override=h").uri == "s3://b/run?endpoint_override=h"
    assert (Folder("s3://b/run/?region=r") / "pairs").uri == "s3://b/run/pairs?region=r"
    assert (Folder("s3://b/a?/") / "run").uri == "s3://b/a?/run"  # not an option
    (Folder(f"file://{tmp_path}") / "x").write_bytes("y", b"1")
    assert (tmp_path / "x" / "y").read_bytes() == b"1"


@pytest.mark.server
@pytest.mark.slow
@pytest.mark.usefixtures("interruptible")
def test_an_interrupted_write_is_whole_or_absent(s3: str) -> None:
    """Ctrl-C at some moment of a PUT of 8 MB."""
    folder = Folder(s3) / "interrupted"
    folder.write_bytes("first", b"x")
    data = bytes(8 << 20)
    main = threading.main_thread().ident
    for number in range(8):
        timer = threading.Timer(
            0.004 * number, lambda: signal.pthread_kill(main or 0, signal.SIGINT)
        )
        try:
            timer.start()
            folder.write_bytes(f"{number}", data)
            timer.join()  # the signal may come now
            time.sleep(0.05)
        except KeyboardInterrupt:
            pass
        time.sleep(0.1)  # what the server got of it
        assert f"{number}" not in folder.files() or folder.read_bytes(f"{number}") == data


def test_hidden_files_and_what_a_new_disk_has_are_no_content(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    (disk / "lost+found").mkdir(parents=True)
    (disk / ".DS_Store").write_text("")
    Folder(str(disk)).claim("run")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file is a file; give a folder"):
        Folder(str(tmp_path / "file")).claim("run")


def test_nothing_is_deleted_outside_of_a_marked_folder(folder: Folder) -> None:
    for place in (folder / "pairs", folder / "run" / "pairs", folder / "run"):
        place.write_bytes("part-00000.parquet", b"x")
        with pytest.raises(UserError, match=rf"no folder that raydistill made.*{MARKER}"):
            place.delete()
        with pytest.raises(UserError, match=r"part-00000.* is not deleted"):
            place.delete_file("part-00000.parquet")
    (folder / "run").write_json(MARKER, {"kind": "run", "layout": 1})
    with pytest.raises(UserError, match="is not deleted"):
        (folder / "run").delete()  # not the run folder itself
    (folder / "run").delete_file("part-00000.parquet")
    (folder / "run" / "pairs").delete()
    assert (folder / "run").files() == [MARKER]
    assert (folder / "pairs").shards() == ["part-00000.parquet"]


def test_a_link_out_of_a_marked_folder_is_not_followed_by_delete(tmp_path: Path) -> None:
    run, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "precious").write_text("x")
    Folder(str(run)).claim("run")
    (run / "pairs").symlink_to(elsewhere)
    with pytest.raises(UserError, match="is not deleted"):
        (Folder(str(run)) / "pairs").delete()
    assert (elsewhere / "precious").exists()


def test_a_file_is_on_the_disk_before_its_name_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file, the rename, the folder: in this order, and new folders too."""
    steps: list[str] = []
    sync, replace = os.fsync, os.replace

    def synced(handle: int) -> None:
        name = Path(os.readlink(f"/proc/self/fd/{handle}")).relative_to(tmp_path).as_posix()
        steps.append(f"sync {name.rpartition('/')[2].split('.')[1] if '.tmp' in name else name}")
        sync(handle)

    def renamed(source: Path, target: Path) -> None:
        steps.append(f"rename to {target.name}")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", renamed)
    Folder(str(tmp_path / "a" / "b")).write_bytes("shard", b"x")
    assert steps == ["sync .", "sync a", "sync shard", "rename to shard", "sync a/b"]


def test_a_readme_does_not_change_a_model(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    before = model_fingerprint(tmp_path)
    (tmp_path / "README.md").write_text("hello")
    assert model_fingerprint(tmp_path) == before


def test_an_unknown_scheme_is_an_error() -> None:
    with pytest.raises(UserError, match="ftp://host/x"):
        Folder("ftp://host/x").exists()


def test_a_file_that_a_stage_should_have_left_is_named(folder: Folder) -> None:
    with pytest.raises(UserError, match=r"has no result\.json, which `train` writes: delete"):
        folder.require_json("result.json", stage="train")
    folder.write_json("result.json", {"pairs": 1})
    assert folder.require_json("result.json", stage="train") == {"pairs": 1}


class _LateStore(fs.FSSpecHandler):
    """Says that a folder is there whose last object is gone."""

    def get_file_info(self, paths: list[str]) -> list[fs.FileInfo]:
        return [fs.FileInfo(path, fs.FileType.Directory) for path in paths]


def test_a_folder_that_is_gone_already_is_deleted(tmp_path: Path) -> None:
    """As SeaweedFS said after a kill in the middle of a deletion: each start of the job failed."""
    root = Folder(str(tmp_path))
    root.claim("run")
    late = fs.PyFileSystem(_LateStore(LocalFileSystem()))
    folder = root / "gone"
    folder.__dict__["_place"] = (late, folder.uri)
    folder.delete()
    assert not (tmp_path / "gone").exists()
