"""The texts of a fictitious shop: word lists and a random stream to titles and queries.

Each text comes with the ids of what it states (`Item`). Relevance is computed elsewhere
(`shop.relevance`).
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# Attributes that a product may state besides its type.
ATTRIBUTES = ("brand", "colour", "material", "style", "pack", "size", "model")

# Placeholders in a title format; other words are written as they are.
_FIELDS = {*ATTRIBUTES, "name", "filler", "part", "main", "maker"}

_MAX_QUERY_WORDS = 6


def spell_number(value: float) -> list[str]:
    """Spellings of a number: 0.5 is 1/2 and 0.5; 1.5 is 1-1/2, 1 1/2 and 1.5."""
    whole, part = divmod(value, 1)
    top, bottom = part.as_integer_ratio()
    if bottom not in (2, 4, 8):
        return [f"{value:g}"]
    if whole == 0:
        return [f"{top}/{bottom}", f"{value:g}"]
    return [f"{whole:g}-{top}/{bottom}", f"{whole:g} {top}/{bottom}", f"{value:g}"]


def spell_size(unit: str, value: float | str, *, units: Mapping[str, Sequence[str]]) -> list[str]:
    """Spellings of a measure; 6 ft is also 72 in, and the reverse.

    Args:
        unit: a key of `units`.
        value: a number, or a word such as queen.
        units: spellings of each unit; {} is replaced by the number.
    """
    if isinstance(value, str):
        return [form.format(value) for form in units[unit]]
    same = [(unit, value)]
    if unit == "ft" and value <= 10:
        same.append(("in", value * 12))
    if unit == "in" and value >= 36 and value % 12 == 0:
        same.append(("ft", value / 12))
    return [form.format(n) for u, v in same for n in spell_number(v) for form in units[u]]


def misspell(text: str, chance: random.Random) -> str:
    """Drop, swap or double one letter of a word with five or more letters, if there is one."""
    words = text.split(" ")
    long = [i for i, word in enumerate(words) if len(word) >= 5 and word.isalpha()]
    if long:
        i = chance.choice(long)
        at = chance.randrange(1, len(words[i]) - 2)
        head, a, b, tail = words[i][:at], words[i][at], words[i][at + 1], words[i][at + 2 :]
        words[i] = head + chance.choice([b, b + a, a + a + b]) + tail
    return " ".join(words)


def _plural(name: str) -> str:
    if name.endswith(("s", "f", "y")):
        return name
    return name + ("es" if name.endswith(("x", "ch", "sh")) else "s")


def _capitalised(text: str) -> str:
    # str.title would lowercase the rest: LED -> Led, 5000mAh -> 5000Mah.
    return " ".join(word[:1].upper() + word[1:] for word in text.split(" "))


@dataclass(frozen=True, eq=False)
class Kind:
    """A product type. An accessory has a `part`: its name beside the name of its `main` kind."""

    names: tuple[str, ...]
    group: int  # id of the group's first kind; accessories are in the group of their main kind
    main: int
    department: str
    part: str
    options: Mapping[str, Sequence[int]]  # ids of its possible attributes
    has_models: bool


@dataclass(frozen=True, eq=False)
class Item:
    """A product, or a query's intent: its kind and the ids of its stated attributes."""

    kind: int
    stated: dict[str, int]


