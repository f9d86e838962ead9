import io
import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest

from raydistill.errors import UserError
from raydistill.files.inputs.csv_dialect import CsvOptions
from raydistill.serving.bundle import BUNDLE_FORMAT
from raydistill.serving.feature_spec import NgramSpec
from raydistill.serving.lexicon import Lexicon
from raydistill.serving.scorer import Scorer
from raydistill.serving.text.cleaning import normalise
from raydistill.stages.scoring.files import score_file, score_lines
from raydistill.stages.scoring.rows import Reading, score_table
from raydistill.student.export.student_bundle import scorer_of

ROWS = {
    "id": [7, 8, 9, 10],
    "query": ["sofa", "tap", None, "sofa"],
    "title": ["grey sofa", "x", "y", ""],
    "price": [1.5, None, 2.0, 3.0],
}


@pytest.fixture
def scorer() -> Scorer:
    return make_scorer(max_query_chars=50, max_title_chars=200)


def make_scorer(**limits: int) -> Scorer:
    """Its score is sigmoid(share of the query's words that stand in the title)."""
    spec = NgramSpec("match", 8)
    weight = np.zeros((1, 2 + spec.num_dense), np.float32)
    weight[0, 2] = 1.0  # after two bags of width 1 come the dense features, this one first
    arrays = {
        "embedding": np.zeros((256, 1), np.float32),
        **Lexicon.from_idf(np.ones(1, np.float32)).to_arrays(),
        "dense_mean": np.zeros(spec.num_dense, np.float32),
        "dense_std": np.ones(spec.num_dense, np.float32),
        "weight_0": weight, "bias_0": np.zeros(1, np.float32),
    }  # fmt: skip
    settings = {
        "format": BUNDLE_FORMAT,
        "ngrams": asdict(spec),
        "temperature": 1.0,
        "threshold": 0.5,
        **limits,
    }
    return scorer_of(settings, arrays)


def sigmoid(x: float) -> float:
    return float(1 / (1 + np.exp(-x)))


PAIR = Reading("query", "title")
EXPECTED = [sigmoid(1), sigmoid(0), None, None]


def run(scorer: Scorer, source: Path, target: Path) -> tuple[int, int]:
    return score_file(scorer, sources=[str(source)], target=str(target), reading=PAIR)


def test_parquet_keeps_all_columns(scorer: Scorer, tmp_path: Path) -> None:
    pq.write_table(pa.table(ROWS), tmp_path / "in.parquet")
    assert run(scorer, tmp_path / "in.parquet", tmp_path / "out" / "out.parquet") == (4, 2)
    found = pq.read_table(tmp_path / "out" / "out.parquet")
    assert found.drop_columns(["score"]).equals(pa.table(ROWS))
    assert found["score"].to_pylist() == pytest.approx(EXPECTED)


@pytest.mark.parametrize("target", ["out.csv", "out.tsv", "out.jsonl", "out.parquet"])
@pytest.mark.parametrize("source", ["in.csv", "in.jsonl"])
def test_every_format_to_every_format(
    scorer: Scorer, tmp_path: Path, source: str, target: str
) -> None:
    rows = pa.table(ROWS)
    if source == "in.csv":
        pacsv.write_csv(rows, tmp_path / source)
    else:
        (tmp_path / source).write_text("".join(json.dumps(r) + "\n" for r in rows.to_pylist()))
    assert run(scorer, tmp_path / source, tmp_path / target) == (4, 2)
    out = tmp_path / target
    if target.endswith("jsonl"):
        found = [json.loads(line) for line in out.read_text().splitlines()]
    elif target.endswith("parquet"):
        found = pq.read_table(out).to_pylist()
    else:
        parse = pacsv.ParseOptions(delimiter="\t" if target.endswith("tsv") else ",")
        found = pacsv.read_csv(out, parse_options=parse).to_pylist()
    assert list(found[0]) == ["id", "query", "title", "price", "score"]
    assert [r["score"] for r in found] == pytest.approx(EXPECTED)
    assert [int(r["id"]) for r in found] == ROWS["id"]


@pytest.mark.parametrize("source", ["in.csv", "in.jsonl", "in.parquet"])
def test_columns_are_joined_as_in_training(scorer: Scorer, tmp_path: Path, source: str) -> None:
    rows = pa.table(
        {"query": ["sofa"] * 3, "kind": ["sofa", "rug", None], "colour": ["grey", "", None]}
    )
    if source == "in.csv":
        pacsv.write_csv(rows, tmp_path / source)
    elif source == "in.jsonl":
        (tmp_path / source).write_text("".join(json.dumps(r) + "\n" for r in rows.to_pylist()))
    else:
        pq.write_table(rows, tmp_path / source)
    title, target = ["colour", "kind"], tmp_path / "out.jsonl"
    read = {"sources": [str(tmp_path / source)], "reading": Reading("query", title)}
    assert score_file(scorer, target=str(target), **read) == (3, 1)
    found = [json.loads(line) for line in target.read_text().splitlines()]
    expected = [*scorer.score("sofa", ["grey sofa", "rug"]).tolist(), None]
    assert [row["score"] for row in found] == pytest.approx(expected)
    assert list(found[0]) == ["query", "kind", "colour", "score"]


