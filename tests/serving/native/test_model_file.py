from collections.abc import Callable

import numpy as np
import pytest

from raydistill.errors import UserError
from raydistill.serving.native.emit.model_file import model_bytes
from raydistill.serving.native.int8_layers import int8_layer
from raydistill.serving.native.layout import (
    AT,
    BROKEN,
    CUT_SHORT,
    DAMAGED,
    HEADER_BYTES,
    NO_MODEL,
    OK,
    OTHER_FORMAT,
    SECTION,
    aligned,
    arrays_of,
    checksum,
    describe,
    verify,
)
from raydistill.serving.native.library import Library
from raydistill.serving.numba_scorer import NumbaScorer
from tests.serving.native.cases import default_model, random_bundle, small_model
from tests.serving.native.falsify import header_of, section, sign

pytestmark = pytest.mark.timeout(900)  # where the library is not in the cache
Change = Callable[[np.ndarray], object]


def put(name: str, value: int) -> Change:
    return lambda data: header_of(data).__setitem__(AT[name], value)


def place(name: str, value: int, *, items: bool = False) -> Change:
    return lambda data: header_of(data).__setitem__(SECTION[name] + items, value)


def item(name: str, at: int, value: int) -> Change:
    return lambda data: section(data, name).__setitem__(at, value)


FALSE: list[tuple[str, Change, int]] = [
    ("magic", put("magic", 7), NO_MODEL),
    ("format", put("format", 3), OTHER_FORMAT),
    ("features", put("features", 8), OTHER_FORMAT),
    ("bytes", put("bytes", 4_096), CUT_SHORT),
    *(
        (name, put(name, -1), BROKEN)
        for name in AT
        if name
        in (
            "match",
            "units",
            "char_ngrams",
            "bags",
            "shift",
            "vocabulary",
            "max_query",
            "max_title",
            "dim",
            "table_type",
            "vector_type",
            "word_dim",
            "dense",
            "layers",
            "growth",
            "short",
            "longest",
            "inch",
            "foot",
            "square",
            "cubic",
            "layer_type",
        )
    ),
    *((name, put(name, 2**62), BROKEN) for name in ("max_query", "max_title", "dim", "growth")),
    ("one character", put("char_ngrams", 1), BROKEN),
    ("no bags of characters", put("char_ngrams", 3), BROKEN),
    ("more ids", put("shift", 50), BROKEN),
    *((f"offset of {name}", place(name, 2**60), BROKEN) for name in SECTION),
    *((f"items of {name}", place(name, 2**60, items=True), BROKEN) for name in SECTION),
    *((f"no items of {name}", place(name, -1, items=True), BROKEN) for name in SECTION),
    (
        "not aligned",
        lambda data: place("words", int(header_of(data)[SECTION["words"]]) + 8)(data),
        BROKEN,
    ),
    ("header as words", place("words", 0), BROKEN),
    ("blank no space", item("kinds", 32, 1), BROKEN),
    ("class", item("kinds", 99, 7), BROKEN),
    ("form outside", item("folds", 65, 2**31 + 10**6), BROKEN),
    ("form too long", item("forms", 0, 9), BROKEN),
    ("word outside", item("places", 0, 10**6), BROKEN),
    ("word before", item("places", 0, -2), BROKEN),
    ("no free place", lambda data: section(data, "name_places").fill(0), BROKEN),
    ("pair outside", item("pair_places", 3, 5_000), BROKEN),
    ("trait outside", item("trait_blocks", 9, 5_000), BROKEN),
    ("span block outside", item("span_blocks", 9, 5_000), BROKEN),
    ("span outside", item("spans", 700, 2**31 - 1), BROKEN),
    ("span before", item("spans", 700, -33), BROKEN),
    ("no code point", item("decomposed", 5, 0x110000), BROKEN),
    ("composed to none", item("composed", 5, 0x110000), BROKEN),
    ("sign is none", item("signs", 8, 0xFFFFFFFF), BROKEN),
    ("control", item("controls", 8, 0x110000), BROKEN),
    ("unit outside", item("unit_places", 3, 5_000), BROKEN),
    ("letters outside", item("unit_starts", -1, 5_000), BROKEN),
    ("letters fall", item("unit_starts", 4, 0), BROKEN),
    ("unit without name", item("unit_hashes", 0, 14695981039346656037), BROKEN),
    ("layer too wide", item("layers", 1, 300), BROKEN),
    ("layer of none", item("layers", 1, 0), BROKEN),
    ("weights outside", item("layers", 2, 2**62), BROKEN),
    ("biases outside", item("layers", 3, -64), BROKEN),
    ("int8 without factors", put("layer_type", 2), BROKEN),
]
FALSE_SMALL: list[tuple[str, Change]] = [
    ("weights outside", item("layers", 2, 2**62)),
    ("scales outside", item("layers", 4, -64)),
    ("starts outside", item("layers", 5, 2**40)),
    ("bits of more ids", place("used", 65, items=True)),
    ("counts of fewer ids", place("used_before", 63, items=True)),
    ("fewer rows than bits", item("used_before", -1, 2**12)),
    ("count before 0", item("used_before", 0, 2**32 - 1)),
    ("an id with a row too many", item("used", -1, 2**64 - 1)),
    ("float32 with factors", put("layer_type", 0)),
    ("layers in float16", put("layer_type", 1)),
    ("fewer factors", place("input_factors", 3, items=True)),
]  # fmt: skip


