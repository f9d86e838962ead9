"""Training steps with results by hand, with one worker and with several."""

import math

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from raydistill.config.student import StudentConfig, TrainConfig
from raydistill.serving.feature_spec import NgramSpec
from raydistill.student.gradient_sync import GradientSync
from raydistill.student.network import Student
from raydistill.student.trainer import Trainer, adagrad, rate_at
from tests.helpers.students import inputs_of, some_features

torch.set_num_threads(1)  # the work is tiny: threads would only wait for each other
PAPER = NgramSpec("bert2dnn", 8)
MATCH = NgramSpec("match", 8)
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
SMALL = StudentConfig(embedding_dim=4, hidden=(8,))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_learns_a_word(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    targets = torch.tensor([float(n % 7 == 0) for n in range(210)])
    config = StudentConfig(embedding_dim=8, hidden=(16,), dropout=0.05)
    trainer = Trainer(Student(MATCH, config, dtype=dtype), TrainConfig(learning_rate=0.1))
    inputs = inputs_of(some_features(210, MATCH))
    losses = [trainer.step(inputs, targets, num_global=210) / 210 for _ in range(100)]
    assert losses[0] > 0.3 and losses[-1] < 0.07


def test_the_loss_is_sigmoid_cross_entropy_on_the_soft_label() -> None:
    student = Student(PAPER, SMALL)
    weight, bias = student.layers(student.weights_P)[-1]
    weight.zero_()
    bias.fill_(math.log(3))  # every score is 3/4
    trainer = Trainer(student, TrainConfig())
    loss = trainer.step(inputs_of(some_features(1, PAPER)), torch.tensor([0.25]), num_global=1)
    assert loss == pytest.approx(-(0.25 * math.log(0.75) + 0.75 * math.log(0.25)))


def test_the_loss_on_logits_is_half_the_squared_distance() -> None:
    student = Student(PAPER, SMALL)
    weight, bias = student.layers(student.weights_P)[-1]
    weight.zero_()
    bias.fill_(1.0)  # every logit is 1
    trainer = Trainer(student, TrainConfig(), target="logit")
    loss = trainer.step(inputs_of(some_features(1, PAPER)), torch.tensor([4.0]), num_global=1)
    assert loss == pytest.approx(3**2 / 2)
    assert bias.item() == pytest.approx(1.01)  # Adagrad's first step is the rate, towards 4


def _worker(rank: int, world: int, folder: str) -> None:
    meet = f"file://{folder}/workers"
    dist.init_process_group("gloo", init_method=meet, rank=rank, world_size=world)
    for name, dtype in DTYPES.items():
        trainer = _steps(MATCH, dtype, rank=rank, world=world)
        torch.save(trainer.state(), f"{folder}/{name}-{world}-{rank}.pt")
    num_bytes = [
        _steps(
            NgramSpec("match", bits), torch.float32, rank=rank, world=world
        ).gradient_sync.num_bytes
        for bits in (20, 22)
    ]
    assert num_bytes[0] == num_bytes[1] > 0  # of the batch, whatever the table
    dist.destroy_process_group()


def _steps(spec: NgramSpec, dtype: torch.dtype, *, rank: int, world: int) -> Trainer:
    """Three steps on a worker's share; the first of two has none of the last, of one pair."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    gradient_sync = GradientSync() if world > 1 else None
    config = TrainConfig(learning_rate=0.1)
    trainer = Trainer(Student(spec, SMALL, dtype=dtype), config, gradient_sync=gradient_sync)
    features = some_features(23, spec)
    targets = torch.linspace(0, 1, 23)
    for rows in np.split(np.arange(23), [11, 22]):
        mine = rows[len(rows) * rank // world : len(rows) * (rank + 1) // world]
        trainer.step(inputs_of(features.take(mine)), targets[mine], num_global=len(rows))
    return trainer


@pytest.mark.slow
def test_two_workers_stay_the_same_and_step_like_one(tmp_path: object) -> None:
    mp.spawn(_worker, args=(2, str(tmp_path)), nprocs=2)
    for kind, dtype in DTYPES.items():
        one = _steps(MATCH, dtype, rank=0, world=1).state()
        first, second = (torch.load(f"{tmp_path}/{kind}-2-{rank}.pt") for rank in (0, 1))
        for part in first:
            for name, value in first[part].items():
                assert torch.equal(value, second[part][name]), name
                apart = (value - one[part][name]).abs()
                if kind == "float32":
                    assert apart.max() < 1e-5, name
                # bfloat16 rounds each worker's gradients to 8 bits, and Adagrad makes a whole step
                # of one that is rounding alone: a weight may part by that, all together may not.
                assert apart.mean() < 1e-3, name
                assert (apart > 0.02).float().mean() < 0.005, name


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
