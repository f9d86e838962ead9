"""Normalised spelling of sizes: cases by hand, and properties of any text."""

import random
import re

import numpy as np
import pytest

from raydistill.serving.feature_spec import NgramSpec
from raydistill.serving.featurize import featurize
from raydistill.serving.lexicon import Lexicon
from raydistill.serving.match_features import DENSE_NAMES
from raydistill.serving.text.characters import character_tables, fold
from raydistill.serving.tokenizer import encode
from raydistill.serving.units.names import UNITS, checked_units
from raydistill.serving.units.normalization import normalize_units
from raydistill.serving.units.table import UnitTable, unit_table
from raydistill.student.lexicon.document_counts import document_counts
from tests.serving.units.units_specification import by_the_book

ONES = Lexicon.from_idf(np.ones(1, np.float32))
TABLE = unit_table()


def spelled(text: str, *, table: UnitTable = TABLE) -> str:
    """The text with its sizes in one spelling; spaces between words are one space."""
    points = np.array([ord(char) for char in fold(text)], np.uint32)
    most = table.growth * len(points)
    out = np.full(most + 64, ord("!"), np.uint32)
    num = normalize_units(points, len(points), character_tables()[0], table, out)
    assert num <= most
    assert (out[most:] == ord("!")).all()
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
        ("5 ft x 7 ft", "5'x7'", "5' X 7'", "5\u2032x7\u2032", "5'by 7 feet", "5 ' x 7 '"),
        ("4/64 gb", "4/64gb"),
        ("2 l x 6", "2Lx6"),
        ("ac-220 volt", "AC-220V"),
        ("1000 ml", "1'000 ml", "1\u2019000ml"),
        ("6 ft h x 8 ft w", "6'h x 8'w"),
        ("6 ft runner", "6'runner"),
        ("12 \u0432", "12\u0412"),
        ("220 \u0432/50 \u0433\u0446", "220\u0412/50\u0413\u0446"),
        ("10 x 15 cm", "10\u044515 cm"),
        ("usb 3", "USB3.0", "usb 3.0"),
        ("18 volt -akku", "18-V-Akku", "18v-akku"),
        ("20 in x 50 in", "20inx50in", "20inX50 inches"),
        ("2 m x 3 m", "2mx3m"),
        ("2 ft 6 in x 5 ft", "2'6\"x5'", "2ft6in x 5ft"),
        ("12 in tv", '12 " tv', "12 '' tv", "12 \u2033 tv"),
        ("10 percent off", "10 % off"),
        ("1.5 in", '1 - 1/2"', "1 \u2013 1/2 in", "1\u20111/2in"),
        ("1000 ml", "1 000 ml", "1,000ml"),
        ("10 sq ft", "10 ft2", "10ft^2", "10 sqft", "10 sq. ft"),
        ("5 cu m", "5 m3", "5m3", "5 cbm", "5 cubic metres"),
        ("5000 mah", "5000mAh", "5,000 mAh", "5 000mAh"),
        ("10000 mah", "10000mAh"),
        ("2.4 ghz", "2.4GHz", "2,4 gigahertz"),
        ("10 widgets", "10widgets"),  # of no table
        ("802.11 ac", "802.11ac"),
        ("3 in 1", "3in1"),
        ("100 ohm", "100\u2126", "100 \u03a9"),
        ("62.5 micron", "62.5\u00b5m", "62.5um"),
        ("wh1000xm4", "WH-1000XM4", "wh\u20111000xm4"),
        ("smg991b", "SM-G991B"),
        ("dcd771 20 volt", "DCD-771 20V"),
        ("r410a a19", "R-410A A-19"),
        ("usb-3", "usb-3.0"),
        ("3 in -1", "3-in-1", "3 in-1"),
    ],
)
def test_one_size_has_one_spelling(alike: tuple[str, ...]) -> None:
    assert {spelled(text) for text in alike} == {alike[0]}


@pytest.mark.parametrize(
    "text",
    [
        *("", "x", "沙发", "grey sofa", "3-seat", "5 t shirts", "5 by hand", "10x zoom", "1080p"),
        *("dcd771v", "a19x2", "model 268 0.25 in", "2 a day", "the 80's", "the 80 's", "24/7"),
        *("0500", "2 v-neck", "1,2,3", "1 1/2,5", "1234,567,89"),
        *("3.0.1", "12/25/2020", "3/2 in", "1 1/2/3", "9/64/2", "wait...5 in"),
        *("47lb650v", "90mb0n70", "6'li", "set-12", "wx1.0.1"),
        *("3d", "1080p", "1st 2nd 3rd 4th", "2620v3", "12016se", "0109dw", "12v2a"),
        *("18 135 mm", "usb 3 128 gb", "1 000.5", '12 "best of" cards', "10 m2x"),
        *("iphone-12", "x-large", "4-sm-5", "usb-3"),
    ],
)
def test_what_is_no_size_stays(text: str) -> None:
    assert spelled(text) == text


