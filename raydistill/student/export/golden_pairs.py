"""Golden pairs of a bundle: raw texts, their scores, and each step from the one to the other.

A reader in another language compares itself with them step by step.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raydistill.runs.lexicon_file import load_lexicon, spec_of
from raydistill.runs.run_folder import Run
from raydistill.serving.feature_spec import Features
from raydistill.serving.featurize import featurize, spelled_words
from raydistill.serving.native.layout import aligned
from raydistill.serving.numba_scorer import NumbaScorer
from raydistill.serving.scorer import Scorer
from raydistill.serving.text.arrow_text import Texts
from raydistill.serving.tokenizer import encode
from raydistill.student.fit_files import load_student, student_fit
from raydistill.student.network import Student, predict

_NUM_PAIRS = 200
_TOLERANCE = 1e-4  # of a score: float32 sums in another order differ by less than 1e-5
_DIGITS = 7  # of numbers in golden.json: float32 has 7
Pairs = tuple[list[str], list[str]]  # queries, titles
# Texts in which readers differ: entities, compatibility forms, marks, scripts, sizes, no words.
ODD_TEXTS = (
    *("", " ", "!!!", "AT&amp;T phone", "&lt;b&gt; bold &#39;s", "&#x1F6CB; sofa", "&amp;amp; co"),
    *(
        "caf\u00e9 cre\u0300me",
        "na\u00efve \u0130stanbul Stra\u00dfe",
        "\u03a3\u038a\u03a3\u03a5\u03a6\u039f\u03a3",
    ),
    *("\ufb01ne \uff21\uff22\uff23 \u2460 \u00bd in.", "\u00bc\u2033 tap", '1/2 in tap 3-1/4"'),
    *("5' 6\" rug", "2 x 4 ft", "12 oz can", "1.5l bottle", "1,000 pcs", "10% off"),
    *("size 42.5 EU", "no-slip mat", "wi-fi router 802.11ac", "#1 best & only"),
    *("\u6c99\u53d1 \u7070\u8272", "\u30bd\u30d5\u30a1 \uff76\uff9e\uff97\uff7d"),
    *("\uc18c\ud30c \u1109\u1169\u1111\u1161", "\u0434\u0438\u0432\u0430\u043d"),
    *("\u0623\u0631\u064a\u0643\u0629", "\u0938\u094b\u092b\u093c\u093e", "\U0001f6cb\ufe0f couch"),
    *("\U00020000\U0001d400", "women's men\u2019s don't", "rock'n'roll", "a\u00adb\u200bc"),
    *(
        "x\x00y\tz\nw",
        "o\u0301\u0301\u0301",
        "SOFA sofa SoFa",
        "(grey) [sofa] {3}",
        "\u2014\u2013-",
    ),
    *("long " * 60, "w" * 300, "sofa " * 250),
)


def golden_pairs(run: Run) -> Pairs:
    """Raw pairs of the largest shard that the student was trained on, and odd texts among them."""
    fit = student_fit(run, "student")
    shard = max(fit.shards, key=lambda name: fit.shards[name])
    rows = fit.folder.read_rows(shard, 0, _NUM_PAIRS, columns=["query", "title"])
    queries, titles = rows["query"].to_pylist(), rows["title"].to_pylist()
    odd = list(ODD_TEXTS)
    has_query = run.config.has_query
    odd_queries = odd[1:] + odd[:1] if has_query else [""] * len(odd)
    num_plain = _NUM_PAIRS - len(odd)
    return queries[:num_plain] + odd_queries, titles[:num_plain] + odd


def check_scores(run: Run, scorer: Scorer, pairs: Pairs) -> None:
    """Compare the scores of pairs by torch with those of a scorer.

    Raises:
        RuntimeError: they differ by more than 1e-4.
    """
    spec, temperature = spec_of(run), scorer.settings["temperature"]
    student = Student(spec, run.config.student)
    student.load(load_student(student_fit(run, "student").output))
    texts = _clean(pairs, scorer.settings)
    features = featurize(*texts, spec=spec, lexicon=load_lexicon(run))
    logits = predict(student, features, device="cpu")
    with np.errstate(over="ignore"):
        by_torch = 1 / (1 + np.exp(-temperature * logits))
    compare(by_torch, scorer.score_pairs(*pairs), pairs)


def compare(by_torch: NDArray[np.float32], by_bundle: NDArray[np.float32], pairs: Pairs) -> None:
    """Raise RuntimeError unless student and bundle give equal scores for the golden pairs."""
    apart = np.abs(by_torch - by_bundle)
    row = int(np.argmax(np.nan_to_num(apart, nan=np.inf)))
    if apart[row] <= _TOLERANCE:
        return
    raise RuntimeError(
        f"bundle and student differ on {np.count_nonzero(~(apart <= _TOLERANCE))} of {len(apart)} "
        f"golden pairs, most on query {pairs[0][row]!r} with title {pairs[1][row]!r}: student "
        f"{by_torch[row]:.6f}, bundle {by_bundle[row]:.6f}; training and serving "
        "read this pair differently: report the pair"
    )


def explain_pairs(settings: dict[str, Any], model: bytes, pairs: Pairs) -> list[dict[str, Any]]:
    """The entries of golden.json: pairs with all steps to their scores.

    `clean_*`: the text that is read; `words_*`: its words; `bags`: the n-gram ids of each bag, with
    a vocabulary their places in it; `dense`: the match features, not standardised; `logit`;
    `score`.
    """
    whole = aligned(model)
    scorer = NumbaScorer.from_model(settings, whole)
    texts = _clean(pairs, settings)
    features = featurize(*texts, spec=scorer.spec, lexicon=scorer.lexicon)
    words = [spelled_words(side, spec=scorer.spec) for side in texts]
    logits, scores = scorer.logits(features), Scorer(settings, whole).score_pairs(*pairs)
    return [
        {
            **{"query": query, "title": title},
            **{"clean_query": _text(texts[0], row), "clean_title": _text(texts[1], row)},
            **{"words_query": words[0][row], "words_title": words[1][row]},
            "bags": _bags(features, row, num_bags=scorer.spec.num_bags),
            "dense": _numbers(features.dense_BF[row]),
            **{"logit": _numbers(logits[row : row + 1])[0], "score": float(f"{scores[row]:.7g}")},
        }
        for row, (query, title) in enumerate(zip(*pairs, strict=True))
    ]


def _clean(pairs: Pairs, settings: dict[str, Any]) -> tuple[Texts, Texts]:
    queries, titles = pairs
    return (
        encode(queries, max_chars=settings["max_query_chars"]),
        encode(titles, max_chars=settings["max_title_chars"]),
    )


def _text(texts: Texts, row: int) -> str:
    data, offsets = texts
    return data[offsets[row] : offsets[row + 1]].tobytes().decode()


def _bags(features: Features, row: int, *, num_bags: int) -> list[list[int]]:
    ends = features.offsets[row * num_bags : (row + 1) * num_bags + 1]
    return [features.ids_N[start:end].tolist() for start, end in pairwise(ends)]


def _numbers(values: NDArray[np.float32]) -> list[float]:
    return [float(f"{value:.{_DIGITS}g}") for value in values]
