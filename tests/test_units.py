"""Sizes in one spelling: cases by hand, and what holds for any text."""

import random
import re

import numpy as np
import pytest

from raydistill.features import NgramSpec
from raydistill.lexicon import Lexicon
from raydistill.matching import DENSE_NAMES
from raydistill.ngrams import document_counts, featurize
from raydistill.units import GROWTH, UNITS, respell
from raydistill.words import WORD, character_tables, encode

ONES = Lexicon.of(np.ones(1, np.float32))


def spelled(text: str) -> str:
    """The text with its sizes in one spelling; spaces between words are one space."""
    points = np.array([ord(char) for char in text], np.uint32)
    out = np.full(GROWTH * len(points) + 64, ord("!"), np.uint32)
    num = respell(points, len(points), character_tables()[0], out)
    assert num <= GROWTH * len(points)
    assert (out[GROWTH * len(points) :] == ord("!")).all()
    return " ".join("".join(map(chr, out[:num])).split())


@pytest.mark.parametrize(
    "alike",
    [
        ("1.5 in pipe", '1-1/2" pipe', "1 1/2 inch pipe", "1.50-inches pipe", "1,5 in pipe"),
        ("0.5 in", ".5 inch", "1/2in", "1/2''", "0.50\u201d", "1/2\u2032\u2032"),
        ("0.9375 in", "15/16 in"),
        ("0.015625 in", "1/64-inch"),
        ("12 volt 2.5 amp", "12v 2.5a", "12-volt 2.5 amps", "12 V 2.50A".lower()),
        ("100 sq ft", "100 square feet", "100-sq-ft"),
        ("8 fl oz", "8 fluid ounces", "8 fl. oz"),
        ("2 x 4 x 8", "2x4x8", "2 by 4 by 8", "2\u00d74*8"),
        ("10 ft x 12.5 ft", "10' x 12.5'", "10ft x 12.5-feet", "10ft. by 12 1/2ft"),
        ("0.5 l", "0,500 l", "0,5 ltr", "0.50 l"),
        ("5 ft 6 in", "5'6\"", "5 foot 6 inches"),
        ("3 x 0.5 cm", "3x.5 centimetres"),
        ("1000 lumen", "1,000 lumens", "1000lm"),
        ("1250000 g", "1,250,000.00 grams"),
        ("usb 2", "usb 2.0"),
        ("100 percent cotton", "100% cotton"),
        ("12 volt 电钻🛋5 in", '12v电钻🛋5"'),
        ("90 degree c", "90°c", "90 deg c"),
        ("m8-1.25 x 45 mm", "m8-1.250 x 45mm"),
    ],
)
def test_one_size_has_one_spelling(alike: tuple[str, ...]) -> None:
    assert {spelled(text) for text in alike} == {alike[0]}


@pytest.mark.parametrize(
    "text",
    [
        *("", "x", "沙发", "grey sofa", "3-seat", "5 t shirts", "5 by hand", "10x zoom", "1080p"),
        *("dcd771v", "a19x2", "6ft3in", "model 268 0.25 in", "2 a day", "the 80's", "24/7"),
        *("0500", "2 v-neck", "1,2,3", "1 1/2,5", "1234,567,89"),
        *("3.0.1", "12/25/2020", "3/2 in", "1 1/2/3", "9/64/2", "wait...5 in"),
    ],
)
def test_what_is_no_size_stays(text: str) -> None:
    assert spelled(text) == text


NUMBER = re.compile(r"(\.?[0-9]+)((?:[.,/][0-9]+)*)")
GAP = r"(?:\.(?![0-9]))?\s*-?\s*"
NAMES = {name: unit for unit, names in UNITS.items() for name in (unit, *names.split())}
DIGITS, PRIMES = set("0123456789"), {"'", "\u2019", "\u2032"}
INCHES = re.compile("[\"\u201d]|['\u2019\u2032]{2}")
TIMES = re.compile(rf"{GAP}(?:[x*\u00d7]|by){GAP}(?=\.?[0-9])")
MIXED = re.compile(r"[ -]([0-9]+)/([0-9]+)(?![/.,][0-9])")


def by_the_book(text: str) -> str:
    """The specification of docs/ngrams.md once more, with regular expressions."""
    out, at, inside = "", 0, False
    while at < len(text):
        found = NUMBER.match(text, at)
        if inside or not found or text[max(at - 1, 0) : at + 1] == "..":
            inside = is_of_word(text[at])
            out, at = out + text[at], at + 1
            continue
        number, at = read_number(text, found)
        units, at = read_units(text, at)
        times = TIMES.match(text, at)
        inside = not times and not units
        at = times.end() if times else at
        out += number + units + (" x " if times else "")
    return out