def test_a_range_of_sizes_is_no_model_number() -> None:
    assert spelled("M-2XL") == "m-2 xl" and spelled("xs-3xl") == "xs-3 xl"
    assert spelled("CL-211XL") == "cl211xl"


@pytest.mark.slow
def test_it_is_what_the_specification_says() -> None:
    chance = random.Random(1)
    pieces = [*"0123456789", *"0123456789", *" .,/-'\"x*%°a", "1/2", " 3/4", "by", " in", "ft. "]
    pieces += [
        *"沙_-^23ß\u0915\u093f\u0432",
        "000",
        " 000",
        "sm",
        "th",
        "mah",
        " - ",
        "00",
        "'000",
        "xl",
        "set",
    ]
    pieces += [name for names in UNITS.values() for name in names.split()]
    texts = ["".join(chance.choices(pieces, k=chance.randrange(12))) for _ in range(20_000)]
    wrong = [t for t in texts if spelled(t) != " ".join(by_the_book(fold(t)).split())]
    assert wrong == []


@pytest.mark.slow
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
        # `...5` is no number; a hyphen before a measure stays, and led-60 by itself is a model.
        if ".." not in once and not re.search("[^0-9 ]-[0-9]", once):
            assert spelled(once) == once, once


def test_no_text_outgrows_its_room() -> None:
    """The compiled code checks no bounds: the worst texts, and features made of them."""
    worst = ["1%", "1' ", "1'", "1w ", "1a ", "2x", "1/64 ", "1°", "9*9", ".5", "1% x ", "1%x"]
    worst += ["1m2 ", "1in", "1ab ", "a-1 ", "ß", "1ω ", "1 000 "]
    texts = [piece * 200 for piece in worst]
    for text in texts:
        spelled(text)
    spec = NgramSpec("match", 12, char_ngrams=3, units=True)
    for text in texts:
        one = featurize(encode([text]), encode([text]), spec=spec, lexicon=ONES)
        num_bytes = 2 * len(text.encode())
        assert len(one.ids_N) <= (3 + TABLE.growth) * num_bytes + 6


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


def test_a_run_has_units_of_its_own() -> None:
    extra = checked_units({"Carat": "ct CTS", "in": "tommer", "\u03a9": "\u2126hm"})
    table = unit_table(extra)
    assert spelled("2ct ring, 2 Cts", table=table) == "2 carat ring, 2 carat"
    assert spelled("2ct ring") == "2 count ring"
    assert spelled("3 tommer 3 inch", table=table) == "3 in 3 in"
    spec = NgramSpec("match", 20, units=True, extra_units=extra)
    texts = encode(["2 carat ring", "2ct ring"])
    ids = featurize(texts, texts, spec=spec, lexicon=ONES)
    first, second = ids.take(np.array([0])), ids.take(np.array([1]))
    assert first.ids_N.tolist() == second.ids_N.tolist()


def test_no_name_of_a_unit_outgrows_its_room() -> None:
    extra = checked_units({"a" * 24: "z", "q": "y" * 24})
    table = unit_table(extra)
    assert spelled("1z" * 50 + "1z 1zx1z", table=table)
    spec = NgramSpec("match", 12, char_ngrams=3, units=True, extra_units=extra)
    texts = encode(["1z " * 200])
    one = featurize(texts, texts, spec=spec, lexicon=ONES)
    assert len(one.ids_N) <= (3 + table.growth) * 2 * 600 + 6


def test_a_run_names_units_that_are_there() -> None:
    table = unit_table(checked_units({"sq m": "qm", "percent": "prozent", "लीटर": "ली"}))
    assert spelled("5qm 5 prozent 5 ली", table=table) == "5 sq m 5 percent 5 लीटर"


# Of scripts without spaces each character is a word: more words than a text has bytes.
@pytest.mark.parametrize(
    "name", ["", "two words", "m2", "a" * 25, "-", "\u0301", "ミリリットル", "毫升", "มล"]
)
def test_a_name_that_is_no_word_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="cannot be the name of a unit: give one word"):
        checked_units({name: "x"})
