"""Raw texts to clean texts: HTML entities decoded, NFKC, single spaces, no invisible characters.

Training and serving use the same function. It is idempotent. Most texts are clean already: one
compiled pass over the bytes finds them, and only the others are processed in Python.
"""

from __future__ import annotations

import html
import re
import unicodedata
from functools import cache
from html.entities import html5
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from raydistill.serving.machine_code.compiled import compiled
from raydistill.serving.text.arrow_text import MAX_BYTES, Texts, row_blocks, to_arrow, to_texts
from raydistill.serving.text.characters import IGNORABLE_RANGES

if TYPE_CHECKING:
    import pyarrow as pa

_AMPERSAND, _SPACE = np.uint8(ord("&")), np.uint8(ord(" "))
# Only with a semicolon: `&copy` in a URL is not an entity. The longest name has 31 letters.
_ENTITY = re.compile(r"&(?:#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{0,30});")
_ESCAPED = re.compile(r"&(?:(?:amp|AMP|#0{0,5}38|#[xX]0{0,4}26);)+")  # escaped any number of times
_MOST_PASSES = 16  # then `&` is removed: decoded entities of real titles do not form so many more
# Categories Z and Cc.
_SPACES = re.compile("[\x00-\x20\x7f-\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]+")
_IGNORABLE = "".join(f"{chr(first)}-{chr(last)}" for first, last in IGNORABLE_RANGES)
_UNSEEN = re.compile(f"[{_IGNORABLE}]")
_CHANGED = re.compile(f"[{_IGNORABLE}\u2044]")  # characters that a pass changes and NFKC does not
# NFKC alone would turn 1½ into 11/2: a space is inserted before the fraction, and U+2044 becomes /.
_FRACTION = re.compile(
    r"(\d)([\u00bc-\u00be\u2150-\u215e\u2189]|[\u2070\u00b9\u00b2\u00b3\u2074-\u2079]+[\u2044/])"
)
_ORDINAL = re.compile(r"(?<=\d)( ?)\u00ba(?= ?[CFcf]\b)")  # º for °, as Spanish shops write degrees
_ACUTE = re.compile(" \u0301")  # NFKC of other characters that contain a spacing acute
# Signs that NFKC would change in another way.
SIGNS = {
    # Trade and service mark would append the letters tm and sm to the word before them.
    **dict.fromkeys((0x2122, 0x2120, 0x24C7, 0x24D2), " "),
    # Quotes and dashes of Windows-1252 that were read as Latin-1.
    **{0x91: "'", 0x92: "'", 0x93: '"', 0x94: '"', 0x96: "-", 0x97: "-"},
    # NFKC gives a space and a mark. Acutes mean apostrophes, a ring degrees; others are removed.
    **dict.fromkeys(map(ord, "\u00b4\u0384\u1fbd\u1fbf\u1ffd\u1ffe"), "'"),
    **{0x02DD: '"', 0x02DA: "\u00b0", 0x2044: "/"},
}


def clean_text(text: str) -> str:
    """Decode entities escaped any number of times, apply NFKC, remove invisible characters.

    White space becomes single spaces, 1½ becomes 1 1/2, an acute between letters an apostrophe. The
    result is a fixed point of this function.
    """
    num_passes = 0
    while not _is_clean(text):
        num_passes += 1
        text = _pass(text if num_passes < _MOST_PASSES else text.replace("&", " "))
    return text


def is_unseen(char: str) -> bool:
    """Whether cleaning removes a character because it is invisible."""
    return _UNSEEN.match(char) is not None


def _is_clean(text: str) -> bool:
    """Whether a pass would change nothing; takes a microsecond for most texts."""
    if not text.isprintable() and _SPACES.search(text.replace(" ", "")):
        return False
    if "  " in text or text.startswith(" ") or text.endswith(" "):
        return False
    if "&" in text and _unescape(text) != text:
        return False
    return text.isascii() or not (
        _CHANGED.search(text)
        or not unicodedata.is_normalized("NFKC", text)
        or (_mark().search(text) and _stray_mark().search(text))
    )


def _pass(text: str) -> str:
    if "&" in text:
        text = _unescape(text)
    if not text.isascii():
        text = _FRACTION.sub(r"\1 \2", _UNSEEN.sub("", text))
        text = _ORDINAL.sub("\\1\u00b0", text).translate(SIGNS)
        text = unicodedata.normalize("NFKC", text).replace("\u2044", "/")
        text = _SPACES.sub(" ", _UNSEEN.sub("", text))
        text = _stray_mark().sub(r"\1", _ACUTE.sub("'", text))
    return _SPACES.sub(" ", text).strip(" ")


def _unescape(text: str) -> str:
    return _ENTITY.sub(_decoded, _ESCAPED.sub("&", text))


def _decoded(entity: re.Match[str]) -> str:
    whole = entity[0]
    return html.unescape(whole) if whole[1] == "#" else html5.get(whole[1:], whole)


@cache
def _mark() -> re.Pattern[str]:
    # Only the first plane, which has all marks that NFKC leaves: `re` matches such a class fast.
    marks = (char for char in map(chr, range(0x10000)) if unicodedata.category(char)[0] == "M")
    return re.compile(f"[{''.join(marks)}]+")


@cache
def _stray_mark() -> re.Pattern[str]:
    """Combining marks without a base character: at the start, or after a space."""
    return re.compile(f"(^| ){_mark().pattern}")


def normalise(texts: pa.Array | pa.ChunkedArray) -> pa.Array:
    """`clean_text` of every text; each distinct text is cleaned once.

    The result is `large_string` if the texts are or if it is over 2 GB, else `string`. For accepted
    types and errors see `arrow_text.to_arrow`.
    """
    import pyarrow as pa  # imported here: serving a bundle does not need it
    import pyarrow.compute as pc

    texts = to_arrow(texts)
    needs = is_odd(to_texts(texts))
    if not needs.any():
        return texts
    mask = pa.array(needs)
    found = texts.filter(mask).dictionary_encode()
    cleaned = pa.array(map(clean_text, found.dictionary.to_pylist()), pa.large_string())
    odd = cleaned.take(found.indices)
    if texts.type != odd.type and texts.nbytes + odd.nbytes <= MAX_BYTES:
        odd = odd.cast(texts.type)
    if needs.all():
        return odd
    return pc.replace_with_mask(texts.cast(odd.type), mask, odd)


def is_odd(texts: Texts) -> NDArray[np.bool_]:
    """Mask, shape R, of texts that may need cleaning.

    They have a byte outside printable ASCII, a space that is not a single inner one, or a `&` that
    is before another byte than a space.
    """
    return np.concatenate([_is_odd(*block) for block in row_blocks(texts)])


@compiled
def _is_odd(data: NDArray[np.uint8], offsets: NDArray[np.int32]) -> NDArray[np.bool_]:
    odd = np.zeros(len(offsets) - 1, np.bool_)
    for row in range(len(odd)):
        before = _SPACE
        for at in range(offsets[row], offsets[row + 1]):
            byte = data[at]
            is_entity = before == _AMPERSAND and byte != _SPACE
            if byte < 32 or byte > 126 or is_entity or byte == before == _SPACE:
                odd[row] = True
                break
            before = byte
        if before == _SPACE and offsets[row + 1] > offsets[row]:
            odd[row] = True
    return odd
