"""One job at a time: holder of a lease, takeover, and reaction of the previous holder."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from raydistill.errors import UserError
from raydistill.files.folder import Folder
from raydistill.runs.lease import Holder, Lease
from tests.helpers.holders import elsewhere
from tests.helpers.proxy import proxy_of


@pytest.fixture(params=["local", pytest.param("s3", marks=pytest.mark.server)])
def folder(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Folder:
    monkeypatch.setattr("raydistill.runs.lease._SETTLE_S", 0.2)
    if request.param == "local":
        run = Folder(str(tmp_path / "run"))
    else:
        run = Folder(request.getfixturevalue("s3")) / f"lease-{tmp_path.name}"
    run.claim("run")
    return run / "_leases"


def test_a_second_job_is_told_who_holds_it(folder: Folder) -> None:
    with Lease(folder, "label-minilm"):
        with pytest.raises(UserError) as told, Lease(folder, "label-minilm"):
            raise AssertionError
        with Lease(folder, "label-other"), Lease(folder, "train"):
            pass  # other work on the same run
    text = str(told.value)
    assert f"process {os.getpid()} on " in text and " UTC; its last heartbeat" in text
    assert "label-minilm in " in text and "--take-over" in text
    with Lease(folder, "label-minilm"):
        pass  # it was given back
    assert folder.files() == []


def test_a_failed_job_gives_it_back(folder: Folder) -> None:
    with pytest.raises(KeyError), Lease(folder, "train"):
        raise KeyError
    assert folder.files() == []


def test_a_job_that_is_stopped_while_it_takes_a_lease_gives_it_back(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, interruptible: None
) -> None:
    """Without conditional requests an object store needs a second for it, in which it is there."""
    monkeypatch.setattr("raydistill.runs.lease._SETTLE_S", 20.0)

    def stop_once_it_is_written() -> None:
        while not folder.files():
            time.sleep(0.01)
        signal.pthread_kill(main_thread, signal.SIGINT)

    main_thread = threading.get_ident()
    stopper = threading.Thread(target=stop_once_it_is_written)
    stopper.start()
    with pytest.raises(KeyboardInterrupt), Lease(folder, "train"):
        time.sleep(20)
    stopper.join()
    assert folder.files() == []


def test_a_lease_that_was_never_held_stops_nobody(tmp_path: Path, interruptible: None) -> None:
    """Ctrl-C while the thread of the heartbeat starts."""
    run = Folder(str(tmp_path / "run"))
    run.claim("run")
    lease = Lease(run / "_leases", "train", beat_s=0.1)
    thread, start = lease._thread, lease._thread.start

    def stop_after_start() -> None:
        start()
        signal.raise_signal(signal.SIGINT)

    thread.start = stop_after_start  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt), lease:
        raise AssertionError
    thread.join(timeout=5)  # it would send another SIGINT here, and exit after 10 s
    assert not thread.is_alive() and (run / "_leases").files() == []


@pytest.mark.usefixtures("interruptible")
def test_a_job_that_loses_its_lease_at_its_end_says_so(folder: Folder) -> None:
    lease = Lease(folder, "train", beat_s=30)
    with pytest.raises(UserError, match=r"train in .* taken over by .*spot-7"), lease:
        lease._lost_to = elsewhere(age_s=0)
        join = lease._thread.join

        def stop_in_join() -> None:
            signal.raise_signal(signal.SIGINT)  # as `_stop` does, which had found it lost
            join()

        lease._thread.join = stop_in_join  # type: ignore[method-assign,assignment]


def test_work_elsewhere_that_is_alive_is_left_alone_unless_told(folder: Folder) -> None:
    folder.write_json("train.json", asdict(elsewhere(age_s=30)))
    with pytest.raises(UserError, match=r"on spot-7, job raysubmit_1, since .* 3. s old"):
        Lease(folder, "train").__enter__()
    with Lease(folder, "train", take_over=True):
        assert folder.read_json("train.json")["pid"] == os.getpid()  # type: ignore[index]


@pytest.mark.slow
def test_an_old_lease_is_taken_over(folder: Folder) -> None:
    folder.write_json("train.json", asdict(elsewhere(age_s=500)))
    with Lease(folder, "train", beat_s=0.1):
        assert folder.read_json("train.json")["pid"] == os.getpid()  # type: ignore[index]


@pytest.mark.slow
def test_a_clock_that_is_slow_is_no_death(folder: Folder) -> None:
    """A machine whose clock is 10 minutes behind: its lease looks old, and changes."""
    holder = elsewhere(age_s=600)
    folder.write_json("train.json", asdict(holder))
    later = asdict(replace(holder, beat_s=holder.beat_s + 15))
    beat = threading.Timer(0.3, lambda: folder.write_json("train.json", later))
    beat.start()
    with pytest.raises(UserError, match="spot-7"):
        Lease(folder, "train", beat_s=0.6).__enter__()
    beat.join()


@pytest.mark.slow
def test_a_dead_holder_whose_clock_runs_ahead_holds_nothing(folder: Folder) -> None:
    folder.write_json("train.json", asdict(elsewhere(age_s=-3_600)))
    with Lease(folder, "train", beat_s=0.1):
        assert folder.read_json("train.json")["pid"] == os.getpid()  # type: ignore[index]


_STUBBORN = """
import signal, sys, time
from raydistill.runs import lease
from raydistill.files.folder import Folder
lease._STOP_S = 0.5
signal.signal(signal.SIGINT, signal.SIG_IGN)  # as of `job &` in a script, or a handler of Ray's
with lease.Lease(Folder(sys.argv[1]), "train", beat_s=0.2):
    print("mine", flush=True)
    time.sleep(60)
