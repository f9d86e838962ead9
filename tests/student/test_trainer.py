import pytest
import torch

from raydistill.config.student import TrainConfig
from raydistill.student.trainer import adagrad, rate_at


def test_adagrad_by_hand() -> None:
    weights, squares = torch.tensor([1.0, 1.0]), torch.zeros(2)
    adagrad(weights, squares, torch.tensor([3.0, 0.5]), learning_rate=0.1)
    assert weights.tolist() == pytest.approx([0.9, 0.9])  # the first step is the rate itself
    adagrad(weights, squares, torch.tensor([4.0, 0.0]), learning_rate=0.1)
    assert weights.tolist() == pytest.approx([0.9 - 0.1 * 4 / 5, 0.9])


def test_the_rate_rises_and_falls() -> None:
    for schedule, half in (("constant", 1.0), ("linear", 0.5), ("cosine", 0.5)):
        config = TrainConfig.model_validate({"schedule": schedule, "warmup_share": 0.2})
        rates = [rate_at(config, done_share=share) for share in (0.0, 0.1, 0.2, 0.6)]
        assert rates == pytest.approx([0.0, 0.5, 1.0, half])
    assert rate_at(TrainConfig(), done_share=0.0) == 1.0
