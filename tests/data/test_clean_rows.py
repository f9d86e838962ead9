"""Raw files with several title columns, in every format that prepare reads."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest
from pyarrow import orc

from raydistill.config.data import PairsConfig
from raydistill.data.clean_rows import read_clean
from raydistill.data.manifest import check_files, find_files
from raydistill.errors import UserError

ROWS = pa.table(
    {
        "query": ["sofa", "rug", "pan", "pan"],
        "title": ["Grey sofa", "Rug", None, ""],
        "brand": ["Acme", "", "Kuk", None],
        "colour": pa.array([7035, None, 1, None], pa.int64()),
    }
)
JOINED = [("sofa", "Grey sofa 7035 Acme"), ("rug", "Rug"), ("pan", "1 Kuk")]


def write(path: Path) -> Path:
    rows = ROWS.to_pylist()
    if path.suffix == ".parquet":
        pq.write_table(ROWS, path)
    elif path.suffix == ".csv":
        pacsv.write_csv(ROWS, path)
    elif path.suffix == ".tsv":
        lines = [ROWS.column_names, *([str(v or "") for v in row.values()] for row in rows)]
        path.write_text("".join("\t".join(line) + "\n" for line in lines))
    elif path.suffix == ".jsonl":
        kept = [{name: v for name, v in row.items() if v is not None} for row in rows]
        path.write_text("".join(json.dumps(row) + "\n" for row in kept))
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows))
    elif path.suffix == ".orc":
        orc.write_table(ROWS, path)
    else:
        feather.write_feather(ROWS, path, compression="uncompressed")
    return path


@pytest.mark.parametrize("suffix", ["parquet", "csv", "tsv", "jsonl", "json", "orc", "arrow"])
def test_every_format_joins_columns(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"pairs.{suffix}")
    given = {"input": [str(path)], "title": ["title", "colour", "brand"]}
    rules = PairsConfig.model_validate(given)
    (file,) = find_files(rules)
    check_files([file])
    blocks = list(read_clean(file, rules))
    pairs = pa.concat_tables([block.pairs for block in blocks])
    found = list(zip(pairs["query"].to_pylist(), pairs["title"].to_pylist(), strict=True))
    assert found == JOINED
    (reject,) = pa.concat_tables([block.rejects for block in blocks]).to_pylist()
    assert reject["row"] == 3
    assert reject["reason"] in ("title is null", "title is empty")


def test_an_input_has_columns_of_its_own(tmp_path: Path) -> None:
    path = write(tmp_path / "pairs.csv")
    own = {"path": str(path), "title": ["brand", "title"]}
    rules = PairsConfig.model_validate({"input": [own], "title": ["title", "no_such"]})
    (file,) = find_files(rules)
    check_files([file])
    assert next(iter(read_clean(file, rules))).pairs["title"][0].as_py() == "Acme Grey sofa"


@pytest.mark.parametrize("suffix", ["parquet", "csv", "jsonl"])
def test_a_column_that_is_not_there_is_named_with_the_nearest(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"pairs.{suffix}")
    rules = PairsConfig.model_validate({"input": [str(path)], "title": ["title", "color"]})
    words = rf"no column 'color' in .*pairs.{suffix}; it has .*brand.*; did you mean 'colour'\?"
    with pytest.raises(UserError, match=words):
        check_files(find_files(rules))


def test_a_column_of_lists_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "pairs.parquet"
    pq.write_table(pa.table({"query": ["a"], "title": ["b"], "tags": [["c"]]}), path)
    rules = PairsConfig.model_validate({"input": [str(path)], "title": ["title", "tags"]})
    with pytest.raises(UserError, match=r"column 'tags' of .* is list<.*give one of texts or num"):
        check_files(find_files(rules))
