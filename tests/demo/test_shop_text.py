"""Texts of the made-up shop: spellings by hand, and all texts of a shop with one saw."""

import random
import re
from typing import Any

import pytest

from raydistill.demo.shop_text import (
    AttributeCatalog,
    Item,
    Writer,
    load_kinds,
    misspell,
    spell_number,
    spell_size,
)

SAW, BLADE = 0, 1

# A saw of 6 inch, also called a cutter, and its blade; titles state the size and nothing else.
WORDS: dict[str, Any] = {
    "brands": ["Dextaro"] * 12,
    "types": {
        "tools": {"saws": {"saw": {"also": ["cutter"], "size": ["in", 6], "parts": ["blade"]}}}
    },
    "units": {"in": ["{} inch"]},
    "palettes": {},
    "synonyms": {},
    "fillers": ["New"],
    "query_fillers": ["best"],
    "title_formats": ["brand name | size"],
    "part_formats": ["part for size main by maker"],
    "title_states": {"size": 1.0},
    "part_states": {"size": 1.0},
    "query_asks": {"size": 1.0},
}


@pytest.fixture
def catalog() -> AttributeCatalog:
    return AttributeCatalog(WORDS, random.Random(0))


@pytest.fixture
def writer(catalog: AttributeCatalog) -> Writer:
    return Writer(catalog, load_kinds(catalog), random.Random(0))


def test_numbers_and_sizes_are_spelled_in_several_ways() -> None:
    assert spell_number(0.5) == ["1/2", "0.5"]
    assert spell_number(1.25) == ["1-1/4", "1 1/4", "1.25"]
    assert spell_number(14.4) == ["14.4"]
    units = {"in": ["{} inch", '{}"'], "ft": ["{} ft"], "bed": ["{} size"]}
    assert spell_size("in", 0.5, units=units) == ["1/2 inch", '1/2"', "0.5 inch", '0.5"']
    assert spell_size("ft", 6, units=units) == ["6 ft", "72 inch", '72"']
    assert spell_size("in", 72, units=units) == ["72 inch", '72"', "6 ft"]
    assert spell_size("bed", "queen", units=units) == ["queen size"]


def test_misspelling_changes_one_letter_of_one_long_word() -> None:
    typed = {misspell("red drill", random.Random(seed)) for seed in range(50)}
    dropped, swapped, doubled = {"dill", "drll"}, {"dirll", "drlil"}, {"drrill", "driill"}
    assert typed == {f"red {word}" for word in dropped | swapped | doubled}
    assert misspell('18v 1/2" saw', random.Random(0)) == '18v 1/2" saw'


def test_an_accessory_follows_its_type_and_is_named_after_it(catalog: AttributeCatalog) -> None:
    saw, blade = load_kinds(catalog)
    assert (saw.names, saw.part, saw.main) == (("saw", "cutter"), "", SAW)
    assert (blade.names, blade.part, blade.main) == (("saw blade", "cutter blade"), "blade", SAW)
    assert {a for a, ids in saw.options.items() if ids} == {"brand", "size"}


def test_titles_state_what_the_item_states(writer: Writer) -> None:
    saw = writer.draw_main(SAW)
    blade = writer.draw_part(BLADE, saw)
    assert list(saw.stated) == ["size"]
    assert blade.stated == saw.stated
    names = {"saw", "saws", "cutter", "cutters"}
    assert {writer.title(saw).lower() for _ in range(500)} == {
        f"{name}{gap}6 inch" for name in names for gap in (", ", " - ", " ")
    }
    # No maker, so no "by" either.
    assert {writer.title(blade).lower() for _ in range(100)} == {
        "blade for 6 inch saw",
        "blade for 6 inch cutter",
    }


def test_a_query_asks_for_its_intent_in_any_order(writer: Writer) -> None:
    intent = writer.draw_main(SAW)
    written = [writer.query(intent) for _ in range(500)]
    names = {"saw", "saws", "cutter", "cutters"}
    assert {text.lower().removeprefix("best ") for text, _ in written} == {
        order for name in names for order in (f"6 inch {name}", f"{name} 6 inch")
    }
    assert all(asked.stated == intent.stated for _, asked in written)


def test_what_does_not_fit_in_a_query_is_not_asked(
    catalog: AttributeCatalog, writer: Writer
) -> None:
    style = catalog.add("style/long", ["heavy duty cast iron"])
    for _ in range(100):
        # 4 words + 6 inch + saw = 7, and a query has 6 at the most: the last one stated goes.
        text, asked = writer.query(Item(SAW, {"style": style} | writer.draw_main(SAW).stated))
        assert asked.stated == {"style": style}
        assert "inch" not in text.lower()


def test_model_numbers_are_new_and_written_in_two_ways(catalog: AttributeCatalog) -> None:
    brand = catalog.add("brand/Dextaro", ["Dextaro"])
    models = [catalog.new_model(brand, random.Random(0)) for _ in range(50)]
    assert len(set(models)) == 50
    for model in models:
        often, again, seldom = catalog.spellings[model]
        assert often == again
        assert re.fullmatch(r"DX-\d{3,4}[BSX]?", often)
        assert seldom == often.replace("-", "")
