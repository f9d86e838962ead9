"""The same bytes, however many workers compute the parts of a batch."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from raydistill.config.student import StudentConfig, TrainConfig
from raydistill.runs.run_folder import Run
from raydistill.serving.feature_spec import NgramSpec
from raydistill.student.fit import StudentFit
from raydistill.student.gradient_sync import GradientSync
from raydistill.student.network import Student
from raydistill.student.trainer import Part, Trainer
from tests.helpers.fits import again, run_fit, start
from tests.helpers.runs import with_train
from tests.helpers.students import inputs_of, some_features

torch.set_num_threads(1)
NUM_PARTS = 4
DTYPES = (torch.float32, torch.bfloat16)
SPEC = NgramSpec("match", 8)


def test_parts_are_added_in_their_order() -> None:
    """In float32 1e8 + 1 is 1e8: from the left the sum is 1, from the right it is 0."""
    sync = GradientSync(num_parts=4)
    parts = [torch.tensor([value, 0.5]) for value in (1e8, 1.0, -1e8, 1.0)]
    total = sync.sum_dense(parts)
    total.send_sums()
    assert total.wait().tolist() == [1.0, 2.0]
    assert parts[0].tolist() == [1e8, 0.5]
    rows = [(torch.tensor([3, part], dtype=torch.int32), torch.ones(2, 1)) for part in range(4)]
    rows[3] = (torch.tensor([3], dtype=torch.int32), torch.ones(1, 1))
    counts = sync.all_gather_counts([ids for ids, _ in rows])
    ids, sums = sync.sum_rows(rows, counts=counts)
    assert dict(zip(ids.tolist(), sums.flatten().tolist(), strict=True)) == {3: 4, 0: 1, 1: 1, 2: 1}
    assert sync.num_bytes == 0


def test_more_workers_than_parts_would_leave_some_without_work() -> None:
    assert GradientSync(num_parts=3).parts == range(3)
    assert GradientSync().parts == range(1)


def _steps(dtype: torch.dtype) -> Trainer:
    """Three steps with dropout; the last batch is one pair, so three of its parts are empty."""
    torch.manual_seed(0)
    config = StudentConfig(embedding_dim=4, hidden=(8,), dropout=0.2)
    trainer = Trainer(
        Student(SPEC, config, dtype=dtype),
        TrainConfig(learning_rate=0.1),
        gradient_sync=GradientSync(num_parts=NUM_PARTS),
    )
    features, targets = some_features(23, SPEC), torch.linspace(0, 1, 23)
    trainer.seed_dropout(1, 2, 3)
    for rows in np.split(np.arange(23), [11, 22]):
        shares = np.array_split(rows, NUM_PARTS)
        parts = [
            Part(inputs_of(features.take(shares[part])), targets[shares[part]])
            for part in trainer.parts
        ]
        trainer.step_parts(parts, num_global=len(rows))
    return trainer


def _bytes(trainer: Trainer) -> list[bytes]:
    return [v.numpy().tobytes() for one in trainer.state().values() for v in one.values()]


def _worker(rank: int, fit: StudentFit, folder: Path, saved: dict[int, Path]) -> None:
    torch.set_num_threads(1)
    for world, checkpoint in saved.items():
        if rank >= world:
            continue
        meet = f"file://{folder}/workers-{world}"
        dist.init_process_group("gloo", init_method=meet, rank=rank, world_size=world)
        found = [_bytes(_steps(dtype)) for dtype in DTYPES]
        state = again(fit, GradientSync(num_parts=NUM_PARTS))
        state.load(checkpoint)
        run_fit(fit, state)
        if rank == 0:
            state.save(folder / f"end-{world}.pt")
        torch.save(found, folder / f"steps-{world}-{rank}.pt")
        dist.barrier()
        dist.destroy_process_group()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_any_number_of_workers_makes_the_same_bytes(labeled: Run, tmp_path: Path) -> None:
    """Steps from the start, and the rest of a fit from a checkpoint of another number."""
    run = with_train(
        labeled, num_workers=NUM_PARTS, checkpoint_every_windows=1, window_rows=1, dtype="float32",
        evaluate_every_pairs=700, epochs=1,
    )  # fmt: skip
    fit, _ = start(run)
    alone = again(fit, GradientSync(num_parts=NUM_PARTS))
    saves = [tmp_path / "saves"]
    run_fit(fit, alone, saves=saves)
    saved = {world: saves[world] for world in (2, 3, 4)}
    mp.spawn(_worker, args=(fit, tmp_path, saved), nprocs=4)
    steps = [_bytes(_steps(dtype)) for dtype in DTYPES]
    for world in saved:
        for rank in range(world):
            assert torch.load(tmp_path / f"steps-{world}-{rank}.pt") == steps, (world, rank)
        end = again(fit, GradientSync(num_parts=NUM_PARTS))
        end.load(tmp_path / f"end-{world}.pt")
        assert _bytes(end.trainer) == _bytes(alone.trainer), world
        assert end.history == alone.history and end.line == alone.line, world
