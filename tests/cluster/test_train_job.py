"""Which failures of a fit's workers end it."""

import logging
import pickle
import time

import pytest
import ray
from ray.exceptions import RayActorError
from ray.train.v2._internal.exceptions import WorkerHealthCheckFailedError

from raydistill.cluster.train_job import _waiting
from raydistill.cluster.workers import worker_log
from raydistill.cluster.workers.failure_limit import FailureLimit, WorkersFailed
from raydistill.cluster.workers.worker_log import Log
from raydistill.errors import UserError
from raydistill.progress import heartbeat

GONE = "The actor died because its node has died. Node Id: 12ab. The node was terminated."


class Lines(Log):
    """Keeps the lines here instead of sending them to a driver."""

    def __init__(self, lines: list[str]) -> None:
        self._put = lambda item: None if isinstance(item, bool) else lines.append(item)


def limit(lines: list[str]) -> FailureLimit:
    return FailureLimit(Lines(lines), stage="train    ", most=2)


def test_failures_on_machines_that_stay_are_counted(local_ray: None) -> None:
    lines: list[str] = []
    failures = limit(lines)
    for _ in range(2):
        failures.after_exception(None, {0: ValueError("no such row"), 1: RuntimeError("gloo")})
    assert "a worker failed (2 of at most 2): no such row" in lines[-1]
    with pytest.raises(WorkersFailed) as error:
        failures.after_exception(None, {0: ValueError("no such row")})
    assert str(pickle.loads(pickle.dumps(error.value)).failures[0]) == "no such row"


@pytest.mark.parametrize(
    "died", [RayActorError(error_msg=GONE), RayActorError(error_msg="ended", preempted=True)]
)
def test_a_lost_machine_is_not_counted(local_ray: None, died: RayActorError) -> None:
    lines: list[str] = []
    failures = limit(lines)
    failed = WorkerHealthCheckFailedError("a worker", failure=died)
    for _ in range(5):
        failures.after_exception(None, {0: RuntimeError("gloo"), 1: failed})
    assert lines == ["train     a machine was lost: it goes on from the newest checkpoint"] * 5


def test_a_mistake_of_the_user_ends_a_fit_at_once(local_ray: None) -> None:
    with pytest.raises(WorkersFailed):
        limit([]).after_exception(None, {0: RuntimeError("gloo"), 1: UserError("no dev pair")})


def test_a_silent_fit_says_what_it_waits_for(local_ray: None) -> None:
    num_cpus = ray.cluster_resources()["CPU"]
    line = _waiting("4 workers with 1 CPU each", 60.0)
    assert line.startswith("no word of a worker for 60 s; ")
    assert "it needs 4 workers with 1 CPU each, and the cluster has " in line
    assert f"of {num_cpus:g} CPU free" in line and line.endswith("on 1 machine")


def test_the_age_of_the_last_news_grows_also_over_lines_on_the_silence(
    local_ray: None, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO, logger="raydistill")
    monkeypatch.setattr(worker_log, "_SILENCE_S", 2.0)
    with (
        heartbeat(every_s=0.1, silent_s=1.0),
        worker_log.relay("waiting", on_silence=lambda silent_s: f"silent {silent_s:.0f}"),
    ):
        time.sleep(7)
    lines = [record.getMessage() for record in caplog.records]
    own = [int(line.split()[1]) for line in lines if "no news" not in line]
    ages = [int(line.split("no news for ")[1].split()[0]) for line in lines if "no news" in line]
    assert len(own) >= 2 and own[-1] >= own[0] + 2
    assert len(ages) >= 3 and ages[-1] > own[0] and ages == sorted(ages)
