"""`raydistill serve` as users start and stop it."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from tests.helpers.server import Client, until

BODY = {"query": "grey sofa", "titles": ["Sofa, grey"] * 20}


@contextmanager
def _started(bundle: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    command = [sys.executable, "-m", "raydistill", "serve", "--bundle", str(bundle), "--port", "0"]
    process = subprocess.Popen(
        [*command, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        yield process, process.stdout.readline().strip()
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.mark.slow
def test_sigterm_ends_it_after_the_requests_that_it_has(bundle: Path) -> None:
    with _started(bundle, "--drain-s", "1.5", "--access-log") as (process, address):
        client, statuses = Client(address), list[int]()

        def ask() -> None:
            """A body that comes in two parts, the second one after SIGTERM."""

            def parts() -> Iterator[bytes]:
                yield b'{"query": "a",'
                time.sleep(2.5)
                yield b'"titles": ["b"]}'

            slow = Client(address)
            found = slow.request("POST", "/score", parts(), {}, encode_chunked=True)
            statuses.append(found.status)
            slow.close()

        thread = threading.Thread(target=ask)
        thread.start()
        time.sleep(0.2)
        assert client.get("/ready").status == 200
        process.send_signal(signal.SIGTERM)
        until(lambda: client.get("/ready").status == 503)
        assert client.post("/score", BODY).status == 200  # it still takes requests
        until(lambda: client.get("/health").headers.get("connection") == "close")
        assert client.get("/health").status == 200
        client.close()
        thread.join()
        assert statuses == [200]
        assert process.wait(30) == 0
        said = process.stderr.read() if process.stderr else ""
    assert "3 golden pairs agree" in said and "serve     stopped" in said
    assert '"POST /score HTTP/1.1" 200' in said
    assert "Traceback" not in said


def _serving(process: subprocess.Popen[str]) -> set[int]:
    """The processes of a server that accept connections, and live."""
    children = psutil.Process(process.pid).children()
    alive = [one for one in children if one.status() != psutil.STATUS_ZOMBIE]
    return {one.pid for one in alive if "spawn_main" in " ".join(one.cmdline())}


@pytest.mark.slow
def test_a_process_of_several_is_replaced_and_figures_are_summed(bundle: Path) -> None:
    with _started(bundle, "--workers", "2", "--drain-s", "0") as (process, address):
        serving = _serving(process)
        assert len(serving) == 2
        for _ in range(20):
            client = Client(address)
            assert client.post("/score", BODY).status == 200
            client.close()
        client = Client(address)
        lines = client.get("/metrics").body.decode().splitlines()
        client.close()
        assert 'raydistill_requests_total{route="/score",status="200"} 20.0' in lines
        assert sum(line.startswith("process_resident_memory_bytes{") for line in lines) == 2
        os.kill(serving.pop(), signal.SIGKILL)

        until(lambda: len(_serving(process)) < 2)
        client = Client(address)  # the other one accepts
        assert client.post("/score", BODY).status == 200
        client.close()
        until(lambda: len(_serving(process)) == 2)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
        assert "another one starts" in (process.stderr.read() if process.stderr else "")


@pytest.mark.slow
@pytest.mark.parametrize(("sig", "drain_s"), [(signal.SIGTERM, 1.5), (signal.SIGINT, 99)])
def test_a_signal_to_all_processes_is_one_stop(
    bundle: Path, sig: signal.Signals, drain_s: float
) -> None:
    """systemd sends SIGTERM to each of them, a terminal SIGINT, and the parent passes it on."""
    with _started(bundle, "--workers", "2", "--drain-s", str(drain_s)) as (process, _):
        told_s = time.monotonic()
        for pid in (process.pid, *_serving(process)):
            os.kill(pid, sig)
        assert process.wait(30) == 0
        assert sig == signal.SIGINT or time.monotonic() - told_s > drain_s


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (["--bundle", "nowhere"], "no bundle in nowhere"),
        (["--port", "0", "--host", "192.0.2.1"], "cannot listen at 192.0.2.1:0"),
        (["--replicas", "2"], "--replicas is for Ray Serve"),
        (["--reload-s", "0"], "reload_s is 0.0; give seconds above 0"),
        (["--drain-s", "-1"], "--drain-s -1.0: give seconds from 0"),
        (["--token", " "], "the token is empty"),
    ],
)
def test_a_mistake_ends_it_with_code_2(
    bundle: Path, options: list[str], error: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from raydistill.cli.main import main

    given = options if "--bundle" in options else ["--bundle", str(bundle), *options]
    assert main(["serve", *given]) == 2
    assert error in capsys.readouterr().err


def test_a_port_that_is_taken_is_named(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from raydistill.cli.main import main

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert main(["serve", "--bundle", str(bundle), "--port", str(port)]) == 2
    assert f"cannot listen at 127.0.0.1:{port} ([Errno 98]" in capsys.readouterr().err
