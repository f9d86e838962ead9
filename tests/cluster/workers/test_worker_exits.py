"""Ray's reports of ended workers as one line, from real processes that are killed."""

import os
import re
import signal
from typing import Any

import pytest

from raydistill.cluster import tasks
from raydistill.cluster.workers.worker_exits import cause_of
from raydistill.errors import UserError, WorkError

# As Ray 2.60 says it.
MEMORY = (
    "1 worker(s) were killed due to the node running low on memory. Memory on the node (IP: 10.0.0"
    ".2, ID: 3e66) was 22.87GB used / 24.00GB limit (0.952)\nOOM kill reason: Memory usage exceeded"
)
KILLED = (
    "Worker unexpectedly exits with a connection error code 2. End of file. Some common causes "
    "include: (1) the process was killed by the OOM killer due to high memory usage, (2) ray stop "
    "--force was called. consider enabling resource isolation to prevent node deaths by"
)
ACTOR = (
    "The actor died unexpectedly before finishing this task.\n\tclass_name: RayTrainWorker\n\tpid: "
    "10228\nThe actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR "
    "Worker exit detail: " + KILLED
)


@pytest.mark.parametrize(
    ("detail", "words"),
    [
        (MEMORY, "killed for memory: its machine used 22.87 of 24.00 GiB"),
        (KILLED, "was killed or crashed (often signal 9"),
        (ACTOR, "was killed or crashed (often signal 9"),
        ("Worker exits by an user request. Worker exits with an exit code 3. exit", "exit code 3"),
        ("The actor is dead because its node has died. Node Id: 77ab", "machine left the cluster"),
        ("Task failed because the node it was running on is dead or unavailable.", "left the clu"),
        ("the node was preempted", "its machine left the cluster"),
        ("something\n  new", "something new"),
        ("The worker died unexpectedly while executing this task. Check", "killed or crashed"),
        ("The leased worker has unrecoverable failure. Socket closed", "killed or crashed"),
        ("", "Ray does not say why"),
    ],
)
def test_causes(detail: str, words: str) -> None:
    cause = cause_of(detail)
    assert words in cause and len(cause.splitlines()) == 1


def end(how: str) -> None:
    if how == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "crashed":
        os.kill(os.getpid(), signal.SIGSEGV)
    if how == "raised":
        raise KeyError("what it was")
    if how == "mistake":
        raise UserError("what to mend")


@pytest.mark.ray
@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("killed", r"killed or crashed.*process \d+ on .*log .*/logs/worker-\w+-\*-\d+\.err"),
        ("raised", "^KeyError: 'what it was'$"),
    ],
)
def test_a_task_that_fails_says_why_in_one_line(local_ray: None, how: str, words: str) -> None:
    """After four processes of an item have ended."""

    def work(item: dict[str, Any]) -> dict[str, Any]:
        if item["at"] == 1:
            end(how)
        return item

    with pytest.raises(WorkError, match=words) as caught:
        list(tasks.run_tasks([{"at": at} for at in range(3)], work, cpus=1))
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.ray
@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("killed", r"killed or crashed .*process \d+ on .*worker-\w+-\*-\d+\.err\)$"),
        ("crashed", r"^Fatal Python error: Segmentation fault \(process "),
    ],
)
def test_a_lost_item_comes_with_the_end_of_its_worker(
    local_ray: None, how: str, words: str
) -> None:
    """One fatal item a chain: of two, one may wait for ever behind the other and never begin."""
    lost: dict[int, str] = {}

    def work(item: dict[str, Any], data: bytes) -> tuple[dict[str, Any], bytes]:
        end(how if item["at"] == 1 else "")
        return item, data

    done = list(
        tasks.run_chain(
            [{"at": at} for at in range(4)],
            before=lambda item, data: (item, data),
            make=lambda: work,
            after=lambda item, data: (item, data),
            num_actors=3,
            gpus=0.0,
            on_lost=lambda item, cause: lost.update({item["at"]: cause}),
        )
    )
    assert all(set(item) == {"at"} for item in done)
    assert 1 in lost and not lost.keys() & {item["at"] for item in done}
    assert re.search(words, lost[1])


@pytest.mark.ray
@pytest.mark.parametrize(
    ("how", "error", "words"),
    [
        ("mistake", UserError, "^what to mend$"),
        ("raised", WorkError, "^a worker could not start: KeyError: 'what it was'$"),
    ],
)
def test_an_actor_that_cannot_be_made(
    local_ray: None, how: str, error: type[Exception], words: str
) -> None:
    def make() -> tasks.Step:
        end(how)
        return lambda item, data: (item, data)

    with pytest.raises(error, match=words):
        list(
            tasks.run_chain(
                [{"at": 0}],
                before=lambda item, data: (item, data),
                make=make,
                after=lambda item, data: (item, data),
                num_actors=1,
                gpus=0.0,
            )
        )
