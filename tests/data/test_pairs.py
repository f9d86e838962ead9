import numpy as np
import pyarrow as pa
import pytest

from raydistill.config.data import JudgedConfig, PairsConfig
from raydistill.data.pairs import (
    clean,
    collapse,
    count_conflicts,
    pair_ids,
    query_keys,
    split_of,
    unparsed,
)

RULES = PairsConfig(input=("x",), max_query_chars=10, max_title_chars=20)


def cleaned(queries: list[object], titles: list[object], rules: PairsConfig = RULES) -> object:
    rows = np.arange(len(queries)) + 100
    return clean(
        pa.table({"query": queries, "title": titles}),
        rows=rows,
        columns={"query": "query", "title": "title"},
        rules=rules,
        source="f",
    )


def test_rejects_have_source_row_and_reason() -> None:
    found = cleaned(["sofa", None, " ", "q" * 11, "ok", "ok"], ["t", "t", "t", "t", None, "t" * 21])
    assert found.pairs.to_pylist() == [{"query": "sofa", "title": "t"}]
    rejects = found.rejects.to_pylist()
    assert [(r["row"], r["reason"]) for r in rejects] == [
        (101, "query is null"),
        (102, "query is empty"),
        (103, "query is longer than 10 characters"),
        (104, "title is null"),
        (105, "title is longer than 20 characters"),
    ]
    assert {r["source"] for r in rejects} == {"f"}


def test_bytes_that_are_not_utf8_are_rejected_alone() -> None:
    found = cleaned([b"sofa", b"\xff\xfe", b"tap"], [b"a", b"b", b"c"])
    assert found.pairs["query"].to_pylist() == ["sofa", "tap"]
    assert found.rejects["reason"].to_pylist() == ["query is not UTF-8"]


def test_case_is_kept_unless_asked() -> None:
    assert cleaned(["Sofa"], ["Big"]).pairs.to_pylist() == [{"query": "Sofa", "title": "Big"}]
    lower = RULES.model_copy(update={"lowercase": True})
    assert cleaned(["Sofa"], ["Big"], lower).pairs.to_pylist() == [
        {"query": "sofa", "title": "big"}
    ]


def test_numbers_become_text_and_single_texts_need_no_query() -> None:
    single = RULES.model_copy(update={"query": ""})
    found = clean(
        pa.table({"title": [12, 7]}),
        rows=np.arange(2),
        columns={"title": "title"},
        rules=single,
        source="f",
    )
    assert found.pairs.to_pylist() == [{"query": "", "title": "12"}, {"query": "", "title": "7"}]


@pytest.mark.parametrize("kind", ["text", "number", "large_string", "dictionary"])
def test_labels(kind: str) -> None:
    numbers: list[object] = [0.5, None, float("nan"), 1.5, 1.0]
    given = pa.array(numbers if kind == "number" else ["0.5", "", "x", "1.5", "1"])
    if kind == "large_string":
        given = given.cast(pa.large_string())
    if kind == "dictionary":
        given = given.dictionary_encode()
    rules = JudgedConfig(input=("x",))
    raw = pa.table({"query": list("abcde"), "title": list("vwxyz"), "label": given})
    found = clean(
        raw, rows=np.arange(5), columns={n: n for n in raw.column_names}, rules=rules, source="f"
    )
    assert found.pairs["label"].to_pylist() == [0.5, 1.0]
    reasons = [reason.split()[2] for reason in found.rejects["reason"].to_pylist()]
    assert reasons == ["null", "null", "outside"]  # no label, no number, above 1


def test_equal_pairs_become_one_with_their_count_and_mean_label() -> None:
    raw = pa.table(
        {
            "query": ["b", "a", "b", "b"],
            "title": ["x", "y", "x", "z"],
            "label": [1.0, 0.0, 0.5, 1.0],
        }
    )
    rows = collapse(raw, dedupe=True)
    assert rows.drop_columns(["pair_id"]).to_pylist() == [
        {"query": "a", "title": "y", "weight": 1.0, "label": 0.0},
        {"query": "b", "title": "x", "weight": 2.0, "label": 0.75},
        {"query": "b", "title": "z", "weight": 1.0, "label": 1.0},
    ]
    assert collapse(raw, dedupe=False).num_rows == 4
    assert collapse(raw.slice(0, 0), dedupe=True).num_rows == 0


