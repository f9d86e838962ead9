"""Shards of pairs with numbered words."""

from pathlib import Path

import numpy as np
import pyarrow as pa

from raydistill.data.pairs import collapse
from raydistill.files.folder import Folder
from raydistill.files.schema import LOGITS


def write_word_shards(path: Path) -> tuple[Folder, Folder, dict[str, int]]:
    """Seven shards of 3 to 9 pairs and their logits; pair n has the n-th word and logit n."""
    pairs, logits = Folder(str(path / "pairs")), Folder(str(path / "logits"))
    shards, at = {}, 0
    for shard in range(7):
        rows = 3 + shard
        raw = pa.table(
            {"query": ["q"] * rows, "title": [f"w{n:03d}" for n in range(at, at + rows)]}
        )
        table = collapse(raw, dedupe=True)
        name = f"part-{shard:05d}.parquet"
        pairs.write_table(name, table)
        values = pa.array(np.arange(at, at + rows, dtype=np.float32))
        logits.write_table(name, pa.table([table["pair_id"], values], schema=LOGITS))
        shards[name] = rows
        at += rows
    return pairs, logits, shards
