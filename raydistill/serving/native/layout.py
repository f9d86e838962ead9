"""The layout of a model file (`model.rdm`), and its views. Imports only NumPy.

All numbers are little-endian. The file is a header of 128 words of 8 bytes, then the arrays of
SECTIONS, each at a multiple of 64 bytes with zeros between them. The header's words:

    0      the bytes "RAYDISTL"
    1      the version of this layout, MODEL_FORMAT
    2      the bytes of the file
    3      the checksum: `checksum`
    4      the Unicode version of the tables: major * 65536 + minor * 256 + patch
    5      the version of the features, `feature_spec.FORMAT`
    6..    the numbers of FIELDS, in this order; temperature and threshold are float64
    40..   for each array of SECTIONS two words: its offset in the file and its number of items

`used` is empty, or has a bit for each n-gram id (for its place, with a vocabulary): only ids whose
bit is set have a row of the table, and `used_before` counts the set bits before each 64 ids.

`layers` has a row of LAYER_COLUMNS int64 a layer; weights and biases are float32, at the offsets in
the row. A hidden layer has a multiple of 16 outputs (zeros fill it), and its weights are panels of
16 outputs: `outputs / 16 x inputs x 16`. The last layer has one output and a weight for each input.
With `layer_type` INT8 the hidden layers are those of `int8_layers.py`: panels of int8 weights,
`outputs / 16 x inputs / 4 x 16 x 4` (zeros fill the inputs), float32 scales and int32 starts.

The structure is checked whenever a file is mapped (`rd_check`), which reads the index tables only.
The checksum reads the file whole: it is for a file that was copied (`rd_verify`, `verify`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raydistill.errors import UserError

MAGIC = int.from_bytes(b"RAYDISTL", "little")
MODEL_FORMAT = 2
HEADER_WORDS, ALIGN = 128, 64
HEADER_BYTES = 8 * HEADER_WORDS
FIELDS = (
    *("magic", "format", "bytes", "checksum", "unicode", "features"),
    *("match", "units", "char_ngrams", "bags", "shift", "vocabulary", "max_query", "max_title"),
    *("dim", "table_type", "vector_type", "word_dim", "dense", "layers"),
    *("growth", "short", "longest", "inch", "foot", "square", "cubic"),
    *("temperature", "threshold", "layer_type"),
)
AT = {name: at for at, name in enumerate(FIELDS)}
FLOATS = ("temperature", "threshold")
# Types of the embedding table, of the word vectors and of the hidden layers. INT8 has a float32
# scale a row.
FLOAT32, FLOAT16, INT8 = range(3)
TYPES = {"float32": FLOAT32, "float16": FLOAT16, "int8": INT8}
ITEM_TYPES = ("<f4", "<f2", "<i1")
_ANY = ""  # the header has the type
SECTIONS = {
    # characters.character_tables
    **{"kinds": "<u1", "folds": "<u4", "forms": "<u4"},
    # lexicon.Lexicon
    **{"idf": "<f4", "words": "<u8", "vectors": _ANY, "vector_scales": "<f4", "places": "<i4"},
    **{"ngrams": "<u4", "ngram_places": "<i4"},
    # unit_table.UnitTable
    **{"unit_hashes": "<u8", "unit_places": "<i8", "unit_letters": "<u4", "unit_starts": "<i8"},
    **{"is_before": "<u1", "is_length": "<u1"},
    # unicode.UnicodeTables
    **{"trait_blocks": "<u2", "traits": "<u2", "span_blocks": "<u2", "spans": "<i4"},
    **{"decomposed": "<u4", "pairs": "<u8", "pair_places": "<i4", "composed": "<u4"},
    **{"names": "<u8", "name_places": "<i4", "signs": "<u4", "controls": "<u4"},
    # the student
    **{"dense_mean": "<f4", "dense_std": "<f4", "table": _ANY, "table_scales": "<f4"},
    **{"used": "<u8", "used_before": "<u4", "input_factors": "<f4"},
    "layers": "<i8",
}
TYPE_FIELDS = {"vectors": "vector_type", "table": "table_type"}
FIRST_SECTION = 40
SECTION = {name: FIRST_SECTION + 2 * at for at, name in enumerate(SECTIONS)}
# `scales` and `starts` are 0 where the weights are float32.
LAYER_COLUMNS = ("inputs", "outputs", "weights", "biases", "scales", "starts")
PANEL = 16  # outputs of a hidden layer whose weights are side by side
GROUP = 4  # inputs of a hidden layer whose int8 weights are side by side
MOST_LAYERS, MOST_WIDTH = 32, 2**16  # of the network, and columns of a table
MOST_CHARS = 2**20  # of max_query and max_title: scratch memory grows with them
LIBRARY, OBJECT = "libraydistill-{}.so", "raydistill-{}.o"  # files of the library, by target
DOT = "rd_dot"  # the function in the library that is written for each CPU
# What the library's functions return: raydistill.h.
OK, NO_MODEL, OTHER_FORMAT, CUT_SHORT, BROKEN, DAMAGED, ARGUMENT = range(7)
FAILED = -1
# Of a raw text with a limit of n characters the first 16 n + 4,096 bytes are read.
WINDOW_BYTES_A_CHAR, WINDOW_MORE_BYTES = 16, 4_096
_GOLDEN, _MIX_1, _MIX_2 = 0x9E3779B97F4A7C15, 0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53
_CHUNK = 1 << 16  # words: temporary arrays stay in the cache


def checksum(words: NDArray[np.uint64]) -> int:
    """The checksum of a file's words: the sum of mix64(word + (index + 1) * golden), mod 2^64.

    Word 3, the checksum itself, counts as 0. mix64 is that of `hashing.py`; golden is
    0x9E3779B97F4A7C15. Any one changed word changes the sum.
    """
    total = 0
    for start in range(0, len(words), _CHUNK):
        part = words[start : start + _CHUNK].copy()
        if start == 0:
            part[AT["checksum"]] = 0
        part += np.arange(start + 1, start + 1 + len(part), dtype=np.uint64) * np.uint64(_GOLDEN)
        for factor in (_MIX_1, _MIX_2):
            part ^= part >> np.uint64(33)
            part *= np.uint64(factor)
        part ^= part >> np.uint64(33)
        total += int(part.sum(dtype=np.uint64))
    return total % 2**64


def describe(data: NDArray[np.uint8]) -> dict[str, Any]:
    """The numbers in the header of a model file.

    Raises:
        UserError: it is no model file, or one of another version.
    """
    if len(data) < HEADER_BYTES or int(data[:8].view("<u8")[0]) != MAGIC:
        raise UserError(f"{len(data):,} bytes that are no model file (model.rdm); export again")
    words = data[:HEADER_BYTES].view("<i8")
    if words[AT["format"]] != MODEL_FORMAT:
        raise UserError(
            f"a model file of version {words[AT['format']]}; this raydistill reads {MODEL_FORMAT}"
        )
    header: dict[str, Any] = {name: int(words[at]) for name, at in AT.items()}
    header |= {name: float(words.view("<f8")[AT[name]]) for name in FLOATS}
    header["checksum"] %= 2**64  # the only number without a sign
    return header


def arrays_of(data: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
    """Views of the arrays in a model file that `rd_check` has accepted, by their names."""
    header, words = describe(data), data[:HEADER_BYTES].view("<i8")
    found = {}
    for name, kind in SECTIONS.items():
        offset, items = (int(word) for word in words[SECTION[name] : SECTION[name] + 2])
        dtype = np.dtype(kind or ITEM_TYPES[header[TYPE_FIELDS[name]]])
        found[name] = data[offset : offset + items * dtype.itemsize].view(dtype)
    found["table"] = found["table"].reshape(-1, header["dim"])
    found["vectors"] = found["vectors"].reshape(len(found["words"]), header["word_dim"])
    for at, row in enumerate(found["layers"].reshape(-1, len(LAYER_COLUMNS)).tolist()):
        is_int8 = header["layer_type"] == INT8 and at < header["layers"] - 1
        layer = _int8_arrays(data, row) if is_int8 else _float32_arrays(data, row)
        found |= {f"{name}_{at}": values for name, values in layer.items()}
    return found


def _float32_arrays(data: NDArray[np.uint8], row: list[int]) -> dict[str, NDArray[Any]]:
    inputs, outputs, weights, biases, _, _ = row
    panels = _part(data, weights, "<f4", inputs * outputs).reshape(-1, inputs, min(outputs, PANEL))
    weight = panels.swapaxes(1, 2).reshape(outputs, inputs)
    return {"weight": weight, "bias": _part(data, biases, "<f4", outputs)}


def _int8_arrays(data: NDArray[np.uint8], row: list[int]) -> dict[str, NDArray[Any]]:
    inputs, outputs, weights, biases, scales, starts = row
    groups = -(-inputs // GROUP)
    panels = _part(data, weights, "<i1", GROUP * groups * outputs)
    whole = panels.reshape(-1, groups, PANEL, GROUP).swapaxes(1, 2).reshape(outputs, -1)
    return {
        "weight": whole[:, :inputs],
        "bias": _part(data, biases, "<f4", outputs),
        "scales": _part(data, scales, "<f4", outputs),
        "starts": _part(data, starts, "<i4", outputs),
    }


def _part(data: NDArray[np.uint8], offset: int, kind: str, num: int) -> NDArray[Any]:
    dtype = np.dtype(kind)
    return data[offset : offset + num * dtype.itemsize].view(dtype)


def read_model(file: Path) -> NDArray[np.uint8]:
    """The bytes of a file, mapped: processes that read one file share its memory.

    Raises:
        UserError: the file cannot be read or has no bytes.
    """
    try:
        return np.memmap(file, np.uint8, "r")
    except (OSError, ValueError) as error:
        raise UserError(f"{file} cannot be read ({error}); export the bundle again") from error


def aligned(data: bytes) -> NDArray[np.uint8]:
    """The bytes of a model file at a multiple of 64, as the library wants them; a copy."""
    memory = np.empty(len(data) + ALIGN, np.uint8)
    start = -memory.ctypes.data % ALIGN
    found = memory[start : start + len(data)]
    found[:] = np.frombuffer(data, np.uint8)
    return found


def verify(data: NDArray[np.uint8]) -> None:
    """Compare the checksum of a model file; reads the whole file.

    Raises:
        UserError: it differs, or the file has another length.
    """
    header = describe(data)
    if header["bytes"] != len(data) or len(data) % 8:
        raise UserError(f"a model file of {len(data):,} bytes, not {header['bytes']:,}; copy again")
    if checksum(data.view("<u8")) != header["checksum"]:
        raise UserError("the model file is damaged: its checksum differs; copy it again")
