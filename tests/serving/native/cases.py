"""Bundles with random numbers, and texts of every kind that a shop could have by mistake."""

import random
from collections.abc import Callable
from dataclasses import asdict
from functools import cache
from html.entities import html5
from itertools import pairwise
from typing import Any

import numpy as np

from raydistill.serving.feature_spec import FORMAT, NgramSpec
from raydistill.serving.featurize import featurize
from raydistill.serving.lexicon import Lexicon
from raydistill.serving.native.emit.model_file import model_bytes
from raydistill.serving.tokenizer import encode, single_words

Bundle = tuple[dict[str, Any], dict[str, np.ndarray]]
WORDS = (
    "grey sofa couch 3 seats women's shoes with heel for men in leather wi-fi usb3.0 cable do n't "
    "don't café für 500ml 1,000 watts 18v akku 4x4 wheel dr. martens t-shirt xl 12-pack 2 x 4"
).split()
SIZES = [
    *('1-1/2"', "1 ½", "½", "1½ in", "5'6\"", "10%", "90°c", "90 º C", "3.50 oz", "8 sq ft", "m²"),
    *("1 000", "1/64", "a.b.c", "...", "2 a day", "\uff11\uff12\uff56", "\ufb01ne", "Ⅳ"),
    *("1²\u2044₃", "5¹/2", "20inx50in", "6'h x 8'w", "12016se", "3ft3in", "1 m³"),
]
MAX_QUERY_CHARS, MAX_TITLE_CHARS = 60, 300


def _letters(*ranges: tuple[int, int]) -> Callable[[random.Random], str]:
    def letters(rng: random.Random) -> str:
        chars = (chr(rng.randint(*rng.choice(ranges))) for _ in range(rng.randint(1, 6)))
        return "".join(chars)

    return letters


PIECES: list[Callable[[random.Random], str]] = [
    *3 * [lambda rng: rng.choice(WORDS)],
    lambda rng: rng.choice(SIZES),
    lambda rng: "&" + rng.choice(sorted(html5)) + rng.choice([";", ""]),
    lambda rng: rng.choice(["&#%d;", "&#x%x;", "&#X%06X;", "&#%d"]) % rng.randint(0, 70_000),
    lambda rng: "&" + "amp;" * rng.randint(0, 3) + rng.choice(["#38;", "#x26;lt;", "lt;", "#233;"]),
    _letters((0x20, 0x7E), (0xA0, 0x24F), (0x300, 0x36F)),
    _letters((0x370, 0x1FFF), (0x2000, 0x33FF), (0x4E00, 0x9FFF), (0xAC00, 0xD7A3)),
    _letters((0x1100, 0x11FF), (0xAC00, 0xD7A3)),
    _letters((0xF900, 0xFFEF), (0x1D100, 0x1D7FF), (0x1F000, 0x1FFFF), (0x2F800, 0x2FA1F)),
    _letters((0, 0xD7FF), (0xE000, 0x10FFFF)),
    _letters((0x300, 0x34F), (0x5B0, 0x5C7), (0x20, 0x20), (0xB4, 0xB4), (0x2010, 0x2044)),
]


def odd_text(rng: random.Random, most: int) -> str:
    pieces = [rng.choice(PIECES)(rng) for _ in range(rng.randint(0, most))]
    return rng.choice([" ", "  ", "", "\t", "-", "\u00a0"]).join(pieces)


@cache
def odd_pairs(num: int, seed: int = 0) -> tuple[tuple[str, str], ...]:
    """Random pairs."""
    rng = random.Random(seed)
    return tuple((odd_text(rng, 8), odd_text(rng, 30)) for _ in range(num))


EXTREME = [("", ""), ("a", ""), ("", "b"), ("x" * 5_000, "y" * 5_000), (" ", " a "),
           ("\ufdfa" * 400, "\ufdfa" * 1_200), ("1%" * 300, "1%" * 800), ("é" * 200, "é" * 999),
           ("&amp;" * 100, "&nGg;" * 400), ("e" * 60 + "\u0301", "e" * 299 + "\u0301\u0327"),
           ("a\u0301" * 90, "\u0301 " * 200)]  # fmt: skip


def random_bundle(
    *, hidden: tuple[int, ...] = (70, 33), width: int = 48, **ngrams: object
) -> Bundle:
    """Settings and arrays of a student of random numbers, whose vocabulary has ids that occur."""
    rng = np.random.default_rng(0)
    fields: dict[str, Any] = {"preset": "match", "hash_bits": 12, **ngrams}
    spec = NgramSpec(**fields)
    settings = {"format": FORMAT, "ngrams": asdict(spec), "temperature": 1.3, "threshold": 0.5,
                "max_query_chars": MAX_QUERY_CHARS, "max_title_chars": MAX_TITLE_CHARS}  # fmt: skip
    words = np.unique(single_words([word for word in WORDS if word.isalpha()])[0])
    vectors = rng.normal(size=(len(words), spec.word_dim))
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
    arrays = {
        "embedding": rng.normal(size=(spec.num_rows, width)),
        "idf": rng.uniform(0, 9, 1 << 12),
        "word_vectors": vectors.astype(np.float16),
        "dense_mean": rng.normal(size=spec.num_dense),
        "dense_std": rng.uniform(0.5, 2, spec.num_dense),
    }
    sizes = [spec.num_bags * width + spec.num_dense, *hidden, 1]
    for at, (inputs, outputs) in enumerate(pairwise(sizes)):
        arrays[f"weight_{at}"] = rng.normal(size=(outputs, inputs)) * np.sqrt(2 / inputs)
        arrays[f"bias_{at}"] = rng.normal(size=outputs) / 4
    arrays = {name: np.asarray(value, np.float32) for name, value in arrays.items()}
    arrays["word_vectors"] = arrays["word_vectors"].astype(np.float16)
    arrays |= {"words": words, "ngrams": np.empty(0, np.int32)}
    if spec.vocabulary_rows:
        arrays["ngrams"] = _vocabulary(spec, Lexicon.from_arrays(arrays))
    return settings, arrays


def _vocabulary(spec: NgramSpec, lexicon: Lexicon) -> np.ndarray:
    queries, titles = zip(*odd_pairs(50), strict=True)
    texts = encode(queries, max_chars=MAX_QUERY_CHARS), encode(titles, max_chars=MAX_TITLE_CHARS)
    ids = np.unique(featurize(*texts, spec=spec.uncut, lexicon=lexicon).ids_N)
    return np.sort(np.random.default_rng(1).choice(ids, spec.vocabulary_rows, replace=False))


@cache
def default_model() -> bytes:
    """A model file with match features, units and word vectors."""
    return model_bytes(*random_bundle(word_dim=8, units=True))


@cache
def small_model() -> bytes:
    """A model file in its smallest form: int8 everywhere, and rows for half of the ids."""
    settings, arrays = random_bundle(word_dim=8, units=True)
    used = np.random.default_rng(2).random(len(arrays["embedding"])) < 0.5
    return model_bytes(
        settings, {**arrays, "used": used}, table="int8", vectors="int8", layers="int8"
    )
