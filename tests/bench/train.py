"""Training speed of the student: pairs a second from Parquet text, against stock PyTorch and peak.

    python tests/bench/train.py --rounds 3

The process is pinned to the first core that it may use, the two workers to one core each. Pairs are
those of a made-up shop, logits are random; interleaved rounds, medians. Stock PyTorch is the same
student in common PyTorch code: a Dataset of text rows, n-grams in Python,
EmbeddingBag(sparse=True), Adam or Adagrad on its sparse gradients, a DataLoader, float32.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
import torch.distributed as dist
from torch.nn import functional
from torch.utils.data import DataLoader, IterableDataset

from raydistill.config.student import StudentConfig, TrainConfig
from raydistill.data.pairs import collapse
from raydistill.demo.shop import Shop
from raydistill.files.folder import Folder
from raydistill.files.pieces import PIECE_ROWS
from raydistill.files.prefetch import prefetch
from raydistill.files.schema import LOGITS
from raydistill.serving.feature_spec import NgramSpec
from raydistill.serving.lexicon import Lexicon
from raydistill.student.batches import Batch, Loader, Window, plan_windows
from raydistill.student.fit import BATCHES_AHEAD
from raydistill.student.gradient_sync import GradientSync
from raydistill.student.network import Student, to_inputs
from raydistill.student.trainer import Trainer
from raydistill.teachers.soft_labels import Targets
from raydistill.teachers.transformer.device import student_dtype
from tests.helpers.stock_student import HIDDEN, StockStudent, words_to_ids

FREE = sorted(os.sched_getaffinity(0))  # the cores that this process may use
SHARD_ROWS = 65_536
Shards = dict[str, int]


def make_shards(folder: Path, *, num_shards: int) -> tuple[Folder, Folder, Shards]:
    """Shards of a made-up shop's pairs, random logits, and the rows of each shard."""
    pairs, logits = Folder(str(folder / "pairs")), Folder(str(folder / "logits"))
    if len(logits.shards()) < num_shards:
        shop = Shop.build(num_products=100_000, num_queries=30_000)
        rng = np.random.default_rng(0)
        for at in range(num_shards):
            raw = shop.transfer_pairs(at, num_rows=SHARD_ROWS).select(["query", "title"])
            table = collapse(raw, dedupe=True)
            values = pa.array(rng.normal(size=len(table)).astype(np.float32))
            name = f"part-{at:05d}.parquet"
            pairs.write_table(name, table)
            logits.write_table(name, pa.table([table["pair_id"], values], schema=LOGITS))
    names = pairs.shards()[:num_shards]
    return pairs, logits, {name: pairs.read_table(name).num_rows for name in names}


