import numpy as np
import pyarrow as pa
import pytest

from raydistill.config.data import JudgedConfig, PairsConfig
from raydistill.data.pairs import clean, collapse, pair_ids, query_keys, split_of, unparsed

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
