import numpy as np
import pytest
import torch
from torch.nn import functional

from raydistill.config.student import StudentConfig, TrainConfig
from raydistill.serving.feature_spec import Features, NgramSpec
from raydistill.student.network import (
    Inputs,
    Student,
    predict,
    row_gradients_torch,
    sum_bags_torch,
)
from raydistill.student.trainer import Trainer, adagrad_rows_torch
from tests.helpers.students import inputs_of, some_features

torch.set_num_threads(1)  # the work is tiny: threads would only wait for each other
PAPER = NgramSpec("bert2dnn", 8)
MATCH = NgramSpec("match", 8)
SMALL = StudentConfig(embedding_dim=4, hidden=(8,))
DEEP = StudentConfig(embedding_dim=4, hidden=(8, 6))


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
