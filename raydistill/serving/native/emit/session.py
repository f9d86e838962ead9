"""A model and the scratch memory of a thread as arrays. Sizes follow from the model's header.

Nothing is copied or allocated, and pages of the scratch memory that a text does not need are never
touched. Shapes as in `featurize.py`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from raydistill.serving.featurize import Layout, Scratch
from raydistill.serving.lexicon import Lexicon
from raydistill.serving.machine_code.emitted import emitted
from raydistill.serving.match_features import TextWords
from raydistill.serving.native.emit import memory
from raydistill.serving.native.emit.net import ROWS
from raydistill.serving.native.emit.text.cleaning import Buffers
from raydistill.serving.native.emit.text.unicode import UnicodeTables
from raydistill.serving.native.layout import (
    ALIGN,
    AT,
    FLOAT32,
    GROUP,
    HEADER_WORDS,
    LAYER_COLUMNS,
    SECTION,
    WINDOW_BYTES_A_CHAR,
    WINDOW_MORE_BYTES,
)
from raydistill.serving.text.trigram_table import TrigramTable, num_slots
from raydistill.serving.units.table import UnitTable

_MATCH, _UNITS, _SIZE, _BAGS = AT["match"], AT["units"], AT["char_ngrams"], AT["bags"]
_DIM, _SHIFT, _GROWTH, _SHORT = AT["dim"], AT["shift"], AT["growth"], AT["short"]
_MAX_QUERY, _MAX_TITLE = AT["max_query"], AT["max_title"]
_VECTOR_TYPE, _WORD_DIM = AT["vector_type"], AT["word_dim"]
_LONGEST, _INCH, _FOOT = AT["longest"], AT["inch"], AT["foot"]
_SQUARE, _CUBIC, _LAYERS = AT["square"], AT["cubic"], SECTION["layers"]
_KINDS, _FOLDS, _FORMS = (SECTION[name] for name in ("kinds", "folds", "forms"))
_IDF, _WORDS, _VECTORS, _PLACES, _NGRAMS, _NGRAM_PLACES = (
    SECTION[name] for name in ("idf", "words", "vectors", "places", "ngrams", "ngram_places")
)
_UNIT_HASHES, _UNIT_PLACES, _UNIT_LETTERS, _UNIT_STARTS, _IS_BEFORE, _IS_LENGTH = (
    *(SECTION[name] for name in ("unit_hashes", "unit_places", "unit_letters", "unit_starts")),
    *(SECTION[name] for name in ("is_before", "is_length")),
)
_UNICODE = tuple(SECTION[name] for name in UnicodeTables._fields)
_TRAIT_BLOCKS, _TRAITS, _SPAN_BLOCKS, _SPANS, _DECOMPOSED, _PAIRS, _PAIR_PLACES = _UNICODE[:7]
_COMPOSED, _NAMES, _NAME_PLACES, _SIGNS, _CONTROLS = _UNICODE[7:]
_MOST_BYTES = 4  # of a character in UTF-8
# What `normalize_units` writes for one character at most, beside two short names with their
# blanks: a number grows by 7 characters (`.` and 6 decimals of a fraction), and there are 5 blanks
# and signs around it.
_MOST_WRITTEN = 13


class Space(NamedTuple):
    """All buffers of a thread."""

    query: Scratch
    title: Scratch
    grams: TrigramTable
    ids: NDArray[np.int32]  # two halves: of a pair, and of the next one
    ends: NDArray[np.int64]  # as `ids`
    buffers: Buffers  # of cleaning
    utf8: NDArray[np.uint8]  # a clean text
    bounds: NDArray[np.int32]  # where a text begins and ends
    vectors: int  # address of the float32 vectors of a pair's words; if stored in another type
    layers: NDArray[np.int64]  # of the model
    own: int  # address of the sum of a query's own n-grams
    x: int  # addresses of the activations of ROWS rows
    first: int
    second: int
    quants: int  # of bytes; and of a float32 a row
    steps: int
    end: int


@emitted
def window(max_chars: int) -> int:
    """The bytes of a raw text that are read; a longer text is cut there before it is cleaned."""
    return WINDOW_BYTES_A_CHAR * max_chars + WINDOW_MORE_BYTES


@emitted
def rounded(num_bytes: int) -> int:
    """The next multiple of ALIGN."""
    return (num_bytes + ALIGN - 1) // ALIGN * ALIGN


@emitted
def _words(at: int, num: int) -> tuple[TextWords, int]:
    """Arrays for `num` words from the address `at` on, as `allocate_words`; and their end."""
    numeric = at + rounded(8 * num)
    match, step = numeric + rounded(num), rounded(4 * num)
    words = TextWords(
        memory.u8(at, num),
        memory.flags(numeric, num),
        memory.i4(match, num),
        memory.f4(match + step, num),
        memory.i4(match + 2 * step, num),
        memory.i4(match + 3 * step, num),
        memory.i4(match + 4 * step, num),
        memory.f4(match + 5 * step, num),
        memory.f4(match + 6 * step, num),
        memory.f4(match + 7 * step, num),
    )
    return words, match + 8 * step


@emitted
def _side(at: int, head: NDArray[np.int64], max_chars: int) -> tuple[Scratch, int]:
    """Buffers of one side, as `featurize._scratch`, with space for any table of units.

    A model's `growth` cannot be checked, since a file has the hashes of names and not their length.
    """
    most = _MOST_BYTES * max_chars + 1
    grown = most * (_MOST_WRITTEN + 2 * (head[_SHORT] + 1)) if head[_UNITS] else most
    words, points = _words(at, grown)
    spelled = points + rounded(4 * most)
    classes = spelled + rounded(4 * grown)
    spaced = classes + rounded(grown)
    grams = spaced + rounded(12 * grown)
    mean = grams + rounded(24 * grown)
    side = Scratch(
        words,
        memory.u4(points, most),
        memory.u4(spelled, grown),
        memory.u1(classes, grown),
        memory.u4(spaced, 3 * grown),
        memory.u8(grams, 3 * grown),
        memory.f4(mean, head[_WORD_DIM]),
    )
    return side, mean + rounded(4 * head[_WORD_DIM])


@emitted
def _grams(at: int, slots: int, num_query: int, num_title: int) -> tuple[TrigramTable, int]:
    """The table of a query's trigrams from the address `at` on; and its end."""
    nexts, step = at + rounded(4 * slots), rounded(4 * num_query)
    found = nexts + 2 * step
    places = found + rounded(num_query)
    table = TrigramTable(
        memory.i4(at, slots),
        memory.i4(nexts, num_query),
        memory.i4(nexts + step, num_query),
        memory.flags(found, num_query),
        memory.i4(places, num_title),
    )
    return table, places + rounded(4 * num_title)


