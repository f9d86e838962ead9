"""Features of real pairs: microseconds a pair on one core, and a hash of their bits.

To compare two versions of the code, run them in turn, each from its own checkout.

python tests/bench/features.py --pairs 'DATA/transfer_pairs/*.parquet' --rows 40000 --rounds 5
"""

import argparse
import glob
import hashlib
import json
import statistics
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from raydistill.serving.feature_spec import NgramSpec
from raydistill.serving.featurize import document_counts, featurize, idf
from raydistill.serving.lexicon import Lexicon
from raydistill.serving.text.arrow_text import to_texts
from raydistill.serving.text.cleaning import clean_text

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


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--pairs", required=True)
    parser.add_argument("--rows", type=int, default=40_000)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    queries, titles = (to_texts(texts) for texts in read(given.pairs, given.rows))
    counts = document_counts(titles, units=True, extra_units=())
    lexicon = Lexicon.from_idf(idf(counts, num_documents=given.rows))
    figures = {}
    for name, spec in SPECS.items():
        seconds, digest = [], hashlib.sha256()
        for at in range(given.rounds + 1):
            start_s = time.process_time()
            features = featurize(queries, titles, spec=spec, lexicon=lexicon)
            seconds.append(time.process_time() - start_s)
            if not at:  # the first round compiles
                for array in (features.ids_N, features.offsets, features.dense_BF):
                    digest.update(np.ascontiguousarray(array).tobytes())
        us = 1e6 * statistics.median(seconds[1:]) / given.rows
        figures[name] = {"us_per_pair": round(us, 2), "bits": digest.hexdigest()[:16]}
        print(f"{name}: {us:.2f} µs/pair, bits {figures[name]['bits']}")
    print(json.dumps({"bench": "features", "figures": figures}))


if __name__ == "__main__":
    main()
