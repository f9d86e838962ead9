"""The names of outputs and the items of work."""

import tracemalloc
from pathlib import Path

import pyarrow as pa

from raydistill.files.folder import Folder
from raydistill.stages.scoring import catalogue
from raydistill.stages.scoring.job import KIND, Job, Named
from raydistill.stages.scoring.plan import Contents, output_stems, plan_items
from raydistill.stages.scoring.rows import Reading

SCHEMA = pa.schema([("query", pa.string()), ("title", pa.string())])


def job_of(num_files: int, tmp_path: Path) -> Job:
    files = tuple(Named(f"/in/{n:05d}.parquet", 2_000, 0, "", "") for n in range(num_files))
    reading = Reading("query", "title")
    return Job(Folder(str(tmp_path)), "b", "f", reading, files, ("/in",))


def test_outputs_lie_as_the_inputs_do() -> None:
    uris = ["/a/in/dt=1/part-0.parquet", "/a/in/dt=1/x.csv.gz", "/b/y.jsonl", "/a/in/_z/part-1"]
    found = output_stems(uris, ["/a/in", "/b/*.jsonl"], kind="parquet")
    assert found == ["dt=1/part-0", "dt=1/x", "y", "z/part-1"]
    assert output_stems(["s3://b/p/x/1.csv"], ["s3://b/p/*/?.csv"], kind="parquet") == ["x/1"]
    assert output_stems(["/a/in/x.csv"], ["/a/in/x.csv"], kind="parquet") == ["x"]


def test_no_two_outputs_have_one_name() -> None:
    uris = ["/in/x.csv", "/in/x.parquet", "/in/x-00001.parquet", "/in/y.csv"]
    found = output_stems(uris, ["/in"], kind="parquet")
    assert len(set(found)) == 4 and found[3] == "y"
    assert all(stem.startswith("x-") and len(stem.rpartition("-")[2]) == 8 for stem in found[:3])
    assert found == output_stems(uris, ["/in"], kind="parquet")
    uris = ["/in/x.csv", "/in/x.parquet/part-0.parquet"]  # a file and a folder
    assert output_stems(uris, ["/in"], kind="csv") == ["x", "x.parquet/part-0"]
    first, second = output_stems(uris, ["/in"], kind="parquet")
    assert first.startswith("x-") and second == "x.parquet/part-0"


def test_a_temporary_file_may_be_gone_before_it_is_deleted(tmp_path: Path) -> None:
    output = Folder(str(tmp_path / "out"))
    output.claim(KIND)
    (tmp_path / "out" / "x").touch()
    for _ in range(2):
        catalogue._delete(output, "x")
    assert output.files() == ["_RAYDISTILL.json"]


def test_small_files_share_an_item_and_large_ones_do_not(tmp_path: Path) -> None:
    small = job_of(10_000, tmp_path)
    items = plan_items(small, [Contents(SCHEMA, [((0, 1), 100)])] * 10_000)
    assert len(items) <= 700 and sum(item["rows"] for item in items) == 1_000_000
    assert [part["at"] for item in items for part in item["parts"]] == list(range(10_000))
    spans = [((n, n + 1), 1 << 20) for n in range(16)]
    large = plan_items(job_of(100, tmp_path), [Contents(SCHEMA, spans)] * 100)
    assert len(large) == 1_600 and large[17]["parts"][0]["name"] == "00001-00001"
    assert [item["number"] for item in large] == list(range(1_600))


def test_the_driver_holds_little_of_each_piece(tmp_path: Path) -> None:
    """16,000 pieces: 60 MB at most, of which a half is the JSON of the plan as it is read."""
    job = job_of(1_000, tmp_path)
    tracemalloc.start()
    items = plan_items(job, [Contents(SCHEMA, [((0, 1), 1 << 18)])] * 1_000)
    job.output.write_json("plan.json", {"items": items})
    items = [job.with_files(item) for item in (job.output.read_json("plan.json") or {})["items"]]
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(items) == 1_000 and peak_bytes < 4_000 * len(items)
