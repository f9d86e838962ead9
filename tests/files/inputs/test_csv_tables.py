"""CSV as programs and people write it: no line is lost or merged into another."""

import csv
import io
import random
from pathlib import Path

import pytest

from raydistill.errors import UserError
from raydistill.files.inputs.csv_dialect import CsvOptions
from raydistill.files.inputs.input_files import InputFile
from raydistill.files.inputs.readers import check_columns, column_names, read_raw

HEAD = "query,title,label\n"
Row = tuple[str | None, ...]


def read(
    folder: Path,
    content: str | bytes,
    *,
    name: str = "a.csv",
    block_bytes: int = 1 << 20,
    keep_bad: bool = False,
    **options: str,
) -> tuple[dict[int, Row], list[tuple[int, int, str]], int]:
    """Good rows by line, bad ones with row, line and reason, and the lines of all of them."""
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    file = InputFile(str(path), 1, csv=CsvOptions(**options))
    good: dict[int, Row] = {}
    bad: list[tuple[int, int, str]] = []
    num_lines = 0
    for raw in read_raw(file, max_block_bytes=block_bytes, keep_bad=keep_bad):
        values = [
            [None if v is None else v.decode() for v in column.to_pylist()] for column in raw.table
        ]
        assert raw.lines is not None
        good |= dict(zip(raw.lines.tolist(), zip(*values, strict=True), strict=True))
        bad += [(n, line, why) for (n, why), line in zip(raw.bad, raw.bad_lines, strict=True)]
        num_lines += raw.num_breaks
    return good, bad, num_lines + len(good) + (0 if keep_bad else len(bad))


LEGAL = {
    "line break": ('lamp,"A sofa\nsoft, warm, nice\nblue",1\nx,y,0\n',
                   {2: ("lamp", "A sofa\nsoft, warm, nice\nblue", "1"), 5: ("x", "y", "0")}),
    "cell with a table": ('lamp,"sizes:\nS,10,x\nM,20,y\nL,30,z",0.5\n',
                          {2: ("lamp", "sizes:\nS,10,x\nM,20,y\nL,30,z", "0.5")}),
    "doubled quotes": ('tv,"55"" tv, ""new""",1\n', {2: ("tv", '55" tv, "new"', "1")}),
    "quotes within": ('tv,TV 55",1\nrug,the "red" one,0\n',
                      {2: ("tv", 'TV 55"', "1"), 3: ("rug", 'the "red" one', "0")}),
    "backslash at the end": ('a,"C:\\",1\nb,"c",0\n', {2: ("a", "C:\\", "1"), 3: ("b", "c", "0")}),
    "blank lines": ("\n\na,b,1\n\n\nc,d,0\n", {4: ("a", "b", "1"), 7: ("c", "d", "0")}),
}  # fmt: skip
MEANT = {
    "lone quote": ('tv,"55 inch tv,1\na,b,0\npan,"12 inch pan",0\n',
                   [("tv", '"55 inch tv', "1"), ("a", "b", "0"), ("pan", "12 inch pan", "0")]),
    "closed lines later": ('tv,"55 inch tv,1\na,b,0\nx,y 5",0\nc,d,1\n',
                           [("tv", '"55 inch tv', "1"), ("a", "b", "0"), ("x", 'y 5"', "0"),
                            ("c", "d", "1")]),
    "never closed": ('a,b,0\ntv,"55 inch tv,1\nc,d,1',
                     [("a", "b", "0"), ("tv", '"55 inch tv', "1"), ("c", "d", "1")]),
    "first field": ('"55 inch,tv,1\na,b,0\n', [('"55 inch', "tv", "1"), ("a", "b", "0")]),
    "last field": ('tv,1,"new\na,0,old\nb,1,old\n',
                   [("tv", "1", '"new'), ("a", "0", "old"), ("b", "1", "old")]),
    "text behind": ('tv,"55" inch tv,1\n', [("tv", '"55" inch tv', "1")]),
    "not doubled": ('tv,"55" tv",1\ntv,"55" tv, black",1\n',
                    [("tv", '55" tv', "1"), ("tv", '55" tv, black', "1")]),
    "backslashes": ('tv,"55\\" tv",1\ntv,"a \\"b\\", c",1\ntv,"\\"55\\" tv",0\n',
                    [("tv", '55" tv', "1"), ("tv", 'a "b", c', "1"), ("tv", '"55" tv', "0")]),
    "backslash and line break": ('tv,"55\\" tv\nin black",1\n', [("tv", '55" tv\nin black', "1")]),
    "spaces around": ('a, "b, c", 1\nd,"e" ,0\n', [("a", "b, c", " 1"), ("d", '"e" ', "0")]),
}  # fmt: skip
ENDS = {"LF": "\n", "CR LF": "\r\n", "CR": "\r"}


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("name", LEGAL)
def test_rfc_4180_is_read_as_it_is(tmp_path: Path, name: str, end: str) -> None:
    content, expected = LEGAL[name]
    found, bad, num_lines = read(tmp_path, (HEAD + content).replace("\n", ENDS[end]))
    plain = {n: tuple((v or "").replace(ENDS[end], "\n") for v in row) for n, row in found.items()}
    assert (plain, bad) == (expected, [])
    assert num_lines == sum(line != "" for line in content.split("\n"))


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("name", MEANT)
def test_quotes_that_are_no_quoting_swallow_nothing(tmp_path: Path, name: str, end: str) -> None:
    content, expected = MEANT[name]
    found, bad, num_lines = read(tmp_path, (HEAD + content).replace("\n", ENDS[end]))
    plain = [tuple((v or "").replace(ENDS[end], "\n") for v in row) for row in found.values()]
    assert (plain, bad) == (expected, [])
    assert num_lines == len(content.splitlines())


