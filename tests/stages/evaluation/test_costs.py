import pytest

from raydistill.config.evaluation import PricesConfig
from raydistill.stages.evaluation.costs import _total, cost_of

DONE = {"rows_in": 1_000, "seconds": 1_800.0}


def test_gpu_hours_cost_what_they_cost() -> None:
    prices = PricesConfig(gpu_hour=2.5, cpu_hour=0.1, gpu_kw=0.7)
    found = cost_of("label a", {**DONE, "device": "cuda"}, workers=(4, 0.5), prices=prices)
    assert found["gpu_hours"] == 1 and found["cpu_hours"] == 0  # 4 halves of a GPU for half an hour
    assert found["money"] == 2.5 and found["kwh"] == pytest.approx(0.7)
    assert (found["stage"], found["pairs"], found["seconds"]) == ("label a", 1_000, 1_800)


def test_a_stage_without_a_gpu_counts_its_cores() -> None:
    prices = PricesConfig(cpu_hour=0.1)
    found = cost_of("label a", {**DONE, "device": "cpu"}, workers=(4, 0.5), prices=prices)
    assert found["gpu_hours"] == 0 and found["cpu_hours"] == 2
    assert found["money"] == pytest.approx(0.2) and found["kwh"] is None
    assert cost_of("export", DONE, workers=(1, 0.0), prices=prices)["cpu_hours"] == 0.5


def test_a_worker_counts_as_the_cores_that_it_uses() -> None:
    done = {**DONE, "device": "cpu", "cores": 8}
    prices = PricesConfig(cpu_hour=0.1)
    found = cost_of("finetune a", done, workers=(2, 1.0), prices=prices)
    assert found["cpu_hours"] == 8 and found["money"] == pytest.approx(0.8)
    found = cost_of("finetune a", {**done, "device": "cuda"}, workers=(2, 1.0), prices=prices)
    assert found["gpu_hours"] == 1 and found["cpu_hours"] == 0


def test_a_resumed_stage_costs_what_all_its_pairs_cost() -> None:
    done = {**DONE, "device": "cuda", "rows_scored": 250}  # 750 pairs were scored before
    found = cost_of("label a", done, workers=(1, 1.0), prices=PricesConfig(gpu_hour=2.0))
    assert (found["seconds"], found["gpu_hours"], found["money"]) == (7_200, 2, 4)


def test_a_sum_without_all_prices_is_not_given() -> None:
    entries = [{"money": 1.0}, {"money": None}]
    assert _total(entries, "money") is None and _total(entries[:1], "money") == 1
    assert _total([], "money") is None
