"""A run folder in the state after `prepare`, written without Ray."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from raydistill.config.run_config import RunConfig
from raydistill.data.pairs import collapse, query_keys
from raydistill.files.folder import SUCCESS
from raydistill.files.schema import SPLITS
from raydistill.runs.run_folder import Run


def prepare_here(config: RunConfig, *, num_shards: int) -> Run:
    """Write the shards of the raw Parquet files; a third of the judged queries to each split.

    A query's pairs are in one shard. Pairs of dev and test queries are not in the transfer set.
    """
    run = Run(config)
    run.write_manifest(run.manifest)
    judged = _read(config.judged.input[0].path, config.judged.label)
    splits = query_keys(judged["query"]) % np.uint64(3)
    shards: dict[str, dict[str, int]] = {"judged": {}, "pairs": {}}
    for number, split in enumerate(SPLITS):
        rows = collapse(judged.filter(pa.array(splits == number)), dedupe=True)
        run.judged(split).write_table("part-00000.parquet", rows)
        shards["judged"][f"{split}/part-00000.parquet"] = rows.num_rows
    held_out = set(judged.filter(pa.array(splits > 0))["query"].to_pylist())
    pairs = _read(config.pairs.input[0].path)
    is_left = [query not in held_out for query in pairs["query"].to_pylist()]
    pairs = collapse(pairs.filter(pa.array(is_left)), dedupe=True)
    places = query_keys(pairs["query"]) // np.uint64(3) % np.uint64(num_shards)
    for number in range(num_shards):
        name, rows = f"part-{number:05d}.parquet", pairs.filter(pa.array(places == number))
        run.pairs.write_table(name, rows)
        shards["pairs"][name] = rows.num_rows
    for dataset, names in shards.items():
        done = {"fingerprint": run.prepare_fingerprint(dataset), "shards": names}
        (run.root / dataset).write_json(SUCCESS, done)
    return run


def _read(path: str, label: str | None = None) -> pa.Table:
    table = pq.read_table(path)
    columns = {"query": table["query"], "title": table["title"]}
    return pa.table({**columns, **({"label": table[label].cast("float32")} if label else {})})
