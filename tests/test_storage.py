import pickle
from pathlib import Path

import pyarrow as pa
import pytest

from raydistill.errors import UserError
from raydistill.storage import Folder, model_fingerprint


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


def test_a_readme_does_not_change_a_model(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    before = model_fingerprint(tmp_path)
    (tmp_path / "README.md").write_text("hello")
    assert model_fingerprint(tmp_path) == before


def test_an_unknown_scheme_is_an_error() -> None:
    with pytest.raises(UserError, match="ftp://host/x"):
        Folder("ftp://host/x").exists()