def read_number(text: str, found: re.Match[str]) -> tuple[str, int]:
    whole, marks = found[1], re.findall("[.,/][0-9]+", found[2])
    if whole[0] == ".":
        whole, marks = "", [whole, *marks]
    dropped = 0
    groups = whole[:1] not in ("", "0") and len(whole) <= 3
    while groups and marks and re.fullmatch(",[0-9]{3}", marks[0]):
        whole, dropped = whole + marks.pop(0)[1:], dropped + 1
    if len(marks) > 1:
        return found[0], found.end()
    if marks and marks[0][0] == "/":
        value = None if dropped else fraction(whole, marks[0][1:])
        return value or found[0], found.end()
    if marks:
        decimals = marks[0][1:].rstrip("0")
        return (whole or "0") + ("." + decimals if decimals else ""), found.end()
    mixed = MIXED.match(text, found.end())
    if mixed and not dropped and len(whole) <= 2 and (value := fraction(mixed[1], mixed[2])):
        return whole + value[1:], mixed.end()
    return whole, found.end()


def fraction(over: str, under: str) -> str | None:
    if max(len(over), len(under)) > 3 or int(under) not in (2, 4, 8, 16, 32, 64):
        return None
    return f"{int(over) / int(under):.6f}".rstrip("0") if 0 < int(over) < int(under) else None


def read_units(text: str, at: int) -> tuple[str, int]:
    if found := INCHES.match(text, at):
        return " in ", found.end()
    behind = text[at + 1 : at + 2]
    if text[at : at + 1] in PRIMES and not (is_of_word(behind) and behind not in DIGITS):
        return " ft ", at + 1
    out, unit = "", "sq"
    while unit in ("sq", "cu", "fl"):
        unit, end = read_name(text, at)
        if unit:
            out, at = f"{out or ' '}{unit} ", end
    return out, at


def read_name(text: str, at: int) -> tuple[str, int]:
    start = end = re.compile(GAP).match(text, at).end()  # type: ignore[union-attr]
    if text[start : start + 1] in ("%", "°"):
        return NAMES[text[start]], start + 1
    while is_of_word(text[end : end + 1]):
        end += 1
    name = text[start:end]
    if len(name) == 1 and start > at and (name == "a" or text[end : end + 1] == "-"):
        return "", at
    return NAMES.get(name, ""), end


def is_of_word(char: str) -> bool:
    return bool(char) and character_tables()[0][ord(char)] == WORD


def test_it_is_what_the_specification_says() -> None:
    chance = random.Random(1)
    pieces = [*"0123456789", *"0123456789", *" .,/-'\"x*%°a", "1/2", " 3/4", "by", " in", "ft. "]
    pieces += [*"沙_-\u2019\u2032\u0301é,"]
    pieces += [name for names in UNITS.values() for name in names.split()]
    texts = ["".join(chance.choices(pieces, k=chance.randrange(12))) for _ in range(8_000)]
    assert [t for t in texts if spelled(t) != " ".join(by_the_book(t).split())] == []


def test_spelling_twice_is_spelling_once() -> None:
    chance = random.Random(0)
    pieces = [
        *"0123456789",
        *"0123456789",
        *" .,/-'\"x*%°a\u2032\u201d",
        "1/2",
        "by",
        " in",
        "ft. ",
        "v",
        "沙",
    ]
    pieces += [name for names in UNITS.values() for name in names.split()]
    for _ in range(8_000):
        once = spelled("".join(chance.choices(pieces, k=chance.randrange(12))))
        if ".." not in once:  # `...5` is no number
            assert spelled(once) == once


def test_no_text_outgrows_its_room() -> None:
    """The compiled code checks no bounds: the worst texts, and features made of them."""
    worst = ["1%", "1' ", "1'", "1w ", "1a ", "2x", "1/64 ", "1°", "9*9", ".5", "1% x "]
    texts = [piece * 200 for piece in worst]
    for text in texts:
        spelled(text)
    spec = NgramSpec("match", 12, char_ngrams=3, units=True)
    for text in texts:
        one = featurize(encode([text]), encode([text]), spec=spec, lexicon=ONES)
        num_bytes = 2 * len(text.encode())
        assert len(one.ids_N) <= (3 + GROWTH) * num_bytes + 6


def test_a_query_finds_its_size_in_a_title() -> None:
    texts = encode(['2" x 1/2" pipe']), encode(["Pipe, 2 in. X 0.5-Inch"])
    at = DENSE_NAMES.index("query_found_mean")
    for units, expected in ((True, 1.0), (False, 3 / 4)):  # as it is written, 1/2 is not there
        spec = NgramSpec("match", 12, units=units)
        row = featurize(*texts, spec=spec, lexicon=ONES).dense_BF[0]
        assert row[at] == expected


def test_words_are_counted_as_they_are_read() -> None:
    titles = encode(["1/2 inch", "0.5 in"])
    for units, expected in ((True, [2, 2]), (False, [1, 1, 1, 1])):
        counts = document_counts(titles, units=units)
        assert counts[counts > 0].tolist() == expected
