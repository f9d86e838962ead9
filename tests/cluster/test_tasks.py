"""Chains of steps in actors: what fails stops nothing else, and is said once."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from raydistill.cluster import tasks
from raydistill.cluster.tasks import FAILED, Item
from raydistill.errors import WorkError


@pytest.mark.ray
def test_a_step_that_fails_stops_no_other_item(local_ray: None) -> None:
    def work(item: Item, data: bytes) -> tuple[Item, bytes]:
        if item["at"] == 3:
            raise KeyError("three")
        if item["at"] == 5:  # takes its process with it, every time
            os._exit(1)
        return {**item, "data": bytes(data).decode()}, data

    done = list(
        tasks.run_chain(
            [{"at": at} for at in range(8)],
            before=lambda item, _: (item, b"read"),
            make=lambda: work,
            after=lambda item, data: ({**item, "written": bytes(data).decode()}, b""),
            num_actors=2,
            gpus=0.0,
        )
    )
    assert {0, 1, 2, 4} <= {item["at"] for item in done} <= {0, 1, 2, 3, 4, 6, 7}
    assert [i for i in done if FAILED in i] == [{"at": 3, FAILED: "KeyError: 'three'"}]
    assert all(i["data"] == i["written"] == "read" for i in done if i["at"] != 3)


@pytest.mark.ray
def test_an_error_in_a_constructor_comes_once(
    local_ray: None, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    calls = tmp_path / "calls"
    calls.mkdir()

    def make() -> Callable[[Item, bytes], tuple[Item, bytes]]:
        (calls / str(len(list(calls.iterdir())))).touch()
        raise RuntimeError("a page of words\nand the last line")

    items = [{"at": at} for at in range(6)]
    with pytest.raises(WorkError) as caught:
        list(
            tasks.run_chain(
                items,
                before=lambda item, data: (item, data),
                make=make,
                after=lambda item, data: (item, data),
                num_actors=1,
                gpus=0.0,
            )
        )
    assert str(caught.value) == "a worker could not start: RuntimeError: and the last line"
    assert len(list(calls.iterdir())) == 1
