import json
from itertools import product
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raydistill.errors import UserError
from raydistill.files.folder import Folder
from raydistill.files.inputs.input_files import InputFile, expand_inputs, file_format, may_hold
from raydistill.files.inputs.readers import check_columns, read_raw, row_group_spans

ROWS = [("sofa", 'a "big" one'), ("tap", "x"), ("größe", "沙发")]


def write(folder: Path, name: str) -> Path:
    path = folder / name
    if ".parquet" in name:
        pq.write_table(
            pa.table({"query": [q for q, _ in ROWS], "title": [t for _, t in ROWS]}), path
        )
        return path
    if ".jsonl" in name:
        text = "".join(json.dumps({"query": q, "title": t}) + "\n" for q, t in ROWS)
    elif ".tsv" in name:
        text = "query\ttitle\n" + "".join(f"{q}\t{t}\n" for q, t in ROWS)
    else:
        quoted = (t.replace('"', '""') for _, t in ROWS)
        text = "query,title\n" + "".join(
            f'{q},"{t}"\n' for (q, _), t in zip(ROWS, quoted, strict=True)
        )
    codec = {".gz": "gzip", ".zst": "zstd"}.get(path.suffix)
    with pa.output_stream(str(path), compression=codec) as stream:
        stream.write(text.encode())
    return path


def read_all(path: Path) -> list[tuple[str, str]]:
    (file,) = expand_inputs([str(path)])
    found = []
    for raw in read_raw(file, columns=["title", "query"]):
        for row in raw.table.to_pylist():
            query, title = (
                v.decode() if isinstance(v, bytes) else v for v in (row["query"], row["title"])
            )
            found.append((query, title))
    return found


@pytest.mark.parametrize(
    "name", ["a.parquet", "a.csv", "a.tsv", "a.jsonl", "a.csv.gz", "a.tsv.zst", "a.jsonl.zst"]
)
def test_every_format_gives_the_same_rows(tmp_path: Path, name: str) -> None:
    assert read_all(write(tmp_path, name)) == ROWS


def test_lines_that_cannot_be_parsed_have_their_row_number(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("query,title\na,b\nonly\nc,d\ne,f,g\nh,i\n")
    raws = list(read_raw(InputFile(str(path), 1)))
    assert [row for raw in raws for row in raw.rows.tolist()] == [0, 2, 4]
    assert [bad for raw in raws for bad in raw.bad] == [
        (1, "1 fields, not 2"),
        (3, "3 fields, not 2"),
    ]
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"query": "a"}\n\n[1]\nxx\n{"query": "\xff"}\n')
    (raw,) = read_raw(InputFile(str(path), 1), columns=["query"], max_block_bytes=1_000)
    assert raw.table["query"].to_pylist() == ["a"]
    assert [row for row, _ in raw.bad] == [2, 3, 4]


@pytest.mark.parametrize("block_bytes", [200, 1_000, 1 << 20])
def test_row_numbers_are_right_over_many_blocks(tmp_path: Path, block_bytes: int) -> None:
    lines = [f"q{n},t{n}" if n % 3 else f"q{n},t{n},more" for n in range(2_000)]
    (tmp_path / "a.csv").write_text("query,title\n" + "\n".join(lines) + "\n")
    raws = list(read_raw(InputFile(str(tmp_path / "a.csv"), 1), max_block_bytes=block_bytes))
    good = [(n, q) for raw in raws for n, q in zip(
        raw.rows.tolist(), raw.table["query"].to_pylist(), strict=True)]  # fmt: skip
    assert good == [(n, f"q{n}".encode()) for n in range(2_000) if n % 3]
    assert [n for raw in raws for n, _ in raw.bad] == list(range(0, 2_000, 3))


def test_json_values_stay_what_they_are(tmp_path: Path) -> None:
    big = 9_007_199_254_740_993  # no float64 holds it
    (tmp_path / "a.jsonl").write_text(
        f'{{"id": {big}, "x": 1, "q": 7, "b": true}}\n{{"id": 2, "x": 1.5, "q": "s", "b": null}}\n'
        '{"q": "\\ud800 half"}\n{"q": "\\ud83d\\ude00 whole"}\n'
    )
    (raw,) = read_raw(InputFile(str(tmp_path / "a.jsonl"), 1))
    assert raw.table.to_pydict() == {
        "id": [big, 2, None], "x": ["1", "1.5", None], "q": ["7", "s", "😀 whole"],
        "b": [True, None, None],
    }  # fmt: skip
    assert [row for row, _ in raw.bad] == [2]


def test_columns_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "twice.csv").write_text("query,query,title\na,b,c\n")
    with pytest.raises(UserError, match="two columns named 'query'"):
        check_columns(InputFile(str(tmp_path / "twice.csv"), 1), ["query"])
    pq.write_table(pa.table({"query": [["a"]], "title": ["b"]}), tmp_path / "nested.parquet")
    with pytest.raises(UserError, match=r"column 'query' of .* is list<.*\(title\)"):
        check_columns(InputFile(str(tmp_path / "nested.parquet"), 1), ["query", "title"])
    (tmp_path / "long.csv").write_text("query,title\na," + "x" * 100_000 + "\n")
    check_columns(InputFile(str(tmp_path / "long.csv"), 1), ["query", "title"])


