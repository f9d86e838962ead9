"""Which characters are read as which words: by hand, and for odd texts by their own rule."""

import pytest

from raydistill.serving.explanation.ngram_texts import word_runs
from raydistill.serving.explanation.spans import Reading, encoded, reading
from raydistill.serving.feature_spec import NgramSpec
from raydistill.serving.featurize import spelled_words
from raydistill.student.export.golden_pairs import ODD_TEXTS

MATCH = NgramSpec("match", 12, units=True)
PLAIN = NgramSpec("bert2dnn", 12)


def parts(found: Reading) -> list[tuple[str, str]]:
    return [(found.text[span.start : span.end], " ".join(span.words)) for span in found.spans]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("iPad Case", [("iPad", "ipad"), ("Case", "case")]),
        ("drill 18v, (2-pack)", [("drill", "drill"), ("18v", "18 volt"), ("2", "2"),
                                 ("pack", "pack")]),
        ("1&nbsp;1/2 x café", [("1&nbsp;1/2", "1.5"), ("x", "x"), ("café", "cafe")]),
        ("women 's do n't", [("women 's", "womens"), ("do", "do"), ("n't", "nt")]),
        ("  <b>Öl</b>\t", [("b", "b"), ("Öl", "ol"), ("b", "b")]),
        ("沙发 灰", [("沙", "沙"), ("发", "发"), ("灰", "灰")]),
        ("", []),
        (" - ", []),
    ],
)  # fmt: skip
def test_spans_by_hand(text: str, expected: list[tuple[str, str]]) -> None:
    found = reading(text, spec=MATCH, max_chars=100)
    assert parts(found) == expected and found.num_read == len(text)


def test_words_of_white_space_keep_their_signs() -> None:
    found = reading("iPad, (10in) case", spec=PLAIN, max_chars=100)
    assert parts(found) == [("iPad,", "ipad,"), ("(10in)", "(10in)"), ("case", "case")]


@pytest.mark.parametrize("spec", [MATCH, PLAIN], ids=["match", "bert2dnn"])
@pytest.mark.parametrize("max_chars", [7, 40, 1_000])
def test_the_spans_of_odd_texts_have_all_words_that_are_scored(
    spec: NgramSpec, max_chars: int
) -> None:
    for text in ODD_TEXTS:
        found = reading(text, spec=spec, max_chars=max_chars)
        scored = spelled_words(encoded(text, max_chars=max_chars), spec=spec)[0]
        assert found.words == scored
        ends = [0, *(place for span in found.spans for place in (span.start, span.end))]
        assert ends == sorted(ends) and ends[-1] <= found.num_read <= len(text)
        for span in found.spans:
            assert span.words and text[span.start : span.end].strip() == text[span.start : span.end]
            assert span.start < span.end


def test_what_is_too_long_is_not_read() -> None:
    found = reading("&amp; sofa grey", spec=MATCH, max_chars=8)
    assert parts(found) == [("sofa", "sofa"), ("g", "g")]
    assert found.num_read == len("&amp; sofa g")


def test_runs_of_words() -> None:
    runs = word_runs(["grey", "sofa", "grey"])
    assert runs["grey"] == [range(1), range(2, 3)] and runs["grey sofa"] == [range(2)]
    assert runs["[start] grey"] == [range(1)] and runs["grey [end]"] == [range(2, 3)]
    assert runs["sofa (not in the title)"] == runs["sofa (not in the query)"] == [range(1, 2)]
    assert runs["sofa (also in the title)"] == [range(1, 2)] and "sofa [end]" not in runs
    assert word_runs([]) == {}
