from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raydistill.cli.main import main
from raydistill.config.data import PairsConfig
from raydistill.data.manifest import find_files
from raydistill.demo.shop import Shop
from raydistill.files.folder import Folder
from raydistill.files.schema import SOURCE
from raydistill.stages.standalone import candidates


@pytest.fixture
def inputs(tmp_path: Path, shop: Shop) -> list[str]:
    """400 pairs of a shop as a list of queries and one of titles."""
    pairs = shop.transfer_pairs(0, num_rows=400)
    pq.write_table(pairs.select(["query"]), tmp_path / "queries.parquet")
    pq.write_table(pairs.select(["title"]), tmp_path / "titles.parquet")
    given = ["--queries", str(tmp_path / "queries.parquet")]
    return [*given, "--titles", str(tmp_path / "titles.parquet"), "--shard-queries", "50"]


def contents(output: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in output.glob("part-*.parquet")}


@pytest.mark.ray
def test_from_files_to_pairs_and_on_after_a_kill(
    local_ray: None, inputs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    command = ["candidates", *inputs, "--output", str(output)]
    assert main(command) == 0
    whole = contents(output)
    done = Folder(str(output)).success()
    assert done is not None and len(whole) == len(done["shards"]) > 1
    tables = [pq.read_table(output / name) for name in sorted(whole)]
    pairs = pa.concat_tables(tables)
    assert pairs.num_rows == done["rows_out"] == done["top"] + done["middle"] + done["random"]
    assert pairs.group_by(["query", "title"]).aggregate([]).num_rows == pairs.num_rows
    assert done["random"] == 15 * done["query"]["rows_out"]
    assert f"{done['rows_out']:,} pairs: " in capsys.readouterr().out
    assert not (output / "_catalogue").exists()
    assert main(command) == 0
    assert "nothing left to do" in capsys.readouterr().out
    # Killed with one shard written, before the counts: the same bytes, that shard untouched.
    kept, *others = sorted(whole)
    for name in [*others, "_SUCCESS.json"]:
        (output / name).unlink()
    written_ns = (output / kept).stat().st_mtime_ns
    assert main(command) == 0
    assert contents(output) == whole and (output / kept).stat().st_mtime_ns == written_ns
    again = Folder(str(output)).success()
    assert again == {**done, "seconds": again["seconds"]} if again else False
    assert main([*command, "--top", "3"]) == 2
    assert "candidates made with other top" in capsys.readouterr().err
    found = find_files(PairsConfig.model_validate({"input": str(output), "source": SOURCE.name}))
    assert len(found) == len(whole)  # what prepare will read: the shards and nothing else


def test_an_output_with_other_files_is_left_alone(
    inputs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["candidates", *inputs, "--output", str(tmp_path)]) == 2
    assert "holds queries.parquet, titles.parquet; give a new" in capsys.readouterr().err


def test_the_plan_looks_into_the_inputs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--queries", "none.csv", "--titles", "none.csv", "--output", str(tmp_path / "o")]
    assert main(["candidates", *arguments]) == 2
    assert capsys.readouterr().err == "raydistill: error: no such input: none.csv\n"
    assert candidates.KINDS == ("top", "middle", "random")
