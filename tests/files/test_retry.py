"""Failed requests to an object store are retried; failed disk operations are not."""

import logging
import os
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from raydistill.cluster import tasks
from raydistill.cluster.pools import steps
from raydistill.cluster.tasks import FAILED, Item
from raydistill.data.chunks import KeyRange, write_chunk, write_index
from raydistill.data.identities import look_at
from raydistill.errors import UserError
from raydistill.files import retry
from raydistill.files.folder import MARKER, Folder
from raydistill.files.inputs.input_files import InputFile, expand_inputs
from raydistill.files.inputs.readers import check_columns, read_raw
from raydistill.files.retry import StoreError, transient_code, tried, tried_at
from raydistill.runs.run_folder import Run
from raydistill.stages import prepare
from raydistill.stages.distill import run_stage
from tests.helpers.proxy import CLOSED, CUT_OFF, DENIED, SLOW_DOWN, TOO_MANY, Proxy, proxy_of
from tests.helpers.runs import run_config

READING = "When reading information for key 'a' in bucket 'b': AWS Error "
# As pyarrow 26 wrote them, of a server that answered so.
MESSAGES = {
    "SLOW_DOWN during CreateMultipartUpload operation: SlowDown (Request ID: 1)": "SLOW_DOWN",
    "SERVICE_UNAVAILABLE during ListObjectsV2 operation: x": "SERVICE_UNAVAILABLE",
    "INTERNAL_FAILURE during CreateMultipartUpload operation: x": "INTERNAL_FAILURE",
    "REQUEST_TIMEOUT during ListObjectsV2 operation: x": "REQUEST_TIMEOUT",
    "NETWORK_CONNECTION during GetObject operation: curlCode: 18, Transferred a partial file; "
    "Details: end of response with 131072 bytes missing": "NETWORK_CONNECTION",
    "UNKNOWN (HTTP status 503) during HeadObject operation: No response body.": "HTTP 503",
    "UNKNOWN (HTTP status 429) during ListObjectsV2 operation: Unable to parse ExceptionName: "
    "TooManyRequests": "HTTP 429",
    "ACCESS_DENIED during HeadObject operation: No response body.": "ACCESS_DENIED",
    "UNKNOWN (HTTP status 400) during HeadObject operation: No response body.": None,
    "NO_SUCH_BUCKET during ListObjectsV2 operation: 503 and more": None,
    "SIGNATURE_DOES_NOT_MATCH during ListObjectsV2 operation: x": None,
}


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """The longest that each wait might have been; nobody waits."""
    found: list[float] = []

    def longest(low: float, high: float) -> float:
        assert low == 0
        found.append(high)
        return 0.0

    monkeypatch.setattr("random.uniform", longest)
    retry.take()
    yield found
    retry.take()


@pytest.mark.parametrize("message", MESSAGES)
def test_which_errors_pass_by(message: str) -> None:
    assert transient_code(OSError(READING + message)) == MESSAGES[message]


def test_errors_of_a_disk_do_not_pass_by() -> None:
    for error in (FileNotFoundError(2, "no"), PermissionError(13, "no"), OSError(28, "disk full")):
        assert transient_code(error) is None
    assert transient_code(ConnectionResetError(104, "reset")) == "ConnectionResetError"


def failing(num: int, error: Exception) -> Callable[[], str]:
    """Raises the error so many times, and then answers."""
    left = [num]

    def call() -> str:
        left[0] -= 1
        if left[0] >= 0:
            raise error
        return "answer"

    return call


BUSY = OSError(f"{READING}SLOW_DOWN during GetObject operation: \n\nSlowDown")
NO_ACCESS = OSError(f"{READING}ACCESS_DENIED during HeadObject operation: No response body.")


def test_a_call_is_made_again_after_longer_and_longer_waits(waits: list[float]) -> None:
    assert tried(failing(7, BUSY)) == "answer"
    assert waits == [1, 2, 4, 8, 16, 16, 16]
    assert retry.take() == {"SLOW_DOWN": 7} and retry.take() == {}