class Bench:
    """Measurements of one preset on some shards."""

    def __init__(self, folder: Path, *, preset: str, num_shards: int, batch_rows: int) -> None:
        self.preset, self.batch_rows = preset, batch_rows
        self.pairs, self.logits, self.shards = make_shards(folder, num_shards=num_shards)

    @property
    def targets(self) -> Targets:
        return Targets((self.logits,), (1.0,))

    def spec(self, bits: int) -> NgramSpec:
        return NgramSpec(self.preset, bits)

    def windows(self, epochs: int) -> list[Window]:
        plans = (
            plan_windows(self.shards, seed=0, epoch=epoch, window_rows=2 * PIECE_ROWS)
            for epoch in range(epochs)
        )
        return [window for plan in plans for window in plan]

    def batches(
        self, bits: int, *, part: int = 0, num_parts: int = 1, epochs: int = 1
    ) -> Iterator[Batch]:
        spec = self.spec(bits)
        lexicon = Lexicon.from_idf(np.ones(1, np.float32))
        loader = Loader(self.pairs, self.targets, spec=spec, lexicon=lexicon)
        return loader.batches(
            self.windows(epochs), part=part, num_parts=num_parts,
            batch_rows=self.batch_rows * num_parts, seed=0,
        )  # fmt: skip

    def trainer(self, bits: int, *, gradient_sync: GradientSync | None = None) -> Trainer:
        torch.manual_seed(0)
        dtype = student_dtype("auto", device="cpu")
        student = Student(self.spec(bits), StudentConfig(hidden=HIDDEN), dtype=dtype)
        return Trainer(student, TrainConfig(), gradient_sync=gradient_sync)

    def ours(self, trainer: Trainer, bits: int, **workers: int) -> dict[str, float]:
        """One pass from Parquet text: this worker's pairs a second, and the share it waits."""
        num_pairs, waited_s, num_steps = 0, 0.0, 0
        batches = prefetch(self.batches(bits, **workers), depth=BATCHES_AHEAD)
        batch = next(batches)  # start-up, not timed: the first window is read
        start_s, start_cpu_s = time.perf_counter(), time.process_time()
        while batch is not None:
            inputs = to_inputs(batch.lookup, batch.dense_BF, device="cpu")
            trainer.step(inputs, torch.from_numpy(batch.targets_B), num_global=batch.num_global)
            num_pairs += len(batch.targets_B)
            num_steps += 1
            asked_s = time.perf_counter()
            batch = next(batches, None)
            waited_s += time.perf_counter() - asked_s
        seconds = time.perf_counter() - start_s
        return {
            "pairs_per_s": num_pairs / seconds,
            "pairs_per_cpu_s": num_pairs / (time.process_time() - start_cpu_s),
            "waited": waited_s / seconds,
            "num_steps": num_steps,
        }

    def loader_alone(self, bits: int) -> float:
        start_s = time.perf_counter()
        num_pairs = sum(len(batch.targets_B) for batch in self.batches(bits))
        return num_pairs / (time.perf_counter() - start_s)

    def macs(self) -> int:
        """Multiply-adds of one pair's forward pass through the network."""
        spec = self.spec(8)
        sizes = [spec.num_bags * 64 + spec.num_dense, *HIDDEN, 1]
        return sum(a * b for a, b in pairwise(sizes))


class TextRows(IterableDataset):
    """Rows as in a stock data set: texts and the teacher's probability."""

    def __init__(self, bench: Bench, *, num_shards: int) -> None:
        self.bench, self.names = bench, list(bench.shards)[:num_shards]

    def __iter__(self) -> Iterator[tuple[str, str, float]]:
        for name in self.names:
            rows = self.bench.pairs.read_table(name, columns=["query", "title"])
            logits = self.bench.logits.read_table(name)["logit"].to_numpy()
            probs = 1 / (1 + np.exp(-logits))
            yield from zip(
                rows["query"].to_pylist(), rows["title"].to_pylist(), probs.tolist(), strict=True
            )


def stock(bench: Bench, bits: int, *, optimizer: str, num_shards: int) -> float:
    """Pairs a second of stock PyTorch on the same files."""
    torch.manual_seed(0)
    model, num_rows = StockStudent(bits), 1 << bits
    if optimizer == "adagrad":
        optimizers = [torch.optim.Adagrad(model.parameters(), lr=0.01)]
    else:
        optimizers = [
            torch.optim.SparseAdam(model.bag.parameters(), lr=1e-3),
            torch.optim.Adam(model.net.parameters(), lr=1e-3),
        ]

    def collate(rows: list[tuple[str, str, float]]) -> tuple[torch.Tensor, ...]:
        bags = [words_to_ids([query, title], num_rows) for query, title, _ in rows]
        counts = torch.tensor([len(bag) for bag in bags])
        ids = torch.tensor([row for bag in bags for row in bag])
        offsets = torch.cat([torch.zeros(1, dtype=torch.int64), counts.cumsum(0)[:-1]])
        return ids, offsets, counts.float().unsqueeze(1), torch.tensor([row[2] for row in rows])

    rows = TextRows(bench, num_shards=num_shards)
    num_pairs, start_s = 0, time.perf_counter()
    for ids, offsets, counts, targets in DataLoader(
        rows, batch_size=bench.batch_rows, collate_fn=collate
    ):
        for one in optimizers:
            one.zero_grad()
        loss = functional.binary_cross_entropy_with_logits(model(ids, offsets, counts), targets)
        loss.backward()
        for one in optimizers:
            one.step()
        num_pairs += len(targets)
    return num_pairs / (time.perf_counter() - start_s)


