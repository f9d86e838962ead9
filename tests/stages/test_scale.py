"""What grows with the number of shards: requests, memory of the driver, plans and _SUCCESS.json.

Counts and bytes, no seconds; tests/bench/scale.py measures seconds on 16,000 shards.
"""

import json
import os
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from raydistill.data.bucket_layout import make_layout
from raydistill.data.chunks import write_index
from raydistill.data.passes.gather import gather_groups, plan_gather
from raydistill.data.passes.scatter import plan_scatter, scatter_parts
from raydistill.data.prepare_steps import HeldOut
from raydistill.files.folder import SUCCESS, Folder
from raydistill.runs.run_folder import Run
from raydistill.runs.shards import missing_shards, shards_to_score
from raydistill.stages import prepare
from raydistill.stages.distill import is_complete
from raydistill.student.batches import plan_windows
from tests.helpers.logits import write_done
from tests.helpers.proxy import Proxy, proxy_of
from tests.helpers.runs import run_config, run_over

OK = (200, "")


@pytest.fixture
def proxy(s3: str) -> Iterator[Proxy]:
    with proxy_of(os.environ["AWS_ENDPOINT_URL"], bucket=s3.removeprefix("s3://")) as found:
        yield found


def below(proxy: Proxy, name: str) -> str:
    """A folder in the bucket behind the proxy."""
    return (Folder(proxy.uri) / name).uri


def labeled_run(run_dir: str, raw: Path, model: Path, *, num_shards: int, store: Folder) -> Run:
    """A run of so many shards, all scored: names alone, as listings read no rows.

    `store` is the run folder by another way, which no count has.
    """
    run = Run(run_config(run_dir, raw, model))
    run.write_manifest(run.manifest)
    shards = {f"part-{number:05d}.parquet": 48 for number in range(num_shards)}
    judged = {f"{split}/part-00000.parquet": 48 for split in ("train", "dev", "test")}
    logits = store / "logits" / run.logits("tiny").uri.partition("?")[0].rpartition("/")[2]
    for name in shards:
        (store / "pairs").write_bytes(name, b"")
        logits.write_bytes(name, b"")
    for split in ("dev", "test"):
        logits.write_bytes(f"judged/{split}/part-00000.parquet", b"")
    for dataset, names in {"pairs": shards, "judged": judged}.items():
        done = {"fingerprint": run.prepare_fingerprint(dataset), "shards": names}
        (run.root / dataset).write_json(SUCCESS, done)
    write_done(run, "tiny")
    return run


@pytest.mark.server
def test_a_start_lists_folders_and_looks_at_no_shard(
    s3: str, proxy: Proxy, raw_files: Path, tiny_bert: Path
) -> None:
    """Up to 1,000 shards a listing is one request: 30 shards take as many as 300."""
    nums = []
    for num_shards in (30, 300):
        name = f"start-{num_shards}"
        run = labeled_run(
            below(proxy, name), raw_files, tiny_bert, num_shards=num_shards, store=Folder(s3) / name
        )
        proxy.fail(0, OK)  # forgets the requests so far
        assert len(shards_to_score(run)) == num_shards + 2
        assert missing_shards(run, "tiny") == [] and is_complete("label", run)
        nums.append(len(proxy.requests))
    assert nums[0] == nums[1]


@pytest.mark.server
def test_a_shard_of_prepare_is_one_file_that_is_written(
    s3: str, proxy: Proxy, raw_files: Path
) -> None:
    """Requests that only read depend on chunks and tasks, not on shards."""
    found = []
    for shard_rows in (200, 20):
        run = run_over(Path("x"), raw_files, pairs={"shard_rows": shard_rows, "hold_out": False})
        run_dir = below(proxy, f"prepare-{shard_rows}")
        run = Run(run.config.model_copy(update={"run_dir": run_dir}))
        *_, pairs = prepare._datasets(run)
        free = HeldOut({})
        parts = [
            scatter_parts(item, dataset=pairs, held_out=free)
            for item in plan_scatter(pairs, run.manifest.pairs[0])
        ]
        chunks = [chunk for part in parts for chunk in part["chunks"][""]]
        num_rows = sum(part["counts"]["kept_"] for part in parts)
        layout = make_layout(num_rows, shard_rows=shard_rows, first=None, increment=0)
        num_bytes = write_index(pairs.chunks, pairs.index(""), chunks)
        items = list(plan_gather(pairs, "", layout, num_rows=num_rows, num_bytes=num_bytes))
        proxy.fail(0, OK)  # forgets the requests so far
        results = [
            gather_groups(item, dataset=pairs, layouts={"": layout}, known={"": []})
            for item in items
        ]
        num_shards = sum(len(result["shards"]) for result in results)
        kinds = Counter(proxy.requests)
        # Each task reads the index and the three chunks; Arrow looks at a size before a GET.
        assert kinds["GET"] == 4 * len(items) and kinds["HEAD"] <= kinds["GET"]
        found.append((num_shards, kinds["PUT"]))
    (few, few_puts), (many, many_puts) = found
    assert few < 40 and many > 180
    assert many_puts - few_puts == many - few


def test_the_driver_holds_little_of_a_shard(raw_files: Path, tmp_path: Path) -> None:
    """Lists and plans of 16,000 shards; their names alone are 20 bytes each."""
    num_shards = 16_000
    run = run_over(tmp_path / "run", raw_files)
    run.write_manifest(run.manifest)
    shards = {f"part-{number:05d}.parquet": 48 for number in range(num_shards)}
    for dataset, names in {"pairs": shards, "judged": {}}.items():
        done = {"fingerprint": run.prepare_fingerprint(dataset), "shards": names}
        (run.root / dataset).write_json(SUCCESS, done)
    assert len(run.pairs.read_bytes(SUCCESS)) < 35 * num_shards
    tracemalloc.start()
    try:
        listed = shards_to_score(run)
        windows = [plan_windows(shards, seed=0, epoch=at, window_rows=12_288) for at in range(3)]
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(listed) == num_shards
    assert [sum(len(one.pieces) for one in epoch) for epoch in windows] == [num_shards] * 3
    assert peak_bytes < 2_500 * num_shards  # 40 MB at 16,000 shards


def test_the_plan_of_a_gather_grows_with_the_bytes_and_not_with_the_shards(
    raw_files: Path, tmp_path: Path
) -> None:
    """10^9 rows of 36 bytes in chunks: 135 tasks, each of which reads each chunk once."""
    *_, pairs = prepare._datasets(run_over(tmp_path, raw_files))
    sizes = {}
    for num_rows, shard_rows in ((10**6, 65_536), (10**8, 65_536), (10**9, 65_536), (10**9, 4_096)):
        layout = make_layout(num_rows, shard_rows=shard_rows, first=None, increment=0)
        given = {"num_rows": num_rows, "num_bytes": 36 * num_rows}
        items = list(plan_gather(pairs, "", layout, **given))
        edges = [group for item in items for group in item["bucket_groups"]]
        assert edges[0] == 0 and edges[-1] == layout.num_bucket_groups - 1
        assert all(low == high + 1 for high, low in zip(edges[1::2], edges[2::2], strict=False))
        sizes[num_rows, shard_rows] = len(items)
        assert len(json.dumps(items)) < 120 * len(items)
    assert sizes == {
        (10**6, 65_536): 20, (10**8, 65_536): 17, (10**9, 65_536): 135, (10**9, 4_096): 135,
    }  # fmt: skip