def test_empty_files_are_passed_over(tmp_path: Path) -> None:
    write(tmp_path, "a.csv")
    (tmp_path / "b.csv").write_text("")
    assert [Path(f.uri).name for f in expand_inputs([str(tmp_path)])] == ["a.csv"]


def test_blocks_do_not_change_rows(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"n": n}) + "\n" for n in range(1_000)))
    parts = list(read_raw(InputFile(str(path), 1), max_block_bytes=100))
    assert len(parts) > 10
    assert np.concatenate([part.rows for part in parts]).tolist() == list(range(1_000))
    assert [n for part in parts for n in part.table["n"].to_pylist()] == list(range(1_000))


def test_inputs_are_files_folders_and_globs(tmp_path: Path) -> None:
    (tmp_path / "in" / "deep").mkdir(parents=True)
    (tmp_path / "in" / "_temporary" / "0").mkdir(parents=True)
    for name in ("b.csv", "a.csv", "deep/c.csv", "_SUCCESS.json", ".x.csv", "_temporary/0/d.csv"):
        (tmp_path / "in" / name).write_text("query,title\n")
    names = lambda *patterns: [  # noqa: E731
        Path(f.uri).name for f in expand_inputs([str(tmp_path / p) for p in patterns])
    ]
    assert names("in") == ["a.csv", "b.csv", "c.csv"]
    assert names("in/b.csv", "in/a*", "in/b.csv") == ["a.csv", "b.csv"]


GLOBS = {
    "in/*.csv": ["a.csv", "b.csv"],
    "in/*": ["a.csv", "b.csv"],
    "in/?.csv": ["a.csv", "b.csv"],
    "in/[!a].csv": ["b.csv"],
    "in/*/c.csv": ["c.csv"],
    "in/*/*.csv": ["c.csv"],
    "in/d*p/*": ["c.csv"],
    "in/deep/**": ["c.csv", "d.csv"],
    "in/**": ["a.csv", "b.csv", "c.csv", "d.csv"],
    "in/**/*.csv": ["a.csv", "b.csv", "c.csv", "d.csv"],
    "in/**/e*r/*.csv": ["d.csv"],
    "**/d.csv": ["d.csv"],
    "i*/deep/e?er/**/d.csv": ["d.csv"],
}


@pytest.mark.parametrize("place", ["local", pytest.param("s3", marks=pytest.mark.server)])
def test_a_star_stays_in_its_folder(
    tmp_path: Path, place: str, request: pytest.FixtureRequest
) -> None:
    root = Folder(str(tmp_path))
    if place == "s3":
        root = Folder(request.getfixturevalue("s3")) / f"globs-{tmp_path.name}"
    for name in ("a.csv", "b.csv", "deep/c.csv", "deep/ever/d.csv"):
        (root / "in").write_bytes(name, b"query,title\n")
    options = ["", "?region=us-east-1"] if place == "s3" else [""]
    for (pattern, found), after in product(GLOBS.items(), options):
        files = expand_inputs([f"{root}/{pattern}{after}"])
        assert [Path(f.uri.removesuffix(after)).name for f in files] == found, pattern
    with pytest.raises(UserError, match=r"no .*\*\.tsv; \* stands for one name, \*\*"):
        expand_inputs([f"{root}/in/*.tsv"])


@pytest.mark.parametrize(
    ("pattern", "folder", "expected"),
    [
        ("data", "data/run", True),
        ("data", "data", True),
        ("data/pairs.csv", "data/run", False),
        ("data/*.parquet", "data/run", False),
        ("data/run/*.parquet", "data/run", True),
        ("data/*/*.parquet", "data/run", True),
        ("data/p*/*.parquet", "data/run", False),
        ("data/**/*.csv", "data/run", True),
        ("database", "data", False),
        ("data/sub", "data/run", False),
        ("s3://b/x", "s3://b/x/run?endpoint_override=host", True),
        ("s3://b/x/*.parquet", "s3://b/x/run", False),
        ("s3://b/xy", "s3://b/x", False),
    ],
)
def test_what_may_take_files_of_a_folder(pattern: str, folder: str, expected: bool) -> None:
    assert may_hold(pattern, folder) is expected


