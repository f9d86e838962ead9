"""Labeling on one GPU: the engine, shared beginnings, out of memory, and `label` through Ray.

python tests/bench/gpu.py --pairs 'DATA/transfer_pairs/*.parquet' --tokenizer FOLDER

The models have random weights, as the speed does not depend on them: MiniLM-L6, BERT-Base, and a
Qwen3 of the size of Qwen3-Reranker-0.6B. `--tokenizer` is the folder of any BERT. Rounds are
interleaved; figures are medians of the rounds.
"""

import argparse
import glob
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
sys.path.insert(0, str(Path(__file__).parents[2]))
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from causal import INSTRUCTION, MAX_LENGTH, PROMPT, make_model, recipe
from prepared import prepared_run
from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

from raydistill.config.prompt import Question
from raydistill.teachers.causal import CausalTeacher
from raydistill.teachers.cross_encoder import Teacher
from raydistill.teachers.transformer.model_loading import quiet_transformers

BERTS = {
    "MiniLM-L6": BertConfig(
        num_labels=1, hidden_size=384, num_hidden_layers=6, intermediate_size=1_536
    ),
    "BERT-Base": BertConfig(num_labels=1),
}
BERT_LENGTH = 128
NUM_ENGINE = {"MiniLM-L6": 120_000, "BERT-Base": 40_000}
BUDGET = 4_000_000  # tokens a batch: far too many
Pairs = tuple[list[str], list[str]]
Figures = dict[str, float]


def read_pairs(pattern: str) -> Pairs:
    tables = [
        pq.read_table(file, columns=["query", "title"]) for file in sorted(glob.glob(pattern))
    ]
    table = pa.concat_tables(tables)
    return table["query"].to_pylist(), table["title"].to_pylist()


def some(pairs: Pairs, num: int) -> Pairs:
    """A random sample."""
    rows = np.random.default_rng(0).permutation(len(pairs[0]))[:num]
    return [pairs[0][row] for row in rows], [pairs[1][row] for row in rows]


def make_bert(folder: Path, name: str, tokenizer: Path) -> Path:
    torch.manual_seed(0)
    BertForSequenceClassification(BERTS[name]).save_pretrained(folder)
    AutoTokenizer.from_pretrained(tokenizer).save_pretrained(folder)
    return folder


def race(ways: dict[str, Callable[[], np.ndarray]], num: int, *, rounds: int
         ) -> tuple[Figures, dict[str, np.ndarray]]:  # fmt: skip
    """Median pairs a second and the logits of each way; the first round is not counted."""
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    logits = {}
    for _ in range(rounds + 1):
        for way, run in ways.items():
            torch.cuda.synchronize()
            start_s = time.perf_counter()
            logits[way] = run()
            seconds[way].append(time.perf_counter() - start_s)
    return {way: num / float(np.median(found[1:])) for way, found in seconds.items()}, logits


def show(what: str, rates: Figures, logits: dict[str, np.ndarray], exact: str) -> Figures:
    for way, rate in rates.items():
        num = min(len(logits[way]), len(logits[exact]))
        most = float(np.abs(logits[way][:num] - logits[exact][:num]).max())
        print(f"| {what} | {way} | {rate:,.0f} | {most:.4f} |", flush=True)
    return {f"{what}, {way}": rate for way, rate in rates.items()}


def engine(name: str, folder: Path, pairs: Pairs, *, rounds: int) -> Figures:
    """Tokenised pairs to logits, in each type."""
    teachers = {
        dtype: Teacher(folder, device="cuda", dtype=dtype, max_length=BERT_LENGTH)
        for dtype in ("float32", "float16", "bfloat16")
    }
    tokens = teachers["float32"].tokenise(*pairs)
    print(f"{tokens.lengths_B.mean():.1f} wordpieces a pair", flush=True)
    ways = {dtype: lambda t=teacher: t.score(tokens) for dtype, teacher in teachers.items()}
    return show(name, *race(ways, len(pairs[0]), rounds=rounds), "float32")


