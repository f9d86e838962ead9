"""The class and the folded form of each character, in tables for compiled code.

Characters that spell the same word in different ways have the same folded form. Built once per
process from Python's Unicode data. The specification is `docs/features.md`. Imports only NumPy.
"""

from __future__ import annotations

import unicodedata
from functools import cache

import numpy as np
from numpy.typing import NDArray

# Class and folded form of each code point; then the folded forms of zero or several code points.
Tables = tuple[NDArray[np.uint8], NDArray[np.uint32], NDArray[np.uint32]]

# WORD_START: a letter that begins a word without a space before it. MARK: part of the word before
# it; ignored if there is none.
SPACE, WORD, PUNCTUATION, SINGLE_CHAR_WORD, SKIP, WORD_START, MARK = range(7)
TABLE_SIZE = 0x20000  # beyond it: ideographs and emoji, each a separate word
LONG = 1 << 31  # a folded form >= LONG is LONG + an index into the third table: length, code points
# Scripts written without spaces: each character is a word; bigrams represent longer words.
_SOLO_RANGES = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x1000, 0x109F),  # Myanmar
    (0x1780, 0x17FF),  # Khmer
    (0x2E80, 0x2FDF),  # radicals
    (0x3040, 0x312F),  # kana, bopomofo
    (0x31A0, 0x9FFF),  # kana extensions, ideographs
    (0xF900, 0xFAFF),  # compatibility ideographs
)
# Default_Ignorable_Code_Point of Unicode 15: joiners, direction marks, soft hyphen, variation
# selectors, fillers, tags. They are invisible.
IGNORABLE_RANGES = (
    *((0x00AD, 0x00AD), (0x034F, 0x034F), (0x061C, 0x061C), (0x115F, 0x1160), (0x17B4, 0x17B5)),
    *((0x180B, 0x180F), (0x200B, 0x200F), (0x202A, 0x202E), (0x2060, 0x206F), (0x3164, 0x3164)),
    *((0xFE00, 0xFE0F), (0xFEFF, 0xFEFF), (0xFFA0, 0xFFA0), (0xFFF0, 0xFFF8), (0x1BCA0, 0x1BCA3)),
    *((0x1D173, 0x1D17A), (0xE0000, 0xE0FFF)),
)
FIRST_TAG, LAST_TAG = IGNORABLE_RANGES[-1]
IGNORABLE = frozenset(chr(c) for first, last in IGNORABLE_RANGES for c in range(first, last + 1))
# Accents and points that shoppers omit: diacritics, Cyrillic titlo, Hebrew points, Arabic vowels.
# Not the vowels of Indic scripts, nor the voicing of kana: without them the word is another one.
_ACCENT_RANGES = (
    *((0x0300, 0x036F), (0x0483, 0x0489), (0x0591, 0x05BD), (0x05BF, 0x05BF), (0x05C1, 0x05C2)),
    *((0x05C4, 0x05C5), (0x05C7, 0x05C7), (0x0610, 0x061A), (0x0640, 0x0640), (0x064B, 0x065F)),
    *((0x0670, 0x0670), (0x06D6, 0x06DC), (0x06DF, 0x06E4), (0x06E7, 0x06E8), (0x06EA, 0x06ED)),
    *((0x1AB0, 0x1AFF), (0x1DC0, 0x1DFF), (0x20D0, 0x20FF), (0xFE20, 0xFE2F)),
)
_ACCENTS = frozenset(chr(c) for first, last in _ACCENT_RANGES for c in range(first, last + 1))
_WITH_BREVE = ("\u0439", "\u045e")  # й ў: separate letters of the alphabet, in lower case
# Letters whose plain form is not a Unicode decomposition, signs used for one another, and letters
# that Persian and Arabic keyboards encode differently.
_SAME = {
    **dict(zip("\u0131ȷøđðħłŧ", "ijoddhlt", strict=True)),
    **{"þ": "th", "æ": "ae", "œ": "oe"},
    **dict(zip("\u064a\u0649\u0643\u0629", "\u06cc\u06cc\u06a9\u0647", strict=True)),
    **dict.fromkeys("\u2018\u2019\u201b\u2032\u2035\u0060\u00b4\u055a\u05f3\ua78b\ua78c", "'"),
    **dict.fromkeys("\u02b9\u02bb\u02bc\u02bd\u02c8\u02ca\u02cb", "'"),
    **dict.fromkeys("\u201c\u201d\u201e\u201f\u2033\u2036\u02ba\u02ee\u05f4", '"'),
    **dict.fromkeys("\u3003\u301d\u301e\u301f", '"'),
    **dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2015\u2212", "-"),
    **{"\u066b": ".", "\u066c": ",", "\u060c": ",", "\u066a": "%", "\u2044": "/", "\u2215": "/"},
    **dict.fromkeys("\u2715\u2716\u2a2f", "\u00d7"),
}


@cache
def character_tables() -> Tables:
    """Class and folded form of every code point below 0x20000."""
    kinds = np.empty(TABLE_SIZE, np.uint8)
    folds = np.arange(TABLE_SIZE, dtype=np.uint32)
    forms: list[int] = []
    for code, char in enumerate(map(chr, range(TABLE_SIZE))):
        category = unicodedata.category(char)
        kinds[code] = _class_of(char, category)
        form = _fold(char, category)
        if len(form) == 1:
            folds[code] = ord(form)
        else:
            folds[code] = LONG + len(forms)
            forms += [len(form), *map(ord, form)]
    for first, last in _SOLO_RANGES:
        span = kinds[first : last + 1]
        span[(span == WORD) | (span == MARK)] = SINGLE_CHAR_WORD
    return kinds, folds, np.array(forms, np.uint32)


def fold(text: str) -> str:
    """The folded form of a text, character by character.

    Full Unicode case folding, without accents; digits of every script become 0 to 9, white space a
    blank, invisible characters nothing. The form of a character has at most as many characters as
    its UTF-8 has bytes, so a buffer of the text's size in bytes is enough.
    """
    return "".join(_fold(char, unicodedata.category(char)) for char in text)


def _fold(char: str, category: str) -> str:
    if char in IGNORABLE:
        return ""
    if category[0] == "Z" or category == "Cc":
        return " "
    if category == "Nd":
        return str(unicodedata.decimal(char))
    form = char.casefold()
    if form == char and char not in _SAME and char not in _ACCENTS:
        decomposed = unicodedata.decomposition(char)
        if not decomposed or decomposed[0] == "<":  # "<": not a canonical one
            return char
    form = "".join(_SAME.get(part, part) for part in _unaccented(form))
    form = unicodedata.normalize("NFC", form)
    num_bytes = len(char.encode("utf-8", "surrogatepass"))
    return form if len(form) <= num_bytes else char


def _unaccented(form: str) -> str:
    if unicodedata.normalize("NFC", form) in _WITH_BREVE:
        return form
    return "".join(part for part in unicodedata.normalize("NFD", form) if part not in _ACCENTS)


def is_solo(char: str) -> bool:
    """Whether a character is a separate word, as in scripts that are written without spaces."""
    code = ord(char)
    return code >= TABLE_SIZE or any(first <= code <= last for first, last in _SOLO_RANGES)


def _class_of(char: str, category: str) -> int:
    if char in IGNORABLE:
        return SKIP
    if category[0] in "LN":
        return WORD
    if category[0] == "M":
        return MARK
    return SPACE if category[0] == "Z" or category == "Cc" else PUNCTUATION
