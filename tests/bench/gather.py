"""Requests, bytes and memory of the gather of `prepare`.

python tests/bench/gather.py --pairs 'DATA/transfer_pairs/*.parquet'

Looks: four chunks of one file's pairs lie on a moto server, behind a proxy that counts. Twelve
ranges of keys are read from each, with as many rows as a task reads from a chunk of a million rows
at 10^9 rows: with 477 tasks, and with 135. Limit: a task with 256 MB of chunks on a disk, in a
process of its own; the pairs of all files, under seven queries each.
"""

import argparse
import glob
import json
import multiprocessing
import os
import re
import sys
import tempfile
import time
from pathlib import Path

os.environ |= {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
os.environ |= {"AWS_DEFAULT_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true"}
sys.path.insert(0, str(Path(__file__).parents[2]))
import boto3
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from moto.server import ThreadedMotoServer

from raydistill.config.data import PairsConfig
from raydistill.data.bucket_layout import BucketLayout, make_layout
from raydistill.data.chunks import KeyRange, sort_rows, write_chunk, write_index
from raydistill.data.pairs import group_keys
from raydistill.data.passes.gather import GATHER_ROWS, gather_groups
from raydistill.data.prepare_steps import Dataset
from raydistill.files.folder import Folder
from tests.helpers.proxy import SLOW_DOWN, proxy_of

NUM_CHUNKS, NUM_RANGES = 4, 12
ROWS_A_LOOK = {477: 2_000, 135: 7_100}  # by the number of tasks at 10^9 rows
MANY_CHUNKS, CHUNK_ROWS, NUM_QUERIES = 64, 112_000, 7


def read_pairs(files: list[str]) -> pa.Table:
    tables = [pq.read_table(file, columns=["query", "title"]) for file in files]
    text = pa.large_string()
    whole = pa.schema([("query", text), ("title", text)])
    return pa.concat_tables([table.cast(whole) for table in tables]).combine_chunks()


def chunk_of(rows: pa.Table) -> pa.Table:
    rows = rows.cast(pa.schema([("query", pa.string()), ("title", pa.string())]))
    return sort_rows(rows, group_keys(rows), dedupe=True)


def looks(rows: pa.Table) -> dict[str, float]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    boto3.client("s3", endpoint_url=endpoint).create_bucket(Bucket="bucket")
    found: dict[str, float] = {}
    with proxy_of(endpoint, bucket="bucket") as proxy:
        folder = Folder(proxy.uri)
        chunk = chunk_of(rows)
        entries = [write_chunk(folder, f"{at}.chunk", chunk) for at in range(NUM_CHUNKS)]
        num_bytes = write_index(folder, "index", entries)
        found["bytes_a_row"] = num_bytes / NUM_CHUNKS / chunk.num_rows
        for tasks, rows_a_look in ROWS_A_LOOK.items():
            num = round(chunk.num_rows / rows_a_look)
            layout, num_rows, num_read = BucketLayout(num, num, 0), 0, 0
            proxy.fail(0, SLOW_DOWN)  # forgets the requests so far
            for group in range(NUM_RANGES):
                part = KeyRange(folder, "index", *layout.key_range(group, group))
                tables = part.rows(*layout.key_range(group, group))
                num_rows += sum(table.num_rows for table in tables)
                num_read += sum(span.data.size for span in part._spans)
            num_looks = NUM_RANGES * NUM_CHUNKS
            found[f"rows_{tasks}"] = num_rows / num_looks
            found[f"requests_{tasks}"] = (len(proxy.requests) - NUM_RANGES) / num_looks
            found[f"read_kb_{tasks}"] = num_read / num_looks / 1e3
            found[f"needed_kb_{tasks}"] = num_rows / num_looks * found["bytes_a_row"] / 1e3
    server.stop()
    return found


def dataset_of(root: Path) -> Dataset:
    folder = Folder(str(root))
    rules = PairsConfig.model_validate({"input": ["x"], "query": "query", "title": "title"})
    return Dataset(
        "pairs", rules, folder / "pairs", folder / "bad", ("",), shard_rows=65_536, dedupe=True
    )


def make_chunks(dataset: Dataset, rows: pa.Table) -> int:
    """Chunks of pairs drawn from `rows`; returns their bytes."""
    draw, entries = np.random.default_rng(0), []
    for at in range(MANY_CHUNKS):
        part = rows.take(pa.array(draw.integers(0, rows.num_rows, CHUNK_ROWS)))
        words = np.char.add("v", draw.integers(0, NUM_QUERIES, CHUNK_ROWS).astype(str))
        first = pa.array(words, pa.large_string())
        queries = pc.binary_join_element_wise(
            part["query"], first, pa.scalar(" ", pa.large_string())
        )
        chunk = chunk_of(part.set_column(0, "query", queries))
        entries.append(write_chunk(dataset.chunks, f"all/part-{at:05d}-000.chunk", chunk))
    return write_index(dataset.chunks, dataset.index(""), entries)


def peak_mb() -> float:
    """Of this process; `ru_maxrss` has that of its parent too."""
    (kb,) = re.findall(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())
    return int(kb) * 1024 / 1e6


def gather_at_limit(root: Path, num_bytes: int) -> dict[str, float]:
    """A task with as many groups as have 256 MB of chunks, in this process."""
    dataset, num_rows = dataset_of(root), MANY_CHUNKS * CHUNK_ROWS
    layout = make_layout(num_rows, shard_rows=dataset.shard_rows, first=None, increment=0)
    plan = {"split": "", "there": {}, "step": 1}
    layouts, known = {"": layout}, {"": []}
    gather_groups({**plan, "bucket_groups": (0, 0)}, dataset=dataset, layouts=layouts, known=known)
    num_groups = layout.num_bucket_groups
    last = min(num_groups, (1 << 28) * num_groups // num_bytes) - 1
    step = max(1, GATHER_ROWS * num_groups // num_rows)
    before_mb, start_s = peak_mb(), time.process_time()
    item = {**plan, "bucket_groups": (0, last), "step": step}
    done = gather_groups(item, dataset=dataset, layouts=layouts, known=known)
    return {
        "limit_mb": num_bytes * (last + 1) / num_groups / 1e6,
        "limit_pairs": float(done["rows_in"]),
        "limit_shards": float(len(done["shards"])),
        "limit_cpu_s": time.process_time() - start_s,
        "limit_peak_mb": peak_mb(),
        "limit_grown_mb": peak_mb() - before_mb,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", required=True, help="Parquet files with query and title")
    files = sorted(glob.glob(parser.parse_args().pairs))
    figures = looks(read_pairs(files[:1]))
    with tempfile.TemporaryDirectory() as scratch:
        num_bytes = make_chunks(dataset_of(Path(scratch)), read_pairs(files))
        with multiprocessing.get_context("spawn").Pool(1) as process:
            figures |= process.apply(gather_at_limit, (Path(scratch), num_bytes))
    for name, value in figures.items():
        print(f"{name:<20} {value:12,.1f}")
    rounded = {name: round(value, 2) for name, value in figures.items()}
    print(json.dumps({"bench": "gather", "figures": rounded}))


if __name__ == "__main__":
    main()