@pytest.mark.parametrize("kind", [pa.large_string(), pa.string_view(), "dictionary"])
def test_every_kind_of_string_column_is_scored(scorer: Scorer, kind: pa.DataType | str) -> None:
    rows = pa.table(ROWS)
    for at, name in ((1, "query"), (2, "title")):
        column = rows[name].dictionary_encode() if kind == "dictionary" else rows[name].cast(kind)
        rows = rows.set_column(at, name, column)
    found = score_table(scorer, rows, PAIR).to_pylist()
    assert found == pytest.approx(EXPECTED)


def test_columns_are_kept_as_they_are(scorer: Scorer, tmp_path: Path) -> None:
    rows = pa.table({**ROWS, "raw": [b"\xff\xd8", b"", None, b"x"]})
    pq.write_table(rows, tmp_path / "in.parquet")
    run(scorer, tmp_path / "in.parquet", tmp_path / "out.parquet")
    assert pq.read_table(tmp_path / "out.parquet").drop_columns(["score"]).equals(rows)


@pytest.mark.parametrize("target", ["out.csv", "out.tsv", "out.jsonl"])
@pytest.mark.parametrize(
    "kind", [pa.binary(), pa.large_binary(), pa.binary_view(), pa.binary(4), pa.string_view()]
)
def test_bytes_become_text_in_a_text_file(
    scorer: Scorer, tmp_path: Path, kind: pa.DataType, target: str
) -> None:
    texts = ["sofa", None] if kind == pa.string_view() else [b"sofa", b"caf\xe9"]
    rows = {"query": pa.array(texts, kind), "title": ["sofa", "sofa"]}
    pq.write_table(pa.table(rows), tmp_path / "in.parquet")
    assert run(scorer, tmp_path / "in.parquet", tmp_path / target) == (2, 1)
    found = (tmp_path / target).read_text()
    assert found.count("sofa") == 3 and ("caf\ufffd" in found) == (kind != pa.string_view())


def test_names_of_columns_that_cannot_be_written(scorer: Scorer, tmp_path: Path) -> None:
    pair = [pa.array(["sofa"])] * 2
    names = ["query", "title", "x", "x"]
    pq.write_table(pa.table([*pair, *pair], names=names), tmp_path / "in.parquet")
    with pytest.raises(UserError, match="has 2 columns named 'x'; rename one, or name the columns"):
        run(scorer, tmp_path / "in.parquet", tmp_path / "out.csv")
    source, target = [str(tmp_path / "in.parquet")], str(tmp_path / "out.csv")
    score_file(scorer, sources=source, target=target, reading=PAIR, columns=["title"])
    assert (tmp_path / "out.csv").read_text().startswith('"title","score"\n"sofa",')
    pq.write_table(
        pa.table([*pair, *pair[:1]], names=[*names[:2], "a\tb"]), tmp_path / "in.parquet"
    )
    run(scorer, tmp_path / "in.parquet", tmp_path / "out.csv")
    with pytest.raises(UserError, match=r"the column name 'a\\tb' has a tab or a line break"):
        run(scorer, tmp_path / "in.parquet", tmp_path / "out.tsv")