def from_text(name: str, folder: Path, pairs: Pairs, *, rounds: int) -> Figures:
    """Text to logits in one process, beside sentence-transformers where it is installed."""
    teacher = Teacher(folder, device="cuda", dtype="bfloat16", max_length=BERT_LENGTH)
    ways = {"text, ours": lambda: teacher.logits(*pairs)}
    try:
        from sentence_transformers import CrossEncoder
    except ImportError:
        print("sentence-transformers is not installed")
    else:
        stock = CrossEncoder(
            str(folder), device="cuda", model_kwargs={"dtype": torch.bfloat16},
            max_length=BERT_LENGTH, activation_fn=torch.nn.Identity(),
        )  # fmt: skip
        both = list(zip(*pairs, strict=True))
        for rows in (32, 512):
            ways[f"text, sentence-transformers, batches of {rows}"] = (
                lambda rows=rows: np.asarray(stock.predict(both, batch_size=rows), np.float32)
            )  # fmt: skip
    return show(name, *race(ways, len(pairs[0]), rounds=rounds), "text, ours")


def in_little_memory(name: str, make: Callable[[int | None], Teacher], pairs: Pairs, *,
                     gigabytes: tuple[float, ...], budget: int) -> Figures:  # fmt: skip
    """A budget of tokens far too large, under limits of the process's GPU memory."""
    whole_bytes = torch.cuda.get_device_properties(0).total_memory
    exact = make(None).logits(*pairs)
    found = {}
    for limit in gigabytes:
        torch.cuda.empty_cache()
        teacher = make(budget)
        torch.cuda.set_per_process_memory_fraction(limit * 1e9 / whole_bytes)
        logits = teacher.logits(*pairs)
        torch.cuda.set_per_process_memory_fraction(1.0)
        failures, most = teacher.counters.num_out_of_memory, float(np.abs(logits - exact).max())
        print(
            f"| {name} in {limit} GB | {failures} failures | {teacher.tokens_per_batch:,} tokens | "
            f"scored {int(np.isfinite(logits).sum()):,} of {len(exact):,} | {most:.4f} "
            f"(std {exact.std():.4f}) |",
            flush=True,
        )
        found |= {f"{name}, {limit} GB, failures": float(failures), f"{name}, {limit} GB": most}
        del teacher
    return found


def make_reranker(folder: Path, *, shares: bool = True, budget: int | None = None) -> Teacher:
    return CausalTeacher(
        folder, device="cuda", dtype="bfloat16", max_length=MAX_LENGTH, shares=shares, pads=True,
        question=Question(PROMPT, INSTRUCTION), tokens_per_batch=budget,
    )  # fmt: skip


def generative(folder: Path, pairs: Pairs, *, rounds: int) -> Figures:
    """A generative reranker by the model card's recipe, by whole prompts, and shared."""
    whole, shared = (make_reranker(folder, shares=shares) for shares in (False, True))
    score = recipe(folder, device="cuda", dtype=torch.bfloat16)
    ways = {
        "recipe": lambda: score(pairs),
        "whole": lambda: whole.logits(*pairs),
        "shared": lambda: shared.logits(*pairs),
    }
    rates, logits = race(ways, len(pairs[0]), rounds=rounds)
    print(f"standard deviation of the logits: {logits['whole'].std():.4f}")
    return show("Qwen3, 28 x 1024", rates, logits, "whole")


