"""Raw texts to clean ones; html.unescape is the reference for entities."""

import random
import sys
from html.entities import html5
from itertools import pairwise
from unicodedata import category

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from raydistill.cleaning import normalise
from raydistill.texts import Texts
from raydistill.words import ENTITY, compose, encode, single_spaced, unescape


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("grey sofa", "grey sofa"),
        ("", ""),
        ("  grey \t\n sofa ", "grey sofa"),
        ("grey\u00a0sofa", "grey sofa"),  # no-break space
        ("gr\u200bey\ufeff so\u00adfa", "grey sofa"),  # invisible characters
        ("\uff11\uff12 \ufb01x", "12 fix"),  # full-width digits, ligature: NFKC
        ("1½ in, ¾ and 2⅛", "1 1/2 in, 3/4 and 2 1/8"),
        ("a\x00b\x1fc\x7f", "a b c"),
        ("沙发 灰色", "沙发 灰色"),
        ("\u3000", ""),
        ("Black &amp; Decker", "Black & Decker"),
        ("12&quot; x 3&#39; &#x3a3; caf&eacute;&nbsp; ", "12\" x 3' Σ café"),
        ("&amp;amp; once", "&amp; once"),
        ("salt & pepper; R&D; &nosuch; &#; &#x; &;", "salt & pepper; R&D; &nosuch; &#; &#x; &;"),
        ("url?a=1&copy=2", "url?a=1&copy=2"),
        ("&#128;&#0;&#xD800;&#1114112;", "€\ufffd\ufffd\ufffd"),
        ("a&#11;b&#xFFFE;c", "abc"),
        ("&nGt;", "≫⃒"),
    ],
)
def test_normalise(raw: str, expected: str) -> None:
    assert normalise(pa.array([raw])).to_pylist() == [expected]
    between = normalise(pa.array(["x", raw, "y z", raw]).slice(1))  # an offset, clean neighbours
    assert between.to_pylist() == [expected, "y z", expected]


def test_entities_are_those_of_html() -> None:
    chance = random.Random(0)
    names = sorted(html5)
    pieces = [f"&{name}" for name in names] + [f"&#{n};" for n in range(300)]
    pieces += [f"&#x{chance.randrange(0x120000):X};" for _ in range(2_000)]
    pieces += ["&", ";", "#", "a", "é", "&#x;", "&" + "a" * 40 + ";"] * 50
    texts = ["".join(chance.choices(pieces, k=6)) for _ in range(4_000)]
    expected = normalise(pa.array([unescape(text) for text in texts]))
    # What an entity decodes to may begin another one: only one pass of each is compared.
    once = [at for at, text in enumerate(texts) if not ENTITY.search(unescape(text))]
    assert len(once) > 1_000
    found = normalise(pa.array(texts))
    assert [found[at] for at in once] == [expected[at] for at in once]


def test_a_text_is_served_as_it_was_trained() -> None:
    texts = ["Black &amp; Decker", "caf&eacute; 1&#189;", "1½ ¾", "plain"]
    served = encode(texts)[0].tobytes().decode()
    assert served == "".join(normalise(pa.array(texts)).to_pylist())


# What changes its length, or goes, on the way to a clean text.
PIECES = (
    *("sofa", "x", " ", "  ", "\t", "\u00a0", "\u3000", "\u2028", "\x00", "\x85", "\x1f"),
    *("\u200b", "\ufeff", "\u00ad", "\uff27\uff32", "\ufb03", "\ufdfa", "\u33a5", "\u2167"),
    *("1\u00bd", "\u00bd", "e\u0301", "\u0301", "\u1e9b\u0323", "\uac00", "\u6c99", "\U0001f6cb"),
    *(
        "&amp;",
        "&amp;amp;",
        "&eacute;",
        "&nbsp;",
        "&#189;",
        "&#x200B;",
        "&zwnj;",
        "&shy;",
        "&",
        ";",
    ),
    *("&nGt;", "&#0;", "&lt;b&gt;", "\u00df", "\u0130", "\u01c4", "\u2044", "1\u20442", "&fjlig;"),
)


def _odd_texts(num: int) -> list[str]:
    chance = random.Random(1)
    return ["".join(chance.choices(PIECES, k=chance.randrange(1, 30))) for _ in range(num)]


def _texts_of(encoded: Texts) -> list[str]:
    data, offsets = encoded
    return [data[a:b].tobytes().decode() for a, b in pairwise(offsets)]


@pytest.mark.parametrize("max_chars", [1, 2, 7, 20, 60])
def test_a_text_is_cut_where_prepare_counts(max_chars: int) -> None:
    texts = _odd_texts(3_000)
    clean = normalise(pa.array(texts))
    cut = pc.utf8_slice_codeunits(clean, 0, max_chars).to_pylist()
    served = _texts_of(encode(texts, max_chars=max_chars))
    num_long = 0
    for text, found, expected, whole in zip(texts, served, cut, clean.to_pylist(), strict=True):
        if len(whole) > max_chars:  # cut, byte by byte the same
            assert found == expected, text
            num_long += 1
        else:  # `tidy` does the rest, in compiled code
            assert single_spaced(found) == expected, text
    assert num_long > 100


def test_python_and_arrow_clean_alike() -> None:
    texts = _odd_texts(5_000)
    # Unassigned ones are left out: Python and Arrow know different versions of Unicode.
    known = (c for c in map(chr, range(sys.maxunicode)) if category(c) not in ("Cn", "Cs"))
    texts += [f" 1{char}\u0301a {char}" for char in known]
    found = [single_spaced(compose(unescape(text))) for text in texts]
    assert found == normalise(pa.array(texts)).to_pylist()