def test_an_error_that_stays_is_one_line(waits: list[float]) -> None:
    with pytest.raises(StoreError, match=r"failed 8 times: .*SlowDown; submit the job again") as at:
        tried(failing(8, BUSY))
    assert len(waits) == 7 and "\n" not in str(at.value) and not at.value.is_final
    travelled = pickle.loads(pickle.dumps(at.value))
    assert (str(travelled), travelled.code) == (str(at.value), "SLOW_DOWN")


def test_denied_is_asked_twice() -> None:
    assert tried(failing(1, NO_ACCESS)) == "answer"
    with pytest.raises(StoreError, match=r"failed 2 times: .*; check the credentials") as at:
        tried(failing(2, NO_ACCESS))
    assert at.value.is_final
    with pytest.raises(StoreError) as again:
        tried(failing(1, at.value))
    assert again.value is at.value


def test_what_does_not_pass_by_is_raised_at_once(waits: list[float]) -> None:
    with pytest.raises(FileNotFoundError):
        tried(failing(1, FileNotFoundError(2, "no")))
    with pytest.raises(StoreError, match=r"the object store failed: .*NO_SUCH_BUCKET"):
        tried(failing(1, OSError(f"{READING}NO_SUCH_BUCKET during PutObject operation: x")))
    assert waits == [] and retry.take() == {}


def test_a_call_on_a_disk_is_made_once(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="SLOW_DOWN"):
        Folder(str(tmp_path)).tried(failing(1, BUSY))
    with pytest.raises(TimeoutError):  # of a disk of the network
        tried_at(f"{tmp_path}/a.csv", failing(1, TimeoutError(110, "no answer")))
    assert tried_at("s3://bucket/a.csv", failing(1, TimeoutError(110, "no answer"))) == "answer"


def test_counts_are_logged_in_a_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    retry.add({"SLOW_DOWN": 4, "NETWORK_CONNECTION": 1})
    retry.add({"SLOW_DOWN": 1})
    assert retry.for_success() == {"tried_again": {"NETWORK_CONNECTION": 1, "SLOW_DOWN": 5}}
    retry.log_counts("prepare")
    retry.log_counts("label")
    line = "6 requests to the object store were tried again (1 NETWORK_CONNECTION, 5 SLOW_DOWN)"
    assert caplog.messages[-1] == f"prepare   {line}"
    assert [r.levelname for r in caplog.records] == ["WARNING", "INFO"]  # at 5; not at 6, 7, 8
    assert retry.for_success() == {}


@pytest.fixture
def store(s3: str) -> Iterator[Proxy]:
    with proxy_of(os.environ["AWS_ENDPOINT_URL"], bucket=s3.removeprefix("s3://")) as found:
        yield found


@pytest.fixture
def folder(store: Proxy, tmp_path: Path) -> Folder:
    """A folder behind the proxy, with a file and a sub-folder."""
    found = Folder(store.uri) / f"retry-{tmp_path.name}"
    found.claim("run")
    found.write_bytes("a.csv", b"query,title\na,b\n")
    found.write_bytes("sub/b.csv", b"query,title\nc,d\n")
    return found


def listed(folder: Folder) -> list[InputFile]:
    return expand_inputs([folder.uri])


def delete(folder: Folder, name: str) -> bool:
    folder.delete_file(name)
    return folder.exists(name)


OPERATIONS: dict[str, Callable[[Folder], object]] = {
    "read": lambda folder: folder.read_bytes("a.csv"),
    "write": lambda folder: folder.write_bytes("c.csv", b"x"),
    "exists": lambda folder: folder.exists("a.csv"),
    "files": lambda folder: folder.files(),
    "delete": lambda folder: (folder / "sub").delete(),
    "delete_file": lambda folder: folder.delete_file("a.csv"),
    "download": lambda folder: sorted(p.name for p in folder.download().iterdir()),
    "list": lambda folder: len(listed(folder)),
    "columns": lambda folder: check_columns(InputFile(f"{folder / 'a.csv'}", 16), ["query"]),
    "look": lambda folder: look_at(InputFile(f"{folder / 'a.csv'}", 16), whole=True).digest,
}