class AttributeCatalog:
    """Attribute values: an id for each, and all its spellings."""

    def __init__(self, words: dict[str, Any], chance: random.Random) -> None:
        """`words` as in shop_words.toml; `chance` draws the brands of each department."""
        self.words = words
        self.spellings: list[Sequence[str]] = []
        self.shades: dict[int, int] = {}  # by colour
        self._ids: dict[str, int] = {}
        self._brands = {d: chance.sample(words["brands"], 12) for d in words["types"]}

    def add(self, key: str, spellings: Sequence[str]) -> int:
        """The id of a value; equal keys have one id."""
        known = self._ids.setdefault(key, len(self.spellings))
        if known == len(self.spellings):
            self.spellings.append(spellings)
        return known

    def _words(self, name: str, values: Sequence[str]) -> list[int]:
        synonyms = self.words["synonyms"]
        return [self.add(f"{name}/{value}", [value, *synonyms.get(value, [])]) for value in values]

    def _sizes(self, unit: str, values: Sequence[float | str]) -> list[int]:
        units = self.words["units"]
        return [self.add(f"{unit}/{v}", spell_size(unit, v, units=units)) for v in values]

    def options(self, entry: Mapping[str, Any], department: str) -> dict[str, list[int]]:
        """Ids of the possible attributes of a type in shop_words.toml."""
        palette = entry.get("palette", "")
        families = self.words["palettes"].get(palette, [])
        # Shades differ by palette: silver is near gray for plastics, near nickel for taps.
        shades = [self._words(palette, family) for family in families]
        self.shades |= {colour: shade for shade, ids in enumerate(shades) for colour in ids}
        unit, *sizes = entry.get("size", ["in"])
        return {
            "brand": self._words("brand", self._brands[department]),
            "colour": [colour for ids in shades for colour in ids],
            "material": self._words("material", entry.get("materials", [])),
            "style": self._words("style", entry.get("styles", [])),
            "size": self._sizes(unit, sizes),
            "pack": self._sizes("pack", entry.get("packs", [])),
        }

    def new_model(self, brand: int, chance: random.Random) -> int:
        """A model number that is not used yet, such as DX-4021."""
        prefix = "".join(c for c in self.spellings[brand][0].upper() if c not in "AEIOU ")[:2]
        while True:
            number = f"{chance.randrange(100, 10_000)}{chance.choice(['', '', 'B', 'S', 'X'])}"
            key = f"{prefix}-{number}"
            if key not in self._ids:
                return self.add(key, [key, key, prefix + number])


def load_kinds(catalog: AttributeCatalog) -> list[Kind]:
    """All types, each followed by its accessories: groups and departments are contiguous too."""
    kinds: list[Kind] = []
    for department, groups in catalog.words["types"].items():
        for types in groups.values():
            group = len(kinds)
            for name, entry in types.items():
                main, names = len(kinds), (name, *entry.get("also", []))
                options = catalog.options(entry, department)
                models = entry.get("models", False)
                kinds.append(Kind(names, group, main, department, "", options, models))
                coloured = entry.get("coloured", [])
                for part in [*coloured, *entry.get("parts", [])]:
                    of_part = tuple(f"{n} {part}" for n in names)
                    own = {"colour": options["colour"] if part in coloured else []}
                    kinds.append(Kind(of_part, group, main, department, part, own, False))
    return kinds