@pytest.mark.parametrize(
    ("pattern", "words"), [("none.csv", "no such input"), ("*.x", "no .parquet")]
)
def test_inputs_that_are_not_there(tmp_path: Path, pattern: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        expand_inputs([str(tmp_path / pattern)])


def test_a_wrong_column_names_those_that_are(tmp_path: Path) -> None:
    for name in ("a.parquet", "a.csv", "a.jsonl"):
        (file,) = expand_inputs([str(write(tmp_path, name))])
        check_columns(file, ["query", "title"])
        with pytest.raises(UserError, match=r"no column 'qery' in .*; it has query, title"):
            check_columns(file, ["qery"])


def test_a_file_that_is_not_what_its_name_says(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_text("hello")
    with pytest.raises(UserError, match=r"cannot read .*a.parquet as parquet"):
        check_columns(InputFile(str(tmp_path / "a.parquet"), 5), ["query"])
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(UserError, match="it has none"):
        check_columns(InputFile(str(tmp_path / "empty.csv"), 0), ["query"])


def test_formats() -> None:
    assert file_format("s3://b/x.JSONL.gz") == "jsonl"
    assert file_format("x.tsv.zst") == "tsv"
    assert file_format("x.txt") is None


@pytest.mark.server
def test_s3(s3: str, tmp_path: Path) -> None:
    from raydistill.files.folder import Folder

    for name in ("a.parquet", "a.csv.gz"):
        (Folder(s3) / "raw").write_bytes(name, write(tmp_path, name).read_bytes())
    (Folder(s3) / "raw").write_bytes("ts=1%3A2 b.csv", write(tmp_path, "a.csv").read_bytes())
    odd = expand_inputs([f"{s3}/raw/ts*"])
    assert sum(len(raw.rows) for raw in read_raw(odd[0], columns=["query"])) == 3
    files = expand_inputs([f"{s3}/raw/a*"])
    assert [f.uri for f in files] == ["s3://bucket/raw/a.csv.gz", "s3://bucket/raw/a.parquet"]
    assert sum(len(raw.rows) for f in files for raw in read_raw(f, columns=["query"])) == 6


def test_spans_of_row_groups_are_the_file_with_its_row_numbers(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"n": list(range(1_000))}), path, row_group_size=150)
    file = InputFile(str(path), 1)
    spans = row_group_spans(file, max_rows=400)
    assert spans == [((0, 2), 300), ((2, 4), 300), ((4, 7), 400)]
    parts = [raw for span, _ in spans for raw in read_raw(file, columns=["n"], span=span)]
    assert np.concatenate([part.rows for part in parts]).tolist() == list(range(1_000))
    assert [n for part in parts for n in part.table["n"].to_pylist()] == list(range(1_000))
    assert [span for span, _ in row_group_spans(file, max_rows=10)] == [
        (n, n + 1) for n in range(7)
    ]
    csv = InputFile(str(write(tmp_path, "a.csv")), 1)
    assert row_group_spans(csv, max_rows=1) == [((0, 0), None)]


@pytest.mark.parametrize(
    ("line", "is_bad"),
    [
        (b'{"query": "b", "title": "c", "x": [1]}', False),
        (b'{"query": 7, "title": "c"}', False),
        (b'{"title": "c"}', False),
        (b"", False),
        (b'{"query": "b", "title": "\\ud800"}', True),
        (b'{"query": "b", "title": "\xff"}', True),
        (b'{"query": "b"} {"query": "b"}', True),
        (b"[1]", True),
    ],
)
def test_a_block_of_json_is_read_as_its_lines_are(
    tmp_path: Path, line: bytes, is_bad: bool
) -> None:
    """A block of plain lines goes through Arrow, one odd line sends it through Python."""
    plain = b'{"query": "a", "title": "\\u00e9"}\n'
    (tmp_path / "a.jsonl").write_bytes(plain * 2 + line + b"\n" + plain)
    file = InputFile(str(tmp_path / "a.jsonl"), 1)
    (raw,) = read_raw(file, columns=["query", "title"])
    assert raw.table.schema.field("title").type == pa.string()
    expected = [0, 1, 3] if is_bad or not line else [0, 1, 2, 3]
    assert raw.rows.tolist() == expected
    assert [row for row, _ in raw.bad] == ([2] if is_bad else [])
    assert raw.table["title"].to_pylist()[-1] == "é"


def test_a_file_of_bad_lines_alone_is_read_to_its_end(tmp_path: Path) -> None:
    """An export without quotes: every line has a field too many; time must not go by its square."""
    (tmp_path / "a.csv").write_text("query,title\n" + "a,b,c\n" * 5_000)
    raws = list(read_raw(InputFile(str(tmp_path / "a.csv"), 1), columns=["query", "title"]))
    assert [row for raw in raws for row, _ in raw.bad] == list(range(5_000))


def test_rubbish_is_named(tmp_path: Path) -> None:
    (tmp_path / "latin.csv").write_bytes("query,tïtle\na,b\n".encode("latin-1"))
    with pytest.raises(UserError, match=r"cannot read .*latin\.csv as csv: .*perhaps Windows-1252"):
        check_columns(InputFile(str(tmp_path / "latin.csv"), 1), ["query"])
    (tmp_path / "deep.jsonl").write_text("[" * 100_000 + '\n{"query": "a"}\n')
    (raw,) = read_raw(InputFile(str(tmp_path / "deep.jsonl"), 1), columns=["query"])
    assert raw.rows.tolist() == [1] and [row for row, _ in raw.bad] == [0]