def test_pairs_with_different_labels_are_counted() -> None:
    """b x has 1 and 0.5, a x twice 1, and a y one label."""
    raw = pa.table(
        {
            "query": ["b", "a", "b", "a", "a", "b"],
            "title": ["x", "x", "x", "x", "y", "x"],
            "label": [1.0, 1.0, 0.5, 1.0, 0.0, 0.5],
        }
    )
    assert count_conflicts(raw) == 1
    assert count_conflicts(raw.slice(0, 2)) == 0
    assert count_conflicts(raw.slice(0, 0)) == 0


def test_the_order_of_rows_does_not_matter() -> None:
    raw = pa.table({"query": ["b", "a", "b"], "title": ["x", "y", "x"], "label": [0.1, 0.2, 0.3]})
    assert collapse(raw, dedupe=True).equals(collapse(raw.take([2, 0, 1]), dedupe=True))


def test_query_and_title_are_kept_apart_in_the_id() -> None:
    ids = pair_ids(pa.array(["ab", "a"]), pa.array(["c", "bc"])).to_pylist()
    assert ids[0] != ids[1]


def test_split_shares_and_case() -> None:
    queries = pa.array([f"query {n}" for n in range(20_000)])
    splits = split_of(query_keys(queries), dev_share=0.1, test_share=0.2)
    shares = np.bincount(splits) / len(splits)
    assert np.allclose(shares, [0.7, 0.1, 0.2], atol=0.01)
    upper = split_of(
        query_keys(pa.array([q.upper() for q in queries.to_pylist()])),
        dev_share=0.1,
        test_share=0.2,
    )
    assert (upper == splits).all()


def test_unparsed_lines_are_quarantined() -> None:
    assert unparsed([(3, "3 fields, not 2")], source="f").to_pylist()[0]["row"] == 3
    assert unparsed([], source="f").num_rows == 0


def test_a_label_that_no_float_holds_is_out_of_range() -> None:
    raw = pa.table({"query": ["a", "b"], "title": ["x", "y"], "label": [2**53 + 1, 1]})
    names = {name: name for name in raw.column_names}
    rules = JudgedConfig(input=("x",))
    found = clean(raw, rows=np.arange(2), columns=names, rules=rules, source="f")
    assert found.pairs["label"].to_pylist() == [1.0]
    assert found.rejects["reason"].to_pylist() == ["label is outside 0..1"]


def joined_titles(table: pa.Table, names: list[str]) -> tuple[list[str], list[str]]:
    """Titles of the clean rows, and the reasons of the others."""
    found = clean(
        table,
        rows=np.arange(len(table)),
        columns={"query": "query", "title": names},
        rules=PairsConfig(input=("x",)),
        source="x",
    )
    return found.pairs["title"].to_pylist(), found.rejects["reason"].to_pylist()


def test_columns_are_joined_in_order_without_empty_values() -> None:
    table = pa.table(
        {
            "query": ["sofa"] * 6,
            "title": ["Grey sofa", " ", None, "\u200b", "", None],
            "brand": pa.array(["Acme", "Acme", None, "", "&nbsp;", None]).dictionary_encode(),
            "colour": pa.array([7035, None, 9010, 1, None, None], pa.int32()),
            "width": [2.5, float("nan"), 3.0, None, None, None],
            "nothing": pa.nulls(6),
        }
    )
    names = ["brand", "title", "colour", "width", "nothing"]
    titles, reasons = joined_titles(table, names)
    assert titles == ["Acme Grey sofa 7035 2.5", "Acme", "9010 3", "1"]
    assert reasons == ["title is empty", "title is null"]


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.binary(), pa.large_binary()])
def test_columns_of_all_kinds_of_text_are_joined(kind: pa.DataType) -> None:
    table = pa.table(
        {
            "query": ["sofa"] * 2,
            "title": pa.array(["Caf\xe9", "b"]),
            "brand": pa.array(["Ac", None]).cast(kind),
        }
    )
    assert joined_titles(table, ["title", "brand"]) == (["Caf\xe9 Ac", "b"], [])


def test_a_joined_text_that_is_not_utf8_is_rejected() -> None:
    table = pa.table(
        {
            "query": ["sofa"] * 2,
            "title": pa.array([b"a", b"b"]),
            "brand": pa.array([b"caf\xe9", b"c"]),
            "number": [1, 2],
        }
    )
    titles, reasons = joined_titles(table, ["title", "brand", "number"])
    assert titles == ["b c 2"]
    assert len(reasons) == 1
    assert reasons[0].startswith("title is not UTF-8")
