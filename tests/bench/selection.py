"""Labels bought at random against labels bought by the student's uncertainty, in rounds.

    python tests/bench/selection.py --config RUN.TOML --teacher minilm --pairs 400000

RUN has logits of the teacher, who plays an expensive one; a part of the shards is enough. Each
round buys up to the next size. `random`: in turns over the queries, as `select --strategy random`.
`uncertain`: as `select --strategy uncertain`, by the student of the round before (M-RARU, arXiv
2511.11574); the first round is random. `most uncertain`: the highest entropies, without chance or
turns. Students are trained on the bought pairs alone, with each seed. A tenth of the queries is
held out of buying. Output: AUC on the judged test split and the share of the teacher's that is
kept; the difference from random with its 95 % interval over queries; on the held-out pairs, the
correlation with the teacher's logits and the distance from them.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pool import Fitted, Pool, fit, gain, held_figures, read_pool
from scipy.special import expit

from raydistill.config.loading import load_config
from raydistill.evaluation.metrics.pair_metrics import auc
from raydistill.runs.run_folder import Run
from raydistill.stages.fits.lexicon import write_lexicon
from raydistill.student.network import predict
from raydistill.teachers.selection import mixed, passes, ranks, uncertainty

SIZES = [3_000, 10_000, 30_000, 100_000]
WAYS = ("random", "uncertain", "most uncertain")
Rows = NDArray[np.int64]


def buy(
    pool: Pool, bought: Rows, student: Fitted | None, *, way: str, size: int, seed: int
) -> Rows:
    """The bought pairs and the next ones, `size` in total."""
    is_bought = np.zeros(len(pool.logits_B), bool)
    is_bought[bought] = True
    left = np.flatnonzero(~is_bought & ~pool.is_held_B)
    ids = pool.texts["pair_id"].to_numpy()
    keys = mixed(ids, seed=2 * seed)
    places = ranks(pool.groups_B, keys, is_labeled_B=is_bought)[left]
    in_pass = np.ones(len(left), np.int64)
    if student is not None and way != "random":
        scores = expit(predict(student.student, pool.features.take(left), device="cpu"))
        doubts = uncertainty(scores)
        if way == "most uncertain":
            rows = left[np.argsort(-doubts, kind="stable")]
            return np.concatenate([bought, rows[: size - len(bought)]])
        in_pass = passes(doubts, mixed(ids[left], seed=2 * seed + 1))
    rows = left[np.lexsort((keys[left], places, in_pass))]
    return np.concatenate([bought, rows[: size - len(bought)]])


def rounds(pool: Pool, *, way: str, seed: int, sizes: list[int]) -> dict[int, Fitted]:
    """The student after each round."""
    bought, student, found = np.empty(0, np.int64), None, {}
    for size in sizes:
        bought = buy(pool, bought, student, way=way, size=size, seed=seed)
        student = found[size] = fit(pool, bought, pool.logits_B[bought], seed=seed)
        done = f"{way}, seed {seed}, {size:,} pairs: AUC {student.auc(pool, 'test'):.4f}"
        print(done, file=sys.stderr, flush=True)
    return found


def cells(pool: Pool, students: list[Fitted], base: list[Fitted], teacher: float) -> dict[str, Any]:
    """The figures of one row of the table."""
    aucs = [student.auc(pool, "test") for student in students]
    held = [held_figures(pool, student) for student in students]
    over = None if students is base else gain(pool, students, base)
    return {
        "auc": aucs,
        "retention": [value / teacher for value in aucs],
        "over_random": over,
        "correlation": [one["correlation"] for one in held],
        "rmse": [one["rmse"] for one in held],
    }


def line(size: int, way: str, found: dict[str, Any]) -> str:
    """A row of the table."""
    mean = {name: np.mean(found[name]) for name in ("auc", "retention", "correlation", "rmse")}
    over = found["over_random"]
    shown = "" if over is None else f"{over[0]:+.4f} ({over[1]:+.4f} to {over[2]:+.4f})"
    spread = np.std(found["auc"], ddof=min(1, len(found["auc"]) - 1))
    return (
        f"| {size:,} | {way} | {mean['auc']:.4f} ± {spread:.4f} | {mean['retention']:.1%} "
        f"| {shown} | {mean['correlation']:.3f} | {mean['rmse']:.3f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", required=True)
    parser.add_argument("--teacher", default="minilm")
    parser.add_argument("--pairs", type=int, default=400_000, help="that can be bought")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--ways", nargs="+", default=list(WAYS))
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    run = Run(load_config(arguments.config))
    write_lexicon(run)
    pool = read_pool(run, arguments.teacher, num_pairs=arguments.pairs)
    test = pool.judged["test"]
    teacher = auc(test.teacher_B, test.labels_B, relevant_at=pool.relevant_at)
    num_queries = len(np.unique(pool.groups_B))
    print(f"{len(pool.logits_B):,} pairs of {num_queries:,} queries; the teacher's AUC on "
          f"{len(test.labels_B):,} test pairs: {teacher:.4f}")  # fmt: skip
    print("| pairs bought | how | AUC | AUC retained | over random | correlation | distance |")
    print("|---:|---|---:|---:|---:|---:|---:|", flush=True)
    students: dict[str, list[dict[int, Fitted]]] = {}
    for way in arguments.ways:
        students[way] = [
            rounds(pool, way=way, seed=seed, sizes=arguments.sizes)
            for seed in range(arguments.seeds)
        ]
    figures: dict[str, Any] = {"teacher": teacher}
    for size in arguments.sizes:
        base = [one[size] for one in students[arguments.ways[0]]]
        for way in arguments.ways:
            group = base if way == arguments.ways[0] else [one[size] for one in students[way]]
            found = cells(pool, group, base, teacher)
            print(line(size, way, found), flush=True)
            figures[f"{size} {way}"] = found
    print(json.dumps({"bench": "selection", "figures": figures}))


if __name__ == "__main__":
    main()