def test_what_cannot_be_read_as_meant_is_bad_with_its_line(tmp_path: Path) -> None:
    content = 'x,y,1\ntv,"55" inch tv, black,1\na,"b\nc",1\nd,e\nf,g,h,i\n"tv,5,1"\nz,z,0\n'
    good, bad, num_lines = read(tmp_path, HEAD + content)
    assert sorted(good) == [2, 4, 9]
    assert bad == [
        (1, 3, "a quote that is no quoting, 4 fields, not 3"),
        (3, 6, "2 fields, not 3"),
        (4, 7, "4 fields, not 3"),
        (5, 8, "1 fields, not 3"),
    ]
    assert num_lines == 8


def test_bad_rows_keep_their_place_with_what_is_known(tmp_path: Path) -> None:
    good, bad, _ = read(tmp_path, HEAD + "a\nb,c,1\nd,e,2,3\n", keep_bad=True)
    assert list(good.values()) == [("a", None, None), ("b", "c", "1"), ("d", "e", "2,3")]
    assert [line for _, line, _ in bad] == [2, 4]


def test_a_quote_that_is_never_closed_costs_its_line_in_a_long_file(tmp_path: Path) -> None:
    lines = [f"q{n},title of {n},0" for n in range(60_000)]
    lines[7] = 'tv,"55 inch tv,1'
    good, bad, num_lines = read(tmp_path, HEAD + "\n".join(lines) + "\n", block_bytes=100_000)
    assert (len(good), bad, num_lines) == (60_000, [], 60_000)
    assert good[9] == ("tv", '"55 inch tv', "1")


HEADERS = {
    "semicolons": ("query;title\na, b;c\n", ("a, b", "c")),
    "tabs": ("query\ttitle\na, b\tc\n", ("a, b", "c")),
    "pipes": ("query|title\na, b|c\n", ("a, b", "c")),
    "named": ("sep=;\r\nquery;title\r\na, b;c\r\n", ("a, b", "c")),
    "named, quoted": ('"sep=^"\r\nquery^title\r\na, b^c\r\n', ("a, b", "c")),
    "mark": ("\ufeffquery,title\na,c\n", ("a", "c")),
    "mark, quoted": ('\ufeff"query","title"\n"a","c"\n', ("a", "c")),
    "spaced": ("query, title\na, c\n", ("a", " c")),
    "line break": ('"query","title"\n"a\nb","c"\n', ("a\nb", "c")),
}


@pytest.mark.parametrize("name", HEADERS)
def test_delimiter_and_header_are_found(tmp_path: Path, name: str) -> None:
    content, row = HEADERS[name]
    good, bad, _ = read(tmp_path, content)
    assert (list(good.values()), bad) == ([row], [])
    assert column_names(InputFile(str(tmp_path / "a.csv"), 1)) == ["query", "title"]


