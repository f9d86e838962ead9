"""Exactly the named inputs are read; an error names inputs that cannot be read."""

import bz2
import gzip
import json
import logging
import lzma
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import feather, orc

from raydistill.cli.main import main
from raydistill.config.loading import read_overlay, read_text
from raydistill.errors import UserError
from raydistill.files.inputs.input_files import InputFile, expand_inputs, is_inside, may_hold
from raydistill.files.inputs.readers import check_columns, read_raw

ROWS = [("sofa", "grey sofa"), ("größe", "沙发"), ("tap", 'a "big" tap')]
TABLE = pa.table({"query": [q for q, _ in ROWS], "title": [t for _, t in ROWS]})
RECORDS = [{"query": q, "title": t} for q, t in ROWS]
CSV = "query,title\n" + "".join(f"{q},{t}\n" for q, t in ROWS)
TSV = CSV.replace(",", "\t")
LINES = "".join(json.dumps(r) + "\n" for r in RECORDS)


def packed(codec: str) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        with pa.output_stream(str(path), compression=codec) as stream:
            stream.write(CSV.encode())

    return write


def table(write: Callable[[pa.Table, str], None]) -> Callable[[Path], None]:
    return lambda path: write(TABLE, str(path))


FILES: dict[str, bytes | str | Callable[[Path], None]] = {
    "a.csv.gz": gzip.compress(CSV.encode()),
    "parts.csv.gz": gzip.compress(CSV[:20].encode()) + gzip.compress(CSV[20:].encode()),
    "a.csv.bz2": bz2.compress(CSV.encode()),
    "a.csv.xz": lzma.compress(CSV.encode()),
    "a.jsonl.xz": lzma.compress(LINES.encode()),
    "a.csv.lz4": packed("lz4"),
    "a.csv.zst": packed("zstd"),
    "a.ndjson": LINES,
    "lines.json": LINES,
    "array.json": json.dumps(RECORDS),
    "lines-in-array.json": json.dumps(RECORDS, indent=2),
    "one-by-one.json": "\n".join(json.dumps(r, indent=2) for r in RECORDS),
    "array.json.gz": gzip.compress(json.dumps(RECORDS).encode()),
    "mark.json": "\ufeff" + json.dumps(RECORDS),
    "mark.jsonl": "\ufeff" + LINES,
    "wide.jsonl": LINES.encode("utf-16"),
    "wide.json": json.dumps(RECORDS, ensure_ascii=False).encode("utf-16"),
    "wide.tsv": TSV.encode("utf-16"),
    "mark.tsv": "\ufeff" + TSV,
    "a.tab": TSV,
    "a.orc": table(orc.write_table),
    "a.arrow": table(feather.write_feather),
    "a.feather": table(feather.write_feather),
    "part-00000": table(pq.write_table),
    "part-00001": gzip.compress(CSV.encode()),
    "part-00002.gz": gzip.compress(LINES.encode()),
    "part-00003": LINES,
    "part-00004": json.dumps(RECORDS),
    "part-r-00005": TSV,
    "000006_0": CSV,
    "part-00007-c000.csv": CSV,
    "data[1].csv": CSV,
    "what?.csv": CSV,
    "st*r.csv": CSV,
}


def write(path: Path, content: bytes | str | Callable[[Path], None]) -> Path:
    if callable(content):
        content(path)
    else:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def read(file: InputFile) -> list[tuple[str, str]]:
    found = []
    for raw in read_raw(file, columns=["query", "title"]):
        assert not raw.bad
        columns = (raw.table[name].cast(pa.string()).to_pylist() for name in ("query", "title"))
        found += list(zip(*columns, strict=True))
    return found


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_read_alone_and_in_its_folder(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, FILES[name])
    for pattern in (path, tmp_path, tmp_path / "*"):
        (file,) = expand_inputs([str(pattern)])
        check_columns(file, ["query", "title"])
        assert read(file) == ROWS


PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 8
NO_TEXT = {
    "png.csv": (PNG, "a PNG picture"),
    "png.tsv": (PNG, "a PNG picture"),
    "png.jsonl": (PNG, "a PNG picture"),
    "png.json": (PNG, "a PNG picture"),
    "png.parquet": (PNG, "as parquet"),
    "zip.csv": (b"PK\x03\x04" + bytes(100), "a ZIP archive"),
    "gzip.csv": (gzip.compress(CSV.encode()), r"gzip data; give its name the suffix \.gz"),
    "parquet.csv": (b"PAR1\x15\x04\x15", "a Parquet file"),
    "noise.csv": (bytes(range(256)) * 20, "binary data"),
    "lfs.csv": (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "Git LFS pointer"),
    "plain.csv.gz": (CSV.encode(), "incorrect header check"),
    "plain.csv.xz": (CSV.encode(), "as csv: xz:"),
    "cut.csv.xz": (lzma.compress(CSV.encode() * 999)[:90], "as csv: xz: .*ended"),
    "cut.json": (json.dumps(RECORDS)[:-9].encode(), "invalid or truncated JSON"),
    "latin.csv": ("query,größe\n".encode("cp1252"), 'Windows-1252.*encoding = "cp1252"'),
    "commas.tsv": (CSV.encode(), r"it has query,title; name its delimiter, csv = \{"),
}


@pytest.mark.parametrize("name", NO_TEXT)
def test_what_is_something_else_is_one_line(
    tmp_path: Path, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    content, words = NO_TEXT[name]
    path = write(tmp_path / name, content)
    with pytest.raises(UserError, match=words) as caught:
        check_columns(InputFile(str(path), 1), ["query"])
        list(read_raw(InputFile(str(path), 1)))
    assert name in str(caught.value)
    assert main(["inspect", str(path)]) == 2
    err = capfd.readouterr().err
    assert err.startswith("raydistill: error: ") and len(err.splitlines()) == 1


def test_what_a_folder_has_beside_its_files_is_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("a.txt", "b.txt", "C.TXT", "d.xlsx", "README", "e.csv.zip", ".hidden", "_x.txt"):
        (tmp_path / name).write_text("x")
    (tmp_path / "a.csv").write_text(CSV)
    with caplog.at_level(logging.WARNING, logger="raydistill"):
        for _ in range(2):  # once is enough
            assert len(expand_inputs([str(tmp_path)])) == 1
    (line,) = caplog.messages
    assert line.startswith(f"{tmp_path}: 3 .txt, ") and " are not read" in line
    assert all(f"1 {suffix}" in line for suffix in (".xlsx", ".zip", "without a suffix"))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("a.xlsx", r"a\.xlsx is not read, .*save it as CSV"),
        ("a.zip", "unpack it"),
        ("a.avro", "write it as Parquet"),
        ("a.txt", r"name it \.csv or \.tsv"),
        ("a.parquet.gz", "is not read"),
    ],
)
def test_a_file_that_is_not_read_is_named_with_the_way_out(
    tmp_path: Path, name: str, words: str
) -> None:
    (tmp_path / name).write_text("x")
    with pytest.raises(UserError, match=words):
        expand_inputs([str(tmp_path / name)])
    with pytest.raises(UserError, match=rf"no \.parquet.*it has 1 \.{name.rpartition('.')[2]}"):
        expand_inputs([str(tmp_path)])