"""


@pytest.mark.slow
def test_a_job_that_does_not_hear_is_ended(folder: Folder) -> None:
    job = subprocess.Popen(
        [sys.executable, "-c", _STUBBORN, folder.uri],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert job.stdout is not None and job.stdout.readline() == b"mine\n"
    with Lease(folder, "train", take_over=True):
        assert job.wait(timeout=20) == 2
        told = job.communicate()[1].decode()
        assert "train in " in told and "was taken over by process" in told
        assert folder.read_json("train.json")["pid"] == os.getpid()  # type: ignore[index]


def test_a_process_of_this_machine_that_ended_holds_nothing(folder: Folder) -> None:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    stat = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()
    holder = replace(Holder.here(), pid=child.pid, started=stat[19])
    folder.write_json("prepare.json", asdict(holder))
    with pytest.raises(UserError, match=f"process {child.pid}"):
        Lease(folder, "prepare").__enter__()
    child.kill()
    child.wait()
    with Lease(folder, "prepare"):
        pass
    used_again = replace(Holder.here(), started="1")  # the number of a process that ended
    folder.write_json("prepare.json", asdict(used_again))
    with Lease(folder, "prepare"):
        pass


def test_what_is_no_lease_holds_nothing(folder: Folder) -> None:
    for damaged in (b"{", b"\xff", bytes(401)):  # such as the zeros of a disk that lost its power
        folder.write_bytes("train.json", damaged)
        with Lease(folder, "train"):
            assert folder.read_json("train.json")["pid"] == os.getpid()  # type: ignore[index]
    folder.write_json("train.json", {"host": "x"})
    with Lease(folder, "train"):
        assert folder.read_json("train.json")["pid"] == os.getpid()  # type: ignore[index]


@pytest.mark.slow
def test_a_heartbeat_is_written(folder: Folder) -> None:
    with Lease(folder, "train", beat_s=0.1):
        first = folder.read_json("train.json")
        time.sleep(0.8)
        later = folder.read_json("train.json")
    assert first is not None and later is not None
    assert later["beat_s"] > first["beat_s"] and later["since_s"] == first["since_s"]


@pytest.mark.slow
@pytest.mark.usefixtures("interruptible")
def test_who_lost_its_lease_stops(folder: Folder) -> None:
    with pytest.raises(UserError, match=r"train in .* taken over by .*spot-7.*this job stopped"):
        with Lease(folder, "train", beat_s=0.1):
            folder.write_json("train.json", asdict(elsewhere(age_s=0)))
            time.sleep(30)  # ended by what Ctrl-C sends
    assert folder.read_json("train.json")["host"] == "spot-7"  # type: ignore[index]


_TAKE = """
import sys
from raydistill.errors import UserError
from raydistill.runs.lease import Lease
from raydistill.files.folder import Folder
try:
    with Lease(Folder(sys.argv[1]), "train"):
        print("mine", flush=True)
        sys.stdin.read()  # a job that starts late must not find it given back
