"""A generative reranker with and without the shared beginnings: pairs a CPU second on one core.

python tests/bench/causal.py                                     made-up pairs
python tests/bench/causal.py --pairs SHARD.parquet --queries 8   pairs of a shard's queries

The models have random weights: the speed does not depend on them. The prompt is that of
Qwen3-Reranker's model card. Rounds are interleaved; figures are medians of the rounds. `recipe` is
the model card's: batches of 32 in arrival order, padded on the left, softmax over no and yes.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen3Config, Qwen3ForCausalLM

from raydistill.config.prompt import Question
from raydistill.demo.shop import Shop
from raydistill.teachers.causal import CausalTeacher
from raydistill.teachers.transformer.model_loading import quiet_transformers

PROMPT = (
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and "
    'the Instruct provided. Note that the answer can only be "yes" or "no".<|im_end|>\n'
    "<|im_start|>user\n<Instruct>: {instruction}\n<Query>: {query}\n<Document>: {title}<|im_end|>\n"
    "<|im_start|>assistant\n<think>\n\n</think>\n\n"
)
INSTRUCTION = "Given a web search query, retrieve relevant passages that answer the query"
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>", "yes", "no"]
SIZES = {
    "2 x 32": (2, 32, 64, 2, 16),  # layers, width, inner width, heads, head width
    "6 x 384": (6, 384, 1_024, 6, 64),
    "28 x 1024": (28, 1_024, 3_072, 16, 128),  # that of Qwen3-Reranker-0.6B
}
ON_A_CORE = "2 x 32,6 x 384"
BATCH_ROWS = 32
MAX_LENGTH = 192
Pairs = tuple[list[str], list[str]]


def read_pairs(path: str | None, num_queries: int) -> Pairs:
    """All pairs of some queries, as a shard has them."""
    if path is None:
        shop = Shop.build(seed=0, num_products=4_000, num_queries=num_queries)
        table = shop.transfer_pairs(0, num_rows=55 * num_queries).sort_by("query")
    else:
        table = pq.read_table(path, columns=["query", "title"])
        first = pa.array(list(dict.fromkeys(table["query"].to_pylist()))[:num_queries])
        table = table.filter(pc.is_in(table["query"], first))
    return table["query"].to_pylist(), table["title"].to_pylist()


def make_model(folder: Path, size: str, pairs: Pairs, *, spread: float = 0.1) -> Path:
    """A random Qwen3 and a byte-level tokenizer of 8,000 tokens; `spread`: of its weights."""
    rust = Tokenizer(models.BPE())
    rust.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    rust.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=8_000, special_tokens=SPECIAL, show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    rust.train_from_iterator([*pairs[0], *pairs[1], *[f"{PROMPT} {INSTRUCTION}"] * 50], trainer)
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=rust, eos_token="<|endoftext|>", pad_token="<|endoftext|>"
    ).save_pretrained(folder)
    layers, width, inner, heads, head = SIZES[size]
    config = Qwen3Config(
        vocab_size=8_000, hidden_size=width, num_hidden_layers=layers, intermediate_size=inner,
        num_attention_heads=heads, num_key_value_heads=heads // 2, head_dim=head,
        max_position_embeddings=1_024, initializer_range=spread, tie_word_embeddings=True,
    )  # fmt: skip
    torch.manual_seed(0)
    Qwen3ForCausalLM(config).save_pretrained(folder)
    return folder


def recipe(
    folder: Path, *, device: str = "cpu", dtype: torch.dtype = torch.float32
) -> Callable[[Pairs], np.ndarray]:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval().to(device)
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    no, yes = (tokenizer.convert_tokens_to_ids(word) for word in ("no", "yes"))
    prompt = PROMPT.replace("{instruction}", INSTRUCTION)

    def score(pairs: Pairs) -> np.ndarray:
        out: list[np.ndarray] = []
        for at in range(0, len(pairs[0]), BATCH_ROWS):
            texts = [
                prompt.replace("{query}", query).replace("{title}", title)
                for query, title in zip(
                    *(side[at : at + BATCH_ROWS] for side in pairs), strict=True
                )
            ]
            batch = tokenizer(texts, add_special_tokens=False, padding=True, return_tensors="pt")
            inputs = {name: batch[name].to(device) for name in ("input_ids", "attention_mask")}
            with torch.inference_mode():
                logits = model(**inputs, logits_to_keep=1).logits[:, -1].float().cpu()
            log_softmax = torch.log_softmax(logits[:, [no, yes]], dim=1)
            out.append((log_softmax[:, 1] - log_softmax[:, 0]).numpy())
        return np.concatenate(out)

    return score


def ours(folder: Path, *, shares: bool) -> Callable[[Pairs], np.ndarray]:
    teacher = CausalTeacher(
        folder, device="cpu", dtype="float32", max_length=MAX_LENGTH, shares=shares, pads=True,
        question=Question(PROMPT, INSTRUCTION),
    )  # fmt: skip
    return lambda pairs: teacher.logits(*pairs)


def measure(size: str, pairs: Pairs, *, rounds: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as name:
        folder = make_model(Path(name), size, pairs)
        ways = {
            "recipe": recipe(folder),
            "whole": ours(folder, shares=False),
            "shared": ours(folder, shares=True),
        }
        few = pairs[0][:40], pairs[1][:40]
        logits = {way: score(few) for way, score in ways.items()}
        seconds: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(rounds):
            for way, score in ways.items():
                start_s = time.process_time()
                logits[way] = score(pairs)
                seconds[way].append(time.process_time() - start_s)
    rates = {way: len(pairs[0]) / float(np.median(found)) for way, found in seconds.items()}
    differences = [
        float(np.abs(logits[way] - logits["recipe"]).max()) for way in ("whole", "shared")
    ]
    for way, rate in rates.items():
        print(f"| {size} | {way} | {rate:,.0f} | {rate / rates['recipe']:.2f} |", flush=True)
    return {**rates, "shared_vs_whole": rates["shared"] / rates["whole"],
            "most_different": max(differences), "std": float(logits["recipe"].std())}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", help="a Parquet file with the columns query and title")
    parser.add_argument("--queries", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sizes", default=ON_A_CORE)
    args = parser.parse_args()
    quiet_transformers()
    torch.set_num_threads(1)
    pairs = read_pairs(args.pairs, args.queries)
    print(f"{len(pairs[0]):,} pairs of {args.queries} queries, float32, one core\n")
    print("| model | way | pairs per CPU second | times the recipe |\n|---|---|---|---|")
    figures = {size: measure(size, pairs, rounds=args.rounds) for size in args.sizes.split(",")}
    print(json.dumps({"bench": "causal", "figures": figures}))


if __name__ == "__main__":
    main()
