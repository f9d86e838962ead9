"""A text file read in stretches has the rows of the file read at once."""

import random
from pathlib import Path

import pyarrow as pa
import pytest

from raydistill.files.inputs.csv_dialect import CsvOptions
from raydistill.files.inputs.input_files import InputFile
from raydistill.files.inputs.raw_rows import RawRows, Stretch
from raydistill.files.inputs.readers import read_raw, text_stretches


def odd_csv(num_rows: int, *, seed: int) -> str:
    """Records with quoted line breaks and quotes, records that are too short, lone quotes."""
    chance = random.Random(seed)
    kinds = [
        "{n},plain,text\n", '{n},"a ""quoted"" one",x\n', '{n},"two\nlines",x\n', "{n},short\n",
        '{n},55" wide,x\n', '{n},"never closed,x\n', "\n", "{n},a,b,c,d\r\n",
        '{n},"back \\" slash",x\n',
    ]  # fmt: skip
    weights = [30, 3, 3, 1, 1, 1, 1, 1, 1]
    lines = (chance.choices(kinds, weights)[0].format(n=n) for n in range(num_rows))
    return "id,title,more\n" + "".join(lines)


def rows_of(file: InputFile, stretches: list[Stretch]) -> list[tuple[object, ...]]:
    """Row number, line, whether it is bad, and values of each row."""
    found: list[tuple[object, ...]] = []
    for stretch in stretches or [None]:
        for raw in read_raw(file, texts=["title"], keep_bad=True, stretch=stretch):
            found += _rows_of(raw)
    return found


def _rows_of(raw: RawRows) -> list[tuple[object, ...]]:
    bad, lines = dict(raw.bad), raw.lines if raw.lines is not None else raw.rows
    values = pa.Table.to_pylist(raw.table)
    numbers = zip(raw.rows.tolist(), lines.tolist(), values, strict=True)
    return [(row, line, bad.get(row), tuple(sorted(one.items()))) for row, line, one in numbers]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_csv_is_cut_between_records(tmp_path: Path, seed: int, mark: bytes) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(mark + odd_csv(3_000, seed=seed).encode())
    file = InputFile(str(path), path.stat().st_size)
    stretches = text_stretches(file, most_rows=100)
    assert len(stretches) > 20
    assert [one.end for one in stretches[:-1]] == [one.begin for one in stretches[1:]]
    whole = rows_of(file, [])
    assert rows_of(file, stretches) == whole
    assert sum(one.num_rows for one in stretches) == len(whole)
    assert {one.num_rows for one in stretches[:-1]} <= set(range(100, 140))


@pytest.mark.parametrize("last", ["\n", ""])
@pytest.mark.parametrize("num_rows", [999, 1_000])
def test_lines_of_json_are_cut_at_their_ends(tmp_path: Path, last: str, num_rows: int) -> None:
    path = tmp_path / "a.jsonl"
    lines = [f'{{"id": {n}, "title": "t{n}"}}' if n % 9 else "{cut" for n in range(num_rows)]
    path.write_text("\n".join(lines) + last)
    file = InputFile(str(path), path.stat().st_size)
    stretches = text_stretches(file, most_rows=100)
    assert [one.num_rows for one in stretches] == [100] * 9 + [num_rows - 900]
    assert rows_of(file, stretches) == rows_of(file, [])


def test_files_that_cannot_be_cut(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(odd_csv(500, seed=0).encode("utf-16"))
    assert text_stretches(InputFile(str(path), 1), most_rows=10) == []
    latin = InputFile(str(path), 1, csv=CsvOptions(encoding="cp1252"))
    assert text_stretches(latin, most_rows=10) == []
    assert text_stretches(InputFile(f"{path}.gz", 1), most_rows=10) == []
    path.write_text("id,title\n")
    found = text_stretches(InputFile(str(path), 1), most_rows=10)
    assert [(one.num_rows, one.begin, one.end) for one in found] == [(0, 9, 9)]
