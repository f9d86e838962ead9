"""Which texts are empty, and lines of JSON and TSV."""

import json
import math
import re
from pathlib import Path

import pyarrow as pa
import pytest

from raydistill.errors import UserError
from raydistill.serving.scorer import Scorer
from raydistill.serving.text.cleaning import clean_text
from raydistill.stages.scoring.rows import SURE, Reading, _texts, score_table
from raydistill.stages.scoring.text_rows import json_lines, tsv_lines
from tests.helpers.bundles import make_bundle


def test_no_character_that_stands_for_a_text_is_ever_removed() -> None:
    ranges = re.sub(r"\\x\{([0-9A-F]+)\}", lambda found: chr(int(found[1], 16)), SURE)
    is_sure = re.compile(f"[{ranges}]")
    sure = [char for char in map(chr, range(0x10000)) if is_sure.fullmatch(char)]
    assert len(sure) > 30_000
    for char in sure[::7]:
        assert clean_text(f"\u0301{char}\u0301") and clean_text(f"\u00ad{char}\u200b")


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.string_view(), pa.binary()])
def test_a_text_is_empty_if_nothing_of_it_is_left(kind: pa.DataType) -> None:
    given = [
        "sofa", "", None, " ", "\u00a0\u3000", "\u3164", "\u115f\u1160", "&nbsp;", "&amp;nbsp; ",
        "&#8203;x", "\u0301", "\u0301 a", "\ud55c", "...", "\u2122", "&", "&amp;", "\u02da", "7",
    ]  # fmt: skip
    texts, is_empty = _texts(pa.array(given, pa.string()).cast(kind))
    assert is_empty.tolist() == [not clean_text(text or "") for text in given]
    assert texts.to_pylist() == [text or "" for text in given]  # the scorer cleans them


TABLE = pa.table({
    "id": [1, None, -3],
    'na"me': ['55" sofa', "a\\b\x01\u00e9", None],
    "price": [1.0, 2.5, float("nan")],
    "new": [True, None, False],
    "tags": [["a"], None, []],
    "raw": [b"\xff", b"x", None],
    "score": pa.array([0.5, None, 0.1], pa.float32()),
})  # fmt: skip


def test_lines_of_json() -> None:
    lines = json_lines(TABLE).to_pybytes().decode().splitlines()
    assert lines[0] == (
        '{"id": 1, "na\\"me": "55\\" sofa", "price": 1.0, "new": true, "tags": ["a"], '
        '"raw": "\ufffd", "score": 0.5}'
    )
    found = [json.loads(line) for line in lines]
    assert found[1]['na"me'] == "a\\b\x01\u00e9" and found[1]["score"] is None
    assert found[2] == {
        "id": -3, 'na"me': None, "price": None, "new": False, "tags": [], "raw": None, "score": 0.1,
    }  # fmt: skip
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in found)
    assert json_lines(TABLE).to_pybytes().decode() == text
    assert json_lines(TABLE.slice(1, 1)).to_pybytes().decode().splitlines() == lines[1:2]
    assert json_lines(TABLE.slice(0, 0)).size == 0


def test_json_has_no_nan_in_lists_and_structs() -> None:
    bad = float("nan")
    table = pa.table({
        "list": [[1.0, bad], None], "struct": [{"a": [-math.inf], "b": b"x"}, None],
        "map": pa.array([[("k", bad)], None], pa.map_(pa.string(), pa.float64())),
    })  # fmt: skip
    first, second = json_lines(table).to_pybytes().decode().splitlines()
    assert first == '{"list": [1.0, null], "struct": {"a": [null], "b": "x"}, "map": [["k", null]]}'
    assert json.loads(second) == {"list": None, "struct": None, "map": None}


def test_lines_of_tsv() -> None:
    table = TABLE.drop_columns(["tags"])
    assert tsv_lines(table).to_pybytes().decode().splitlines()[2] == "-3\t\tnan\tfalse\t\t0.1"
    with pytest.raises(UserError, match="has a tab or a line break"):
        tsv_lines(pa.table({"a": ["x", "y\nz"]}))


def test_the_order_of_rows_changes_no_score(tmp_path: Path) -> None:
    """Repeated queries are brought together for the scorer: the scores are those of the rows."""
    scorer = Scorer.load(make_bundle(tmp_path / "bundle"))
    queries = [f"grey sofa {n % 3}" if n % 4 else None for n in range(200)]
    titles = [f"sofa number {n % 37} grey" for n in range(200)]
    table = pa.table({"query": queries, "title": titles})
    found = score_table(scorer, table, Reading("query", "title")).to_pylist()
    pairs = zip(queries, titles, strict=True)
    assert found == [None if q is None else float(scorer.score(q, [t])[0]) for q, t in pairs]
