"""Credentials as AWS tools take them, and one line for each mistake, without secrets."""

import io
import json
import os
import pickle
import socket
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from botocore.httpsession import URLLib3SSLError
from botocore.response import StreamingBody

from raydistill.config.loading import read_text
from raydistill.errors import UserError
from raydistill.files import retry
from raydistill.files.folder import Folder
from raydistill.files.inputs.input_files import MissingInput, expand_inputs
from raydistill.files.retry import StoreError
from raydistill.files.stores.s3_client import named_faults
from raydistill.files.uris import open_uri, read_uri
from tests.helpers.proxy import EXPIRED, proxy_of
from tests.helpers.seaweed import ACCESS_KEY, READER, SECRET_KEY, Seaweed

pytestmark = pytest.mark.server
WRONG = "not-the-secret-key"


@pytest.fixture(autouse=True)
def _no_waits(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(retry, "FIRST_WAIT_S", 0.0)
    yield
    retry.take()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home folder, and no AWS_* variables but the endpoint of the test's server."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        if name not in ("AWS_ENDPOINT_URL", "AWS_EC2_METADATA_DISABLED"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".aws").mkdir()
    return tmp_path / ".aws"


def keys(secret: str = SECRET_KEY) -> str:
    return f"aws_access_key_id = {ACCESS_KEY}\naws_secret_access_key = {secret}\n"


def works(uri: str) -> bool:
    """Whether whole objects, listings and parts of objects are reached with the credentials."""
    folder = Folder(uri)
    folder.write_bytes("a.csv", b"query,title\na,b\n")
    with folder.filesystem.open_input_file(folder.path("a.csv")) as file:
        sent = pickle.dumps(folder.filesystem)  # to the workers
        assert SECRET_KEY.encode() not in sent
        assert pickle.loads(sent) == folder.filesystem
        return folder.files() == ["a.csv"] and file.read_at(5, 0) == b"query"


def line(uri: str = "s3://bucket/errors") -> str:
    """The line of the error that writing at a URI ends with."""
    with pytest.raises(UserError) as at:
        Folder(uri).write_bytes("a", b"x")
    text = str(at.value)
    assert "\n" not in text and SECRET_KEY not in text and WRONG not in text
    return text


@pytest.mark.slow
def test_profiles(seaweed: Seaweed, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = {"Version": 1, "AccessKeyId": ACCESS_KEY, "SecretAccessKey": SECRET_KEY}
    (home / "keys.json").write_text(json.dumps(given))
    (home / "config").write_text(
        f"[profile keys]\n{keys()}[profile wrong]\n{keys(WRONG)}"
        f"[profile program]\ncredential_process = cat {home}/keys.json\n"
        f"[profile endpoint]\nendpoint_url = {seaweed.endpoint}\n{keys()}"
    )
    for profile in ("keys", "program"):
        monkeypatch.setenv("AWS_PROFILE", profile)
        assert works(f"s3://bucket/profiles-{profile}")
    monkeypatch.setenv("AWS_PROFILE", "wrong")
    assert works("s3://bucket/profiles-uri?profile=keys")
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    assert works("s3://bucket/profiles-endpoint?profile=endpoint")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", seaweed.endpoint)  # it goes first
    monkeypatch.setenv("AWS_PROFILE", "keys")
    assert works("s3://bucket/profiles-s3")
    host = seaweed.endpoint.removeprefix("http://")
    assert works(f"s3://bucket/options?endpoint_override={host}&scheme=http&region=us-east-1")


@pytest.mark.slow
def test_credentials_are_renewed(
    seaweed: Seaweed, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They end in 5 minutes, so they are asked for again at each use: in both clients."""
    (home / "config").write_text(f"[profile program]\ncredential_process = cat {home}/keys.json\n")
    monkeypatch.setenv("AWS_PROFILE", "program")

    def give(key: str, *, ends_in_s: float) -> None:
        ends = datetime.now(UTC) + timedelta(seconds=ends_in_s)
        given = {"Version": 1, "AccessKeyId": key, "SecretAccessKey": SECRET_KEY}
        (home / "keys.json").write_text(json.dumps(given | {"Expiration": ends.isoformat()}))

    with proxy_of(seaweed.endpoint, bucket="bucket") as store:
        folder = Folder(store.uri) / "renewed"
        give(ACCESS_KEY, ends_in_s=300)
        folder.write_bytes("a", b"x")
        assert folder.files() == ["a"] and store.keys == {ACCESS_KEY}
        for use in (folder.files, lambda: folder.read_bytes("a")):
            for key in (READER, ACCESS_KEY):
                give(key, ends_in_s=300)
                store.keys.clear()
                use()
                assert store.keys == {key}
        give(ACCESS_KEY, ends_in_s=-1)
        assert "EXPIRED_TOKEN" in line(folder.uri)


@pytest.mark.slow
def test_an_assumed_role(s3: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Arrow's own client sends unsigned requests with such a profile."""
    role = "role_arn = arn:aws:iam::123456789012:role/x\nsource_profile = keys\n"
    (home / "config").write_text(f"[profile keys]\n{keys()}[profile role]\n{role}")
    monkeypatch.setenv("AWS_PROFILE", "role")
    with proxy_of(os.environ["AWS_ENDPOINT_URL"], bucket="bucket") as store:
        assert works(store.uri.replace("bucket?", "bucket/role?"))
        assert store.keys and "test" not in store.keys  # of the role, not of the profile


class Role(BaseHTTPRequestHandler):
    """The service that gives an instance the keys of its role; its first answers are errors."""

    num_errors = 2

    def log_message(self, *_: object) -> None:
        pass

    def do_PUT(self) -> None:
        Role.num_errors -= 1
        self.answer("a-token", status=500 if Role.num_errors >= 0 else 200)

    def do_GET(self) -> None:
        ends = datetime.now(UTC) + timedelta(hours=6)
        given = {"Code": "Success", "AccessKeyId": ACCESS_KEY, "SecretAccessKey": SECRET_KEY}
        given |= {"Token": "", "Expiration": ends.strftime("%Y-%m-%dT%H:%M:%SZ")}
        self.answer(json.dumps(given) if self.path.endswith("/workers") else "workers")

    def answer(self, text: str, *, status: int = 200) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())


def test_the_role_of_an_instance(s3: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Role)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.delenv("AWS_EC2_METADATA_DISABLED", raising=False)
    address = f"http://127.0.0.1:{server.server_address[1]}"
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", address)
    with proxy_of(os.environ["AWS_ENDPOINT_URL"], bucket="bucket") as store:
        assert works(store.uri.replace("bucket?", "bucket/instance?"))
        assert store.keys == {ACCESS_KEY}
    server.shutdown()
    server.server_close()


def test_the_region_of_both_clients(s3: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "config").write_text(f"[profile keys]\nregion = eu-west-3\n{keys()}")
    monkeypatch.setenv("AWS_PROFILE", "keys")
    with proxy_of(os.environ["AWS_ENDPOINT_URL"], bucket="bucket") as store:
        uri = store.uri.replace("bucket?", "bucket/region?")
        for name, region in (("", "eu-west-3"), ("AWS_DEFAULT_REGION", "eu-west-2"),
                             ("AWS_REGION", "eu-west-1")):  # fmt: skip
            if name:
                monkeypatch.setenv(name, region)
            store.regions.clear()
            assert works(uri) and store.regions == {region}
        store.regions.clear()
        assert works(f"{uri}&region=eu-north-1") and store.regions == {"eu-north-1"}


def test_lines_of_the_server(seaweed: Seaweed, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "there is no bucket 'wrong' at http://127.0.0.1" in line("s3://wrong/x")
    assert "check the bucket's name" in line("s3://wrong/x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", WRONG)
    assert "SIGNATURE_DOES_NOT_MATCH" in line() and "AWS_SECRET_ACCESS_KEY" in line()
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
    assert "INVALID_ACCESS_KEY_ID" in line() and "check AWS_ACCESS_KEY_ID" in line()
    for name, value in seaweed.read_only().items():
        monkeypatch.setenv(name, value)
    assert "ACCESS_DENIED during PutObject of s3://bucket/errors/a" in line()
    assert line().endswith(
        "check the credentials (AWS_* variables, on the workers too) and the bucket's policy"
    )


def test_lines_before_a_request(home: Path, monkeypatch: pytest.MonkeyPatch, s3: str) -> None:
    assert "NO_CREDENTIALS" in line() and "AWS_PROFILE or an instance role" in line()
    assert "NO_PROFILE" in line("s3://bucket/x?profile=nobody")
    (home / "config").write_text(
        "[profile sso]\nsso_start_url = https://x.example/start\nsso_region = us-east-1\n"
        "sso_account_id = 123456789012\nsso_role_name = r\n"
        "[profile broken]\ncredential_process = false\n"
    )
    assert "run `aws sso login` for that profile" in line("s3://bucket/x?profile=sso")
    assert "check AWS_PROFILE and what it says" in line("s3://bucket/x?profile=broken")


def test_names_that_no_bucket_has(s3: str) -> None:
    assert "INVALID_BUCKET_NAME" in (text := line("s3://Bad!Bucket/x"))
    assert text.endswith("check the bucket's name")
    with pytest.raises(UserError, match=r"no such config file: s3://bucket/$"):
        read_text("s3://bucket/")


def test_expired_credentials_are_tried_twice(s3: str) -> None:
    with proxy_of(os.environ["AWS_ENDPOINT_URL"], bucket="bucket") as store:
        Folder(store.uri).exists("x")
        store.fail(10**6, EXPIRED)
        text = line(store.uri)
        assert "failed 2 times: EXPIRED_TOKEN" in text and "aws sso login" in text
        assert len(store.requests) == 2


@pytest.mark.slow
def test_a_store_that_is_not_there(s3: str) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    text = line(f"s3://bucket/x?endpoint_override=127.0.0.1:{port}&scheme=http")
    assert "failed 8 times: NETWORK_CONNECTION" in text and "check the network" in text


def test_a_missing_object_is_no_fault_of_the_store(s3: str) -> None:
    with pytest.raises(FileNotFoundError):
        read_uri(f"{s3}/nothing.toml")
    with pytest.raises(FileNotFoundError):
        Folder(s3).read_bytes("nothing")
    with pytest.raises(MissingInput, match=r"no such input: s3://bucket/nothing\.csv"):
        expand_inputs([f"{s3}/nothing.csv"])


@pytest.mark.parametrize(
    ("uri", "told"),
    [
        ("s3://", "names no bucket"),
        ("s3://key:not-the-secret-key@bucket/x", "credentials in a URI"),
        ("s3://bucket/x?endpoint=h", "unknown option endpoint after"),
        ("s3://bucket/x?y=1/z?endpoint=h", "unknown option endpoint after"),
        ("s3://bucket//run", "s3://bucket//run has an empty name between two slashes"),
        ("s3://bucket/a//run/?region=r", "an empty name between two slashes"),
    ],
)
def test_uris_that_are_none(uri: str, told: str) -> None:
    with pytest.raises(UserError, match=told) as at:
        open_uri(uri)
    assert WRONG not in str(at.value)


def test_a_body_whose_encryption_breaks_is_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """botocore lets this error of urllib3 through."""

    class Broken(io.RawIOBase):
        def read(self, size: int = -1) -> bytes:
            raise URLLib3SSLError("DECRYPTION_FAILED_OR_BAD_RECORD_MAC")

    monkeypatch.setattr(retry, "FIRST_WAIT_S", 0.001)

    def read() -> bytes:
        with named_faults("GetObject", "bucket/x"):
            return bytes(StreamingBody(Broken(), 10).read())

    with pytest.raises(StoreError, match="failed 8 times: NETWORK_CONNECTION during GetObject"):
        retry.tried(read)
