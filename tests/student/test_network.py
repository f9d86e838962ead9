import math
import os

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.nn import functional

from raydistill.config.student import StudentConfig, TrainConfig
from raydistill.serving.feature_spec import Features, NgramSpec
from raydistill.serving.featurize import featurize
from raydistill.serving.lexicon import Lexicon
from raydistill.serving.text.tokenizer import encode
from raydistill.student.embedding_kernels import look_up
from raydistill.student.gradient_sync import GradientSync
from raydistill.student.network import (
    Inputs,
    Student,
    predict,
    row_gradients_torch,
    sum_bags_torch,
    to_inputs,
)
from raydistill.student.trainer import Trainer, adagrad_rows_torch

torch.set_num_threads(1)  # the work is tiny: threads would only wait for each other
PAPER = NgramSpec("bert2dnn", 8)
MATCH = NgramSpec("match", 8)
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
SMALL = StudentConfig(embedding_dim=4, hidden=(8,))
DEEP = StudentConfig(embedding_dim=4, hidden=(8, 6))


def some_features(num: int, spec: NgramSpec) -> Features:
    titles = [f"word{n % 7} word{n % 3}" for n in range(num)]
    queries = [f"word{n % 5}" for n in range(num)]
    return featurize(
        encode(queries), encode(titles), spec=spec, lexicon=Lexicon.from_idf(np.ones(1, np.float32))
    )


def inputs_of(features: Features) -> Inputs:
    lookup = look_up(features.ids_N, features.offsets)
    return to_inputs(lookup, features.dense_BF, device="cpu")


