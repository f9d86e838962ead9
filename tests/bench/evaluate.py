"""Seconds and memory of the evaluation: all metrics, intervals, differences, slices, charts.

    python tests/bench/evaluate.py --pairs 1000000 [--soft]

Made-up data: 8 scorers of which one scores half of the pairs, 10 pairs a query in the mean, five
grades, 1,000 resamples of queries; then 8 slices of 4 cells for 3 of the scorers. The machine code
is compiled, or read from its cache, before the clock starts.
"""

import argparse
import json
import resource
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from raydistill.evaluation.metrics.bootstrap import Draws
from raydistill.evaluation.scoreboard.distributions import charts
from raydistill.evaluation.scoreboard.scoreboard import scoreboard
from raydistill.evaluation.scoreboard.scored_pairs import Mask, ScoredPairs
from raydistill.evaluation.scoreboard.slices import slice_figures

NAMES = ("teacher", "student", "baseline", "ensemble", "words", "trigrams", "BM25", "partial")
SHOWN = ("student", "teacher", "baseline")


def made_up(num_pairs: int, *, is_soft: bool = False) -> ScoredPairs:
    """`is_soft`: labels without ties, as those of a report on agreement."""
    rng = np.random.default_rng(0)
    groups_B = rng.integers(num_pairs // 10, size=num_pairs)
    labels_B = rng.choice(np.array([0, 0.25, 0.5, 0.75, 1], np.float32), size=num_pairs)
    if is_soft:
        labels_B = (labels_B + rng.random(num_pairs).astype(np.float32)) / 2
    scores, thresholds = {}, dict.fromkeys(NAMES, 0.5)
    for at, name in enumerate(NAMES):
        noise_B = rng.normal(scale=1 + at / 8, size=num_pairs)
        scores[name] = (1 / (1 + np.exp(1 - 2 * labels_B - noise_B))).astype(np.float32)
    scores["partial"][rng.random(num_pairs) < 0.5] = np.nan
    return ScoredPairs(labels_B, groups_B, 0.75, scores, thresholds)


def made_up_masks(scored: ScoredPairs) -> dict[str, dict[str, Mask]]:
    """Half of the slices are of queries, half of pairs."""
    rng, num_pairs = np.random.default_rng(1), len(scored.labels_B)
    masks = {}
    for at in range(8):
        cells_Q = rng.integers(4, size=scored.num_queries)
        cells_B = cells_Q[scored.queries_B] if at % 2 else rng.integers(4, size=num_pairs)
        masks[f"slice {at}"] = {f"cell {cell}": cells_B == cell for cell in range(4)}
    return masks


def figures(scored: ScoredPairs, *, resamples: int) -> dict[str, float]:
    draws, found = Draws(resamples), dict[str, float]()
    start_cpu_s = time.process_time()

    def timed(name: str, work: Callable[[], Any]) -> None:
        start_s = time.perf_counter()
        work()
        found[f"{name}_s"] = round(time.perf_counter() - start_s, 2)

    compared = [("student", "baseline"), ("student", "teacher"), ("student", "partial")]
    timed(
        "scoreboard",
        lambda: scoreboard(scored, reference="teacher", compared=compared, draws=draws),
    )
    masks = made_up_masks(scored)
    timed(
        "slices",
        lambda: slice_figures(scored, masks=masks, shown=SHOWN, reference="teacher", draws=draws),
    )
    timed("charts", lambda: charts(scored, teacher="teacher"))
    found["seconds"] = round(sum(found.values()), 2)
    found["cpu_s"] = round(time.process_time() - start_cpu_s, 2)
    found["peak_rss_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=1_000_000)
    parser.add_argument("--resamples", type=int, default=1_000)
    parser.add_argument("--soft", action="store_true", help="labels without ties")
    arguments = parser.parse_args()
    figures(made_up(1_000), resamples=16)  # compiles
    scored = made_up(arguments.pairs, is_soft=arguments.soft)
    found: dict[str, float] = {
        "pairs": arguments.pairs,
        "queries": scored.num_queries,
        "scorers": len(scored.scores),
        "resamples": arguments.resamples,
        **figures(scored, resamples=arguments.resamples),
    }
    for name, value in found.items():
        print(f"{name:12} {value:>12,}")
    print(json.dumps({"bench": "evaluate", "figures": found}))


if __name__ == "__main__":
    main()