@emitted
def _cleaning(at: int, max_chars: int) -> tuple[Buffers, NDArray[np.uint8], int]:
    # A text of the window has one character for each byte. NFKC makes more of some (U+FDFA: 18);
    # then the rest is truncated, far behind the first `max_chars`.
    num = 2 * window(max_chars) + ALIGN
    step = rounded(4 * num)
    buffers = Buffers(memory.u4(at, num), memory.u4(at + step, num), memory.u4(at + 2 * step, num))
    utf8 = at + 3 * step
    most = _MOST_BYTES * max_chars
    return buffers, memory.u1(utf8, most), utf8 + rounded(most)


@emitted
def widest(layers: NDArray[np.int64]) -> int:
    """The largest number of inputs of a layer."""
    most = 0
    for at in range(0, len(layers), len(LAYER_COLUMNS)):
        most = max(most, layers[at])
    return most


@emitted
def space(at: int, model: int, head: NDArray[np.int64]) -> Space:
    """The buffers from the address `at` on; their end is `end`."""
    layers = memory.i8(model + head[_LAYERS], head[_LAYERS + 1])
    query, at = _side(at, head, head[_MAX_QUERY])
    title, at = _side(at, head, head[_MAX_TITLE])
    num_words = len(query.words.words) + len(title.words.words)
    slots = num_slots(len(query.grams))
    grams, ids_at = _grams(at, slots, len(query.grams), len(title.grams))
    # Per word 2 n-grams and a tagged one, and as many character n-grams as spaced characters; one
    # more id a side.
    ids = memory.i4(ids_at, 2 * (6 * num_words + 2))
    ends_at = ids_at + rounded(4 * len(ids))
    ends = memory.i8(ends_at, 2 * (head[_BAGS] + 1))
    most = max(head[_MAX_QUERY], head[_MAX_TITLE])
    buffers, utf8, vectors = _cleaning(ends_at + rounded(8 * len(ends)), most)
    bounds, vectors = memory.i4(vectors, 2), vectors + ALIGN
    has_copies = head[_VECTOR_TYPE] != FLOAT32
    own = vectors + (rounded(4 * num_words * head[_WORD_DIM]) if has_copies else 0)
    x = own + rounded(4 * head[_DIM])
    most = widest(layers)
    step, quants = rounded(4 * ROWS * most), x + 3 * rounded(4 * ROWS * most)
    steps = quants + rounded(ROWS * (most + GROUP))
    return Space(
        *(query, title, grams, ids, ends, buffers, utf8, bounds, vectors, layers, own),
        *(x, x + step, x + 2 * step, quants, steps, steps + rounded(4 * ROWS)),
    )


