"""Latency of scorers side by side: microseconds of a call, p50, p99, pairs a second, ratios.

Input: functions that score a query's titles, and pairs. Output: rows for a table, and figures. The
contestants take turns, so that what else runs on the machine slows all of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from itertools import cycle
from typing import NamedTuple

import numpy as np

from raydistill.evaluation.markup import text_table

BATCH = 100  # titles of a query in a call
ROUNDS = 5
_LEAST_CALLS = 100  # for a p99
KINDS = ("alone", "batch")  # one pair a call; one query with BATCH titles a call
STUDENT, IN_PYTHON, IN_C = "student", "Python", "C"

_FIGURES = {
    "BERT-Base": "bert_base_best", "TinyBERT-4L-312": "tinybert_best", "teacher": "teacher_best",
}  # fmt: skip

Pair = tuple[str, str]
Call = tuple[str, Sequence[str]]
Score = Callable[[str, Sequence[str]], object]
# Makes calls of a kind for some seconds; the microseconds of each call.
Timed = Callable[[str, float], Sequence[float]]


class Contestant(NamedTuple):
    """What is timed: a model in a runtime."""

    model: str
    runtime: str
    timed: Timed


class Skipped(NamedTuple):
    """What cannot be timed, and why."""

    model: str
    runtime: str
    reason: str


class Row(NamedTuple):
    """The figures of a contestant; a ratio is how many times longer it takes than the student."""

    model: str
    runtime: str
    num_alone: int
    num_batches: int
    p50_us: float
    p99_us: float | None  # None: of fewer than 100 calls
    batch_us_per_pair: float
    pairs_per_s: float
    ratio_alone: float
    ratio_batch: float


def make_calls(pairs: Sequence[Pair], *, batch: int = BATCH) -> dict[str, list[Call]]:
    """The calls of each kind: each has another pair, or the next query and the next titles.

    Titles of the call before would be in the processor's caches, with their rows of the table.
    """
    titles = [title for _, title in pairs]
    more = titles * (2 + batch // len(titles))
    starts = [at * batch % len(titles) for at in range(len(pairs))]
    return {
        "alone": [(query, [title]) for query, title in pairs],
        "batch": [
            (query, more[at : at + batch]) for (query, _), at in zip(pairs, starts, strict=True)
        ],
    }


def in_process(score: Score, calls: dict[str, list[Call]]) -> Timed:
    """Times a function of this process.

    A call's time is by the wall clock, or the CPU time of all threads if that is less: then another
    process had the core meanwhile.
    """
    turns = {kind: cycle(some) for kind, some in calls.items()}

    def timed(kind: str, seconds: float) -> list[float]:
        found, turn, stop = list[float](), turns[kind], time.perf_counter() + seconds
        while not found or time.perf_counter() < stop:
            query, titles = next(turn)
            cpu_ns, wall_ns = time.process_time_ns(), time.perf_counter_ns()
            score(query, titles)
            wall_ns = time.perf_counter_ns() - wall_ns
            cpu_ns = time.process_time_ns() - cpu_ns
            found.append(min(wall_ns, cpu_ns) / 1_000)
        return found

    return timed


def measure(
    contestants: Sequence[Contestant], *, seconds: float, rounds: int = ROUNDS
) -> list[dict[str, list[float]]]:
    """Microseconds of each call, by contestant and kind, in `seconds` in all.

    A contestant whose call takes longer than its part of a round sits out the next rounds. Each is
    called once at least, so that slow ones can take longer than `seconds`.
    """
    times: list[dict[str, list[float]]] = [{kind: [] for kind in KINDS} for _ in contestants]
    used_s = dict.fromkeys([(at, kind) for at in range(len(contestants)) for kind in KINDS], 0.0)
    for turn in range(1, rounds + 1):
        due_s = seconds * turn / (rounds * len(used_s))
        for (at, kind), spent_s in used_s.items():
            if spent_s < due_s:
                started = time.perf_counter()
                times[at][kind] += contestants[at].timed(kind, due_s - spent_s)
                used_s[at, kind] += time.perf_counter() - started
    return times


def to_rows(
    contestants: Sequence[Contestant], times: Sequence[dict[str, list[float]]], *, batch: int
) -> list[Row]:
    """The figures of all contestants; the student in Python is the first."""
    found = [_summary(each, batch=batch) for each in times]
    _, _, alone_us, _, batch_us, _ = found[0]
    return [
        Row(one.model, one.runtime, *figures, figures[2] / alone_us, figures[4] / batch_us)
        for one, figures in zip(contestants, found, strict=True)
    ]


def _summary(
    times: dict[str, list[float]], *, batch: int
) -> tuple[int, int, float, float | None, float, float]:
    alone = times["alone"]
    p50, p99 = np.percentile(alone, [50, 99]).tolist()
    a_pair = float(np.median(times["batch"])) / batch
    last = p99 if len(alone) >= _LEAST_CALLS else None
    return len(alone), len(times["batch"]), p50, last, a_pair, 1e6 / a_pair


def table(rows: Sequence[Row], skipped: Sequence[Skipped]) -> str:
    """All contestants, and a line for each that is missing."""
    head = (
        *("model and runtime", "p50 µs", "p99 µs", "batch µs/pair", "pairs/s"),
        *("ratio alone", "ratio batch"),
    )
    body = [
        (
            *(f"{row.model}, {row.runtime}", _number(row.p50_us), _number(row.p99_us)),
            *(_number(row.batch_us_per_pair), f"{row.pairs_per_s:,.0f}"),
            *(_number(row.ratio_alone), _number(row.ratio_batch)),
        )
        for row in rows
    ]
    lines = [f"not measured: {model}, {runtime}: {reason}" for model, runtime, reason in skipped]
    return "\n".join([text_table([head, *body]), *lines])


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def figures(rows: Sequence[Row]) -> dict[str, float | None]:
    """The student's times, and how many times longer the best runtime of each other model takes."""
    found: dict[str, float | None] = {}
    for row in rows:
        if row.model == STUDENT:
            end = "_c" if row.runtime == IN_C else ""
            found |= {f"single_us{end}": row.p50_us, f"single_p99_us{end}": row.p99_us}
            found[f"batch_us{end or '_per_pair'}"] = row.batch_us_per_pair
    for model, (alone, batch) in _best(rows).items():
        name = _FIGURES.get(model, model.lower())
        found |= {f"single_vs_{name}": alone.ratio_alone, f"batch_vs_{name}": batch.ratio_batch}
    return {name: value and float(f"{value:.4g}") for name, value in found.items()}


def best_runtimes(rows: Sequence[Row]) -> dict[str, dict[str, str]]:
    """The runtimes that the ratios of `figures` are of."""
    return {
        model: {"alone": alone.runtime, "batch": batch.runtime}
        for model, (alone, batch) in _best(rows).items()
    }


def _best(rows: Sequence[Row]) -> dict[str, tuple[Row, Row]]:
    """The fastest runtime of each model but the student, alone and in batches."""
    found = {}
    for model in dict.fromkeys(row.model for row in rows if row.model != STUDENT):
        some = [row for row in rows if row.model == model]
        found[model] = (
            min(some, key=lambda row: row.p50_us),
            min(some, key=lambda row: row.batch_us_per_pair),
        )
    return found


def text_lengths(pairs: Sequence[Pair]) -> dict[str, int]:
    """The number of pairs and the median bytes of their texts."""
    query, title = (int(np.median([len(pair[side].encode()) for pair in pairs])) for side in (0, 1))
    return {"pairs": len(pairs), "query_bytes": query, "title_bytes": title}
