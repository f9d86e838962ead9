"""Moved raw files are recognised, and changed files of the same size are detected."""

import gzip
import hashlib
import os
import shutil
import time
import tracemalloc
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raydistill.config.data import JudgedConfig, PairsConfig
from raydistill.data import identities as identity
from raydistill.data.manifest import (
    Manifest,
    RawFile,
    check_unchanged,
    find_files,
    read_identities,
    unknown_files,
)
from raydistill.errors import UserError
from raydistill.files.folder import Folder

JUDGED, PAIRS = "judged", "pairs"
OLD_S = 3_600


def found(path: Path | str, dataset: str = PAIRS) -> list[RawFile]:
    kind = JudgedConfig if dataset == JUDGED else PairsConfig
    return find_files(kind.model_validate({"input": str(path)}))


def known(path: Path | str, dataset: str = PAIRS) -> list[RawFile]:
    """The files as prepare remembers them."""
    return unknown_files([], found(path, dataset))


def rows(text: str, num: int = 20_000) -> str:
    """A CSV of judged rows, the one in the middle with a text of its own."""
    lines = [f"sofa {at:05d},grey sofa,1" for at in range(num)]
    lines[num // 2] = text
    return "query,title,label\n" + "\n".join(lines) + "\n"


def settle(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let files that were written just now count as settled."""
    monkeypatch.setattr(identity, "_TICK_NS", -1_000_000_000)
    monkeypatch.setattr(identity, "_CLOCKS_APART_NS", -2 * 1_000_000_000)


def write_csv(path: Path, label: int) -> None:
    path.write_text(rows(f"tap,a tap,{label}"))


def write_gzip(path: Path, label: int) -> None:
    path.write_bytes(gzip.compress(rows(f"tap,a tap,{label}").encode(), 0, mtime=0))


def write_parquet(path: Path, label: int) -> None:
    labels = [1] * 20_000
    labels[10_000] = label
    table = pa.table({"query": ["a"] * 20_000, "title": ["b"] * 20_000, "label": labels})
    pq.write_table(table, path, compression="none", use_dictionary=False, write_statistics=False)


WRITERS = {"a.csv": write_csv, "a.csv.gz": write_gzip, "a.parquet": write_parquet}


@pytest.mark.parametrize("is_settled", [False, True])
@pytest.mark.parametrize("dataset", [JUDGED, PAIRS])
@pytest.mark.parametrize("name", WRITERS)
def test_a_label_corrected_in_place_is_found(
    name: str, dataset: str, is_settled: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if is_settled:
        settle(monkeypatch)
    path, write = tmp_path / name, WRITERS[name]
    write(path, 0)
    files, before = known(path, dataset), os.stat(path)
    assert bool(files[0].stamp) == is_settled
    write(path, 1)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert os.stat(path).st_size == before.st_size
    with pytest.raises(UserError, match=f"{name} has changed since it was prepared: give new rows"):
        check_unchanged(files, found(path, dataset))


def test_a_file_put_in_the_place_of_another_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settle(monkeypatch)
    for name, label in (("a.csv", 0), ("b.csv", 1)):
        write_csv(tmp_path / name, label)
        os.utime(tmp_path / name, (1, 1))
    files = known(tmp_path / "a.csv")
    os.replace(tmp_path / "b.csv", tmp_path / "a.csv")
    with pytest.raises(UserError, match="has changed"):
        check_unchanged(files, found(tmp_path / "a.csv"))


@pytest.mark.parametrize("dataset", [JUDGED, PAIRS])
def test_a_touched_moved_or_copied_file_is_the_same(dataset: str, tmp_path: Path) -> None:
    path = tmp_path / "1" / "a.csv"
    path.parent.mkdir()
    write_csv(path, 0)
    files = known(path, dataset)
    os.utime(path, (1, 1))
    path.chmod(0o600)
    current = check_unchanged(files, found(path, dataset))
    assert [file.identity for file in current] == [file.identity for file in files]
    assert current[0].mtime_ns == 10**9
    copy = Path(shutil.copytree(path.parent, tmp_path / "2")) / "b.csv"
    (copy.parent / "a.csv").rename(copy)
    assert unknown_files(files, found(copy, dataset)) == []
    assert len(unknown_files(files, [*found(path, dataset), *found(copy, dataset)])) == 1


def test_an_unchanged_file_is_not_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settle(monkeypatch)
    write_csv(tmp_path / "a.csv", 0)
    files = known(tmp_path)
    monkeypatch.setattr(hashlib, "file_digest", None)  # a look would fail
    assert check_unchanged(files, found(tmp_path)) == files
    os.utime(tmp_path / "a.csv", (1, 1))
    with pytest.raises(TypeError):
        check_unchanged(files, found(tmp_path))


def test_a_file_that_changed_just_now_has_no_stamp_to_trust(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    write_csv(path, 0)
    os.utime(path, (1, 1))  # the time of the inode is still that of the clock
    assert known(path)[0].stamp == ""


@pytest.fixture
def large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that is too large to be read whole."""
    monkeypatch.setattr(identity, "WHOLE_BYTES", 1 << 10)
    path = tmp_path / "large.csv"
    write_csv(path, 0)
    os.utime(path, (OLD_S, OLD_S))
    return path


def test_a_large_file_is_known_by_size_time_and_blocks(large: Path) -> None:
    files = known(large)
    assert files[0].digest.startswith(f"blocks:{OLD_S * 10**9}:")
    large.chmod(0o600)
    assert check_unchanged(files, found(large))[0].identity == files[0].identity
    moved = large.rename(large.with_name("moved.csv"))
    assert unknown_files(files, found(moved)) == []
    moved.rename(large)
    write_csv(large, 1)
    with pytest.raises(UserError, match=r"known by its time too.*touch -d @3600\.000000000\)"):
        check_unchanged(files, found(large))
    os.utime(large, (OLD_S, OLD_S))
    head = large.read_text().replace("query", "QUERY", 1)  # in one of the blocks
    large.write_text(head)
    os.utime(large, (OLD_S, OLD_S))
    with pytest.raises(UserError, match="has changed"):
        check_unchanged(files, found(large))


def test_a_large_judged_file_is_read_whole(large: Path) -> None:
    files = known(large, JUDGED)
    write_csv(large, 1)
    os.utime(large, (OLD_S, OLD_S))
    with pytest.raises(UserError, match="has changed"):
        check_unchanged(files, found(large, JUDGED))


def test_digests_of_two_kinds_are_never_equal(large: Path) -> None:
    kinds = {known(large, dataset)[0].digest.partition(":")[0] for dataset in (JUDGED, PAIRS)}
    assert kinds == {"content", "blocks"}


@pytest.mark.slow
def test_a_large_judged_file_takes_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"query,title,label\n")
    os.truncate(path, 65 << 20)
    file = found(path, JUDGED)[0]
    tracemalloc.start()
    identity.look_at(file.input, whole=True)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 4 << 20


@pytest.fixture
def bucket(s3: str, tmp_path: Path) -> Folder:
    return Folder(s3) / f"manifest-{tmp_path.name}"


def put_whole(uri: str, content: bytes) -> None:
    import boto3

    bucket, _, key = uri.removeprefix("s3://").partition("/")
    boto3.client("s3").put_object(Bucket=bucket, Key=key, Body=content)


@pytest.mark.server
@pytest.mark.parametrize("dataset", [JUDGED, PAIRS])
def test_an_object_put_again_within_the_second_is_found(dataset: str, bucket: Folder) -> None:
    place = f"{bucket}/a.csv"
    bucket.write_bytes("a.csv", rows("tap,a tap,0").encode())
    files = known(place, dataset)
    assert files[0].digest.startswith("content:" if dataset == JUDGED else "etag:")
    assert [file.identity for file in known(place, dataset)] == [files[0].identity]
    check_unchanged(files, found(place, dataset))
    bucket.write_bytes("a.csv", rows("tap,a tap,1").encode())
    with pytest.raises(UserError, match=r"a\.csv has changed since it was prepared"):
        check_unchanged(files, found(place, dataset))


@pytest.mark.server
@pytest.mark.parametrize("dataset", [JUDGED, PAIRS])
def test_an_object_put_again_later_is_found_by_its_time(
    dataset: str, bucket: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    settle(monkeypatch)
    bucket.write_bytes("a.csv", rows("tap,a tap,0").encode())
    files = known(f"{bucket}/a.csv", dataset)
    assert files[0].stamp == str(files[0].mtime_ns) != "0"
    time.sleep(1.1)  # S3's clock shows seconds
    bucket.write_bytes("a.csv", rows("tap,a tap,1").encode())
    with pytest.raises(UserError, match="has changed"):
        check_unchanged(files, found(f"{bucket}/a.csv", dataset))


@pytest.mark.server
@pytest.mark.parametrize("dataset", [JUDGED, PAIRS])
def test_an_object_put_again_or_moved_is_the_same(dataset: str, bucket: Folder) -> None:
    """Of an object put whole; the ETag of one that was put in parts goes by its parts."""
    content = rows("tap,a tap,0").encode()
    put_whole(f"{bucket}/a.csv", content)
    files = known(f"{bucket}/a.csv", dataset)
    put_whole(f"{bucket}/a.csv", content)
    check_unchanged(files, found(f"{bucket}/a.csv", dataset))
    bucket.filesystem.copy_file(bucket.path("a.csv"), bucket.path("moved/b.csv"))
    assert unknown_files(files, found(f"{bucket}/moved", dataset)) == []


@pytest.mark.server
def test_judged_rows_are_the_same_on_a_disk_and_in_a_bucket(bucket: Folder, tmp_path: Path) -> None:
    write_csv(tmp_path / "a.csv", 0)
    bucket.write_bytes("b.csv", (tmp_path / "a.csv").read_bytes())
    assert unknown_files(known(tmp_path, JUDGED), found(f"{bucket}/b.csv", JUDGED)) == []


def test_an_object_without_an_etag_has_another_name() -> None:
    version = {"VersionId": b"7", "Last-Modified": b"now"}
    assert identity._tag({"ETag": b'"1-2"', **version}) == "etag:1-2"
    assert identity._tag(version) == "version:7"
    assert identity._tag({"Last-Modified": b"now"}) == "modified:now"
    assert identity._tag({}) is None


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    write_csv(tmp_path / "a.csv", 0)
    files = known(tmp_path)
    listed = found(tmp_path)
    (tmp_path / "a.csv").unlink()
    with pytest.raises(UserError, match=r"cannot read .*a\.csv"):
        check_unchanged(files, listed)
    with pytest.raises(UserError, match=r"cannot read .*a\.csv"):
        read_identities(listed)


def test_what_is_written_is_read_and_another_version_is_refused(tmp_path: Path) -> None:
    write_csv(tmp_path / "a.csv", 0)
    manifest = Manifest({"pairs": {}}, (tuple(known(tmp_path, JUDGED)),), (), ("a.csv",))
    root = Folder(str(tmp_path / "run"))
    assert Manifest.read(root) is None
    root.write_json("prepare.json", manifest.to_dict())
    assert Manifest.read(root) == manifest
    older = {"settings": {}, "judged": [], "pairs": [], "patterns": []}
    for content in (older, {**manifest.to_dict(), "format": 3}):
        root.write_json("prepare.json", content)
        with pytest.raises(UserError, match=r"of another version.*give another run_dir"):
            Manifest.read(root)
