"""Money so far, by arithmetic: machines alive x hours x prices."""

import os
import socket
from typing import Any

from raydistill.cluster.spending import Spending, units_of
from raydistill.config.evaluation import PricesConfig


def node(
    *, cpus: float = 0, gpus: float = 0, alive: bool = True, host: str = "a"
) -> dict[str, Any]:
    units = {"CPU": float(cpus), "GPU": float(gpus)}
    resources = {name: value for name, value in units.items() if value}
    return {"Alive": alive, "Resources": resources, "NodeManagerHostname": host}


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_the_price_of_a_gpu_covers_its_machine() -> None:
    nodes = [node(), node(cpus=8), node(cpus=32, gpus=4), node(cpus=64, alive=False)]
    assert units_of(nodes) == (4.0, 8.0)


def test_logical_cores_of_this_machine_are_not_paid_for() -> None:
    here = node(cpus=1_000, host=socket.gethostname())
    assert units_of([here]) == (0.0, float(os.cpu_count() or 1))


def test_machines_cost_while_they_are_alive() -> None:
    clock, nodes = Clock(), [node(cpus=2)]
    prices = PricesConfig(cpu_hour=0.5, gpu_hour=3.0, currency="EUR")
    spending = Spending(prices, nodes=lambda: nodes, clock=clock)
    assert str(spending) == "0.00 EUR"
    clock.now_s = 3_600
    assert str(spending) == "1.00 EUR"  # 2 cores for an hour
    nodes.append(node(cpus=8, gpus=2))
    clock.now_s += 6  # the machine is seen now
    assert str(spending) == "1.00 EUR"
    clock.now_s += 3_600
    assert str(spending) == "8.00 EUR"  # and 2 cores and 2 GPUs for another hour
    nodes[:] = [node(cpus=2, alive=False), node(cpus=8, gpus=2, alive=False)]
    clock.now_s += 6
    str(spending)
    clock.now_s += 36_000
    assert str(spending) == "8.01 EUR"


def test_without_all_prices_there_is_no_sum() -> None:
    clock, nodes = Clock(), [node(cpus=2)]
    unpriced = Spending(PricesConfig(), nodes=lambda: nodes, clock=clock)
    gpu_alone = Spending(PricesConfig(gpu_hour=3.0), nodes=lambda: nodes, clock=clock)
    clock.now_s = 3_600
    assert str(unpriced) == "" and str(gpu_alone) == ""


def test_a_head_that_is_away_for_a_moment_changes_nothing() -> None:
    clock, answers = Clock(), [[node(cpus=2)]]

    def ask() -> list[dict[str, Any]]:
        if not answers:
            raise ConnectionError("no head")
        return answers.pop()

    spending = Spending(PricesConfig(cpu_hour=1.0), nodes=ask, clock=clock)
    clock.now_s = 1_800
    assert str(spending) == "1.00 USD"
    clock.now_s = 3_600
    assert str(spending) == "2.00 USD"
