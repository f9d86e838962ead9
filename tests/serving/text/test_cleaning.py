"""Raw texts to clean texts; cleaning is idempotent."""

import html
import random
import sys
import time
from html.entities import html5
from itertools import pairwise
from unicodedata import category, normalize

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from raydistill.serving.text.arrow_text import Texts
from raydistill.serving.text.characters import IGNORABLE
from raydistill.serving.text.cleaning import clean_text, is_odd, normalise
from raydistill.serving.tokenizer import encode


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
        ("\uff11½ 1\u200b½ ٣½", "1 1/2 1 1/2 ٣ 1/2"),  # digits of any form and script
        ("a\x00b\x1fc\x7f", "a b c"),
        ("沙发 灰色", "沙发 灰色"),
        ("\u3000", ""),
        ("Black &amp; Decker", "Black & Decker"),
        ("12&quot; x 3&#39; &#x3a3; caf&eacute;&nbsp; ", "12\" x 3' Σ café"),
        ("salt & pepper; R&D; &nosuch; &notit; &#; &#x; &;", None),
        ("url?a=1&copy=2", "url?a=1&copy=2"),
        ("&#128;&#0;&#xD800;&#1114112;", "€\ufffd\ufffd\ufffd"),
        ("a&#11;b&#xFFFE;c", "abc"),
        ("&nGt;", "≫"),  # and a stroke that is drawn over it, U+20D2
        # Escaped twice and more often, in any of the three ways.
        ("Pan 12&amp;quot; wide", 'Pan 12" wide'),
        ("&amp;amp;amp;#39; &#38;#x26;lt; &amp;nbsp; &AMP;AMP;", "' < &"),
        ("&&num;38;quot; \uff06amp\uff1b \uff06quot\uff1b", '" & "'),
        # What NFKC makes of an acute alone, and what others made of it before.
        ("men\u00b4s men \u0301s 5\u02dd 90\u02da \u00a8 \u00b8", "men's men's 5\" 90°"),
        ("\u0301x \u0308 \ufc5e a\u0301", "x á"),  # marks that stand on nothing
        ("lego\u00ae\ufe0f set \u2764\ufe0f", "lego® set ❤"),
        (
            "\u06a9\u062a\u0627\u0628\u200c\u0647\u0627 \u0915\u094d\u200d\u0937 \u200ered\u200f",
            "\u06a9\u062a\u0627\u0628\u0647\u0627 \u0915\u094d\u0937 red",
        ),
        ("e\u200d\u0301", "é"),  # what an invisible character had parted
        ("LEGO\u2122 set, Nike\u2120 &trade;", "LEGO set, Nike"),  # no letters t and m
        ("1\u00b9\u2044\u2082 in, 2\u00b3/\u2084", "1 1/2 in, 2 3/4"),
        ("20\u00baC, 180 \u00ba F, 1\u00ba", "20°C, 180 ° F, 1o"),
        ("men\x92s \x93oak\x94 3\x9650 é", 'men\'s "oak" 3-50 é'),
    ],
)
def test_clean_text(raw: str, expected: str | None) -> None:
    expected = raw if expected is None else expected
    found = clean_text(raw)
    assert found.replace("\u20d2", "") == expected
    assert normalise(pa.array([raw])).to_pylist() == [found]
    between = normalise(pa.array(["x", raw, "y z", raw]).slice(1))  # an offset, clean neighbours
    assert between.to_pylist() == [found, "y z", found]


def test_entities_are_those_of_html() -> None:
    for name, text in html5.items():
        if name.endswith(";"):
            assert clean_text(f"a&{name}b") == clean_text(f"a{text}b"), name
    for code in [*range(300), *range(0xFDC0, 0xFDF9), 0xD800, 0xFFFE, 0x1F6CB, 0x10FFFF, 0x110000]:
        entity = f"&#{code};"
        assert clean_text(f"a{entity}b") == clean_text(f"a{html.unescape(entity)}b"), code
        assert clean_text(f"a&#x{code:X};b") == clean_text(f"a{entity}b"), code


