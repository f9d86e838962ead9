import math
import os

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from raydistill.config import StudentConfig
from raydistill.ngrams import Features, NgramSpec, featurize
from raydistill.student import Student, make_optimizer, predict, to_inputs, train_step
from raydistill.words import encode

PAPER = NgramSpec("bert2dnn", 8)
MATCH = NgramSpec("match", 8)
SMALL = StudentConfig(embedding_dim=4, hidden=(8,))


def some_features(num: int, spec: NgramSpec) -> Features:
    titles = [f"word{n % 7} word{n % 3}" for n in range(num)]
    queries = [f"word{n % 5}" for n in range(num)]
    return featurize(
        encode(queries), encode(titles), spec=spec, idf_V=np.ones(spec.num_rows, np.float32)
    )


def test_a_logit_by_hand() -> None:
    """Embedding of row i is i; the net adds up: the logit is sum(ids) / sqrt(count)."""
    student = Student(PAPER, StudentConfig(embedding_dim=1, hidden=(1,)))
    with torch.no_grad():
        student.embedding.weight.copy_(torch.arange(256.0).unsqueeze(1))
        for layer in (student.net[0], student.net[-1]):
            layer.weight.fill_(1.0)
            layer.bias.zero_()
    ids = np.array([3, 5, 7, 9, 10], np.int32)
    features = Features(ids, np.array([0, 4, 5]), np.empty((2, 0), np.float32))
    assert predict(student, features, device="cpu") == pytest.approx([24 / 2, 10.0])


def test_an_empty_bag_is_zero_and_no_rows_are_fine() -> None:
    student = Student(PAPER, SMALL)
    empty = Features(np.empty(0, np.int32), np.array([0, 0]), np.empty((1, 0), np.float32))
    assert np.isfinite(predict(student, empty, device="cpu")).all()
    none = Features(np.empty(0, np.int32), np.array([0]), np.empty((0, 0), np.float32))
    assert predict(student, none, device="cpu").shape == (0,)


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


def test_learns_a_word() -> None:
    torch.manual_seed(0)
    features = some_features(210, MATCH)
    targets = torch.tensor([float(n % 7 == 0) for n in range(210)])
    student = Student(MATCH, StudentConfig(embedding_dim=8, hidden=(16,)))
    optimizer = make_optimizer(student, learning_rate=0.1)
    inputs = to_inputs(features, device="cpu")
    first = train_step(student, optimizer, inputs, targets, num_global=210) / 210
    for _ in range(100):
        last = train_step(student, optimizer, inputs, targets, num_global=210) / 210
    assert first > 0.3 and last < 0.05


def test_the_loss_is_sigmoid_cross_entropy_on_the_soft_label() -> None:
    student = Student(PAPER, SMALL)
    with torch.no_grad():
        student.net[-1].weight.zero_()
        student.net[-1].bias.fill_(math.log(3))  # every score is 3/4
    optimizer = make_optimizer(student, learning_rate=0.01)
    loss = train_step(
        student, optimizer, to_inputs(some_features(1, PAPER), device="cpu"),
        torch.tensor([0.25]), num_global=1,
    )  # fmt: skip
    assert loss == pytest.approx(-(0.25 * math.log(0.75) + 0.75 * math.log(0.25)))


def _worker(rank: int, world: int, port: int, folder: str) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    dist.init_process_group("gloo", rank=rank, world_size=world)
    _steps(rank=rank, world=world, target=f"{folder}/{world}-{rank}.pt")
    dist.destroy_process_group()


def _steps(*, rank: int, world: int, target: str) -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    student = Student(MATCH, SMALL)
    optimizer = make_optimizer(student, learning_rate=0.1)
    features = some_features(33, MATCH)
    targets = torch.linspace(0, 1, 33)
    for step in range(3):
        rows = np.arange(step * 11, step * 11 + 11)
        mine = rows[len(rows) * rank // world : len(rows) * (rank + 1) // world]
        inputs = to_inputs(features.take(mine), device="cpu")
        train_step(student, optimizer, inputs, targets[mine], num_global=len(rows))
    torch.save(student.state_dict(), target)


@pytest.mark.slow
def test_two_workers_stay_the_same_and_step_like_one(tmp_path: object) -> None:
    port = 29_000 + os.getpid() % 2_000
    mp.spawn(_worker, args=(2, port, str(tmp_path)), nprocs=2)
    _steps(rank=0, world=1, target=f"{tmp_path}/1-0.pt")
    one, first, second = (torch.load(f"{tmp_path}/{n}.pt") for n in ("1-0", "2-0", "2-1"))
    for name, value in first.items():
        assert torch.equal(value, second[name]), name
        assert torch.allclose(value, one[name], atol=1e-5), name
