"""Scores of the native library, of numba and of torch on odd texts, for many settings.

    python tests/bench/parity.py [--pairs 20000]

Students of random numbers; texts with entities, marks, all scripts, sizes. Prints the largest
difference of each setting, and one line of JSON.
"""

import argparse
import json
from itertools import product
from typing import Any

import numpy as np
import torch

from raydistill.config.student import StudentConfig
from raydistill.serving.featurize import featurize
from raydistill.serving.native.build import built_library, own_target
from raydistill.serving.native.emit.model_file import model_bytes
from raydistill.serving.native.layout import aligned
from raydistill.serving.native.library import Library, Model
from raydistill.serving.numba_scorer import NumbaScorer
from raydistill.serving.tokenizer import encode
from raydistill.student.network import Student, predict
from tests.serving.native.cases import MAX_QUERY_CHARS, MAX_TITLE_CHARS, odd_pairs, random_bundle

_MATCH = [
    {"units": units, "word_dim": dim, "char_ngrams": chars, "vocabulary_rows": rows}
    for units, dim, chars, rows in product((False, True), (0, 16), (0, 3), (0, 500))
]
_PAPER = [
    {"preset": "bert2dnn", "char_ngrams": chars, "vocabulary_rows": rows}
    for chars, rows in product((0, 2, 4, 6), (0, 500))
]


def by_torch(
    bundle: tuple[dict[str, Any], dict[str, np.ndarray]],
    scorer: NumbaScorer,
    pairs: tuple[list[str], list[str]],
) -> np.ndarray:
    settings, arrays = bundle
    config = StudentConfig(embedding_dim=arrays["embedding"].shape[1], hidden=(70, 33))
    student = Student(scorer.spec, config)
    student.load({name: torch.from_numpy(np.array(arrays[name])) for name in student.arrays()})
    texts = encode(pairs[0], max_chars=MAX_QUERY_CHARS), encode(pairs[1], max_chars=MAX_TITLE_CHARS)
    features = featurize(*texts, spec=scorer.spec, lexicon=scorer.lexicon)
    logits = predict(student, features, device="cpu").astype(np.float64)
    return 1 / (1 + np.exp(-settings["temperature"] * logits))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=20_000)
    given = parser.parse_args()
    target = own_target()
    assert target is not None, "no library fits this CPU"
    library = Library(built_library(target))
    queries, titles = map(list, zip(*odd_pairs(given.pairs), strict=True))
    worst = {"numba": 0.0, "torch": 0.0, "numba_int8": 0.0}
    for ngrams in (*_MATCH, *_PAPER):
        bundle = random_bundle(**ngrams)
        scorer = NumbaScorer(*bundle)
        native = Model(aligned(model_bytes(*bundle)), library).score_pairs(queries, titles)
        found = {
            "numba": np.abs(native - scorer.score_pairs(queries, titles)).max(),
            "torch": np.abs(native - by_torch(bundle, scorer, (queries, titles))).max(),
        }
        small = aligned(model_bytes(*bundle, table="int8", vectors="int8", layers="int8"))
        by_numba = NumbaScorer.from_model(bundle[0], small).score_pairs(queries, titles)
        apart = np.abs(Model(small, library).score_pairs(queries, titles) - by_numba)
        found["numba_int8"] = apart.max()
        print(ngrams, {name: f"{value:.1e}" for name, value in found.items()})
        worst = {name: max(value, float(found[name])) for name, value in worst.items()}
    settings = len(_MATCH) + len(_PAPER)
    figures = {"pairs": given.pairs, "settings": settings, **worst}
    print(json.dumps({"bench": "parity", "figures": figures}))


if __name__ == "__main__":
    main()
