"""Classes and folding of characters: cases by hand, and properties of all of Unicode."""

import sys
from unicodedata import category, normalize

import numpy as np
import pytest

from raydistill.serving.text.characters import IGNORABLE, LONG, TABLE_SIZE, character_tables, fold
from raydistill.serving.tokenizer import decode, encode

ALL = [c for c in map(chr, range(sys.maxunicode)) if category(c) not in ("Cn", "Co", "Cs")]


def decoded(text: str) -> str:
    data, _ = encode([text])
    points = np.empty(len(data) + 1, np.uint32)
    num = decode(data, 0, len(data), character_tables(), points)
    return "".join(map(chr, points[:num]))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("İSTANBUL Straße ΣΊΣΥΦΟΣ", "istanbul strasse σισυφοσ"),
        ("Crème Brûlée, Škoda, łódź, Ærø", "creme brulee, skoda, lodz, aero"),
        ("Ёлка, мой", "елка, мой"),  # й is no и with a breve
        ("١٢ १२ ๑๒ \uff11\uff12 ۳", "12 12 12 12 3"),
        ("مُحَمَّد كتاب", "محمد کتاب"),
        ("क्ष कि, が ガ, 한국", "क्ष कि, が ガ, 한국"),  # without their marks other words
        ("5\u20327\u2033 \u2018a\u2019 \u201cb\u201d 1\u20132", "5'7'' 'a' \"b\" 1-2"),
        ("\u0662\u066b\u0665\u066a", "2.5%"),
    ],
)
def test_fold(text: str, expected: str) -> None:
    assert fold(normalize("NFKC", text)) == expected
    assert decoded(text) == expected


@pytest.mark.slow
def test_case_makes_no_difference() -> None:
    apart = [c for c in ALL for d in (c.upper(), c.lower(), c.title(), c.swapcase())
             if fold(d) != fold(c)]  # fmt: skip
    assert apart == []


@pytest.mark.slow
def test_a_folded_text_stays_and_grows_no_longer_than_its_bytes() -> None:
    for char in ALL:
        form = fold(char)
        assert fold(form) == form, ascii(char)
        assert len(form) <= len(char.encode()), ascii(char)


def test_what_nobody_sees_is_nothing() -> None:
    assert all(fold(char) == "" for char in IGNORABLE)
    assert {"\u00ad", "\u200b", "\u200c", "\u200d", "\u200e", "\u2060", "\ufe0f", "\ufeff",
            "\U000e0100"} <= IGNORABLE  # fmt: skip
    assert decoded("a\u200d\U0001f6cb\U000e0067b") == "a\U0001f6cbb"


def test_compiled_code_folds_as_python_does() -> None:
    _, folds, forms = character_tables()
    for char in ALL:
        if ord(char) < TABLE_SIZE:
            form = int(folds[ord(char)])
            at = form - LONG
            points = [form] if at < 0 else forms[at + 1 : at + 1 + forms[at]]
            assert "".join(map(chr, points)) == fold(char), ascii(char)


def test_plain_texts_are_folded_as_all_are() -> None:
    """Texts in ASCII have a path of their own."""
    text = "".join(map(chr, range(128)))
    data = np.frombuffer((text + "é").encode(), np.uint8)
    points = np.empty(len(data), np.uint32)
    found = []
    for stop in (len(text), len(data)):
        num = decode(data, 0, stop, character_tables(), points)
        found.append(points[:num].tolist())
    assert found[1] == [*found[0], ord("e")]
    assert found[0] == [ord(fold(char)) for char in text]