# What changes its length, or goes, or begins something else, on the way to a clean text.
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
    *("amp;", "#38;", "#x26;", "quot;", "&num;", "&semi;", "\uff06", "\uff1b", "&#65286;", "#"),
    *("\u00b4", "\u02dd", "\u0308", "\u0345", "\u200d", "\u200c", "\ufe0f", "\u034f", "\u3099"),
    *("\u1100", "\u1161", "\u0e33", "\u0f71", "\u0f72", "\u064b", "\u0661", "\U000e0100", "か"),
)


def _odd_texts(num: int) -> list[str]:
    chance = random.Random(1)
    return ["".join(chance.choices(PIECES, k=chance.randrange(1, 30))) for _ in range(num)]


def _characters() -> list[str]:
    return [c for c in map(chr, range(sys.maxunicode)) if category(c) not in ("Cn", "Co", "Cs")]


@pytest.mark.slow
def test_clean_text_cleaned_again_is_the_same_text() -> None:
    texts = _odd_texts(30_000) + [f"a{c}b 1{c} {c}\u0301 &{c}amp;#39;" for c in _characters()[::5]]
    for text in texts:
        clean = clean_text(text)
        assert clean_text(clean) == clean, ascii(text)
        assert clean == normalize("NFKC", clean).strip(), ascii(text)
        assert not IGNORABLE & set(clean), ascii(text)


@pytest.mark.slow
def test_lower_case_of_clean_text_is_clean() -> None:
    texts = pa.array([clean_text(f"{c}a {c}") for c in _characters()[::3]])
    lower = pc.utf8_lower(texts)
    again = normalise(lower).to_pylist()
    changed = {a for a, b in zip(lower.to_pylist(), again, strict=True) if a != b}
    assert changed == set()


@pytest.mark.slow
def test_a_text_that_goes_on_making_entities_ends() -> None:
    start_s = time.monotonic()
    spaces = " " * 50_000
    texts = ("&" + "amp;" * 50_000, "&" + "#65286;" * 50_000, "&&num;" * 50_000)
    for text in (*texts, f"{spaces}é{spaces}\u0301a{spaces}", f"é{spaces}\u0308", "é 1" * 50_000):
        clean = clean_text(text)
        assert clean_text(clean) == clean
    assert time.monotonic() - start_s < 60  # passes over the text, not one for each entity


def test_only_odd_texts_are_cleaned_in_python() -> None:
    plain = ["", "a", "Black & Decker", "&", "a &", "& & b", "12 x 3 #4;"]
    odd = ["R&D", "&amp; a", "a  b", " a", "a ", "a& ", "é", "a\tb", "&&"]
    data = [text.encode() for text in (*plain, *odd)]
    offsets = np.cumsum([0, *map(len, data)]).astype(np.int32)
    found = is_odd((np.frombuffer(b"".join(data), np.uint8), offsets))
    assert found.tolist() == [False] * len(plain) + [True] * len(odd)
    assert [clean_text(text) for text in plain] == plain


def test_a_text_is_served_as_it_was_trained() -> None:
    texts = ["Black &amp; Decker", "caf&eacute; 1&#189;", "1½ ¾", "plain", *_odd_texts(2_000)]
    served = _texts_of(encode(texts))
    assert served == normalise(pa.array(texts)).to_pylist()


def _texts_of(encoded: Texts) -> list[str]:
    data, offsets = encoded
    return [data[a:b].tobytes().decode() for a, b in pairwise(offsets)]


@pytest.mark.slow
@pytest.mark.parametrize("max_chars", [1, 2, 7, 20, 60])
def test_a_text_is_cut_where_prepare_counts(max_chars: int) -> None:
    texts = _odd_texts(3_000)
    cut = pc.utf8_slice_codeunits(normalise(pa.array(texts)), 0, max_chars).to_pylist()
    assert _texts_of(encode(texts, max_chars=max_chars)) == cut
