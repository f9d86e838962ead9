"""The two passes of prepare without Ray: small files together give the same shards."""

from dataclasses import replace
from pathlib import Path

import pytest

from raydistill.config.data import PairsConfig
from raydistill.data.bucket_layout import make_layout
from raydistill.data.chunks import write_index
from raydistill.data.manifest import RawFile, find_files
from raydistill.data.passes import scatter
from raydistill.data.passes.gather import gather_groups, plan_gather
from raydistill.data.passes.scatter import plan_scatter, scatter_parts
from raydistill.data.prepare_steps import Dataset, HeldOut
from raydistill.files.folder import Folder


def dataset_of(root: Path, inputs: str) -> Dataset:
    rules = PairsConfig.model_validate({"input": [inputs], "query": "query", "title": "title"})
    folder = Folder(str(root))
    folder.claim("run")
    return Dataset(
        "pairs", rules, folder / "pairs", folder / "quarantine", ("",), shard_rows=20, dedupe=True
    )


def test_small_files_share_a_task_and_256_tasks_stay(tmp_path: Path) -> None:
    """2,000 files of about 1,000 rows: 7 a task. One of a million rows is alone, and so a split."""
    files = [RawFile(f"{n:04d}.csv", 50_000, 0, {}) for n in range(2_000)]
    files[1_000] = replace(files[1_000], size_bytes=50_000_000)
    files[1_501] = replace(files[1_501], split="test")
    dataset = dataset_of(tmp_path, "*.csv")
    items = plan_scatter(dataset, files)
    uris = [[part["file"]["uri"] for part in item["parts"]] for item in items]
    assert [uri for those in uris for uri in those] == [file.uri for file in files]
    assert [item["number"] for item in items] == list(range(len(items)))
    assert ["1000.csv"] in uris and ["1501.csv"] in uris
    assert 180 < len(items) < 256  # the big file is a third of the rows
    alone = plan_scatter(replace(dataset, dedupe=False), files)
    assert [len(item["parts"]) for item in alone] == [1] * 2_000


def shards_of(dataset: Dataset) -> tuple[dict[str, bytes], int]:
    """The shards of a dataset by name, and the number of its chunks."""
    assert not dataset.begin_chunks()
    items = plan_scatter(dataset, find_files(dataset.rules))
    parts = [scatter_parts(item, dataset=dataset, held_out=HeldOut({})) for item in items]
    chunks = [chunk for part in parts for chunk in part["chunks"][""]]
    num_rows = sum(part["counts"]["kept_"] for part in parts)
    layout = make_layout(num_rows, shard_rows=dataset.shard_rows, first=None, increment=0)
    num_bytes = write_index(dataset.chunks, dataset.index(""), chunks)
    for item in plan_gather(dataset, "", layout, num_rows=num_rows, num_bytes=num_bytes):
        gather_groups(item, dataset=dataset, layouts={"": layout}, known={"": []})
    folder = dataset.folder
    assert [one for part in parts for one in part["bad"]] == [(f"{dataset.rules.input[0].path}"
        .replace("*", "07"), 2, 3)]  # fmt: skip
    return {name: folder.read_bytes(name) for name in folder.shards()}, len(chunks)


def test_files_read_by_one_task_give_the_same_shards_and_rejects(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(12):
        rows = [f"query {number + n},title {n % 3}" for n in range(10)]
        if number == 7:  # two of its three rows are bad
            rows = ["sofa,x", ",x", "lamp,"]
        text = "\n".join(["query,title", *rows])
        (tmp_path / f"{number:02d}.csv").write_text(text)
    inputs = str(tmp_path / "*.csv")
    alone, num_alone = shards_of(dataset_of(tmp_path / "alone", inputs))
    monkeypatch.setattr(scatter, "_NUM_TASKS", 3)
    together, num_together = shards_of(dataset_of(tmp_path / "together", inputs))
    assert alone == together and len(alone) > 4
    assert num_alone == 12 and num_together == 4
    rejects = [Folder(str(tmp_path / name)) / "quarantine" for name in ("alone", "together")]
    first, second = (folder.read_table(folder.shards()[0]) for folder in rejects)
    assert first.equals(second) and first.num_rows == 2


def test_what_an_older_version_wrote_for_other_parts_goes(tmp_path: Path) -> None:
    dataset = dataset_of(tmp_path, "*.csv")
    later = replace(dataset, increment=1)
    dataset.chunks.write_json("part-00099.json", {"counts": {}})
    for name in ("part-00099.parquet", "part-a001-00099.parquet"):
        dataset.quarantine.write_bytes(name, b"")
    dataset.folder.write_bytes("part-00000.parquet", b"a shard")
    assert dataset.begin_chunks() and not dataset.begin_chunks()
    assert dataset.quarantine.shards() == ["part-a001-00099.parquet"]
    assert dataset.chunks.files() == ["layout.json"] and dataset.folder.shards()
    assert not later.begin_chunks()  # there were none
