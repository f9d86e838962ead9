"""Logits from a formula, in place of a teacher."""

import pyarrow as pa

from raydistill.files.schema import LOGITS
from raydistill.runs.run_folder import Run
from raydistill.runs.shards import shards_to_score


def share_of_words(query: str, title: str) -> float:
    words = query.lower().split()
    return sum(word in title.lower() for word in words) / len(words)


def write_logits(run: Run) -> None:
    """Write logits of teacher `tiny`: 6 x (share of the query's words in the title) - 3."""
    for shard in shards_to_score(run):
        pairs = shard.folder.read_table(shard.name)
        logits = [
            6 * share_of_words(r["query"], r["title"]) - 3
            for r in pairs.select(["query", "title"]).to_pylist()
        ]
        table = pa.table([pairs["pair_id"], pa.array(logits, pa.float32())], schema=LOGITS)
        run.logits("tiny").write_table(shard.target, table)