except UserError as error:
    print("held", flush=True)
"""


@pytest.mark.slow
def test_of_several_that_come_at_once_one_gets_it(folder: Folder) -> None:
    jobs = [
        subprocess.Popen(
            [sys.executable, "-c", _TAKE, folder.uri],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for _ in range(4)
    ]  # fmt: skip
    found = sorted(job.stdout.readline().strip() for job in jobs if job.stdout)
    for job in jobs:
        job.communicate()
    assert found == ["held", "held", "held", "mine"]


def take_at_once(folder: Folder, *, num: int, take_over: bool = False) -> list[str]:
    """ "mine" or "held", of threads that take a lease at the same time; all hold it to the end."""
    start, end = threading.Barrier(num), threading.Barrier(num)

    def take() -> str:
        lease = Lease(folder, "train", beat_s=30, take_over=take_over)
        start.wait()
        try:
            lease.__enter__()
        except UserError:
            end.wait()
            return "held"
        end.wait()
        lease.__exit__(None, None, None)
        return "mine"

    with ThreadPoolExecutor(num) as threads:
        return sorted(found.result() for found in [threads.submit(take) for _ in range(num)])


def test_the_condition_of_a_put_decides(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("raydistill.runs.lease._SETTLE_S", 30.0)  # not needed
    for _ in range(3):
        assert take_at_once(folder, num=6) == ["held"] * 5 + ["mine"]
    folder.write_json("train.json", asdict(elsewhere(age_s=0)))
    old = folder.tag("train.json") if not folder.is_local else None
    if old is not None:  # two jobs take over the same lease
        assert folder.write_if("train.json", b"first", tag=old)
        assert not folder.write_if("train.json", b"second", tag=old)
        assert folder.read_bytes("train.json") == b"first"


@pytest.mark.server
@pytest.mark.slow
def test_a_store_without_conditions(s3: str, tmp_path: Path) -> None:
    """The last writer has the lease, after a second."""
    with proxy_of(os.environ["AWS_ENDPOINT_URL"], bucket=s3.removeprefix("s3://")) as store:
        run = Folder(store.uri) / f"lease-{tmp_path.name}"
        run.claim("run")
        store.ignored = frozenset({"if-match", "if-none-match"})
        assert take_at_once(run / "_leases", num=4) == ["held"] * 3 + ["mine"]
        store.ignored = frozenset({"if-match"})  # SeaweedFS checks it before it writes
        (run / "_leases").write_json("train.json", asdict(elsewhere(age_s=0)))
        found = take_at_once(run / "_leases", num=4, take_over=True)
        assert found == ["held"] * 3 + ["mine"]


@pytest.mark.slow
def test_after_a_kill_the_next_job_need_not_wait(folder: Folder) -> None:
    job = subprocess.Popen(
        [sys.executable, "-c", _TAKE, folder.uri], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert job.stdout is not None and job.stdout.readline() == b"mine\n"
    job.send_signal(signal.SIGKILL)
    job.wait()
    assert folder.files() == ["train.json"]
    with Lease(folder, "train"):
        pass


def test_a_job_of_ray_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    content = {"metadata": {"job_submission_id": "raysubmit_x"}, "runtime_env": {}}
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", json.dumps(content))
    assert "job raysubmit_x" in str(Holder.here())
