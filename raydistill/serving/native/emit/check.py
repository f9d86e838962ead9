"""Whether bytes in memory are a model that the library can read: `rd_check` and `rd_verify`.

Every number, offset and index that another function follows is checked here, so that these need no
checks. The floats of tables and layers are not read: any value of them is safe.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from raydistill.serving.feature_spec import FORMAT, VOCABULARY_BITS
from raydistill.serving.machine_code.emitted import emitted
from raydistill.serving.match_features import NUM_DENSE
from raydistill.serving.native.emit import memory
from raydistill.serving.native.emit.text.unicode import (
    BLOCK_BITS,
    FIRST_CONTROL,
    LAST_CONTROL,
    LENGTH_BITS,
    MOST_PARTS,
    NONE,
    NUM_POINTS,
    signed,
)
from raydistill.serving.native.layout import (
    ALIGN,
    ARGUMENT,
    AT,
    BROKEN,
    CUT_SHORT,
    DAMAGED,
    FLOAT32,
    GROUP,
    HEADER_BYTES,
    HEADER_WORDS,
    INT8,
    ITEM_TYPES,
    LAYER_COLUMNS,
    MAGIC,
    MODEL_FORMAT,
    MOST_CHARS,
    MOST_LAYERS,
    MOST_WIDTH,
    NO_MODEL,
    OK,
    OTHER_FORMAT,
    PANEL,
    SECTION,
    SECTIONS,
    TYPE_FIELDS,
)
from raydistill.serving.text.characters import LONG, MARK, SPACE, TABLE_SIZE
from raydistill.serving.text.hashing import FNV_OFFSET, mix64

# The header's numbers that the whole range of int64 is not allowed for: (word, least, most).
_RANGES = np.array(
    [
        *((AT["match"], 0, 1), (AT["units"], 0, 1), (AT["char_ngrams"], 0, 6)),
        *((AT["shift"], 34, 63), (AT["vocabulary"], 0, 1 << VOCABULARY_BITS)),
        *((AT["max_query"], 1, MOST_CHARS), (AT["max_title"], 1, MOST_CHARS)),
        *((AT["dim"], 1, MOST_WIDTH), (AT["word_dim"], 0, MOST_WIDTH)),
        *((AT["table_type"], 0, INT8), (AT["vector_type"], 0, INT8)),
        *((AT["layers"], 1, MOST_LAYERS), (AT["growth"], 1, 64), (AT["short"], 1, 64)),
        (AT["longest"], 1, 64),
    ],
    np.int64,
)
# The places of sections in the header and the bytes of an item; 0: by the type in another word.
_ITEMS = np.array(
    [
        (SECTION[name], np.dtype(kind).itemsize if kind else 0, AT[TYPE_FIELDS.get(name, "match")])
        for name, kind in SECTIONS.items()
    ],
    np.int64,
)
_TYPE_BYTES = np.array([np.dtype(kind).itemsize for kind in ITEM_TYPES], np.int64)
# Pairs of sections with equally many items.
_EQUAL = np.array(
    [
        *((SECTION["kinds"], SECTION["folds"]), (SECTION["unit_hashes"], SECTION["unit_places"])),
        *((SECTION["is_before"], SECTION["is_length"]), (SECTION["pairs"], SECTION["composed"])),
        (SECTION["dense_mean"], SECTION["dense_std"]),
    ],
    np.int64,
)
# Hash tables: (places, what they index).
_HASHED = np.array(
    [
        *((SECTION["places"], SECTION["words"]), (SECTION["ngram_places"], SECTION["ngrams"])),
        *((SECTION["pair_places"], SECTION["pairs"]), (SECTION["name_places"], SECTION["names"])),
    ],
    np.int64,
)
_BLOCKS = np.array(
    [
        (SECTION["trait_blocks"], SECTION["traits"]),
        (SECTION["span_blocks"], SECTION["spans"]),
    ],
    np.int64,
)
# Arrays of code points.
_POINTS = np.array([SECTION["decomposed"], SECTION["composed"], SECTION["signs"],
                    SECTION["controls"]], np.int64)  # fmt: skip
_UNIT_FIELDS = np.array([AT[name] for name in ("inch", "foot", "square", "cubic")], np.int64)
_MATCH, _SIZE, _BAGS, _SHIFT = AT["match"], AT["char_ngrams"], AT["bags"], AT["shift"]
_VOCABULARY, _DIM, _WORD_DIM, _DENSE = AT["vocabulary"], AT["dim"], AT["word_dim"], AT["dense"]
_NUM_LAYERS, _SHORT = AT["layers"], AT["short"]
_TABLE_TYPE, _VECTOR_TYPE = AT["table_type"], AT["vector_type"]
_FORMAT, _FEATURES, _BYTES, _CHECKSUM = (
    AT[name] for name in ("format", "features", "bytes", "checksum")
)
_KINDS, _FOLDS, _FORMS, _IDF = (SECTION[name] for name in ("kinds", "folds", "forms", "idf"))
_WORDS, _VECTORS, _VECTOR_SCALES, _NGRAMS = (
    SECTION[name] for name in ("words", "vectors", "vector_scales", "ngrams")
)
_HASHES, _UNIT_PLACES, _LETTERS, _STARTS, _IS_BEFORE = (
    SECTION[name]
    for name in ("unit_hashes", "unit_places", "unit_letters", "unit_starts", "is_before")
)
_SPANS, _DECOMPOSED, _NAMES, _SIGNS, _CONTROLS = (
    SECTION[name] for name in ("spans", "decomposed", "names", "signs", "controls")
)
_MEAN, _TABLE, _SCALES, _LAYERS = (
    SECTION[name] for name in ("dense_mean", "table", "table_scales", "layers")
)
_LAYER_TYPE, _USED, _USED_BEFORE, _FACTORS = (
    AT["layer_type"],
    *(SECTION[name] for name in ("used", "used_before", "input_factors")),
)
_INPUTS, _OUTPUTS, _WEIGHTS, _BIASES, _SCALES_AT, _STARTS_AT = range(len(LAYER_COLUMNS))
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_ROW = len(LAYER_COLUMNS)

Head = NDArray[np.int64]


@emitted
def check(model: int, num_bytes: int) -> int:
    """OK, or the code of what is wrong."""
    if model == 0 or model % ALIGN != 0 or num_bytes < 0:
        return ARGUMENT
    if num_bytes >= 8 and memory.i8(model, 1)[0] != MAGIC:
        return NO_MODEL
    if num_bytes < HEADER_BYTES:
        return CUT_SHORT
    head = memory.i8(model, HEADER_WORDS)
    if head[_FORMAT] != MODEL_FORMAT or head[_FEATURES] != FORMAT:
        return OTHER_FORMAT
    if head[_BYTES] != num_bytes or num_bytes % ALIGN != 0:
        return CUT_SHORT
    if not (_has_ranges(head) and _has_sections(head, num_bytes) and _has_sizes(head)):
        return BROKEN
    if not (_has_layers(model, head, num_bytes) and _has_used(model, head)):
        return BROKEN
    if not _has_characters(model, head):
        return BROKEN
    if not (_has_lexicon(model, head) and _has_units(model, head) and _has_unicode(model, head)):
        return BROKEN
    return OK


@emitted
def verify(model: int, num_bytes: int) -> int:
    """`check`, and the checksum: `layout.checksum`."""
    code = check(model, num_bytes)
    if code != OK:
        return code
    words, total = memory.u8(model, num_bytes // 8), np.uint64(0)
    for at in range(len(words)):
        word = np.uint64(0) if at == _CHECKSUM else words[at]
        total += mix64(word + np.uint64(at + 1) * _GOLDEN)
    return OK if total == words[_CHECKSUM] else DAMAGED


@emitted
def _has_ranges(head: Head) -> bool:
    for at in range(len(_RANGES)):
        if not _RANGES[at, 1] <= head[_RANGES[at, 0]] <= _RANGES[at, 2]:
            return False
    has_match, size = head[_MATCH], head[_SIZE]
    if size == 1 or head[_BAGS] != 1 + has_match + (2 if size else 0):
        return False
    if head[_LAYER_TYPE] != FLOAT32 and head[_LAYER_TYPE] != INT8:
        return False
    num_dense = NUM_DENSE + 2 * head[_WORD_DIM] if has_match else 0
    return bool(head[_DENSE] == num_dense and (has_match or head[_WORD_DIM] == 0))


@emitted
def _has_sections(head: Head, num_bytes: int) -> bool:
    """Whether every section is within the file."""
    for at in range(len(_ITEMS)):
        offset, items = head[_ITEMS[at, 0]], head[_ITEMS[at, 0] + 1]
        size = _ITEMS[at, 1]
        if size == 0:
            size = _TYPE_BYTES[head[_ITEMS[at, 2]]]
        if not _is_within(offset, items, size, num_bytes):
            return False
    return True


@emitted
def _is_within(offset: int, items: int, size: int, num_bytes: int) -> bool:
    if offset < HEADER_BYTES or offset > num_bytes or offset % ALIGN != 0:
        return False
    return 0 <= items <= (num_bytes - offset) // size


@emitted
def _is_power_of_two(value: int) -> bool:
    return value > 0 and value & (value - 1) == 0


@emitted
def _has_sizes(head: Head) -> bool:
    """Whether the sections have the sizes that the header and other sections want."""
    for at in range(len(_EQUAL)):
        if head[_EQUAL[at, 0] + 1] != head[_EQUAL[at, 1] + 1]:
            return False
    for at in range(len(_HASHED)):
        if not _is_power_of_two(head[_HASHED[at, 0] + 1]):
            return False
    for at in range(len(_BLOCKS)):
        blocks, values = head[_BLOCKS[at, 0] + 1], head[_BLOCKS[at, 1] + 1]
        if blocks != NUM_POINTS >> BLOCK_BITS or values & ((1 << BLOCK_BITS) - 1) != 0:
            return False
    num_rows, num_ids = head[_TABLE + 1] // head[_DIM], _num_ids(head)
    num_scales = num_rows if head[_TABLE_TYPE] == INT8 else 0
    is_right = head[_KINDS + 1] == TABLE_SIZE and _is_power_of_two(head[_IDF + 1])
    is_right &= head[_VECTORS + 1] == head[_WORDS + 1] * head[_WORD_DIM]
    num_words = head[_WORDS + 1] if head[_VECTOR_TYPE] == INT8 else 0
    is_right &= head[_VECTOR_SCALES + 1] == num_words
    is_right &= head[_NGRAMS + 1] <= head[_VOCABULARY]
    is_right &= head[_TABLE + 1] == num_rows * head[_DIM] and head[_SCALES + 1] == num_scales
    num_words = (num_ids + 63) // 64 if head[_USED + 1] else 0
    is_right &= head[_USED + 1] == num_words and head[_USED_BEFORE + 1] == num_words
    is_right &= num_words > 0 or num_rows == num_ids
    width = head[_BAGS] * head[_DIM] + head[_DENSE]
    has_factors = head[_LAYER_TYPE] == INT8 and head[_NUM_LAYERS] > 1
    is_right &= head[_FACTORS + 1] == (width if has_factors else 0)
    is_right &= head[_MEAN + 1] == head[_DENSE] and head[_SIGNS + 1] == 2 * head[_NAMES + 1]
    is_right &= head[_CONTROLS + 1] == LAST_CONTROL - FIRST_CONTROL + 1
    is_right &= head[_STARTS + 1] == head[_IS_BEFORE + 1] + 1
    return bool(is_right and head[_LAYERS + 1] == _ROW * head[_NUM_LAYERS])


@emitted
def _num_ids(head: Head) -> int:
    return signed(head[_VOCABULARY] if head[_VOCABULARY] else 1 << (64 - head[_SHIFT]))


@emitted
def _has_used(model: int, head: Head) -> bool:
    """Whether every id that has a row has one of the table."""
    used = memory.u8(model + head[_USED], head[_USED + 1])
    before = memory.u4(model + head[_USED_BEFORE], head[_USED_BEFORE + 1])
    num_rows, is_right = head[_TABLE + 1] // head[_DIM], True
    for at in range(len(used)):
        is_right &= signed(before[at]) + memory.num_bits(used[at]) <= num_rows
    return is_right


@emitted
def _has_layers(model: int, head: Head, num_bytes: int) -> bool:
    layers = memory.i8(model + head[_LAYERS], head[_LAYERS + 1])
    width = head[_BAGS] * head[_DIM] + head[_DENSE]
    for at in range(0, len(layers), _ROW):
        inputs, outputs = layers[at + _INPUTS], layers[at + _OUTPUTS]
        if inputs != width or not 1 <= outputs <= MOST_WIDTH:
            return False
        if at + _ROW < len(layers) and outputs % PANEL != 0:
            return False
        if head[_LAYER_TYPE] == INT8 and at + _ROW < len(layers):
            if not _has_int8_weights(layers[at : at + _ROW], num_bytes):
                return False
        elif not _is_within(layers[at + _WEIGHTS], inputs * outputs, 4, num_bytes):
            return False
        if not _is_within(layers[at + _BIASES], outputs, 4, num_bytes):
            return False
        width = outputs
    return bool(width == 1)


@emitted
def _has_int8_weights(layer: Head, num_bytes: int) -> bool:
    outputs, groups = layer[_OUTPUTS], (layer[_INPUTS] + GROUP - 1) // GROUP
    is_right = _is_within(layer[_WEIGHTS], GROUP * groups * outputs, 1, num_bytes)
    is_right &= _is_within(layer[_SCALES_AT], outputs, 4, num_bytes)
    return is_right & _is_within(layer[_STARTS_AT], outputs, 4, num_bytes)


@emitted
def _has_characters(model: int, head: Head) -> bool:
    """Whether no folded form is longer than its character in UTF-8, and a blank is white space."""
    kinds = memory.u1(model + head[_KINDS], head[_KINDS + 1])
    folds = memory.u4(model + head[_FOLDS], head[_FOLDS + 1])
    forms = memory.u4(model + head[_FORMS], head[_FORMS + 1])
    is_right = kinds[32] == SPACE
    for code in range(len(kinds)):
        is_right &= kinds[code] <= MARK
    for code in range(len(folds)):
        place = signed(folds[code]) - LONG
        if place < 0:
            continue
        if place >= len(forms):
            return False
        num = signed(forms[place])
        most = 1 if code < 0x80 else 2 if code < 0x800 else 3 if code < 0x10000 else 4
        is_right &= num <= most and place + num < len(forms)
    return bool(is_right)


@emitted
def _has_lexicon(model: int, head: Head) -> bool:
    """Whether all hash tables index their arrays and have a free place, and n-grams rise."""
    for at in range(len(_HASHED)):
        places = memory.i4(model + head[_HASHED[at, 0]], head[_HASHED[at, 0] + 1])
        num, least, most = head[_HASHED[at, 1] + 1], np.int32(0), np.int32(-1)
        for place in range(len(places)):
            least, most = min(least, places[place]), max(most, places[place])
        if least != -1 or most >= num:
            return False
    ngrams = memory.u4(model + head[_NGRAMS], head[_NGRAMS + 1])
    is_right = len(ngrams) == 0 or signed(ngrams[len(ngrams) - 1]) < 1 << VOCABULARY_BITS
    for at in range(1, len(ngrams)):
        is_right &= ngrams[at - 1] < ngrams[at]
    return is_right


@emitted
def _has_units(model: int, head: Head) -> bool:
    """Whether names and letters of units are in range, and no name is empty."""
    num_units, num_letters = head[_IS_BEFORE + 1], head[_LETTERS + 1]
    hashes = memory.u8(model + head[_HASHES], head[_HASHES + 1])
    places = memory.i8(model + head[_UNIT_PLACES], head[_UNIT_PLACES + 1])
    starts = memory.i8(model + head[_STARTS], head[_STARTS + 1])
    is_right = starts[0] >= 0 and starts[num_units] <= num_letters
    for at in range(num_units):
        is_right &= 0 <= starts[at + 1] - starts[at] <= head[_SHORT]
        is_right &= starts[at] <= num_letters
    for at in range(len(hashes)):
        is_right &= 0 <= places[at] < num_units
        # The hash of no letters: a unit of no characters would be found without end.
        is_right &= hashes[at] != FNV_OFFSET and (at == 0 or hashes[at - 1] < hashes[at])
    for at in range(len(_UNIT_FIELDS)):
        is_right &= 0 <= head[_UNIT_FIELDS[at]] < num_units
    return bool(is_right)


@emitted
def _has_unicode(model: int, head: Head) -> bool:
    """Whether all blocks and spans are in range, and code points are below 0x110000."""
    for at in range(len(_BLOCKS)):
        blocks = memory.u2(model + head[_BLOCKS[at, 0]], head[_BLOCKS[at, 0] + 1])
        num = head[_BLOCKS[at, 1] + 1] >> BLOCK_BITS
        for block in range(len(blocks)):
            if blocks[block] >= num:
                return False
    spans, is_right = memory.i4(model + head[_SPANS], head[_SPANS + 1]), True
    for at in range(len(spans)):
        span = signed(spans[at])
        end = (span >> LENGTH_BITS) + (span & MOST_PARTS)
        is_right &= span >= 0 and end <= head[_DECOMPOSED + 1]
    for at in range(len(_POINTS)):
        points = memory.u4(model + head[_POINTS[at]], head[_POINTS[at] + 1])
        may_be_none = _POINTS[at] == _SIGNS or _POINTS[at] == _CONTROLS
        for place in range(len(points)):
            is_right &= points[place] < NUM_POINTS or (may_be_none and points[place] == NONE)
    signs = memory.u4(model + head[_SIGNS], head[_SIGNS + 1])
    for at in range(0, len(signs), 2):
        is_right &= signs[at] < NUM_POINTS
    return is_right