@pytest.mark.parametrize(("name", "change", "code"), FALSE, ids=[name for name, *_ in FALSE])
def test_a_false_number_is_found(library: Library, name: str, change: Change, code: int) -> None:
    data = aligned(default_model())
    change(data)
    sign(data)
    assert library.check(data) == code


@pytest.mark.parametrize(("name", "change"), FALSE_SMALL, ids=[name for name, _ in FALSE_SMALL])
def test_a_false_number_of_a_small_form_is_found(
    library: Library, name: str, change: Change
) -> None:
    data = aligned(small_model())
    assert library.check(data, whole=True) == OK
    change(data)
    sign(data)
    assert library.check(data) == BROKEN


def test_numba_refuses_false_factors_in_words() -> None:
    data, settings = aligned(small_model()), random_bundle(word_dim=8, units=True)[0]
    place("input_factors", 3, items=True)(data)
    sign(data)
    with pytest.raises(UserError, match="the model is damaged"):
        NumbaScorer.from_model({**settings, "threshold": 0.5}, data)


def test_a_vocabulary_must_rise(library: Library) -> None:
    data = aligned(model_bytes(*random_bundle(vocabulary_rows=50)))
    assert library.check(data, whole=True) == OK
    section(data, "ngrams")[[3, 4]] = section(data, "ngrams")[[4, 3]]
    assert library.check(data) == BROKEN