class Writer:
    """Draws products and queries, and writes their texts."""

    def __init__(
        self, catalog: AttributeCatalog, kinds: Sequence[Kind], chance: random.Random
    ) -> None:
        """`kinds` is the result of `load_kinds(catalog)`; `chance` makes all random choices."""
        self._catalog, self._kinds, self._chance = catalog, kinds, chance
        self._formats = {
            form: [[part.split() for part in text.split("|")] for text in catalog.words[form]]
            for form in ("title_formats", "part_formats")
        }

    def _states(self, shares: str, attribute: str) -> bool:
        share: float = self._catalog.words[shares].get(attribute, 0.0)
        return self._chance.random() < share

    def draw_main(self, kind: int) -> Item:
        """A product of a main type: a value for each attribute that its title states."""
        stated = {
            attribute: self._chance.choice(ids)
            for attribute, ids in self._kinds[kind].options.items()
            if ids and self._states("title_states", attribute)
        }
        has_model = self._kinds[kind].has_models and "brand" in stated
        if has_model and self._states("title_states", "model"):
            stated["model"] = self._catalog.new_model(stated["brand"], self._chance)
        return Item(kind, stated)

    def draw_part(self, kind: int, fits: Item) -> Item:
        """An accessory: it states attributes of the product it fits, and its own colour."""
        stated = {a: i for a, i in fits.stated.items() if self._states("part_states", a)}
        colours = self._kinds[kind].options["colour"]
        if colours and self._states("title_states", "colour"):
            stated["colour"] = self._chance.choice(colours)
        return Item(kind, stated)

    def title(self, item: Item) -> str:
        """A title with all stated attributes, in one of the formats."""
        chance, kind = self._chance, self._kinds[item.kind]
        text = {a: chance.choice(self._catalog.spellings[i]) for a, i in item.stated.items()}
        names = kind.names
        text["name"] = names[0] if chance.random() < 0.25 else chance.choice(names)
        if chance.random() < 0.5:
            text["filler"] = chance.choice(self._catalog.words["fillers"])
        if kind.part:
            text["part"], text["main"] = kind.part, chance.choice(self._kinds[kind.main].names)
            # A maker only beside the brand that the accessory fits: alone it reads as that brand.
            if "brand" in text and chance.random() < 0.4:
                text["maker"] = chance.choice(self._catalog.words["brands"])
        elif chance.random() < 0.15 or "pack" in text:
            text["name"] = _plural(text["name"])
        form = chance.choice(self._formats["part_formats" if kind.part else "title_formats"])
        return self._set_title(form, text)

    def _set_title(self, form: Sequence[Sequence[str]], text: Mapping[str, str]) -> str:
        phrases = []
        for part in form:
            words = [text.get(word, "") if word in _FIELDS else word for word in part]
            phrase = " ".join(filter(None, words)).removesuffix(" for").removesuffix(" by")
            phrases += [phrase] if phrase else []
        title = self._chance.choice([", ", ", ", " - ", " "]).join(phrases)
        case = self._chance.random()
        return title if case < 0.15 else title.upper() if case < 0.18 else _capitalised(title)

    def intent(self, product: Item) -> Item:
        """A buyer's intent for this product: its type and up to three attributes."""
        chance = self._chance
        if "model" in product.stated and chance.random() < 0.08:
            also_brand = chance.random() < 0.5 and "brand" in product.stated
            asked = ["brand", "model"] if also_brand else ["model"]
        else:
            weights = self._catalog.words["query_asks"]
            # Weighted draw without replacement: order by random ** (1 / weight), largest first.
            asked = sorted(
                (a for a in product.stated if a in weights),
                key=lambda a: -(chance.random() ** (1 / weights[a])),
            )[: chance.choices([0, 1, 2, 3], [25, 40, 25, 10])[0]]
        return Item(product.kind, {a: product.stated[a] for a in asked})

    def query(self, intent: Item) -> tuple[str, Item]:
        """A query for an intent, and the intent without attributes that did not fit."""
        chance, kind = self._chance, self._kinds[intent.kind]
        name = kind.names[0] if chance.random() < 0.2 else chance.choice(kind.names)
        name = _plural(name) if chance.random() < 0.15 and not kind.part else name
        stated = dict(intent.stated)
        text = {a: chance.choice(self._catalog.spellings[i]) for a, i in stated.items()}
        while stated and len(" ".join([name, *text.values()]).split()) > _MAX_QUERY_WORDS - bool(
            kind.part
        ):
            text.pop(stated.popitem()[0])
        phrases = list(text.values())
        chance.shuffle(phrases)
        if not kind.part and "model" in stated and chance.random() < 0.6:
            words = " ".join(phrases)  # the model number identifies the product
        elif kind.part and chance.random() < 0.35:
            main = name.removesuffix(" " + kind.part)
            words = " ".join([kind.part, "for", *phrases, main])
        else:
            last = [phrases.pop()] if phrases and chance.random() < 0.25 else []
            words = " ".join([*phrases, name, *last])
        if chance.random() < 0.04 and len(words.split()) + 2 <= _MAX_QUERY_WORDS:
            words = f"{chance.choice(self._catalog.words['query_fillers'])} {words}"
        words = words.lower()
        return _capitalised(words) if chance.random() < 0.04 else words, Item(intent.kind, stated)