def through_ray(name: str, folder: Path, pairs: Pairs, scratch: Path, *, gpus: float) -> Figures:
    """`label`: pairs a second from the second written file to the last, and of the whole job."""
    run = scratch / f"{name}-{gpus}"
    config, _ = prepared_run(run, folder, pairs, shard_rows=32_768)
    command = [sys.executable, "-m", "raydistill", "label", "--config", str(config)]
    start_s = time.perf_counter()
    done = subprocess.run(
        [*command, "--set", f"label.num_gpus={gpus}"], capture_output=True, text=True
    )
    seconds = time.perf_counter() - start_s
    print("\n".join((done.stdout + done.stderr).splitlines()[-6:]))
    if done.returncode:
        return {}
    files = sorted(run.glob("logits/*/part-*.parquet"), key=lambda file: file.stat().st_mtime)
    rows = sum(pq.read_metadata(file).num_rows for file in files[2:])
    rate = rows / (files[-1].stat().st_mtime - files[1].stat().st_mtime)
    what = f"label {name}, label.num_gpus = {gpus}"
    print(f"| {what} | {rate:,.0f} pairs/s after the second shard | {seconds:.1f} s |", flush=True)
    return {what: rate, f"{what}, seconds": seconds}


def berts(given: argparse.Namespace, scratch: Path) -> dict[str, Path]:
    """The folder of each BERT; made where it is missing."""
    folders = {size: scratch / size for size in BERTS}
    for size, folder in folders.items():
        if not folder.exists():
            make_bert(folder, size, given.tokenizer)
    return folders


def engine_part(given: argparse.Namespace, pairs: Pairs, scratch: Path) -> Figures:
    found: Figures = {}
    for size, folder in berts(given, scratch).items():
        found |= engine(size, folder, some(pairs, NUM_ENGINE[size]), rounds=given.rounds)
        found |= from_text(size, folder, some(pairs, 10_000), rounds=given.rounds)
    return found


def ray_part(given: argparse.Namespace, pairs: Pairs, scratch: Path) -> Figures:
    many, found = (pairs[0][: given.ray_pairs], pairs[1][: given.ray_pairs]), Figures()
    for size, folder in berts(given, scratch).items():
        for gpus in (1, 0.5):
            found |= through_ray(size, folder, many, scratch, gpus=gpus)
    return found


def memory_part(given: argparse.Namespace, pairs: Pairs, scratch: Path) -> Figures:
    folder = berts(given, scratch)["BERT-Base"]

    def make(budget: int | None) -> Teacher:
        return Teacher(
            folder, device="cuda", dtype="bfloat16", max_length=BERT_LENGTH,
            tokens_per_batch=budget,
        )  # fmt: skip

    few = some(pairs, 40_000)
    return in_little_memory("BERT-Base", make, few, gigabytes=(2.0, 0.8), budget=BUDGET)


def causal_part(given: argparse.Namespace, pairs: Pairs, scratch: Path) -> Figures:
    in_order = sorted(zip(*pairs, strict=True))[:4_000]  # whole queries
    few = ([query for query, _ in in_order], [title for _, title in in_order])
    folder = make_model(scratch / "qwen3", "28 x 1024", few, spread=0.02)
    found = generative(folder, few, rounds=given.rounds)
    return found | in_little_memory(
        "Qwen3", lambda budget: make_reranker(folder, budget=budget), few, gigabytes=(4.0, 2.0),
        budget=BUDGET,
    )  # fmt: skip


PARTS = {"engine": engine_part, "ray": ray_part, "memory": memory_part, "causal": causal_part}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", required=True, help="Parquet files with query and title")
    parser.add_argument("--tokenizer", type=Path, required=True, help="a folder of a BERT")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--ray-pairs", type=int, default=600_000, help="of part ray")
    parser.add_argument("--parts", default=",".join(PARTS))
    given = parser.parse_args()
    quiet_transformers()
    pairs = read_pairs(given.pairs)
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, {os.cpu_count()} cores")
    found: Figures = {}
    with tempfile.TemporaryDirectory() as name:
        for part in given.parts.split(","):
            found |= PARTS[part](given, pairs, Path(name))
    print(json.dumps({"bench": "gpu", "figures": {k: round(v, 4) for k, v in found.items()}}))


if __name__ == "__main__":
    main()
