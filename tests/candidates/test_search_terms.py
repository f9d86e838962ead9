import pyarrow as pa
import pytest

from raydistill.candidates.search_terms import search_terms


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("Grey SOFAS, 3 seats", "grei sofa 3 seat"),  # y and i are one: battery, batteries
        ("boxes box", "box box"),
        ("batteries battery", "batteri batteri"),
        ("women's 1/2 in. 1.5 ft", "women 1/2 in 1.5 ft"),
        ("won't rust, women 's", "wo nt rust women"),
        ("Größe ÉTÉ", "gross ete"),
        ("हिन्दी", "हिन्दी"),  # signs that are no letters are of the word
        ("灰色沙发 3", "灰 色 灰色 沙 色沙 发 沙发 3"),
        ("🛋", ""),
        ("!?", ""),
        ("", ""),
    ],
)
def test_terms_of_a_text(text: str, terms: str) -> None:
    assert search_terms(pa.array(["x y", text, "z"])).to_pylist() == ["x y", terms, "z"]


def test_no_text_has_no_terms() -> None:
    assert search_terms(pa.array([], pa.string())).to_pylist() == []


def test_a_slice_and_letters_that_grow_in_lower_case() -> None:
    texts = pa.array(["a", "Ⱥ" * 50, "沙" * 50])[1:]
    letters, characters = search_terms(texts).to_pylist()
    assert letters == "ⱥ" * 50
    assert characters == "沙" + " 沙 沙沙" * 49