class Session(NamedTuple):
    """A model and the buffers of a thread."""

    head: NDArray[np.int64]
    tables: tuple[NDArray[np.uint8], NDArray[np.uint32], NDArray[np.uint32]]
    units: UnitTable
    unicode: UnicodeTables
    lexicon: Lexicon
    layout: Layout
    space: Space


@emitted
def _lexicon(model: int, head: NDArray[np.int64], buffers: Space) -> Lexicon:
    """The lexicon; the vectors of a pair's words are copied, unless they are stored as float32."""
    num, vectors, num_vectors = head[_WORDS + 1], model + head[_VECTORS], head[_WORDS + 1]
    if head[_VECTOR_TYPE] != FLOAT32:
        vectors = buffers.vectors
        num_vectors = len(buffers.query.words.words) + len(buffers.title.words.words)
    return Lexicon(
        memory.f4(model + head[_IDF], head[_IDF + 1]),
        memory.u8(model + head[_WORDS], num),
        memory.matrix_f4(vectors, num_vectors, head[_WORD_DIM]),
        memory.i4(model + head[_PLACES], head[_PLACES + 1]),
        memory.u4(model + head[_NGRAMS], head[_NGRAMS + 1]),
        memory.i4(model + head[_NGRAM_PLACES], head[_NGRAM_PLACES + 1]),
    )


@emitted
def _units(model: int, head: NDArray[np.int64]) -> UnitTable:
    return UnitTable(
        memory.u8(model + head[_UNIT_HASHES], head[_UNIT_HASHES + 1]),
        memory.i8(model + head[_UNIT_PLACES], head[_UNIT_PLACES + 1]),
        memory.u4(model + head[_UNIT_LETTERS], head[_UNIT_LETTERS + 1]),
        memory.i8(model + head[_UNIT_STARTS], head[_UNIT_STARTS + 1]),
        memory.flags(model + head[_IS_BEFORE], head[_IS_BEFORE + 1]),
        memory.flags(model + head[_IS_LENGTH], head[_IS_LENGTH + 1]),
        *(head[_LONGEST], head[_GROWTH]),
        *(head[_INCH], head[_FOOT], head[_SQUARE], head[_CUBIC]),
    )


@emitted
def _unicode(model: int, head: NDArray[np.int64]) -> UnicodeTables:
    return UnicodeTables(
        memory.u2(model + head[_TRAIT_BLOCKS], head[_TRAIT_BLOCKS + 1]),
        memory.u2(model + head[_TRAITS], head[_TRAITS + 1]),
        memory.u2(model + head[_SPAN_BLOCKS], head[_SPAN_BLOCKS + 1]),
        memory.i4(model + head[_SPANS], head[_SPANS + 1]),
        memory.u4(model + head[_DECOMPOSED], head[_DECOMPOSED + 1]),
        memory.u8(model + head[_PAIRS], head[_PAIRS + 1]),
        memory.i4(model + head[_PAIR_PLACES], head[_PAIR_PLACES + 1]),
        memory.u4(model + head[_COMPOSED], head[_COMPOSED + 1]),
        memory.u8(model + head[_NAMES], head[_NAMES + 1]),
        memory.i4(model + head[_NAME_PLACES], head[_NAME_PLACES + 1]),
        memory.u4(model + head[_SIGNS], head[_SIGNS + 1]),
        memory.u4(model + head[_CONTROLS], head[_CONTROLS + 1]),
    )


@emitted
def open_session(model: int, scratch: int) -> Session:
    """The arrays of a model and of scratch memory at their addresses."""
    head = memory.i8(model, HEADER_WORDS)
    buffers = space(scratch, model, head)
    tables = (
        memory.u1(model + head[_KINDS], head[_KINDS + 1]),
        memory.u4(model + head[_FOLDS], head[_FOLDS + 1]),
        memory.u4(model + head[_FORMS], head[_FORMS + 1]),
    )
    layout = Layout(
        head[_MATCH] != 0,
        head[_UNITS] != 0,
        head[_SIZE],
        head[_BAGS],
        np.uint64(head[_SHIFT]),
        head[_GROWTH],
    )
    lexicon = _lexicon(model, head, buffers)
    return Session(
        head, tables, _units(model, head), _unicode(model, head), lexicon, layout, buffers
    )