def test_a_file_that_was_cut_is_found(library: Library) -> None:
    data = aligned(default_model())
    for size in (0, 7, 100, HEADER_BYTES - 1, HEADER_BYTES, len(data) // 2, len(data) - 1):
        assert library.check(data[:size]) == CUT_SHORT
    assert library.check(aligned(bytes(4_096))) == NO_MODEL
    with pytest.raises(UserError, match="no model file"):
        describe(data[:100])


def test_a_changed_byte_is_found_by_its_checksum(library: Library) -> None:
    data = aligned(default_model())
    assert library.check(data, whole=True) == OK
    verify(data)
    section(data, "table")[77] += 1
    assert library.check(data) == OK and library.check(data, whole=True) == DAMAGED
    with pytest.raises(UserError, match="checksum differs"):
        verify(data)
    sign(data)
    assert library.check(data, whole=True) == OK


def test_the_checksum_is_the_documented_one() -> None:
    def mix64(value: int) -> int:
        for factor in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
            value = (value ^ (value >> 33)) * factor % 2**64
        return value ^ (value >> 33)

    words = np.arange(70_000, dtype=np.uint64) * np.uint64(2**60 + 5)
    known = [0 if at == 3 else word for at, word in enumerate(words.tolist())]
    golden = 0x9E3779B97F4A7C15
    expected = sum(mix64((word + (at + 1) * golden) % 2**64) for at, word in enumerate(known))
    assert checksum(words) == expected % 2**64
    assert checksum(words[::-1].copy()) != checksum(words)


def test_a_model_file_holds_the_arrays_of_its_bundle() -> None:
    settings, arrays = random_bundle(word_dim=8, units=True)
    found = arrays_of(np.frombuffer(model_bytes(settings, arrays), np.uint8))
    assert (found["table"] == arrays["embedding"]).all()
    for at in range(3):
        outputs, inputs = arrays[f"weight_{at}"].shape
        weights, biases = found[f"weight_{at}"], found[f"bias_{at}"]
        assert (weights[:outputs, :inputs] == arrays[f"weight_{at}"]).all()
        assert (biases[:outputs] == arrays[f"bias_{at}"]).all()
        assert not weights[outputs:].any() and not weights[:, inputs:].any()  # filled with zeros
    for name, stored in (("idf", "idf"), ("words", "words"), ("word_vectors", "vectors")):
        assert (found[stored] == arrays[name]).all()
    header = describe(np.frombuffer(model_bytes(settings, arrays), np.uint8))
    assert header["temperature"] == 1.3 and header["max_title"] == settings["max_title_chars"]


def test_a_smaller_table_makes_a_smaller_file() -> None:
    bundle = random_bundle(word_dim=8, hash_bits=14)
    sizes = {kind: len(model_bytes(*bundle, table=kind)) for kind in ("float32", "float16", "int8")}
    table = 2**14 * 48
    assert sizes["float32"] - sizes["float16"] == 2 * table
    assert sizes["float16"] - sizes["int8"] == table - 4 * 2**14


def test_rows_that_are_not_used_are_left_out() -> None:
    settings, arrays = random_bundle()
    used = np.zeros(2**12, bool)
    used[[3, 64, 65, 4_095]] = True
    data = np.frombuffer(model_bytes(settings, {**arrays, "used": used}), np.uint8)
    found = arrays_of(data)
    assert (found["table"] == arrays["embedding"][[3, 64, 65, 4_095]]).all()
    assert found["used"].tolist() == [8, 3, *[0] * 61, 2**63]
    assert found["used_before"].tolist() == [0, 1, *[3] * 62]


def test_layers_in_int8_are_stored_as_they_are() -> None:
    settings, arrays = random_bundle()
    inputs = arrays["weight_0"].shape[1]
    factors = np.linspace(0.5, 2, inputs, dtype=np.float32)
    data = model_bytes(settings, {**arrays, "input_factors": factors}, layers="int8")
    found = arrays_of(np.frombuffer(data, np.uint8))
    assert (found["input_factors"] == factors).all()
    made = int8_layer(arrays["weight_0"], arrays["bias_0"], factors_I=factors)
    assert (found["weight_0"][:70] == made.weights_OI).all() and not found["weight_0"][70:].any()
    assert (found["scales_0"][:70] == made.scales_O).all()
    assert (found["starts_0"][:70] == made.starts_O).all()
    assert found["weight_2"].dtype == np.float32  # the last layer


def test_what_a_model_file_cannot_have_is_refused() -> None:
    settings, arrays = random_bundle()
    with pytest.raises(ValueError, match="layers is 'float16'"):
        model_bytes(settings, arrays, layers="float16")
    with pytest.raises(UserError, match="max_title_chars is 2,000,000"):
        model_bytes({**settings, "max_title_chars": 2_000_000}, arrays)
    with pytest.raises(UserError, match="no array 'idf'"):
        model_bytes(settings, {name: array for name, array in arrays.items() if name != "idf"})
