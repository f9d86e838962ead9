"""Tokenization of real texts: numbers followed by letters, and other spellings of a query.

    python tests/bench/words.py --texts FILE.parquet ...

Counts, over the distinct titles, the numbers that letters follow without a space: those split into
a number and a word, and those kept as one word. Such letters count as a measure if they also follow
a number and a space, at least a tenth as often and at least three times, or are a known unit. Each
distinct query is rewritten (inches, volts, fractions, without accents, glued units): how many get
another query key, and other n-grams. Also measures the time of features, keys and `encode`.
"""

from __future__ import annotations

import argparse
import json
import re
import time
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import pyarrow.compute as pc
import pyarrow.dataset as ds
from numpy.typing import NDArray

from raydistill.data.query_key import query_keys
from raydistill.serving.feature_spec import NgramSpec
from raydistill.serving.featurize import featurize
from raydistill.serving.lexicon import Lexicon
from raydistill.serving.text.characters import character_tables, fold
from raydistill.serving.text.cleaning import clean_text
from raydistill.serving.tokenizer import encode
from raydistill.serving.units.names import UNITS
from raydistill.serving.units.normalization import normalize_units
from raydistill.serving.units.table import unit_table

SPEC, PLAIN = NgramSpec("match", 26, units=True), Lexicon.from_idf(np.ones(1, np.float32))
GLUED = re.compile(r"(?<![\w.,/-])(\d[\d.,/]*)([^\W\d_]+)(?!\w)")
APART = re.compile(r"(?<![\w.,/-])(\d[\d.,/]*)[ -]([^\W\d_]+)(?!\w)")
NAMES = {name for unit, names in UNITS.items() for name in (unit, *names.split())}
FRACTIONS = {"1/2": "½", "1/4": "¼", "3/4": "¾", "3/8": "⅜", "5/8": "⅝", "1/8": "⅛"}
SPELLINGS: dict[str, Callable[[str], str]] = {
    "inches": lambda q: re.sub(r"(?<=\d)[ -]?(?:in|inch|inches)\b\.?", '"', q),
    "volts": lambda q: re.sub(r"(?<=\d)[ -]?(?:v|volts?)\b", " volt", q, flags=re.I),
    "feet": lambda q: re.sub(r"(?<=\d)[ -]?(?:ft|foot|feet)\b\.?", "'", q),
    "fractions": lambda q: re.sub(
        r"(?<![\d/])(\d/\d)(?![\d/])", lambda m: FRACTIONS.get(m[1], m[1]), q
    ),
    "decimals": lambda q: re.sub(
        r"(?<![\d/.])(?:(\d{1,2})[ -])?(\d)/([248])(?![\d/])",
        lambda m: f"{int(m[1] or 0) + int(m[2]) / int(m[3]):g}" if int(m[2]) < int(m[3]) else m[0],
        q,
    ),
    "accents": lambda q: "".join(
        c for c in unicodedata.normalize("NFD", q) if not unicodedata.combining(c)
    ),
    "glued units": lambda q: re.sub(r"(?<=\d) (?=(?:amp|watt|gallon|gal|oz|lb|gauge)\b)", "", q),
}  # fmt: skip


def spelled(text: str) -> str:
    """A folded text with its sizes normalised to one spelling."""
    table = unit_table()
    points = np.array([ord(char) for char in text], np.uint32)
    out = np.empty(table.growth * len(points) + 1, np.uint32)
    num = normalize_units(points, len(points), character_tables()[0], table, out)
    return "".join(map(chr, out[:num]))


def count_glued(titles: Sequence[str]) -> dict[str, int]:
    """Counts of numbers followed by letters, split or kept whole, by kind of the letters."""
    folded = [fold(clean_text(title)) for title in titles]
    glued = [found for text in folded for found in GLUED.finditer(text)]
    together = Counter(found[2] for found in glued)
    apart = Counter(found[2] for text in folded for found in APART.finditer(text))
    counts: Counter[str] = Counter()
    for found in glued:
        name = found[2]
        is_measure = name in NAMES or apart[name] >= max(3, 0.1 * together[name])
        is_split = " " in spelled(found[0]).strip()
        kind = "measure" if is_measure else "other"
        counts[
            f"{kind}_{'split' if is_split else 'whole'}{'' if len(name) > 1 else '_letter'}"
        ] += 1
    return dict(counts)


def same_ngrams(first: Sequence[str], second: Sequence[str]) -> NDArray[np.bool_]:
    """Whether each text of a list has the n-grams of the text at its position in the other."""
    bags = []
    for texts in (first, second):
        features = featurize(encode(texts), encode(texts), spec=SPEC, lexicon=PLAIN)
        ends = features.offsets[:: SPEC.num_bags]
        bags.append([features.ids_N[a:b].tobytes() for a, b in pairwise(ends)])
    return np.array([a == b for a, b in zip(*bags, strict=True)])


def count_couples(queries: Sequence[str]) -> dict[str, tuple[int, int, int]]:
    """For each spelling: queries that change, that get another key, that get other n-grams."""
    found = {}
    for name, spell in SPELLINGS.items():
        couples = [(q, other) for q in queries if (other := spell(q)) != q]
        one, other = [q for q, _ in couples], [q for _, q in couples]
        keys = query_keys(encode(one)) != query_keys(encode(other))
        found[name] = len(couples), int(keys.sum()), int((~same_ngrams(one, other)).sum())
    return found


def microseconds(call: Callable[[], object], num: int) -> float:
    """CPU time of a text in µs, the best of seven."""
    times = []
    for _ in range(8):
        start = time.process_time()
        call()
        times.append(time.process_time() - start)
    return round(1e6 * min(times[1:]) / num, 3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--texts", nargs="+", required=True, help="Parquet with query and title")
    texts = [ds.dataset(place) for place in parser.parse_args().texts]
    table = ds.dataset(texts).to_table(columns=["query", "title"])
    queries, titles = (sorted(pc.unique(table[name]).to_pylist()) for name in ("query", "title"))
    figures: dict[str, object] = {"titles": len(titles), **count_glued(titles)}
    print(figures)
    print("| written otherwise | queries | another key | other n-grams |\n|---|---:|---:|---:|")
    for name, counts in count_couples(queries).items():
        print(f"| {name} | " + " | ".join(f"{num:,}" for num in counts) + " |")
        figures[name.replace(" ", "_")] = counts
    some = table.slice(0, 60_000)
    sides = [encode(some[name].to_pylist()) for name in ("query", "title")]
    raw = some["title"].to_pylist()
    num = some.num_rows
    figures["features_us"] = microseconds(lambda: featurize(*sides, spec=SPEC, lexicon=PLAIN), num)
    figures["key_us"] = microseconds(lambda: query_keys(sides[0]), num)
    figures["encode_us"] = microseconds(lambda: encode(raw, max_chars=1_000), num)
    print(json.dumps({"bench": "words", "figures": figures}))


if __name__ == "__main__":
    main()