def peak_flops(dtype: torch.dtype, *, size: int = 1024, seconds: float = 1.0) -> float:
    """Floating-point operations a second of the fastest square matrix product in `seconds`."""
    a, b = (torch.randn(size, size).to(dtype) for _ in range(2))
    best, stop_s = 0.0, time.perf_counter() + seconds
    while time.perf_counter() < stop_s:
        start_s = time.perf_counter()
        torch.mm(a, b)
        best = max(best, 2 * size**3 / (time.perf_counter() - start_s))
    return best


def worker(arguments: argparse.Namespace) -> None:
    """One of several workers: a warm-up pass and a measured pass, with the bytes it sent a step."""
    os.sched_setaffinity(0, [FREE[arguments.rank]])
    torch.set_num_threads(1)
    num_workers = arguments.workers
    dist.init_process_group(
        "gloo", init_method=arguments.meet, rank=arguments.rank, world_size=num_workers
    )
    bench = bench_of(arguments)
    gradient_sync = GradientSync() if num_workers > 1 and not arguments.apart else None
    trainer = bench.trainer(arguments.bits, gradient_sync=gradient_sync)
    workers = {"part": arguments.rank, "num_parts": num_workers}
    for _ in range(2):
        before = gradient_sync.num_bytes if gradient_sync else 0
        dist.barrier()
        found = bench.ours(trainer, arguments.bits, **workers)
    found["bytes_per_step"] = ((gradient_sync.num_bytes if gradient_sync else 0) - before) / found[
        "num_steps"
    ]
    if arguments.rank == 0:
        print(json.dumps(found))
    dist.destroy_process_group()


def run_workers(
    arguments: argparse.Namespace, num_workers: int, *, bits: int, apart: bool = False
) -> dict[str, float]:
    """Run all workers of a group; the result of rank 0. `apart`: they do not exchange gradients."""
    meet = Path(tempfile.mkdtemp()) / "workers"  # the file by which they find each other
    command = [sys.executable, __file__, "--meet", meet.as_uri()]
    for name in ("folder", "shards", "batch_rows", "preset"):
        command += [f"--{name.replace('_', '-')}", str(getattr(arguments, name))]
    command += ["--workers", str(num_workers), "--bits", str(bits)] + ["--apart"] * apart

    def free() -> None:
        os.sched_setaffinity(0, FREE)

    children = [
        subprocess.Popen(
            [*command, "--rank", str(rank)], stdout=subprocess.PIPE, text=True, preexec_fn=free
        )
        for rank in range(num_workers)
    ]
    outputs = [child.communicate()[0] for child in children]
    if any(child.returncode for child in children):
        raise SystemExit("a worker failed")
    return json.loads(outputs[0])


def bench_of(arguments: argparse.Namespace) -> Bench:
    return Bench(
        arguments.folder,
        preset=arguments.preset,
        num_shards=arguments.shards,
        batch_rows=arguments.batch_rows,
    )


def one_core(bench: Bench, *, rounds: int) -> dict[str, float]:
    """All measurements on one core; medians of interleaved rounds."""
    trainers = {bits: bench.trainer(bits) for bits in (20, 22)}
    found: dict[str, list[float]] = {}
    for at in range(rounds + 1):  # the first compiles and fills caches: ignored
        results = {
            "peak_bf16_gflops": peak_flops(torch.bfloat16) / 1e9,
            "peak_fp32_gflops": peak_flops(torch.float32) / 1e9,
            "loader_pairs_per_s": bench.loader_alone(20),
            **{f"stock_{name}": stock(bench, 20, optimizer=name, num_shards=1)
               for name in ("adagrad", "adam")},
        }  # fmt: skip
        for bits, trainer in trainers.items():
            result = bench.ours(trainer, bits)
            results[f"pairs_per_s_2^{bits}"] = result["pairs_per_s"]
            results[f"pairs_per_cpu_s_2^{bits}"] = result["pairs_per_cpu_s"]
            results[f"waited_2^{bits}"] = result["waited"]
        for name, value in results.items() if at else ():
            found.setdefault(name, []).append(value)
    return {name: statistics.median(values) for name, values in found.items()}


