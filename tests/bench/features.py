"""Features of real pairs, and of long titles: µs/pair on one core, and a hash of their bits.

Long titles are made-up words. To compare two versions of the code, name the checkout of the other
one: `--before` runs it in turn with this one.

python tests/bench/features.py --pairs 'DATA/transfer_pairs/*.parquet' --rows 40000 --rounds 5
python tests/bench/features.py --before ../before --rounds 9
"""

import argparse
import glob
import hashlib
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from raydistill.serving.feature_spec import NgramSpec
from raydistill.serving.featurize import featurize
from raydistill.serving.lexicon import Lexicon
from raydistill.serving.text.arrow_text import to_texts
from raydistill.serving.text.cleaning import clean_text
from raydistill.serving.tokenizer import encode
from raydistill.student.lexicon.document_counts import document_counts, idf

SPECS = {
    "match": NgramSpec("match", 18, units=True),
    "bert2dnn": NgramSpec("bert2dnn", 18),
}


def read(files: str, num_rows: int) -> tuple[pa.Array, pa.Array]:
    """Clean queries and titles, sorted by query as shards are."""
    table = pa.concat_tables(
        pq.read_table(file, columns=["query", "title"]) for file in sorted(glob.glob(files))
    )
    table = table.slice(0, num_rows).sort_by("query")
    return tuple(pa.array([clean_text(text) for text in table[name].to_pylist()])
                 for name in ("query", "title"))  # fmt: skip


QUERY_CHARS, TITLE_CHARS = (18, 200), (50, 200, 500, 1_000)
NUM_PAIRS = 1_000  # of each length, 100 titles a query


def made_up(sizes: list[int], rng: np.random.Generator) -> list[str]:
    """Texts of these numbers of characters; short words and frequent ones are many."""
    letters = [rng.choice(list("etaoinshrdlu"), size) for size in rng.integers(2, 10, 3_000)]
    words = ["".join(word) for word in letters]
    picks = (np.minimum(rng.pareto(0.6, size) * 3, len(words) - 1).astype(int) for size in sizes)
    return [
        " ".join(words[pick] for pick in picked)[:size]
        for picked, size in zip(picks, sizes, strict=True)
    ]


def digest_of(arrays: tuple[np.ndarray, ...]) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]


def long_texts(rounds: int) -> dict[str, dict[str, object]]:
    """µs/pair and bits by the characters of query and title; `x100`: 100 titles a query."""
    rng, figures = np.random.default_rng(0), {}
    lexicon = Lexicon.from_idf(np.ones(1 << 18, np.float32))
    for chars in QUERY_CHARS:
        for title_chars in TITLE_CHARS:
            own = made_up([chars] * NUM_PAIRS, rng)
            titles = encode(made_up([title_chars] * NUM_PAIRS, rng))
            shared = [own[at // 100] for at in range(NUM_PAIRS)]
            for name, queries in (("", encode(own)), ("x100", encode(shared))):
                key, seconds, bits = f"{chars}/{title_chars}{name}", [], ""
                for _ in range(rounds + 1):
                    start_s = time.thread_time()
                    found = featurize(queries, titles, spec=SPECS["match"], lexicon=lexicon)
                    seconds.append(time.thread_time() - start_s)
                    bits = bits or digest_of((found.ids_N, found.offsets, found.dense_BF))
                us = 1e6 * statistics.median(seconds[1:]) / NUM_PAIRS
                figures[key] = {"us_per_pair": round(us, 2), "bits": bits}
    return figures


def compared(before: str, rounds: int) -> dict[str, dict[str, object]]:
    """`long_texts` of another checkout and of this one, in turn: medians of 5 processes each."""
    root, found = str(Path(__file__).parents[2]), {"before": [], "now": []}
    for _ in range(5):
        for name, folder in (("before", before), ("now", root)):
            command = [sys.executable, __file__, "--long", "--rounds", str(rounds)]
            environment = {**os.environ, "PYTHONPATH": os.path.abspath(folder)}
            done = subprocess.run(
                command, env=environment, check=True, stdout=subprocess.PIPE, text=True
            )
            found[name].append(json.loads(done.stdout.splitlines()[-1])["figures"])
    figures = {}
    for key in found["now"][0]:
        us = {
            name: statistics.median(run[key]["us_per_pair"] for run in runs)
            for name, runs in found.items()
        }
        same = len({run[key]["bits"] for runs in found.values() for run in runs}) == 1
        figures[key] = {**us, "same_bits": same}
        print(f"{key}: {us['before']:.2f} before, {us['now']:.2f} now, same bits: {same}")
    return figures


def real_pairs(pairs: str, num_rows: int, rounds: int) -> dict[str, dict[str, object]]:
    queries, titles = (to_texts(texts) for texts in read(pairs, num_rows))
    counts = document_counts(titles, units=True, extra_units=())
    lexicon = Lexicon.from_idf(idf(counts, num_documents=num_rows))
    figures = {}
    for name, spec in SPECS.items():
        seconds, bits = [], ""
        for _ in range(rounds + 1):  # the first round compiles
            start_s = time.process_time()
            found = featurize(queries, titles, spec=spec, lexicon=lexicon)
            seconds.append(time.process_time() - start_s)
            bits = bits or digest_of((found.ids_N, found.offsets, found.dense_BF))
        us = 1e6 * statistics.median(seconds[1:]) / num_rows
        figures[name] = {"us_per_pair": round(us, 2), "bits": bits}
        print(f"{name}: {us:.2f} µs/pair, bits {bits}")
    return figures


def main() -> None:
    parser = argparse.ArgumentParser()
    mode = parser.add_mutually_exclusive_group(required=True)
    mode.add_argument("--pairs", help="Parquet files of real pairs")
    mode.add_argument("--long", action="store_true", help="made-up texts of several lengths")
    mode.add_argument("--before", help="--long, of this checkout and of that one in turn")
    parser.add_argument("--rows", type=int, default=40_000)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    if given.pairs:
        figures = real_pairs(given.pairs, given.rows, given.rounds)
    elif given.before:
        figures = compared(given.before, given.rounds)
    else:
        figures = long_texts(given.rounds)
    print(json.dumps({"bench": "features", "figures": figures}))


if __name__ == "__main__":
    main()
