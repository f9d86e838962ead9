"""Raw texts to clean ones; html.unescape is the reference for entities."""

import random
from html.entities import html5

import pyarrow as pa
import pytest

from raydistill.cleaning import normalise
from raydistill.words import ENTITY, encode, unescape


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
