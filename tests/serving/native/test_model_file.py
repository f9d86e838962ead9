from collections.abc import Callable

import numpy as np
import pytest

from raydistill.errors import UserError
from raydistill.serving.native.emit.model_file import model_bytes
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
from tests.serving.native.cases import default_model, random_bundle
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
    ("format", put("format", 2), OTHER_FORMAT),
    ("features", put("features", 8), OTHER_FORMAT),
    ("bytes", put("bytes", 4_096), CUT_SHORT),
    *((name, put(name, -1), BROKEN) for name in AT if name in (
        "match", "units", "char_ngrams", "bags", "shift", "vocabulary", "max_query", "max_title",
        "dim", "table_type", "vector_type", "word_dim", "dense", "layers", "growth", "short",
        "longest", "inch", "foot", "square", "cubic",
    )),
    *((name, put(name, 2**62), BROKEN) for name in ("max_query", "max_title", "dim", "growth")),
    ("one character", put("char_ngrams", 1), BROKEN),
    ("no bags of characters", put("char_ngrams", 3), BROKEN),
    ("more ids", put("shift", 50), BROKEN),
    *((f"offset of {name}", place(name, 2**60), BROKEN) for name in SECTION),
    *((f"items of {name}", place(name, 2**60, items=True), BROKEN) for name in SECTION),
    *((f"no items of {name}", place(name, -1, items=True), BROKEN) for name in SECTION),
    ("not aligned", lambda data: place("words", int(header_of(data)[SECTION["words"]]) + 8)(data),
     BROKEN),
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
]  # fmt: skip


@pytest.mark.parametrize(("name", "change", "code"), FALSE, ids=[name for name, *_ in FALSE])
def test_a_false_number_is_found(library: Library, name: str, change: Change, code: int) -> None:
    data = aligned(default_model())
    change(data)
    sign(data)
    assert library.check(data) == code


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


def test_what_a_model_file_cannot_have_is_refused() -> None:
    settings, arrays = random_bundle()
    with pytest.raises(UserError, match="max_title_chars is 2,000,000"):
        model_bytes({**settings, "max_title_chars": 2_000_000}, arrays)
    with pytest.raises(UserError, match="no array 'idf'"):
        model_bytes(settings, {name: array for name, array in arrays.items() if name != "idf"})
