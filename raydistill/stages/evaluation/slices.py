"""The slices of a run's report: which test pairs are in each cell.

A pair is in one cell of each slice, or in none where nothing is known of it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from raydistill.evaluation.lexical import num_words
from raydistill.evaluation.metrics.bootstrap import Draws
from raydistill.evaluation.scoreboard.scored_pairs import ScoredPairs
from raydistill.evaluation.scoreboard.slices import METRICS_OF_SLICES, slice_figures
from raydistill.evaluation.scripts import script_of
from raydistill.serving.text.arrow_text import to_texts

Mask = NDArray[np.bool_]
THIRDS = ("lowest third", "middle third", "highest third")
_LONGEST = 5  # words of a query; longer ones are one cell
_MOST_CELLS, _MOST_CHARS = 20, 80  # of a column of the user, and of a cell's name
_LARGE = 1_000  # limits from here on are shown as whole numbers
OTHER_VALUES = "other values"
_POPULARITY, _PARTS = "popularity of the query", ("head", "torso", "tail")


@dataclass(frozen=True)
class Slice:
    """A slice's name and cells; `note`: why there is one cell, or how cells were cut."""

    name: str
    cells: Mapping[str, Mask]
    note: str | None = None


def figures_of_slices(
    slices: Sequence[Slice],
    scored: ScoredPairs,
    *,
    reference: str | None,
    draws: Draws,
    metrics: Sequence[str] = METRICS_OF_SLICES,
) -> list[dict[str, Any]]:
    """The figures in each cell of each slice, of all scorers but the uncalibrated; its note."""
    found = slice_figures(
        scored,
        masks={one.name: one.cells for one in slices},
        shown=[name for name in scored.scores if name not in scored.uncalibrated],
        reference=reference if reference in scored.scores else None,
        draws=draws,
        metrics=metrics,
    )
    notes = {one.name: one.note for one in slices}
    return [{**one, "note": notes[one["slice"]]} for one in found]


class Scored(NamedTuple):
    """Probabilities of B pairs: of the ensemble, and of M teachers; NaN: none."""

    ensemble_B: NDArray[np.float32]
    teachers_BM: NDArray[np.float32]


def text_slices(table: pa.Table, *, has_query: bool) -> list[Slice]:
    """Slices by the query, or by the single text: its length, numbers and script."""
    what, column = ("query", "query") if has_query else ("text", "title")
    texts = table[column].combine_chunks().cast(pa.string()).dictionary_encode()
    codes_B, distinct = np.asarray(texts.indices), texts.dictionary
    lengths_B = num_words(to_texts(distinct))[codes_B] if len(distinct) else np.empty(0, np.int64)
    has_number_B = np.asarray(pc.match_substring_regex(distinct, r"\pN"))[codes_B]
    scripts = np.array([script_of(text) for text in distinct.to_pylist()], object)[codes_B]
    length = _of_lengths(lengths_B) if has_query else thirds(lengths_B.astype(np.float64))
    numbers = {"with a number": has_number_B, "without": ~has_number_B}
    return [
        Slice(f"{what} length in words", length),
        Slice(f"numbers in the {what}", _not_empty(numbers)),
        Slice(f"script of the {what}", _by_value(scripts.tolist())),
    ]


def _of_lengths(lengths_B: NDArray[np.int64]) -> dict[str, Mask]:
    cells = {
        f"{num} word{'s' if num > 1 else ''}": (lengths_B == num) | ((num == 1) & (lengths_B == 0))
        for num in range(1, _LONGEST)
    }
    return _not_empty({**cells, f"{_LONGEST} words or more": lengths_B >= _LONGEST})


def score_slices(scored: Scored) -> list[Slice]:
    """Slices by how sure the ensemble is, and by how far apart its teachers are."""
    sure = np.abs(scored.ensemble_B.astype(np.float64) - 0.5)
    text = "thirds of the pairs by |p - 0.5| of the teachers"
    found = [Slice("confidence of the teachers", thirds(sure), text)]
    if scored.teachers_BM.shape[1] > 1:
        known_BM = np.isfinite(scored.teachers_BM)
        several_B = known_BM.sum(axis=1) > 1
        high = np.where(known_BM, scored.teachers_BM, -np.inf).max(axis=1)
        low = np.where(known_BM, scored.teachers_BM, np.inf).min(axis=1)
        spread_B = np.where(several_B, high - low, np.nan)
        text = "thirds of the pairs by the largest difference of two teachers' probabilities"
        if several_B.any():
            found.append(Slice("disagreement of the teachers", thirds(spread_B), text))
    return found