@pytest.mark.server
@pytest.mark.parametrize("name", OPERATIONS)
def test_every_request_is_made_again(name: str, folder: Folder, store: Proxy) -> None:
    work = OPERATIONS[name]
    folder.exists()  # so that its file system is there
    store.fail(1, DENIED)
    found = work(folder)
    assert retry.take() == {"ACCESS_DENIED": 1}
    store.fail(0, DENIED)
    expected: dict[str, object] = {
        "read": b"query,title\na,b\n",
        "exists": True,
        "list": 2,
        "files": [MARKER, "a.csv"],
        "download": [MARKER, "a.csv", "sub"],
        "look": look_at(InputFile(f"{folder / 'a.csv'}", 16), whole=True).digest
        if name == "look"
        else None,
    }
    assert found == expected.get(name)
    if name == "write":
        assert folder.read_bytes("c.csv") == b"x"
    if name.startswith("delete"):
        assert not folder.exists("sub" if name == "delete" else "a.csv")


@pytest.mark.server
@pytest.mark.parametrize("name", ["write", "files", "list"])
def test_a_store_with_too_many_requests_gets_them_later(
    name: str, folder: Folder, store: Proxy, waits: list[float]
) -> None:
    store.fail(3, TOO_MANY, methods="GET PUT")
    OPERATIONS[name](folder)
    assert retry.take() == {"HTTP 429": 3} and waits == [1, 2, 4]


@pytest.mark.server
@pytest.mark.parametrize("name", OPERATIONS)
def test_a_refusal_ends_in_a_line_soon(name: str, folder: Folder, store: Proxy) -> None:
    folder.exists()
    store.fail(10**6, DENIED)
    with pytest.raises(UserError, match=r"failed 2 times: .*; check the credentials") as at:
        OPERATIONS[name](folder)
    assert "\n" not in str(at.value) and len(store.requests) <= 4
    result = steps.apply(lambda item: {**item, "x": OPERATIONS[name](folder)}, {})
    assert "check the credentials" in result["user_error"]
    assert len(store.requests) <= 8


@pytest.mark.server
def test_a_file_that_a_lost_answer_removed_is_removed(folder: Folder, store: Proxy) -> None:
    """The try that removed it got an error; the next finds nothing."""
    calls = []

    class Lossy:
        def delete_file(self, path: str) -> None:
            calls.append(path)
            if len(calls) == 1:
                raise BUSY
            raise FileNotFoundError(2, "no such file")

    lossy = Folder(folder.uri)
    lossy.__dict__["_place"] = (Lossy(), "x")
    lossy.delete_file("a.csv")
    assert len(calls) == 2
    with pytest.raises(FileNotFoundError):
        lossy.delete_file("a.csv")


@pytest.mark.server
def test_chunks_are_read_again(folder: Folder, store: Proxy) -> None:
    rows = pa.table({"key": pa.array(np.arange(9), pa.uint64())})
    write_index(folder, "index", [write_chunk(folder, "a.chunk", rows)])
    store.fail(1, DENIED, methods="GET", first=1)  # the first GET is that of the index
    (found,) = KeyRange(folder, "index", 3, 5).rows(3, 5)
    assert found["key"].to_pylist() == [3, 4, 5]
    # Arrow calls it INTERNAL_FAILURE: the answer is longer than what was asked for.
    assert sum(retry.take().values()) == 1


def count_rows(item: Item) -> Item:
    """Work whose stream may break in the middle."""
    found = sum(
        len(raw.rows) for raw in read_raw(InputFile(item["uri"], 1), max_block_bytes=1 << 18)
    )
    return {"rows": found}


def put_rows(folder: Folder) -> str:
    """Two megabytes of rows: several requests to read."""
    folder.write_bytes("rows.csv", b"query,title\n" + b"sofa,a grey sofa \n" * 120_000)
    return f"{folder / 'rows.csv'}"