def test_columns_in_another_order_are_not_swapped(scorer: Scorer, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jsonl").write_text('{"query": "a", "title": "b"}\n')
    (tmp_path / "in" / "b.jsonl").write_text('{"title": "d", "query": "c"}\n')
    run(scorer, tmp_path / "in", tmp_path / "out.tsv")
    lines = [line.split("\t")[:2] for line in (tmp_path / "out.tsv").read_text().splitlines()]
    assert lines == [["query", "title"], ["a", "b"], ["c", "d"]]
    (tmp_path / "in" / "b.jsonl").write_text('{"title": "d", "query": "c", "more": 1}\n')
    (tmp_path / "in" / "a.jsonl").write_text('{"query": "a", "title": "b", "more": "x"}\n')
    run(scorer, tmp_path / "in", tmp_path / "out.tsv")
    lines = [line.split("\t")[:3] for line in (tmp_path / "out.tsv").read_text().splitlines()]
    assert lines == [["query", "title", "more"], ["a", "b", "x"], ["c", "d", "1"]]


def test_a_tab_does_not_fit_in_tsv(scorer: Scorer, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('{"query": "a\\tb", "title": "b"}\n')
    with pytest.raises(UserError, match="has a tab or a line break"):
        run(scorer, tmp_path / "in.jsonl", tmp_path / "out.tsv")


def test_long_texts_are_cut(scorer: Scorer) -> None:
    long = "sofa " * 100_000
    assert scorer.score(long, [long])[0] == scorer.score(long[:50], [long[:200]])[0]


def test_lines(scorer: Scorer) -> None:
    output = io.StringIO()
    lines = ["\ufeffsofa\tgrey sofa\n", "no tab\n", "\n", "größe\tx\r\n", "a\tb\tc\n", "a\t \n"]
    given = [line.encode() for line in lines] + [b"caf\xe9\tx"]
    assert score_lines(scorer, given, output) == (7, 5)
    assert output.getvalue().splitlines() == [
        f"sofa\tgrey sofa\t{sigmoid(1):.6f}",
        "no tab\t\t",
        "\t\t",
        f"größe\tx\t{sigmoid(0):.6f}",
        "a\tb\tc\t",
        "a\t \t",
        "caf\ufffd\tx\t",
    ]


def test_an_old_score_is_replaced_and_in_place_is_safe(scorer: Scorer, tmp_path: Path) -> None:
    path = tmp_path / "in.parquet"
    pq.write_table(pa.table({**ROWS, "score": [0.0] * 4}), path)
    run(scorer, path, path)
    assert pq.read_table(path)["score"].to_pylist() == pytest.approx(EXPECTED)


def test_mistakes(scorer: Scorer, tmp_path: Path) -> None:
    pq.write_table(pa.table(ROWS), tmp_path / "in.parquet")
    source = [str(tmp_path / "in.parquet")]
    for target in ("out.xlsx", "out.csv.gz"):
        with pytest.raises(UserError, match=r"cannot write .*out"):
            score_file(scorer, sources=source, target=target, reading=PAIR)
    with pytest.raises(UserError, match="no column 'text'"):
        by_text = Reading("query", "text")
        score_file(scorer, sources=source, target=str(tmp_path / "o.csv"), reading=by_text)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.parquet"]


def test_an_empty_file(scorer: Scorer, tmp_path: Path) -> None:
    pq.write_table(pa.table(ROWS).slice(0, 0), tmp_path / "in.parquet")
    assert run(scorer, tmp_path / "in.parquet", tmp_path / "out.parquet") == (0, 0)
    assert pq.read_table(tmp_path / "out.parquet").column_names[-1] == "score"


def rows_of(path: Path) -> list[dict[str, object]]:
    return pq.read_table(path).to_pylist()


def test_lines_that_cannot_be_parsed_keep_their_place(scorer: Scorer, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text(
        'query,title,id\nsofa,grey sofa,1\nonly\ntap,"55" tap,2\nsofa,"a sofa,x,3\na,b,c,d\n'
        "sofa,sofa,6\n"
    )
    assert run(scorer, tmp_path / "in.csv", tmp_path / "out.parquet") == (6, 3)
    found = rows_of(tmp_path / "out.parquet")
    assert [row["id"] for row in found] == ["1", None, "2", "x,3", "c,d", "6"]
    assert [row["score"] is None for row in found] == [False, True, False, True, True, False]
    assert (found[1]["query"], found[1]["title"]) == ("only", None)
    lines = ['{"query": "sofa", "title": "sofa"}', "{cut", "[1]", '{"query": "a", "title": ["b"]}',
             '{"id": 7}', '{"query": "sofa", "title": "x"}']  # fmt: skip
    (tmp_path / "in.jsonl").write_text("\n".join(lines) + "\n")
    assert run(scorer, tmp_path / "in.jsonl", tmp_path / "out.jsonl") == (6, 4)
    found = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [row["score"] is None for row in found] == [False, True, True, True, True, False]
    assert [row["id"] for row in found] == [None, None, None, None, 7, None]
    assert found[3]["title"] == '["b"]'


def test_nothing_of_a_row_is_lost_that_is_not_utf8(scorer: Scorer, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_bytes(b"query,title,note\nsofa,caf\xe9,a\nsofa,sofa,caf\xe9\n")
    assert run(scorer, tmp_path / "in.csv", tmp_path / "out.jsonl") == (2, 1)
    found = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert (found[0]["title"], found[0]["score"]) == ("caf\ufffd", None)
    assert found[1]["note"] == "caf\ufffd" and found[1]["score"] is not None


def test_columns_of_all_files_are_kept(scorer: Scorer, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    pair = {"query": ["sofa"], "title": ["sofa"]}
    pq.write_table(pa.table({**pair, "id": [1], "x": [1]}), tmp_path / "in" / "a.parquet")
    pq.write_table(pa.table({**pair, "x": [2.5], "score": ["old"]}), tmp_path / "in" / "b.parquet")
    (tmp_path / "in" / "c.csv").write_text("title,query,only here\nsofa,sofa,yes\n")
    (tmp_path / "in" / "d.jsonl").write_text(
        '{"query": "sofa", "title": "sofa"}\n' * 2_000 + '{"query": "sofa", "late": true}\n'
    )
    assert run(scorer, tmp_path / "in", tmp_path / "out.parquet") == (2_004, 1)
    found = pq.read_table(tmp_path / "out.parquet")
    assert found.column_names == ["query", "title", "id", "x", "only here", "late", "score"]
    assert found["id"].to_pylist()[:3] == [1, None, None]
    assert found["x"].to_pylist()[:3] == [1.0, 2.5, None]
    assert found["only here"].to_pylist()[:4] == [None, None, "yes", None]
    assert found["late"].to_pylist()[-2:] == [None, True]
    lists = {**pair, "x": [["a"]]}
    pq.write_table(pa.table(lists), tmp_path / "in" / "e.parquet")
    with pytest.raises(UserError, match=r"column 'x' is double in one file and list"):
        run(scorer, tmp_path / "in", tmp_path / "out2.parquet")
    assert not (tmp_path / "out2.parquet").exists()


def test_numbers_of_json_lines_are_not_rounded(scorer: Scorer, tmp_path: Path) -> None:
    """An integer beyond 64 bits makes its column one of strings, in every block of the file."""
    pair = '"query": "sofa", "title": "sofa"'
    ids = [2**64 - 1, 7, 2**63 - 1, -(2**63) - 1]
    lines = [f'{{{pair}, "caf\\u00e9": {one}, "price": {n + 0.5}}}' for n, one in enumerate(ids)]
    lines += [f'{{{pair}, "caf\\u00e9": 1, "price": 1.0, "note": "\\"price\\": {2**70} "}}']
    lines += [f'{{{pair}, "caf\\u00e9": 1, "price": 1.5, "note": 2.0}}']
    (tmp_path / "in.jsonl").write_text("\n".join(lines))
    assert run(scorer, tmp_path / "in.jsonl", tmp_path / "out.jsonl") == (6, 0)
    found = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [row["caf\u00e9"] for row in found] == [*map(str, ids), "1", "1"]
    assert [row["price"] for row in found] == [0.5, 1.5, 2.5, 3.5, 1.0, 1.5]
    assert [row["note"] for row in found][4:] == [f'"price": {2**70} ', "2.0"]


def test_a_file_with_options_of_its_own(scorer: Scorer, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("query;title\nsofa;grey, 'sofa'\n")
    found = score_file(
        scorer, sources=[str(tmp_path / "in.csv")], target=str(tmp_path / "out.tsv"),
        reading=PAIR, csv=CsvOptions(quote="'"),
    )  # fmt: skip
    assert found == (1, 0)


def test_a_header_alone_gives_a_header(scorer: Scorer, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.csv").write_text("query,title\n")
    assert run(scorer, tmp_path / "in", tmp_path / "out.csv") == (0, 0)
    assert (tmp_path / "out.csv").read_text() == '"query","title","score"\n'


ODD = [
    "&amp;" * 30 + " sofa grey",  # 150 characters that become 30
    "\uff33\uff4f\uff46\uff41 " * 12,  # full-width
    "\ufdfa" * 5 + " sofa",  # one character becomes eighteen
    "\u200b" * 120 + "grey sofa" + "\u00ad" * 300,
    "grey" + " " * 80 + "sofa" + "\u00a0" * 300 + "tap",
    "\ufb03" * 40 + " so\u200bfa &#115;ofa",
    "sofa " * 200,
]


@pytest.mark.parametrize("max_chars", [20, 50, 200])
def test_a_long_text_has_one_score(max_chars: int) -> None:
    scorer = make_scorer(max_query_chars=max_chars, max_title_chars=max_chars)
    pairs = [(query, title) for query in ODD for title in ODD]
    queries, titles = map(list, zip(*pairs, strict=True))
    table = pa.table({"query": queries, "title": titles})
    by_table = score_table(scorer, table, PAIR).to_pylist()
    assert scorer.score_pairs(queries, titles).tolist() == by_table
    clean = [pc.utf8_slice_codeunits(normalise(table[n]), 0, max_chars) for n in table.column_names]
    assert scorer.score_texts(*clean).tolist() == by_table  # texts as prepare leaves them
    output = io.StringIO()
    lines = [f"{query}\t{title}".encode() for query, title in pairs]
    assert score_lines(scorer, lines, output) == (len(pairs), 0)
    found = [float(line.rsplit("\t", 1)[1]) for line in output.getvalue().splitlines()]
    assert found == pytest.approx(by_table, abs=1e-6)
    assert len(set(by_table)) > 1