def by_autograd(
    student: Student, inputs: Inputs, targets_B: torch.Tensor
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The mean loss and the gradients of all weights, from torch's own operators."""
    arrays = {
        name: value.clone().requires_grad_(not name.startswith("dense"))
        for name, value in student.arrays().items()
    }
    ids = inputs.rows_U[inputs.slots_N]
    bags = functional.embedding_bag(
        ids, arrays["embedding"], inputs.offsets, mode="sum", include_last_offset=True
    )
    counts = inputs.offsets.diff().clamp(min=1).unsqueeze(1)
    x = (bags / counts.sqrt()).view(len(targets_B), -1)
    dense = (inputs.dense_BF - arrays["dense_mean"]) / arrays["dense_std"]
    x = torch.cat([x, dense], dim=1)
    num_layers = sum(name.startswith("weight_") for name in arrays)
    for at in range(num_layers):
        x = functional.linear(x, arrays[f"weight_{at}"], arrays[f"bias_{at}"])
        x = x.relu() if at + 1 < num_layers else x
    loss = functional.binary_cross_entropy_with_logits(x.squeeze(1), targets_B)
    loss.backward()  # type: ignore[no-untyped-call]
    return loss.detach(), {n: v.grad for n, v in arrays.items() if v.grad is not None}


def test_a_logit_by_hand() -> None:
    """Embedding of row i is i; the net adds up: the logit is sum(ids) / sqrt(count)."""
    student = Student(PAPER, StudentConfig(embedding_dim=1, hidden=(1,)))
    student.table_VD.copy_(torch.arange(256.0).unsqueeze(1))
    for weight, bias in student.layers(student.weights_P):
        weight.fill_(1.0)
        bias.zero_()
    ids = np.array([3, 5, 7, 9, 10], np.int32)
    features = Features(ids, np.array([0, 4, 5]), np.empty((2, 0), np.float32))
    assert predict(student, features, device="cpu") == pytest.approx([24 / 2, 10.0])


def test_an_empty_bag_is_zero_and_no_rows_are_fine() -> None:
    student = Student(PAPER, SMALL)
    empty = Features(np.empty(0, np.int32), np.array([0, 0]), np.empty((1, 0), np.float32))
    assert np.isfinite(predict(student, empty, device="cpu")).all()
    none = Features(np.empty(0, np.int32), np.array([0]), np.empty((0, 0), np.float32))
    assert predict(student, none, device="cpu").shape == (0,)
    # A worker without a pair still takes its step.
    before = student.weights_P.clone()
    loss = Trainer(student, TrainConfig()).step(inputs_of(none), torch.empty(0), num_global=3)
    assert loss == 0 and torch.equal(student.weights_P, before)


def test_dense_features_are_standardised() -> None:
    features = some_features(50, MATCH)
    torch.manual_seed(0)
    student = Student(MATCH, SMALL)
    before = predict(student, features, device="cpu")
    mean = np.full(MATCH.num_dense, 3.0, np.float32)
    std = np.full(MATCH.num_dense, 2.0, np.float32)
    student.standardise(mean_F=mean, std_F=std)
    moved = Features(features.ids_N, features.offsets, features.dense_BF * 2 + 3)
    assert predict(student, moved, device="cpu") == pytest.approx(before, abs=1e-5)


def test_the_backward_pass_is_autograds() -> None:
    torch.manual_seed(0)
    student, inputs = Student(MATCH, DEEP), inputs_of(some_features(40, MATCH))
    targets = torch.linspace(0, 1, 40)
    loss, expected = by_autograd(student, inputs, targets)
    logits, read = student.forward(inputs)
    flat = torch.empty_like(student.weights_P)
    grads_BX = student.backward((logits.sigmoid() - targets) / 40, read, out_P=flat)
    found = {}
    for at, (weight, bias) in enumerate(student.layers(flat)):
        found |= {f"weight_{at}": weight, f"bias_{at}": bias}
    table = torch.zeros_like(student.table_VD)
    table[inputs.rows_U] = student.row_gradients(inputs, grads_BX)
    found["embedding"] = table
    assert found.keys() == expected.keys()
    for name, value in found.items():
        assert torch.allclose(value, expected[name], atol=1e-6), name
    trainer = Trainer(student, TrainConfig())
    assert trainer.step(inputs, targets, num_global=40) / 40 == pytest.approx(float(loss))


def test_bags_of_other_devices_are_those_of_the_cpu() -> None:
    torch.manual_seed(0)
    student, inputs = Student(MATCH, SMALL), inputs_of(some_features(20, MATCH))
    rows_UD = student.table_VD[inputs.rows_U]
    bags = student._input(inputs)[:, : student.num_bag_columns]
    assert torch.allclose(sum_bags_torch(inputs, rows_UD).view(20, -1), bags, atol=1e-6)
    grads = torch.randn(20, student.num_bag_columns)
    expected = student.row_gradients(inputs, grads)
    assert torch.allclose(row_gradients_torch(inputs, grads.view(40, -1)), expected, atol=1e-5)
    table, squares = student.table_VD.clone(), torch.zeros(256)
    adagrad_rows_torch(table, squares, inputs.rows_U, expected, learning_rate=0.1)
    trainer = Trainer(student, TrainConfig())
    trainer._move_rows(inputs.rows_U, expected, learning_rate=0.1)
    assert torch.allclose(table, student.table_VD, atol=1e-6)
    assert torch.allclose(squares, trainer.squares_V, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_learns_a_word(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    targets = torch.tensor([float(n % 7 == 0) for n in range(210)])
    config = StudentConfig(embedding_dim=8, hidden=(16,), dropout=0.05)
    trainer = Trainer(Student(MATCH, config, dtype=dtype), TrainConfig(learning_rate=0.1))
    inputs = inputs_of(some_features(210, MATCH))
    losses = [trainer.step(inputs, targets, num_global=210) / 210 for _ in range(100)]
    assert losses[0] > 0.3 and losses[-1] < 0.07


def test_dropout_leaves_out_its_share_and_keeps_the_mean() -> None:
    torch.manual_seed(0)
    student = Student(MATCH, StudentConfig(embedding_dim=4, hidden=(2_000,)))
    inputs = inputs_of(some_features(50, MATCH))
    _, (_, whole) = student.forward(inputs)
    _, (_, dropped) = student.forward(inputs, dropout=0.25)
    alive = whole > 0
    assert (dropped[alive] == 0).float().mean() == pytest.approx(0.25, abs=0.01)
    kept = dropped > 0
    assert torch.allclose(dropped[kept], whole[kept] / 0.75)


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


def _worker(rank: int, world: int, port: int, folder: str) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    dist.init_process_group("gloo", rank=rank, world_size=world)
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
    port = 29_000 + os.getpid() % 2_000
    mp.spawn(_worker, args=(2, port, str(tmp_path)), nprocs=2)
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
