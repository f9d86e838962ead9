"""The last step of a search: the best few against the untuned settings, seed by seed.

Comes in: metrics of students that were trained on the whole transfer set. Goes out: which settings
to take, and what they gain, with its spread. No files, no Ray.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

import tomli_w

from raydistill.search.space import Settings, tables_of
from raydistill.search.trial import MODES

UNTUNED = "untuned"


@dataclass(frozen=True)
class Final:
    """One configuration and its students, one a seed: metrics by split."""

    name: str
    settings: Settings
    students: tuple[dict[str, Any], ...]  # seed, fingerprint, dev, test, us_per_pair

    def mean(self, split: str, metric: str) -> float:
        """Mean over the seeds."""
        return fmean(self.values(split, metric))

    def values(self, split: str, metric: str) -> list[float]:
        """One a seed."""
        return [float(student[split][metric]) for student in self.students]


@dataclass(frozen=True)
class Gain:
    """How much better the chosen settings are than the untuned ones, seed by seed."""

    mean: float  # above 0 is better, whatever the metric
    deviation: float | None  # of the differences; None for one seed
    num_seeds: int

    @property
    def error(self) -> float | None:
        """Standard error of the mean."""
        return None if self.deviation is None else self.deviation / self.num_seeds**0.5

    @property
    def is_real(self) -> bool:
        """Whether it is more than twice its standard error; never for one seed."""
        return self.error is not None and self.mean > 2 * self.error


def choose(untuned: Final, others: Sequence[Final], *, metric: str) -> Final:
    """The best mean on the dev split; the untuned settings where nothing beats them."""
    sign = -1 if MODES[metric] == "max" else 1
    return min([untuned, *others], key=lambda final: sign * final.mean("dev", metric))


def gain(chosen: Final, untuned: Final, *, split: str, metric: str) -> Gain:
    """The differences between the two, of the same seeds."""
    sign = 1 if MODES[metric] == "max" else -1
    pairs = zip(chosen.values(split, metric), untuned.values(split, metric), strict=True)
    found = [sign * (one - other) for one, other in pairs]
    return Gain(fmean(found), stdev(found) if len(found) > 1 else None, len(found))


def verdict(chosen: Final, untuned: Final, *, metric: str) -> str:
    """One sentence: the gain on unseen queries with its spread, or that there is none."""
    if chosen is untuned:
        return "No gain: nothing that was searched beats the untuned settings on the dev split."
    found = gain(chosen, untuned, split="test", metric=metric)
    name = metric.replace("_", " ")
    if found.error is None:
        return (
            f"{name} on the test split is better by {found.mean:+.4f} with one seed, which tells "
            "nothing about its spread."
        )
    text = (
        f"{found.mean:+.4f} {name} on the test split (standard error {found.error:.4f}, "
        f"{found.num_seeds} seeds; above 0 is better)"
    )
    if found.is_real:
        return f"{chosen.name} gains {text}."
    return f"No gain that the seeds' spread does not explain: {chosen.name} has {text}."


def best_toml(chosen: Final, sentence: str) -> str:
    """The overlay that `train` takes."""
    return f"# {sentence}\n# raydistill distill --config RUN.TOML --overlay THIS\n" + tomli_w.dumps(
        tables_of(chosen.settings)
    )