def peak_memory(bench: Bench, *, bits: int, every: int = 20) -> dict[int, float]:
    """Peak MB of this process after 1,025,123 and after 20,000,000 pairs.

    The shards are read repeatedly, as in epochs; only one batch in `every` is trained on.
    """
    trainer, found, num_pairs = bench.trainer(bits), dict[int, float](), 0
    marks = [1_025_123, 20_000_000]
    epochs = -(-marks[-1] // sum(bench.shards.values()))
    for at, batch in enumerate(prefetch(bench.batches(bits, epochs=epochs), depth=BATCHES_AHEAD)):
        if at % every == 0:
            inputs = to_inputs(batch.lookup, batch.dense_BF, device="cpu")
            trainer.step(inputs, torch.from_numpy(batch.targets_B), num_global=batch.num_global)
        num_pairs += len(batch.targets_B)
        if num_pairs >= marks[len(found)]:
            found[num_pairs] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            if len(found) == len(marks):
                break
    return found


def one_core_figures(bench: Bench, *, rounds: int) -> dict[str, float]:
    found = one_core(bench, rounds=rounds)
    limit = found["peak_bf16_gflops"] * 1e9 / (6 * bench.macs())
    rate = found["pairs_per_s_2^20"]
    for name, value in found.items():
        print(f"{name:<28} {value:>14,.4f}")
    print(f"{'limit, pairs/s':<28} {limit:>14,.0f}")
    return {
        "vs_stock_torch": rate / max(found["stock_adagrad"], found["stock_adam"]),
        "pairs_per_s": rate,
        "share_of_limit": rate / limit,
        "loader_pairs_per_s": found["loader_pairs_per_s"],
        "waited_share": found["waited_2^20"],
        "rate_2^22_over_2^20": found["pairs_per_s_2^22"] / rate,
    }


def two_worker_figures(arguments: argparse.Namespace) -> dict[str, float]:
    ratios, ceilings = [], []
    for _ in range(arguments.rounds):
        one, two = (run_workers(arguments, num, bits=20) for num in (1, 2))
        # The upper limit with shared caches and memory, if the exchange of gradients took no time.
        apart = run_workers(arguments, 2, bits=20, apart=True)
        ratios.append(2 * two["pairs_per_s"] / one["pairs_per_s"])
        ceilings.append(2 * apart["pairs_per_s"] / one["pairs_per_s"])
        # CPU time excludes the time of other processes and the wait for the other worker.
        for name in ("pairs_per_s", "pairs_per_cpu_s"):
            print(
                f"{name:<16} 1 worker {one[name]:,.0f}, 2 workers 2 x {two[name]:,.0f}, "
                f"2 apart 2 x {apart[name]:,.0f}"
            )
    for bits in (17, 20, 22):
        found = run_workers(arguments, 2, bits=bits)
        print(f"2^{bits} rows: {found['bytes_per_step']:,.0f} bytes a step and worker")
    return {
        "two_worker_speedup": statistics.median(ratios),
        "two_apart_speedup": statistics.median(ceilings),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--shards", type=int, default=4)
    parser.add_argument("--batch-rows", type=int, default=1_024, help="of each worker")
    parser.add_argument("--preset", choices=("match", "bert2dnn"), default="bert2dnn")
    parser.add_argument("--folder", type=Path, default=Path("runs/bench-train"))
    parser.add_argument("--part", choices=("all", "one", "two", "memory"), default="all")
    parser.add_argument("--meet", help=argparse.SUPPRESS)
    for name in ("workers", "bits", "rank"):  # set for the workers that this file starts
        parser.add_argument(f"--{name}", type=int)
    parser.add_argument("--apart", action="store_true")
    arguments = parser.parse_args()
    os.sched_setaffinity(0, FREE[:1])
    torch.set_num_threads(1)
    if arguments.rank is not None:
        worker(arguments)
        return
    bench, figures = bench_of(arguments), {}
    if arguments.part == "memory":
        for num_pairs, size_mb in peak_memory(bench, bits=20).items():
            print(f"{num_pairs:>12,} pairs  {size_mb:,.0f} MB at the peak")
        return
    if arguments.part != "two":
        figures |= one_core_figures(bench, rounds=arguments.rounds)
    if arguments.part != "one":
        figures |= two_worker_figures(arguments)
    print(json.dumps({"bench": "train", "figures": {k: round(v, 4) for k, v in figures.items()}}))


if __name__ == "__main__":
    main()