def popularity_slice(
    weights_B: NDArray[np.float64], groups_B: NDArray[np.int64], *, source: str
) -> Slice:
    """Head, torso and tail: the queries with the first, second and last third of all weight.

    `weights_B`: of each pair, NaN: unknown; those of a query are added up. Queries of equal weight
    are in one cell. `source`: what the weights are, for the note.
    """
    known_B = np.isfinite(weights_B) & (weights_B >= 0)
    if len(np.unique(weights_B[known_B])) < 2:
        note = f"{source} is the same for all pairs; evaluate.weight names a column of weights"
        return Slice(_POPULARITY, {"all": np.ones(len(groups_B), bool)}, note)
    queries_B = np.unique(groups_B, return_inverse=True)[1]
    weights_Q = np.bincount(queries_B, weights=np.where(known_B, weights_B, 0))
    # Distinct weights from the heaviest, and of each the weight of all queries before it.
    place_Q = np.unique(-weights_Q, return_inverse=True)[1]
    totals = np.bincount(place_Q, weights=weights_Q)
    before = (np.cumsum(totals) - totals) / totals.sum()
    third_B = np.minimum((3 * before[place_Q]).astype(np.int64), 2)[queries_B]
    cells = {name: (third_B == at) & known_B for at, name in enumerate(_PARTS)}
    note = f"thirds of all weight, the heaviest queries first; the weight is {source}"
    return Slice(_POPULARITY, _not_empty(cells), note)


def seen_slice(seen_B: Mask, *, what: str) -> Slice:
    """Pairs whose query, or single text, the student has not seen in training, and has seen."""
    name = f"{what} seen in training"
    if not seen_B.any():
        note = f"no test {what} is in the transfer set, where pairs.hold_out leaves them out"
        return Slice(name, {"unseen": ~seen_B}, note)
    return Slice(name, _not_empty({"unseen": ~seen_B, "seen": seen_B}))


def column_slice(name: str, values: Sequence[str | None]) -> Slice:
    """A slice by a column of the user: by value, or thirds of numbers of many values."""
    distinct = {value for value in values if value}
    if len(distinct) > _MOST_CELLS:
        numbers = np.array([_number(value) for value in values])
        if np.isfinite(numbers).sum() >= len([value for value in values if value]):
            return Slice(name, thirds(numbers), "thirds of the pairs by value")
    return Slice(name, _by_value(values), None)


def _number(text: str | None) -> float:
    try:
        value = float(text or "nan")
    except ValueError:
        return math.nan
    return value if math.isfinite(value) else math.nan


def _by_value(values: Sequence[str | None]) -> dict[str, Mask]:
    """A cell for each of the commonest values, the commonest first; the rest is one cell.

    Values that begin with the same 80 characters are one cell.
    """
    texts = pa.array([(value or "")[:_MOST_CHARS] for value in values], pa.string())
    codes = texts.dictionary_encode()
    names, place_B = codes.dictionary.to_pylist(), np.asarray(codes.indices)
    counts = np.bincount(place_B, minlength=len(names))
    order = [at for at in np.argsort(-counts, kind="stable").tolist() if names[at]]
    cells = {names[at]: place_B == at for at in order[:_MOST_CELLS]}
    rest = np.isin(place_B, order[_MOST_CELLS:])
    return {**cells, **({OTHER_VALUES: rest} if rest.any() else {})}


def thirds(values_B: NDArray[np.float64]) -> dict[str, Mask]:
    """Three cells of about equally many pairs, with their limits; NaN is in none."""
    known_B = np.isfinite(values_B)
    if not known_B.any():
        return {}
    low, high = np.quantile(values_B[known_B], (1 / 3, 2 / 3), method="inverted_cdf")
    filled = np.where(known_B, values_B, -np.inf)
    masks = (filled <= low) & known_B, (filled > low) & (filled <= high), filled > high
    least, most = _short(low), _short(high)
    limits = f"up to {least}", f"{least} to {most}", f"above {most}"
    names = (f"{third} ({limit})" for third, limit in zip(THIRDS, limits, strict=True))
    return _not_empty(dict(zip(names, masks, strict=True)))


def _short(value: float) -> str:
    return f"{value:.3g}" if abs(value) < _LARGE else f"{value:,.0f}"


def _not_empty(cells: Mapping[str, Mask]) -> dict[str, Mask]:
    return {name: mask for name, mask in cells.items() if mask.any()}
