"""The script of a text: the alphabet that most of its letters are of."""

from __future__ import annotations

import unicodedata
from collections import Counter
from functools import lru_cache

NO_LETTER = "no letter"
_JAPANESE = {"Hiragana", "Katakana"}
# The first word of a letter's Unicode name where that is not the script's.
_NAMED = {"CJK": "Han", "FULLWIDTH": "Latin", "HALFWIDTH": "Katakana", "MODIFIER": "Latin"}


def script_of(text: str) -> str:
    """Latin, Cyrillic, Greek, Arabic, Hebrew, Han, Japanese, Hangul, Thai, Devanagari, ...

    The script of most letters, of equally many the first. Han characters beside kana are Japanese.
    The script of a letter is the first word of its Unicode name: Python has no table of scripts.
    """
    if text.isascii():
        return "Latin" if any(map(str.isalpha, text)) else NO_LETTER
    counts = Counter(script for char in text if (script := _script(char)))
    if not counts:
        return NO_LETTER
    if _JAPANESE & counts.keys():
        japanese = sum(counts.pop(name, 0) for name in (*sorted(_JAPANESE), "Han"))
        counts["Japanese"] = japanese
    return max(counts, key=counts.__getitem__)


@lru_cache(maxsize=1 << 16)
def _script(char: str) -> str:
    """The script of a letter; "" for any other character."""
    if not char.isalpha():
        return ""
    first = unicodedata.name(char, "").partition(" ")[0].partition("-")[0]
    return _NAMED.get(first, first.capitalize())