@pytest.mark.server
def test_an_item_whose_stream_breaks_is_worked_on_again(folder: Folder, store: Proxy) -> None:
    item = {"uri": put_rows(folder)}
    store.fail(1, DENIED, methods="GET", first=4)
    result = steps.apply(count_rows, item)
    assert result == {"rows": 120_000, "tried_again": {"ACCESS_DENIED": 1}}
    store.fail(1, CUT_OFF, methods="GET", first=4)  # Arrow asks again by itself
    assert count_rows(item) == {"rows": 120_000}


@pytest.mark.server
def test_a_stream_that_breaks_is_one_line(folder: Folder, store: Proxy) -> None:
    uri = put_rows(folder)
    store.fail(10**6, DENIED, methods="GET", first=4)
    with pytest.raises(StoreError, match=r"the object store failed: .*ACCESS_DENIED"):
        count_rows({"uri": uri})


def test_a_step_that_fails_for_the_store_fails_its_item_alone() -> None:
    """And the counts of all steps travel with the item, whatever a step gives on."""
    first, second = failing(2, BUSY), failing(1, BUSY)
    item, data = steps._attempt(lambda item, _: ({"done": first()}, b"x"), {}, b"")
    item, _ = steps._attempt(lambda item, _: ({"all": second()}, b""), item, data)
    assert steps._with_counts(item) == {"all": "answer", "tried_again": {"SLOW_DOWN": 3}}
    always = failing(100, BUSY)
    item, _ = steps._attempt(lambda item, _: ({"x": always()}, b""), {"at": 1}, b"")
    assert item["at"] == 1 and "SLOW_DOWN" in item[FAILED]
    refused = failing(100, NO_ACCESS)
    item, _ = steps._attempt(lambda item, _: ({"x": tried(refused)}, b""), {}, b"")
    assert "check the credentials" in item["user_error"]


@pytest.mark.ray
@pytest.mark.server
def test_what_workers_tried_again_is_counted_on_the_driver(
    local_ray: None, folder: Folder, store: Proxy, caplog: pytest.LogCaptureFixture
) -> None:
    item = {"uri": put_rows(folder)}
    store.fail(1, DENIED, methods="GET", first=4)
    assert list(tasks.run_tasks([item], count_rows, cpus=1)) == [{"rows": 120_000}]
    assert "1 request to the object store was tried again (1 ACCESS_DENIED)" in caplog.text
    assert retry.take() == {"ACCESS_DENIED": 1}


@pytest.mark.ray
@pytest.mark.server
def test_a_stage_on_a_busy_store_ends_with_the_same_bytes(
    local_ray: None,
    raw_files: Path,
    folder: Folder,
    store: Proxy,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    calm, busy = tmp_path / "run", folder / "run"
    prepare.prepare_stage(Run(run_config(calm, raw_files, Path("no-model"))))
    store.fail(2, TOO_MANY, methods="PUT", first=4)  # after run.toml and prepare.json
    assert run_stage("prepare", Run(run_config(busy.uri, raw_files, Path("no-model"))))
    line = "prepare   2 requests to the object store were tried again (2 HTTP 429)"
    assert line in caplog.messages
    done = (busy / "pairs").success()
    assert done is not None and done["tried_again"] == {"HTTP 429": 2}
    shards = (busy / "pairs").shards()
    assert shards == Folder(str(calm / "pairs")).shards()
    assert all((busy / "pairs").read_bytes(n) == (calm / "pairs" / n).read_bytes() for n in shards)


@pytest.mark.slow
@pytest.mark.server
@pytest.mark.parametrize("answer", [SLOW_DOWN, CLOSED])
def test_a_store_that_is_busy_for_longer_than_arrow_waits(
    answer: tuple[int, str], folder: Folder, store: Proxy
) -> None:
    store.fail(7, answer)  # Arrow's client gives up after 3
    assert folder.files() == [MARKER, "a.csv"]
    assert sum(retry.take().values()) == 2
    store.fail(7, answer)
    assert folder.read_bytes("a.csv") == b"query,title\na,b\n"
    assert sum(retry.take().values()) == len(store.requests) - 1 == 7
