"""The table of units: the short name of each, and its other names after a number.

A run can add units (`ngrams.extra_units`), which its bundle stores.
"""

from __future__ import annotations

from collections.abc import Mapping
from unicodedata import category

from raydistill.serving.text.characters import fold, is_solo

Names = tuple[tuple[str, str], ...]  # per unit: (short name, other names separated by spaces)

# Excluded: single letters that have other meanings as often (c, f, h, s, t). Bundles are scored
# with this table: a change of it, or of the rules beside it, requires a new `raydistill.FORMAT`.
UNITS = {
    # lengths
    "in": "inch inches zoll pouce pouces pulgada pulgadas",
    "ft": "foot feet",
    "yd": "yds yard yards",
    "mm": "millimeter millimeters millimetre millimetres",
    "cm": "cms centimeter centimeters centimetre centimetres",
    "m": "mtr mtrs meter meters metre metres",
    "km": "kilometer kilometers kilometre kilometres",
    "mile": "miles",
    "mil": "mils",
    "micron": "microns μm um micrometer micrometers micrometre micrometres",
    "nm": "nanometer nanometers nanometre nanometres",
    # areas and volumes
    "sq": "square",
    "cu": "cubic",
    "sq ft": "sqft",
    "sq in": "sqin",
    "sq m": "sqm",
    "sq yd": "sqyd",
    "cu ft": "cuft",
    "cu in": "cuin",
    "cu m": "cbm",
    "cc": "ccm",
    "ml": "mls milliliter milliliters millilitre millilitres",
    "cl": "centiliter centiliters centilitre centilitres",
    "l": "ltr ltrs liter liters litre litres",
    "fl": "fluid",
    "fl oz": "floz",
    "pt": "pint pints",
    "qt": "qts quart quarts",
    "gal": "gals gallon gallons",
    "tbsp": "tbsps tablespoon tablespoons",
    "tsp": "tsps teaspoon teaspoons",
    # weights
    "oz": "ounce ounces",
    "lb": "lbs pound pounds",
    "mcg": "mcgs μg ug microgram micrograms",
    "mg": "mgs milligram milligrams",
    "g": "gm gms gr gram grams gramm gramme grammes",
    "kg": "kgs kilo kilos kilogram kilograms",
    "ton": "tons tonne tonnes",
    "carat": "carats karat karats kt",
    "gsm": "gsms",
    # electrics
    "volt": "v volts",
    "kv": "kilovolt kilovolts",
    "mv": "millivolt millivolts",
    "watt": "w watts",
    "kw": "kilowatt kilowatts",
    "kwh": "kwhs",
    "wh": "whr whrs",
    "amp": "a amps ampere amperes",
    "ma": "milliamp milliamps milliampere milliamperes",
    "ah": "ahs",
    "mah": "mahs",
    "ohm": "ω ohms",
    "va": "vas",
    "kva": "kvas",
    "hp": "horsepower",
    "btu": "btus",
    "k": "kelvin",
    "lumen": "lm lms lumens",
    "lux": "",
    "cd": "candela",
    "hz": "hertz",
    "khz": "kilohertz",
    "mhz": "megahertz",
    "ghz": "gigahertz",
    # data, pictures, sound
    "kb": "kilobyte kilobytes",
    "mb": "megabyte megabytes",
    "gb": "gigabyte gigabytes",
    "tb": "terabyte terabytes",
    "mbps": "mbits megabits",
    "gbps": "gbits gigabits",
    "mp": "mpx mpix megapixel megapixels",
    "px": "pixel pixels",
    "db": "decibel decibels",
    "bit": "bits",
    # pressure, flow, speed
    "psi": "psis",
    "bar": "bars",
    "kpa": "kilopascal kilopascals",
    "cfm": "cfms",
    "gpm": "gpms",
    "rpm": "rpms",
    "mph": "mphs",
    "kmh": "kmph kph",
    # the rest
    "gauge": "ga gage",
    "degree": "° deg degs degrees",
    "percent": "% pct",
    "pack": "pk pks packs",
    "count": "ct cts counts",
    "piece": "pc pcs pieces",
    "pair": "pairs",
    "minute": "min mins minutes",
    "second": "sec secs seconds",
    "ms": "msec millisecond milliseconds",
    "hour": "hr hrs hours",
    "day": "days",
    "week": "wk wks weeks",
    "month": "mo mos months",
    "year": "yr yrs years",
}
LENGTHS = ("in", "ft", "yd", "mm", "cm", "m", "km")  # may be squared or cubed: ft2, m³
_MOST_LETTERS = 24  # per name
BEFORE_OTHERS = ("sq", "cu", "fl")  # a unit follows them: sq ft, cu in, fl oz


def checked_units(extra: Mapping[str, str]) -> Names:
    """The units that a run adds, folded: short names with their other names.

    Raises:
        ValueError: a name is not one word of letters, or is longer than 24 letters.
    """
    units = tuple((fold(short), " ".join(fold(names).split())) for short, names in extra.items())
    for short, names in units:
        for name in (*([] if short in UNITS else [short]), *names.split()):
            if not _is_name(name):
                raise ValueError(
                    f"{name!r} cannot be the name of a unit: give one word of letters, at most "
                    f"{_MOST_LETTERS}"
                )
    return units


def _is_name(text: str) -> bool:
    """Whether a folded text is one word of letters, in a script with spaces between words."""
    is_letters = all(category(char)[0] in "LM" and not is_solo(char) for char in text)
    return is_letters and category(text[:1] or " ")[0] == "L" and len(text) <= _MOST_LETTERS
