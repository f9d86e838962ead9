"""Judged files of every kind to distinct pairs, and what is said of rows that cannot be used."""

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raydistill.config.data import to_judged_config
from raydistill.errors import UserError
from raydistill.stages.quality.judged_pairs import JudgedPairs, read_judged_files

ROWS = [
    {"query": "sofa", "title": "Grey  sofa", "label": 1.0},
    {"query": "sofa", "title": "lamp", "label": 0.0},
    {"query": "tap", "title": "tap\u00a0chrome", "label": 0.5},
]
CSV = "query,title,label\nsofa,Grey sofa,1\nsofa,lamp,0\ntap,tap chrome,0.5\n"


def read(
    *paths: Path,
    slices: tuple[str, ...] = (),
    **options: Any,  # noqa: ANN401 - of [judged]
) -> JudgedPairs:
    rules = to_judged_config({"input": [str(path) for path in paths], **options})
    return read_judged_files(rules, slices=slices)


def found(pairs: JudgedPairs) -> list[tuple[str, str, float]]:
    table = pairs.table
    return list(
        zip(*(table[name].to_pylist() for name in ("query", "title", "label")), strict=True)
    )


EXPECTED = [("sofa", "Grey sofa", 1.0), ("sofa", "lamp", 0.0), ("tap", "tap chrome", 0.5)]


def write(path: Path) -> Path:
    """The three pairs in the format of the suffix."""
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(ROWS), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    elif path.suffix == ".gz":
        path.write_bytes(gzip.compress(CSV.encode()))
    else:
        path.write_text(CSV.replace(",", "\t") if path.suffix == ".tsv" else CSV)
    return path


@pytest.mark.parametrize("name", ["a.parquet", "a.jsonl", "a.csv", "a.tsv", "a.csv.gz"])
def test_every_format_gives_the_same_clean_pairs(tmp_path: Path, name: str) -> None:
    pairs = read(write(tmp_path / name))
    assert found(pairs) == EXPECTED
    assert pairs.groups_B.tolist() == [0, 0, 1]
    assert pairs.counts["rows_in"] == 3 and pairs.counts["quarantined"] == 0


def test_a_folder_and_a_glob_are_read(tmp_path: Path) -> None:
    write(tmp_path / "a.csv")
    (tmp_path / "b.csv").write_text("query,title,label\nsofa,oak sofa,1\n")
    assert len(found(read(tmp_path))) == 4
    assert len(found(read(tmp_path / "b*.csv"))) == 1


def test_repeated_pairs_become_one_with_their_mean_label(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("query,title,label\nsofa,grey sofa,1\nsofa, grey  sofa ,0\nsofa,lamp,0\n")
    pairs = read(path)
    assert found(pairs) == [("sofa", "grey sofa", 0.5), ("sofa", "lamp", 0.0)]
    assert pairs.counts["duplicates"] == 1 and pairs.counts["conflicting_labels"] == 1


def test_grades_and_scales_become_labels(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("query,title,grade\na,b,Exact\na,c,Irrelevant\n")
    pairs = read(path, label="grade", grades={"exact": 1.0, "irrelevant": 0.25})
    assert pairs.labels_B.tolist() == [1.0, 0.25]
    path.write_text("query,title,grade\na,b,3\na,c,1\n")
    assert read(path, label="grade", scale=(1, 3)).labels_B.tolist() == [1.0, 0.0]


def test_labels_outside_of_the_scale_name_the_options(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("query,title,label\na,b,3\na,c,1\n")
    with pytest.raises(UserError, match=r"labels from 1 to 3.*--scale LOW,HIGH or --grade"):
        read(path)


def test_bad_rows_are_counted_with_reasons(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    good = "".join(f"q{n},title {n},1\n" for n in range(200))
    path.write_text(f"query,title,label\n{good},no query,1\nq,,1\n")
    pairs = read(path)
    assert pairs.counts["quarantined"] == 2 and pairs.counts["rows_out"] == 200
    assert {one["reason"] for one in pairs.rejects} == {"query is empty", "title is empty"}


def test_too_many_bad_rows_stop_the_command(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("query,title,label\n" + "q,t,1\n" * 10 + ",t,1\n" * 10)
    with pytest.raises(UserError, match=r"10 of the 20 judged rows.*query is empty"):
        read(path)
    assert read(path, max_bad_fraction=0.5).counts["quarantined"] == 10


def test_a_file_without_a_usable_row_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("query,title,label\n,t,1\n")
    with pytest.raises(UserError, match="none of the 1 judged rows can be used"):
        read(path)
    path.write_text("query,title,label\n")
    with pytest.raises(UserError, match="there is no row"):
        read(path)


def test_a_missing_column_names_the_options(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"no column 'grade'.*--query, --title, --label and --slice"
    ):
        read(write(tmp_path / "a.csv"), label="grade")


def test_slice_columns_are_kept_beside_the_pairs(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    rows = "q,b,1,uk,2024\nq,a,0,de,\n,x,1,de,1\nq,b,0,us,2023\n"
    path.write_text(f"query,title,label,shop,year\n{rows}")
    pairs = read(path, slices=("shop", "year"), max_bad_fraction=1.0)
    assert [title for _, title, _ in found(pairs)] == ["a", "b"]
    assert pairs.columns["shop"].to_pylist() == ["de", "us"]  # of the first label: 0 is us
    assert pairs.columns["year"].to_pylist() == ["", "2023"]


def test_single_texts_are_grouped_by_title(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("title,label\nb,1\na,0\n")
    pairs = read(path, query="")
    assert not pairs.has_query and pairs.groups_B.tolist() == [0, 1]


def test_an_option_outside_of_its_range_is_named() -> None:
    with pytest.raises(UserError, match="relevant_at"):
        to_judged_config({"input": ["a.csv"], "relevant_at": 2.0})
