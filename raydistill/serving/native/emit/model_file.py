"""Write the model file of a bundle; `layout.py` has its form.

Input: settings and arrays of a bundle, as `Scorer` takes them. What no score needs is left out:
words and vectors of a student without match features.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from raydistill.errors import UserError
from raydistill.serving.bundle_check import check_arrays, check_settings
from raydistill.serving.feature_spec import FORMAT, NgramSpec
from raydistill.serving.lexicon import Lexicon
from raydistill.serving.native.emit.text.unicode import unicode_tables
from raydistill.serving.native.int8_layers import int8_layer, int8_rows
from raydistill.serving.native.layout import (
    ALIGN,
    AT,
    FLOATS,
    GROUP,
    HEADER_BYTES,
    ITEM_TYPES,
    LAYER_COLUMNS,
    MAGIC,
    MODEL_FORMAT,
    MOST_CHARS,
    MOST_LAYERS,
    MOST_WIDTH,
    PANEL,
    SECTION,
    SECTIONS,
    TYPE_FIELDS,
    TYPES,
    checksum,
)
from raydistill.serving.text.characters import character_tables
from raydistill.serving.units.table import unit_table

Arrays = dict[str, NDArray[Any]]


def model_bytes(
    settings: Mapping[str, Any],
    arrays: Mapping[str, NDArray[Any]],
    *,
    table: str = "float32",
    vectors: str = "float16",
    layers: str = "float32",
) -> bytes:
    """The content of `model.rdm`, with the types to store its parts in.

    `table` and `vectors` are "float32", "float16" or "int8"; `layers`, the hidden ones, "float32"
    or "int8". Two arrays are optional: `used`, the ids that keep their row of the table (bool), and
    `input_factors` for int8 layers (`int8_layers.input_factors`; default 1).

    Raises:
        UserError: settings and arrays do not match (`bundle_check.py`), or exceed what a model file
            can have.
    """
    if layers not in ("float32", "int8"):
        raise ValueError(f'layers is {layers!r}; give "float32" or "int8"')
    spec = check_settings(settings)
    num_layers = check_arrays(arrays, spec)
    _check_sizes(settings, arrays, num_layers)
    types = {"table_type": TYPES[table], "vector_type": TYPES[vectors], "layer_type": TYPES[layers]}
    sections = _sections(arrays, spec, types) | _used_bits(arrays.get("used"))
    padded = _padded_layers(arrays, num_layers)
    factors = np.empty(0, np.float32)
    if layers == "int8" and num_layers > 1:
        inputs = padded[0].weights.shape[1]
        factors = arrays.get("input_factors", np.ones(inputs, np.float32))
        padded = _in_int8(padded, factors)
    header = _numbers(settings, arrays, spec) | types | {"layers": num_layers}
    return _joined(header, sections | {"input_factors": factors}, padded)


def _check_sizes(
    settings: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]], num_layers: int
) -> None:
    for name in ("max_query_chars", "max_title_chars"):
        if settings[name] > MOST_CHARS:
            raise UserError(
                f"{name} is {settings[name]:,}; a model file has at most {MOST_CHARS:,}"
            )
    widths = [arrays["embedding"].shape[1], arrays["word_vectors"].shape[1]]
    widths += [size for at in range(num_layers) for size in arrays[f"weight_{at}"].shape]
    if num_layers > MOST_LAYERS or max(widths) > MOST_WIDTH:
        raise UserError(
            f"{num_layers} layers of at most {max(widths):,} columns; a model file has at most "
            f"{MOST_LAYERS} of {MOST_WIDTH:,}"
        )


def _numbers(
    settings: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]], spec: NgramSpec
) -> dict[str, float]:
    units = unit_table(spec.extra_units)
    major, minor, patch = map(int, unicodedata.unidata_version.split("."))
    return {
        **{"magic": MAGIC, "format": MODEL_FORMAT, "features": FORMAT},
        **{"unicode": major << 16 | minor << 8 | patch, "match": spec.has_match},
        **{"units": spec.units, "char_ngrams": spec.char_ngrams, "bags": spec.num_bags},
        **{"shift": 64 - spec.id_bits, "vocabulary": spec.vocabulary_rows},
        **{"max_query": settings["max_query_chars"], "max_title": settings["max_title_chars"]},
        **{"dim": arrays["embedding"].shape[1], "dense": spec.num_dense},
        **{"word_dim": spec.word_dim if spec.has_match else 0},
        **{"growth": units.growth if spec.units else 1, "longest": units.longest},
        **{"short": int(np.diff(units.starts).max())},
        **{name: getattr(units, name) for name in ("inch", "foot", "square", "cubic")},
        **{name: float(settings[name]) for name in FLOATS},
    }


def _sections(
    arrays: Mapping[str, NDArray[Any]], spec: NgramSpec, types: Mapping[str, int]
) -> Arrays:
    lexicon = Lexicon.from_arrays(arrays)
    if not spec.has_match:  # neither words nor vectors are read
        lexicon = Lexicon.from_idf(np.zeros(1, np.float32)).with_ngrams(arrays["ngrams"])
    units = unit_table(spec.extra_units)
    kept = arrays["embedding"][arrays["used"]] if "used" in arrays else arrays["embedding"]
    rows, scales = _stored(kept, types["table_type"])
    vectors, vector_scales = _stored(lexicon.vectors_KE, types["vector_type"])
    found: Arrays = dict(zip(("kinds", "folds", "forms"), character_tables(), strict=True))
    found |= {"idf": lexicon.idf_I, "words": lexicon.words_K, "vectors": vectors}
    found |= {"vector_scales": vector_scales, "places": lexicon.places, "ngrams": lexicon.ngrams_R}
    found |= {"ngram_places": lexicon.ngram_places}
    found |= {"unit_hashes": units.hashes_H, "unit_places": units.places_H}
    found |= {"unit_letters": units.letters, "unit_starts": units.starts}
    found |= {"is_before": units.is_before, "is_length": units.is_length}
    found.update(unicode_tables()._asdict())
    found |= {"dense_mean": arrays["dense_mean"], "dense_std": arrays["dense_std"]}
    return found | {"table": rows, "table_scales": scales}


def _stored(rows: NDArray[np.float32], kind: int) -> tuple[NDArray[Any], NDArray[np.float32]]:
    """Rows in their type, and for int8 the scale of each row: its largest value / 127."""
    none = np.empty(0, np.float32)
    if kind != TYPES["int8"]:
        most = np.finfo(ITEM_TYPES[kind]).max  # of float16 65,504
        return np.clip(rows, -most, most).astype(ITEM_TYPES[kind]), none
    return int8_rows(rows)


def _used_bits(used: NDArray[np.bool_] | None) -> Arrays:
    """The bits of the ids that have a row, and the number of rows before each 64 ids."""
    if used is None:
        return {"used": np.empty(0, np.uint64), "used_before": np.empty(0, np.uint32)}
    whole = np.pad(used, (0, -len(used) % 64))
    counts = whole.reshape(-1, 64).sum(axis=1)
    before = np.concatenate([[0], np.cumsum(counts)[:-1]])
    bits = np.packbits(whole, bitorder="little").view("<u8")
    return {"used": bits, "used_before": before.astype(np.uint32)}


class _Layer(NamedTuple):
    """A layer as stored; `scales` and `starts` of int8 weights only."""

    weights: NDArray[Any]
    biases: NDArray[np.float32]
    scales: NDArray[np.float32] | None = None
    starts: NDArray[np.int32] | None = None


def _padded_layers(arrays: Mapping[str, NDArray[Any]], num_layers: int) -> list[_Layer]:
    """Weights (outputs x inputs) and biases, with zeros up to whole panels of hidden outputs."""
    layers, more_inputs = [], 0
    for at in range(num_layers):
        weights, biases = arrays[f"weight_{at}"], arrays[f"bias_{at}"]
        more = -len(biases) % PANEL if at < num_layers - 1 else 0
        padded = np.pad(weights, ((0, more), (0, more_inputs)))
        layers.append(_Layer(padded, np.pad(biases, (0, more))))
        more_inputs = more
    return layers


def _in_int8(layers: list[_Layer], factors_I: NDArray[np.float32]) -> list[_Layer]:
    *hidden, last = layers
    found = []
    for at, layer in enumerate(hidden):
        made = int8_layer(layer.weights, layer.biases, factors_I=None if at else factors_I)
        found.append(_Layer(made.weights_OI, layer.biases, made.scales_O, made.starts_O))
    return [*found, last]


def _panels(weights: NDArray[Any]) -> bytes:
    """The weights of a layer in their order in the file."""
    outputs, inputs = weights.shape
    if weights.dtype == np.int8:
        whole = np.pad(weights, ((0, 0), (0, -inputs % GROUP)))
        groups = whole.reshape(outputs // PANEL, PANEL, -1, GROUP)
        return groups.swapaxes(1, 2).tobytes()
    panels = weights.reshape(-1, min(outputs, PANEL), inputs)
    return panels.swapaxes(1, 2).astype("<f4").tobytes()


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % ALIGN)


def _joined(
    header: Mapping[str, float],
    sections: Arrays,
    layers: list[_Layer],
) -> bytes:
    """The file: the header with all offsets and the checksum, then the arrays."""
    words = np.zeros(HEADER_BYTES // 8, "<i8")
    offset, parts = HEADER_BYTES, list[bytes]()

    def add(data: bytes) -> int:
        nonlocal offset
        parts.append(_padded(data))
        offset += len(parts[-1])
        return offset - len(parts[-1])

    rows = np.zeros((len(layers), len(LAYER_COLUMNS)), "<i8")
    for at, layer in enumerate(layers):
        places = [add(_panels(layer.weights)), add(layer.biases.astype("<f4").tobytes()), 0, 0]
        if layer.scales is not None and layer.starts is not None:
            places[2:] = add(layer.scales.astype("<f4").tobytes()), add(layer.starts.tobytes())
        rows[at] = (*layer.weights.shape[::-1], *places)
    for name, kind in SECTIONS.items():
        array = rows if name == "layers" else sections[name]
        dtype = kind or ITEM_TYPES[int(header[TYPE_FIELDS[name]])]
        data = np.ascontiguousarray(array).astype(dtype)
        words[SECTION[name] : SECTION[name] + 2] = add(data.tobytes()), data.size
    for name, value in header.items():
        kind = "<f8" if name in FLOATS else "<i8"
        words.view(kind)[AT[name]] = value
    words[AT["bytes"]] = offset
    whole = words.tobytes() + b"".join(parts)
    words.view("<u8")[AT["checksum"]] = checksum(np.frombuffer(whole, "<u8"))
    return words.tobytes() + whole[HEADER_BYTES:]
