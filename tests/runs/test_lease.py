"""One job at a time: holder of a lease, takeover, and reaction of the previous holder."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from raydistill.errors import UserError
from raydistill.files.folder import Folder
from raydistill.runs.lease import Holder, Lease
from tests.helpers.holders import elsewhere


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
    folder.write_bytes("train.json", b"{")
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
import sys, time
from raydistill.errors import UserError
from raydistill.runs.lease import Lease
from raydistill.files.folder import Folder
try:
    with Lease(Folder(sys.argv[1]), "train"):
        print("mine", flush=True)
        time.sleep(2)
except UserError as error:
    print("held", flush=True)
"""


@pytest.mark.slow
def test_of_several_that_come_at_once_one_gets_it(folder: Folder) -> None:
    jobs = [
        subprocess.Popen([sys.executable, "-c", _TAKE, folder.uri], stdout=subprocess.PIPE)
        for _ in range(4)
    ]
    found = sorted(job.communicate()[0].decode().strip() for job in jobs)
    assert found == ["held", "held", "held", "mine"]


@pytest.mark.slow
def test_after_a_kill_the_next_job_need_not_wait(folder: Folder) -> None:
    job = subprocess.Popen([sys.executable, "-c", _TAKE, folder.uri], stdout=subprocess.PIPE)
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
