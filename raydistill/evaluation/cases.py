"""Cases of a report: pairs on which student and teacher disagree, with what drove the student.

Input: texts, labels and probabilities of the pairs that are measured, and the loaded bundle.
Output: the `cases` of metrics.json, the same for the same input.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from raydistill.serving.explanation.attribution import METHOD, Explainer, with_numbers
from raydistill.serving.explanation.neighbors import WORDS, Neighbors, count_ngrams
from raydistill.serving.match_features import HEAD_ENDS
from raydistill.serving.scorer import Scorer
from raydistill.serving.units.names import UNITS

Floats = NDArray[np.floating[Any]]
NUM_CASES, NUM_DRIVERS = 10, 8
NUM_WORDS, NUM_NEIGHBORS = 10, 5
_SAMPLE_TEXTS = 20_000  # of which words are counted: 2 s
_LEAST_TIMES = 3  # of a candidate: the vector of a rarer word says little
_LEAST_LETTERS = 3  # of a query word whose neighbors are shown; in ASCII
# Words that name no product, besides those of fewer letters and short names of units.
_STOP_WORDS = frozenset(
    "and are for from not off out per that the this what with without you your".split()
)


@dataclass(frozen=True)
class CasePairs:
    """The pairs that cases are chosen from.

    `labels_B` 0..1; `groups_B` numbers the queries; `student_B` and `teacher_B` probabilities, NaN:
    none. For single texts every query is "".
    """

    queries: pa.Array | pa.ChunkedArray
    titles: pa.Array | pa.ChunkedArray
    labels_B: Floats
    groups_B: NDArray[np.int64]
    student_B: Floats
    teacher_B: Floats


def find_cases(
    scorer: Scorer,
    pairs: CasePairs,
    *,
    relevant_at: float | None,
    student_threshold: float,
    teacher_threshold: float,
) -> dict[str, Any]:
    """The `cases` of metrics.json.

    `relevant_at`: labels of at least it are relevant; None: labels are the teachers' own, so that
    no student is right against them. The thresholds are the probabilities from which student and
    teacher call a pair relevant.
    """
    explainer, apart_B = Explainer(scorer), pairs.student_B - pairs.teacher_B
    right_B = _margins(
        pairs,
        relevant_at=relevant_at,
        student_threshold=student_threshold,
        teacher_threshold=teacher_threshold,
    )
    chosen = {"student_higher": apart_B, "student_lower": -apart_B, "student_right": right_B}
    return {
        "method": METHOD,
        **{
            name: [_case(explainer, pairs, row) for row in _largest(gains_B, pairs.groups_B)]
            for name, gains_B in chosen.items()
        },
        **_word_neighbors(scorer, explainer, pairs),
    }


def _margins(
    pairs: CasePairs,
    *,
    relevant_at: float | None,
    student_threshold: float,
    teacher_threshold: float,
) -> Floats:
    """How far both are from their thresholds where the student is right and the teacher wrong.

    0 elsewhere, shape B.
    """
    if relevant_at is None:
        return np.zeros(len(pairs.labels_B))
    student_B, teacher_B = pairs.student_B - student_threshold, pairs.teacher_B - teacher_threshold
    is_relevant_B = pairs.labels_B >= relevant_at
    is_case_B = ((student_B >= 0) == is_relevant_B) & ((teacher_B >= 0) != is_relevant_B)
    return np.where(is_case_B, np.abs(student_B) + np.abs(teacher_B), 0)


def _largest(gains_B: Floats, groups_B: NDArray[np.int64]) -> list[int]:
    """The rows of the largest gains above 0, one for each query; ties in the order of rows."""
    rows = np.flatnonzero(gains_B > 0)  # NaN is not
    rows = rows[np.argsort(-gains_B[rows], kind="stable")]
    _, firsts = np.unique(groups_B[rows], return_index=True)
    return [int(row) for row in rows[np.sort(firsts)][:NUM_CASES]]


def _case(explainer: Explainer, pairs: CasePairs, row: int) -> dict[str, Any]:
    query, title = pairs.queries[row].as_py(), pairs.titles[row].as_py()
    found = explainer.explain(query, title)
    drivers = found.in_families()
    return {
        "query": query,
        "title": title,
        "label": float(pairs.labels_B[row]),
        "student": float(pairs.student_B[row]),
        "teacher": float(pairs.teacher_B[row]),
        "logit": found.explained_logit,
        "baseline_logit": found.baseline_logit,
        "drivers": [
            {"kind": one.kind, "text": with_numbers(one), "value": one.value}
            for one in drivers[:NUM_DRIVERS]
        ],
        "rest": sum(one.value for one in drivers[NUM_DRIVERS:]),
    }


def _word_neighbors(scorer: Scorer, explainer: Explainer, pairs: CasePairs) -> dict[str, Any]:
    """Neighbors of the words of most distinct queries; of single texts, of the texts."""
    queries, titles = distinct_sample(pairs.queries), distinct_sample(pairs.titles)
    of_queries = count_ngrams(queries if any(queries) else titles, spec=explainer.spec)
    counts = of_queries + count_ngrams(titles, spec=explainer.spec)
    finder = Neighbors(scorer, [text for text, num in _ranked(counts) if num >= _LEAST_TIMES])
    known, found = set(finder.candidates), list[dict[str, Any]]()
    for word, num in _ranked(of_queries):
        if len(found) == NUM_WORDS:
            break
        if is_word_shown(word) and word in known:
            near = finder.nearest(word, num=NUM_NEIGHBORS)
            found.append({"word": word, "count": num, "neighbors": [one._asdict() for one in near]})
    of = "word vectors" if finder.vectors == WORDS else "trained n-gram embeddings"
    return {"neighbors_of": of, "neighbors": found}


def is_word_shown(text: str) -> bool:
    """Whether a word may name a product: no number, no stop word, not very short, one word."""
    is_short = len(text) < _LEAST_LETTERS and text.isascii()
    is_stop = text in _STOP_WORDS or text in HEAD_ENDS or text in UNITS
    return not (is_short or is_stop or " " in text or any(map(str.isdigit, text)))


def _ranked(counts: Counter[str]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def distinct_sample(texts: pa.Array | pa.ChunkedArray) -> Sequence[str]:
    """The distinct texts, or every n-th of them where they are many."""
    distinct = texts.unique()
    step = max(1, -(-len(distinct) // _SAMPLE_TEXTS))
    found: list[str] = distinct[::step].to_pylist()
    return found
