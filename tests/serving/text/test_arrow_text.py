"""All Arrow string types as input of compiled code; other types raise an error naming them."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from raydistill.candidates import search_terms as terms
from raydistill.candidates.search_terms import search_terms
from raydistill.data import query_key as keys
from raydistill.data.pairs import features_of, pair_ids
from raydistill.data.query_key import query_keys
from raydistill.serving import featurize as ngrams
from raydistill.serving.feature_spec import NgramSpec
from raydistill.serving.featurize import featurize
from raydistill.serving.lexicon import Lexicon
from raydistill.serving.text import cleaning, hashing
from raydistill.serving.text.arrow_text import row_blocks, row_spans, to_arrow, to_texts
from raydistill.serving.text.cleaning import normalise
from raydistill.serving.text.hashing import hash_texts
from raydistill.serving.tokenizer import encode
from raydistill.student.lexicon.document_counts import document_counts

TEXTS = [
    "grey sofa",
    "",
    " caf&eacute;  1½ in. table ",
    "沙发 \uff27\uff32\uff25\uff39",
    "x" * 40,
    "grey sofa",
]
SPEC, LEXICON = NgramSpec("match", 8), Lexicon.from_idf(np.ones(1, np.float32))


def _dictionary(kind: pa.DataType) -> pa.Array:
    words = pa.array(["unused", *TEXTS], kind)
    return pa.DictionaryArray.from_arrays(pa.array(range(1, 1 + len(TEXTS)), pa.int8()), words)


def _chunked(kind: pa.DataType) -> pa.ChunkedArray:
    parts = [[], TEXTS[:1], [], TEXTS[1:4], TEXTS[4:], []]
    return pa.chunked_array([pa.array(part, kind) for part in parts])


KINDS: dict[str, Callable[[], Any]] = {
    "string": lambda: pa.array(TEXTS),
    "large_string": lambda: pa.array(TEXTS, pa.large_string()),
    "string_view": lambda: pa.array(TEXTS, pa.string_view()),
    "dictionary": lambda: _dictionary(pa.string()),
    "large dictionary": lambda: _dictionary(pa.large_string()),
    "dictionary of views": lambda: _dictionary(pa.string_view()),
    "sliced": lambda: pa.array(["before", None, *TEXTS, "after"]).slice(2, len(TEXTS)),
    "sliced large": lambda: pa.array(["b", *TEXTS, None], pa.large_string())[1:-1],
    "sliced view": lambda: pa.array(["b", *TEXTS, None], pa.string_view())[1:-1],
    "sliced dictionary": lambda: _dictionary(pa.string()).take(pa.array([0, *range(6)]))[1:],
    "chunked": lambda: _chunked(pa.string()),
    "chunked large": lambda: _chunked(pa.large_string()),
    "chunked view": lambda: _chunked(pa.string_view()),
    "chunked dictionary": lambda: pa.chunked_array(
        [pa.array(TEXTS[:2]).dictionary_encode(), pa.array(TEXTS[2:]).dictionary_encode()]
    ),
    "table's column": lambda: pa.table({"title": pa.array(TEXTS, pa.large_string())})["title"],
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_arrow_string_is_read(kind: str) -> None:
    plain, texts = pa.array(TEXTS), KINDS[kind]()
    assert to_arrow(texts).to_pylist() == TEXTS
    assert hash_texts(texts).tolist() == hash_texts(plain).tolist()
    assert query_keys(to_texts(texts)).tolist() == query_keys(to_texts(plain)).tolist()
    assert normalise(texts).to_pylist() == normalise(plain).to_pylist()
    assert normalise(texts)[2].as_py() == "café 1 1/2 in. table"
    assert search_terms(texts).to_pylist() == search_terms(plain).to_pylist()
    counts = document_counts(to_texts(texts), units=True)
    assert (counts == document_counts(to_texts(plain), units=True)).all()
    assert pair_ids(texts, plain).equals(pair_ids(plain, plain))
    found, expected = (
        features_of(pa.table({"query": column, "title": column}), spec=SPEC, lexicon=LEXICON)
        for column in (texts, plain)
    )
    assert (found.ids_N == expected.ids_N).all() and (found.offsets == expected.offsets).all()
    assert (found.dense_BF == expected.dense_BF).all()


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.string_view(), pa.null()])
def test_no_text_at_all(kind: pa.DataType) -> None:
    for texts in (pa.array([], kind), pa.chunked_array([], kind), pa.array(["a"]).slice(1)):
        assert hash_texts(texts).tolist() == []
        assert normalise(texts).to_pylist() == search_terms(texts).to_pylist() == []
        assert query_keys(to_texts(texts)).tolist() == []
        assert featurize(*[to_texts(texts)] * 2, spec=SPEC, lexicon=LEXICON).num_pairs == 0


def test_nulls_are_refused_with_their_place() -> None:
    holes = pa.DictionaryArray.from_arrays(pa.array([0, 1, 0]), pa.array(["a", None]))
    for texts in (
        pa.array(["a", None, "b"]),
        pa.array(["a", None, "b"], pa.large_string()),
        pa.array(["a", None, "b"], pa.string_view()),
        pa.array(["?", "a", None, "b"])[1:],
        pa.chunked_array([["a"], [None, "b"]]),
        holes,
        holes[1:].take(pa.array([1, 0, 1])),
    ):
        for reader in (hash_texts, normalise, search_terms, to_texts):
            with pytest.raises(ValueError, match="1 of 3 texts are null, the first in row 1;"):
                reader(texts)
    with pytest.raises(ValueError, match="2 of 2 texts are null, the first in row 0;"):
        hash_texts(pa.nulls(2))


@pytest.mark.parametrize(
    ("values", "name"),
    [
        (pa.array([1]), "int64"),
        (pa.array([b"a"]), "binary; .*cast them to string"),
        (pa.array([b"a"], pa.large_binary()), "large_binary"),
        (pa.array([["a"]]), "list<"),
        (pa.array([1]).dictionary_encode(), "dictionary<values=int64"),
        (pa.array([b"a"]).dictionary_encode(), "dictionary<values=binary"),
        (pa.chunked_array([], pa.int8()), "int8"),
        (pc.run_end_encode(pa.array(["a", "a"])), "run_end_encoded<"),
        (["a"], "type list"),
        (np.array(["a"]), "type numpy.ndarray"),
        (None, "type NoneType"),
    ],
)
def test_other_types_are_refused_by_name(values: object, name: str) -> None:
    for reader in (hash_texts, normalise, search_terms, to_texts):
        with pytest.raises(TypeError, match=name.partition(";")[0]) as error:
            reader(values)
        assert "string, large_string, string_view or a dictionary" in str(error.value)
        assert ("cast them" in str(error.value)) == ("cast" in name)


def test_one_kind_of_array_is_compiled() -> None:
    for make in KINDS.values():
        features_of(pa.table({"query": make(), "title": make()}), spec=SPEC, lexicon=LEXICON)
        hash_texts(make()), normalise(make()), search_terms(make())
    wide = tuple(values.copy() for values in to_texts(pa.array(TEXTS, pa.large_string())))
    query_keys(to_texts(wide)), query_keys(encode(TEXTS))
    for kernel in (
        hashing._hash_rows, keys._query_keys, terms._terms, cleaning._is_odd,
         ngrams._featurize_block,
    ):  # fmt: skip
        assert len(kernel.signatures) == 1, kernel


@pytest.mark.parametrize("wide", [np.int32, np.int64])
@pytest.mark.parametrize("max_bytes", [1, 9, 30, 10**6])
@pytest.mark.parametrize("max_rows", [None, 1, 4])
def test_blocks_hold_all_rows_in_order(wide: type, max_bytes: int, max_rows: int | None) -> None:
    data, offsets = encode(["before", *TEXTS])
    texts = to_texts((data, offsets[1:].astype(wide)))
    blocks = list(row_blocks(texts, max_rows=max_rows, max_bytes=max_bytes))
    found = [
        data[start:stop].tobytes().decode()
        for data, starts in blocks
        for start, stop in pairwise(starts)
    ]
    assert found == _composed()
    for data, starts in blocks:
        assert starts.dtype == np.int32 and not starts.flags.writeable
        assert not data.flags.writeable and data.flags.c_contiguous
        assert len(starts) == 2 or starts[-1] - starts[0] <= max_bytes
        assert max_rows is None or len(starts) - 1 <= max_rows


def _composed() -> list[str]:
    data, offsets = encode(TEXTS)
    return [data[a:b].tobytes().decode() for a, b in pairwise(offsets)]


def test_columns_are_cut_at_the_same_rows() -> None:
    short, long = to_texts(pa.array(["a"] * 6)), to_texts(pa.array(["", "b" * 9, "", "c", "", ""]))
    spans = list(row_spans(short, long, max_bytes=4))
    assert spans == [(0, 1), (1, 2), (2, 6)]
    assert list(row_spans(short, long, max_rows=4, max_bytes=100)) == [(0, 4), (4, 6)]
    assert list(row_spans(to_texts(pa.array([], pa.string())))) == [(0, 0)]


@pytest.mark.parametrize(
    ("data", "offsets", "error", "says"),
    [
        (b"abc", [0, 2, 1, 3], ValueError, "text 1 begins at byte 2 and ends at 1"),
        (b"abc", [0, 4], ValueError, "offsets from 0 to 4 of 3 bytes"),
        (b"abc", [-1, 3], ValueError, "offsets from -1 to 3"),
        (b"abc", [], ValueError, "R texts have R \\+ 1"),
        ("abc", [0, 3], TypeError, "bytes of texts are str"),
        (np.zeros(3, np.int8), [0, 3], TypeError, "bytes of texts are int8 of shape"),
        (np.zeros((3, 1), np.uint8), [0, 3], TypeError, r"uint8 of shape \(3, 1\)"),
    ],
)
def test_wrong_bytes_and_offsets_are_refused(
    data: object, offsets: list[int], error: type[Exception], says: str
) -> None:
    for wide in (np.int32, np.int64):
        with pytest.raises(error, match=says):
            to_texts((data, np.array(offsets, wide)))  # type: ignore[arg-type]
    for wrong in (np.array([0.0, 3.0]), np.array([0, 3], np.uint32), np.array([0, 3], ">i4"), [0]):
        with pytest.raises(TypeError, match="offsets of texts are"):
            to_texts((b"abc", wrong))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"a tuple of 3; give \(bytes, offsets\)"):
        to_texts((1, 2, 3))  # type: ignore[arg-type]


def test_a_broken_arrow_array_is_refused() -> None:
    for make, wide in ((pa.StringArray, np.int32), (pa.LargeStringArray, np.int64)):
        for offsets in ([0, 9, 3], [0, 100, 200], [5, 2, 8]):
            starts = pa.py_buffer(np.array(offsets, wide))
            with pytest.raises(ValueError, match="offsets"):
                hash_texts(make.from_buffers(2, starts, pa.py_buffer(b"abcdefgh")))


def _huge(lengths: list[int]) -> pa.LargeStringArray:
    """Texts of zero bytes in pages that nobody has written to, so that they take no memory."""
    offsets = np.cumsum([0, *lengths])
    data = pa.py_buffer(np.zeros(int(offsets[-1]), np.uint8))
    return pa.LargeStringArray.from_buffers(len(lengths), pa.py_buffer(offsets), data)


def test_more_than_two_gigabytes() -> None:
    texts = _huge([900_000_000, 5, 800_000_000, 0, 900_000_000, 3, 5])
    assert list(row_spans(to_texts(texts))) == [(0, 4), (4, 7)]
    blocks = list(row_blocks(to_texts(texts)))
    assert [int(offsets[-1]) for _, offsets in blocks] == [1_700_000_005, 900_000_008]
    odd = [needs for block in blocks for needs in cleaning._is_odd(*block).tolist()]
    assert odd == [True, True, True, False, True, True, True]  # one byte of each is looked at
    behind = texts[5:]  # lies behind byte 2^31
    assert hash_texts(behind).tolist() == hash_texts(pa.array(["\0" * 3, "\0" * 5])).tolist()
    assert normalise(behind).to_pylist() == ["", ""]
    with pytest.raises(ValueError, match="text 1 has 2,200,000,000 bytes; at most 2,147,483,647"):
        hash_texts(_huge([3, 2_200_000_000]))