def test_an_empty_file_that_was_named(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("")
    with pytest.raises(UserError, match=r"a\.csv is empty"):
        expand_inputs([str(tmp_path / "a.csv")])


def test_a_name_that_is_there_is_no_pattern(tmp_path: Path) -> None:
    (tmp_path / "[x]").mkdir()
    for name in ("data[1].csv", "data1.csv", "[x]/a1.csv", "[x]/a2.csv"):
        (tmp_path / name).write_text(CSV)
    names = lambda pattern: [  # noqa: E731
        Path(f.uri).name for f in expand_inputs([str(tmp_path / pattern)])
    ]
    assert names("data[1].csv") == ["data[1].csv"]
    assert names("[x]/*.csv") == ["a1.csv", "a2.csv"]
    (tmp_path / "data[1].csv").unlink()
    assert names("data[1].csv") == ["data1.csv"]
    assert is_inside(str(tmp_path / "[x]" / "*.csv"), str(tmp_path / "[x]"))
    assert may_hold(str(tmp_path / "[x]" / "*"), str(tmp_path / "[x]"))


def test_a_tilde_is_the_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.csv").write_text(CSV)
    for pattern in ("~/data/a.csv", "~/data", "~/data/*.csv"):
        assert [f.uri for f in expand_inputs([pattern])] == [str(tmp_path / "data" / "a.csv")]
    (tmp_path / "run.toml").write_text('run_dir = "~/run"\n')
    assert read_text("~/run.toml") == 'run_dir = "~/run"\n'
    assert read_overlay("~/run.toml") == {"run_dir": "~/run"}
    assert is_inside("~/run/a.csv", str(tmp_path / "run"))
    assert main(["inspect", "~/data/a.csv"]) == 0


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_run_files_of_any_unicode(tmp_path: Path, encoding: str) -> None:
    text = 'run_dir = "größe"\n' * 3
    (tmp_path / "run.toml").write_bytes(text.encode(encoding))
    assert read_text(str(tmp_path / "run.toml")) == text
    (tmp_path / "over.toml").write_bytes('run_dir = "größe"\n'.encode(encoding))
    assert read_overlay(str(tmp_path / "over.toml")) == {"run_dir": "größe"}


def test_a_run_file_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_bytes(PNG)
    with pytest.raises(UserError, match=r"a\.toml is no text but a PNG picture"):
        read_text(str(tmp_path / "a.toml"))
    (tmp_path / "b.toml").write_bytes('run_dir = "größe"'.encode("cp1252"))
    with pytest.raises(UserError, match=r"b\.toml is not UTF-8, perhaps Windows-1252"):
        read_text(str(tmp_path / "b.toml"))


def test_lists_and_objects_are_no_texts(tmp_path: Path) -> None:
    records = [*RECORDS[:1], {"query": "x", "title": ["a"]}, {"query": {"a": 1}, "title": "t"}, 7]
    expected = [(1, "title is a JSON list, not a text"), (2, "query is a JSON object, not a text"),
                (3, "not a JSON object")]  # fmt: skip
    (tmp_path / "a.json").write_text(json.dumps(records))
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    for name in ("a.json", "a.jsonl"):
        (raw,) = read_raw(InputFile(str(tmp_path / name), 1), columns=["query", "title"])
        assert (raw.rows.tolist(), raw.bad) == ([0], expected)
        (raw,) = read_raw(InputFile(str(tmp_path / name), 1), columns=["other"])
        assert raw.rows.tolist() == [0, 1, 2]


@pytest.mark.parametrize("block_bytes", [3, 17, 1 << 20])
def test_an_array_is_read_in_pieces(tmp_path: Path, block_bytes: int) -> None:
    records = [{"query": f'größe {n} "]', "title": f"{n}", "n": n} for n in range(60)]
    (tmp_path / "a.json").write_text(json.dumps(records, ensure_ascii=False, indent=1))
    file = InputFile(str(tmp_path / "a.json"), 1)
    (raw,) = read_raw(file, max_block_bytes=block_bytes)
    assert raw.table.to_pylist() == records


def test_what_programs_write_beside_data_is_not_data(tmp_path: Path) -> None:
    """A JSON file beside Parquet says something about it; alone, or named, it is read."""
    (tmp_path / "schema.json").write_text('{"fields": []}')
    (tmp_path / "a.csv").write_text("query,title\nsofa,Grey sofa\n")
    assert names_of(tmp_path, str(tmp_path)) == ["a.csv"]
    assert names_of(tmp_path, f"{tmp_path}/*") == ["a.csv"]
    assert names_of(tmp_path, f"{tmp_path}/*.json") == ["schema.json"]
    assert names_of(tmp_path, f"{tmp_path}/schema.json") == ["schema.json"]
    (tmp_path / "a.csv").unlink()
    assert names_of(tmp_path, str(tmp_path)) == ["schema.json"]


def names_of(folder: Path, pattern: str) -> list[str]:
    return [str(Path(file.uri).relative_to(folder)) for file in expand_inputs([pattern])]
