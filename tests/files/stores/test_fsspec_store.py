"""Other schemes: `memory://`, a local HTTP server, and packages that are missing."""

import importlib.util
import pickle
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raydistill.data.identities import look_at, stamp_of
from raydistill.errors import UserError
from raydistill.files import retry
from raydistill.files.folder import MARKER, Folder
from raydistill.files.inputs.input_files import expand_inputs
from raydistill.files.inputs.readers import check_columns, read_raw, row_group_spans
from raydistill.files.uris import open_uri, read_uri, uri_of
from raydistill.runs.lease import Lease

ROWS = pa.table({"query": [f"q{at}" for at in range(9_000)], "title": ["t"] * 9_000})


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(f"memory://{tmp_path.name}/run")


def test_a_folder_in_memory(folder: Folder) -> None:
    assert folder.files() == [] and not folder.exists()
    folder.claim("run")
    folder.write_table("b.parquet", ROWS)
    folder.write_bytes("a.bin", bytes(range(256)))
    (folder / "sub").write_json("x.json", {"a": 1})
    assert folder.files() == [MARKER, "a.bin", "b.parquet"]
    assert folder.shards() == ["b.parquet"]
    assert folder.read_table("b.parquet").equals(ROWS)
    assert folder.read_span("a.bin", 250, 260) == bytes(range(250, 256))
    assert folder.read_rows("b.parquet", 8_990, 9_999)["query"].to_pylist()[-1] == "q8999"
    assert folder.read_bytes("a.bin") == bytes(range(256))
    assert folder.read_json("none.json") is None
    assert sorted(path.name for path in folder.download().rglob("*.json")) == [MARKER, "x.json"]
    travelled = pickle.loads(pickle.dumps(folder.filesystem))
    assert travelled.get_file_info(folder.path("a.bin")).size == 256
    folder.write_bytes("a.bin", b"new")
    assert folder.read_bytes("a.bin") == b"new"
    folder.delete_file("a.bin")
    (folder / "sub").delete()
    assert folder.files() == [MARKER, "b.parquet"] and not folder.exists("sub")
    with pytest.raises(FileNotFoundError):
        folder.read_bytes("a.bin")


def test_a_lease_in_memory(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("raydistill.runs.lease._SETTLE_S", 0.0)
    folder.claim("run")
    leases = folder / "_leases"
    with Lease(leases, "train"):
        with pytest.raises(UserError, match="train in "), Lease(leases, "train"):
            raise AssertionError
    assert leases.files() == []


def test_inputs_in_memory(folder: Folder) -> None:
    raw = folder / "raw data"
    raw.write_bytes("day=1/a.csv", b"query,title\nsofa,grey sofa\n")
    raw.write_table("day=2/b.parquet", ROWS)
    files = expand_inputs([f"{raw.uri}/*/*"])
    assert [file.uri for file in files] == [f"{raw.uri}/day=1/a.csv", f"{raw.uri}/day=2/b.parquet"]
    assert [len(raw.rows) for raw in read_raw(files[0])] == [1]
    assert sum(len(raw.rows) for raw in read_raw(files[1])) == 9_000
    check_columns(files[1], ["query", "title"])
    assert row_group_spans(files[1], max_rows=10)[0][1] == 9_000
    before = look_at(files[0], whole=False)
    assert before.digest == look_at(files[0], whole=False).digest
    assert stamp_of(files[0]) != "0"  # the time of the last change is known
    raw.write_bytes("day=1/a.csv", b"query,title\nsofa,blue sofa\n")
    assert look_at(files[0], whole=False).digest != before.digest


class Handler(SimpleHTTPRequestHandler):
    """Files as they are; no parts of them, and no tag."""

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        if "busy" in self.path and not getattr(self.server, "was_busy", False):
            self.server.was_busy = True  # type: ignore[attr-defined]
            self.send_error(503)
            return
        if "private" in self.path:
            self.send_error(403)
            return
        super().do_GET()

    def end_headers(self) -> None:
        if "tagged" in self.path:
            self.send_header("ETag", '"abc"')
        super().end_headers()


@pytest.fixture
def http(tmp_path: Path) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(tmp_path)))
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def test_files_of_a_web_server(http: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "FIRST_WAIT_S", 0.0)
    (tmp_path / "a.csv").write_text("query,title\nsofa,grey sofa\n")
    (tmp_path / "busy.csv").write_text("query,title\n")
    pq.write_table(ROWS, tmp_path / "b.parquet")
    files = expand_inputs([f"{http}/a.csv", f"{http}/b.parquet"])
    assert [file.uri for file in files] == [f"{http}/a.csv", f"{http}/b.parquet"]
    assert [sum(len(raw.rows) for raw in read_raw(file)) for file in files] == [1, 9_000]
    check_columns(files[1], ["query"])
    assert look_at(files[0], whole=False).digest == look_at(files[0], whole=True).digest
    (tmp_path / "tagged.csv").write_text("query,title\n")
    (tagged,) = expand_inputs([f"{http}/tagged.csv"])
    assert look_at(tagged, whole=False).digest == "etag:abc"
    assert read_uri(f"{http}/a.csv") == (tmp_path / "a.csv").read_bytes()
    assert Folder(http).read_span("a.csv", 0, 5) == b"query"
    assert Folder(http).read_span("a.csv", 6, 11) == b"title"
    assert read_uri(f"{http}/busy.csv") == b"query,title\n"
    assert retry.take() == {"HTTP 503": 1}
    with pytest.raises(FileNotFoundError):
        read_uri(f"{http}/none.csv")
    with pytest.raises(
        UserError, match=r"ACCESS_DENIED of http.*private.csv: .*; check the c"
    ) as at:
        read_uri(f"{http}/private.csv?x=a-secret")
    assert "a-secret" not in str(at.value)
    with pytest.raises(UserError, match="files of a web server are only read"):
        Folder(http).write_bytes("x", b"x")


@pytest.mark.parametrize(("uri", "package"), [("gs://b/x", "gcsfs"), ("abfs://c/x", "adlfs")])
def test_a_package_that_is_missing_is_named(uri: str, package: str) -> None:
    if importlib.util.find_spec(package):
        pytest.skip(f"{package} is installed")
    with pytest.raises(
        UserError, match=rf"needs the package {package}; run `pip install {package}"
    ):
        open_uri(uri)


def test_the_uri_of_a_path() -> None:
    assert uri_of("/a b/c.csv", like="memory://a b/*") == "memory://a b/c.csv"
    assert uri_of("b/x/c.csv", like="gs://b/x/*.csv") == "gs://b/x/c.csv"
    account = "abfs://c@account.dfs.core.windows.net"
    assert uri_of("c/x/a.csv", like=f"{account}/x/*.csv") == f"{account}/x/a.csv"
    assert uri_of("b/x y?.csv", like="s3://b/*?region=r") == "s3://b/x%20y%3F.csv?region=r"
    assert uri_of("/a/b.csv", like="/a/*") == "/a/b.csv"


def test_an_unknown_scheme_names_those_that_are_known() -> None:
    with pytest.raises(UserError, match=r"'ftp://h/x': no such scheme; give a local path, s3://"):
        open_uri("ftp://h/x")
