import pytest
import torch

from raydistill.config.student import TrainConfig
from raydistill.student.optimizers import make_optimizer, rate_at


def train_config(**fields: object) -> TrainConfig:
    return TrainConfig.model_validate(fields)


def test_adagrad_by_hand() -> None:
    weights = torch.tensor([1.0, 1.0])
    optimizer = make_optimizer(train_config(), weights)
    optimizer.step(torch.tensor([3.0, 0.5]), learning_rate=0.1)
    assert weights.tolist() == pytest.approx([0.9, 0.9])  # the first step is the rate itself
    optimizer.step(torch.tensor([4.0, 0.0]), learning_rate=0.1)
    assert weights.tolist() == pytest.approx([0.9 - 0.1 * 4 / 5, 0.9])


def test_adamw_by_hand() -> None:
    weights = torch.tensor([1.0])
    optimizer = make_optimizer(train_config(optimizer="adamw", weight_decay=0.5), weights)
    optimizer.step(torch.tensor([2.0]), learning_rate=0.1)
    assert weights.item() == pytest.approx(1 * (1 - 0.1 * 0.5) - 0.1)
    # Means 0.9 * 0.2 + 0.1 * 1 over 1 - 0.9^2, and 0.999 * 0.004 + 0.001 * 1 over 1 - 0.999^2.
    before = weights.item()
    optimizer.step(torch.tensor([1.0]), learning_rate=0.1)
    mean, square = 0.28 / 0.19, 0.004996 / 0.001999
    assert weights.item() == pytest.approx(before * 0.95 - 0.1 * mean / square**0.5, abs=1e-6)


def test_an_optimizer_goes_on_from_its_state() -> None:
    weights, others = torch.ones(3), torch.ones(3)
    config = train_config(optimizer="adamw")
    first, second = make_optimizer(config, weights), make_optimizer(config, others)
    grads = torch.tensor([1.0, -2.0, 3.0])
    first.step(grads, learning_rate=0.1)
    others.copy_(weights)
    second.load({name: value.clone() for name, value in first.state().items()})
    first.step(grads, learning_rate=0.1)
    second.step(grads, learning_rate=0.1)
    assert torch.equal(weights, others)


def test_the_rate_rises_and_falls() -> None:
    for schedule, half in (("constant", 1.0), ("linear", 0.5), ("cosine", 0.5)):
        config = train_config(schedule=schedule, warmup_share=0.2)
        rates = [rate_at(config, done_share=share) for share in (0.0, 0.1, 0.2, 0.6)]
        assert rates == pytest.approx([0.0, 0.5, 1.0, half])
    assert rate_at(train_config(), done_share=0.0) == 1.0


def test_a_setting_that_would_do_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="weight_decay is for optimizer"):
        train_config(weight_decay=0.01)