def test_columns_that_are_not_asked_for_may_have_any_name(tmp_path: Path) -> None:
    good, _, _ = read(tmp_path, ",query,title,x,x\n1,a,b,c,d\n")
    assert list(good.values()) == [("1", "a", "b", "c", "d")]
    file = InputFile(str(tmp_path / "a.csv"), 1)
    check_columns(file, ["query", "title"])
    with pytest.raises(UserError, match="two columns named 'x'"):
        check_columns(file, ["x"])


OPTIONS: dict[str, tuple[str, dict[str, str], Row]] = {
    "no quote": ('q,t\n"a",b"\n', {"quote": ""}, ('"a"', 'b"')),
    "single quotes": ("q,t\n'a, b','it''s'\n", {"quote": "'"}, ("a, b", "it's")),
    "escape": ('q,t\n"a\\"b",c\\,d\n', {"escape": "\\"}, ('a"b', "c,d")),
    "no escape": ('q,t\nx,"55\\"\n', {"escape": ""}, ("x", "55\\")),
    "delimiter": ("q,t;x\na,b;c\n", {"delimiter": ";"}, ("a,b", "c")),
    "encoding": ("q,t\ncafé,é\n", {"encoding": "cp1252"}, ("café", "é")),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_the_run_file_settles_it(tmp_path: Path, name: str) -> None:
    content, options, row = OPTIONS[name]
    encoded = content.encode(options.get("encoding", "utf-8"))
    good, bad, _ = read(tmp_path, encoded, **options)
    assert (list(good.values()), bad) == ([row], [])


def test_quotes_of_a_tsv_are_text_unless_told(tmp_path: Path) -> None:
    content = 'query\ttitle\n"a\tb"\n"c"\td\n'
    assert list(read(tmp_path, content, name="a.tsv")[0].values()) == [('"a', 'b"'), ('"c"', "d")]
    good, bad, _ = read(tmp_path, content, name="a.tsv", quote='"')
    assert (list(good.values()), len(bad)) == ([("c", "d")], 1)


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-8-sig"])
def test_unicode_of_any_width(tmp_path: Path, encoding: str) -> None:
    content = HEAD + 'größe,"grey, sofa",1\n' * 30_000
    good, bad, _ = read(tmp_path, content.encode(encoding), block_bytes=1_001)
    assert set(good.values()) == {("größe", "grey, sofa", "1")}
    assert (len(good), bad) == (30_000, [])


@pytest.mark.slow
def test_any_table_that_is_quoted_throughout_comes_back(tmp_path: Path) -> None:
    """As Python writes it; the texts have quotes, delimiters, line breaks and backslashes."""
    draw = random.Random(0)
    parts = ["a", 'b"', '"', ", ", "\n", "x y", "é", "\\", " "]
    for end in ("\n", "\r\n"):
        rows = [
            ["".join(draw.choices(parts, k=draw.randint(0, 5))) for _ in range(3)]
            for _ in range(300)
        ]
        text = io.StringIO(newline="")
        writer = csv.writer(text, lineterminator=end, quoting=csv.QUOTE_ALL)
        writer.writerows([["q", "t", "x"], *rows])
        for block_bytes in (1 << 20, 13):
            good, bad, _ = read(tmp_path, text.getvalue(), block_bytes=block_bytes)
            assert (list(good.values()), bad) == ([tuple(row) for row in rows], [])


@pytest.mark.slow
def test_any_bytes_at_all_are_accounted_for_whatever_the_blocks(tmp_path: Path) -> None:
    draw = random.Random(1)
    parts = ["a", '"', ",", "\n", "\\", "b c", "\r", '"a"', '""']
    for _ in range(150):
        content = "q,t\n" + "".join(draw.choices(parts, k=draw.randint(1, 60)))
        found = [read(tmp_path, content, block_bytes=size) for size in (1 << 20, 1, 13)]
        assert found[0] == found[1] == found[2], content
        good, bad, _ = found[0]
        kept, _, num_lines = read(tmp_path, content, keep_bad=True)
        assert sorted([*good, *(line for _, line, _ in bad)]) == sorted(kept), content
        lines = content.replace("\r\n", "\n").replace("\r", "\n").split("\n")[1:]
        assert num_lines >= sum(line != "" for line in lines), content
