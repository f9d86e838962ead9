"""Every scorer's metrics, retention and differences, with intervals."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from raydistill.evaluation.metrics.bootstrap import Draws
from raydistill.evaluation.metrics.catalogue import METRICS
from raydistill.evaluation.metrics.resampling import (
    LabeledPairs,
    Resampled,
    Unit,
    resample,
)
from raydistill.evaluation.scoreboard.intervals import (
    difference_figures,
    metric_figures,
    retention_figures,
)
from raydistill.evaluation.scoreboard.scored_pairs import ScoredPairs


class Measurements:
    """Resampled metrics of scorers, each on the pairs that it scores or that it shares.

    Two scorers are compared on the pairs that both score, on the same draws of queries.
    """

    def __init__(
        self,
        scored: ScoredPairs,
        *,
        compared: Iterable[tuple[str, str]] = (),
        draws: Draws | None = None,
        keys: Sequence[str] = tuple(METRICS),
    ) -> None:
        """Measure every scorer alone, and the compared ones on the pairs of both."""
        self.scored, self.keys = scored, list(keys)
        wanted: dict[frozenset[str], set[str]] = {}  # scorers, by the partial ones they share with
        for names in [*((name, name) for name in scored.scores), *compared]:
            wanted.setdefault(scored.partial & set(names), set()).update(names)
        units = [self._unit(partial, names) for partial, names in wanted.items()]
        found = resample(units, num_queries=scored.num_queries, draws=draws or Draws())
        self.pairs: dict[frozenset[str], LabeledPairs] = {
            partial: pairs for partial, (pairs, _) in zip(wanted, units, strict=True)
        }
        self._found = dict(zip(wanted, found, strict=True))

    def _unit(self, partial: frozenset[str], names: set[str]) -> Unit:
        in_order = [name for name in self.scored.scores if name in names]
        return self.scored.unit(in_order, self.scored.scored_by(partial), keys=self.keys)

    def alone(self, name: str) -> Resampled:
        """A scorer on the pairs that it scores."""
        return self._found[self._shared(name)][name]

    def both(self, one: str, other: str) -> tuple[Resampled, Resampled]:
        """Two compared scorers on the pairs that both score."""
        found = self._found[self._shared(one, other)]
        return found[one], found[other]

    def has(self, key: str) -> bool:
        """Whether some scorer has a value of a metric."""
        values = (self.alone(name).value for name in self.scored.scores)
        return any(math.isfinite(value.get(key, math.nan)) for value in values)

    def num_pairs(self, *names: str) -> int:
        """The pairs that all of these score."""
        return len(self.pairs[self._shared(*names)].labels_B)

    def num_queries(self, *names: str) -> int:
        """The queries of these pairs."""
        return self.pairs[self._shared(*names)].num_queries

    def _shared(self, *names: str) -> frozenset[str]:
        return self.scored.partial & set(names)


def scoreboard(
    scored: ScoredPairs,
    *,
    reference: str | None,
    compared: Sequence[tuple[str, str]] = (),
    draws: Draws | None = None,
) -> dict[str, Any]:
    """The figures of metrics.json that need labels and scores alone.

    `reference`: the scorer that retention divides by; None: no retention. `compared`: couples of
    scorers of which the difference, one - other, is wanted. A metric that no scorer has is left
    out.

    Raises:
        ValueError: a name of `reference` or `compared` is not a scorer.
    """
    draws = draws or Draws()
    _check_names(scored, [reference] if reference else [], *compared)
    retained = [(name, reference) for name in scored.scores if reference and name != reference]
    found = Measurements(scored, compared=[*retained, *compared], draws=draws)
    keys = [key for key in METRICS if found.has(key)]
    return {
        **counts(scored),
        "bootstrap": draws.to_dict(),
        "metrics": [METRICS[key].to_dict() for key in keys],
        "teacher": reference,
        "scorers": {
            name: _scorer(found, name, reference=reference, keys=keys) for name in scored.scores
        },
        "differences": [
            {
                "one": one,
                "other": other,
                "num_pairs": found.num_pairs(one, other),
                "metrics": difference_figures(*found.both(one, other), keys),
            }
            for one, other in compared
        ],
    }


def counts(scored: ScoredPairs) -> dict[str, Any]:
    """Pairs and queries, and how many queries the metrics per query leave out."""
    num_pairs, both, unequal = len(scored.labels_B), 0, 0
    if num_pairs:
        pairs = LabeledPairs(scored.labels_B, scored.queries_B, relevant_at=scored.relevant_at)
        both = int(pairs.has_both_kinds_Q.sum())
        unequal = int(pairs.has_unequal_labels_Q.sum())
    return {
        "num_pairs": num_pairs,
        "num_queries": scored.num_queries,
        "relevant_at": scored.relevant_at,
        "relevant_share": float(scored.relevant_B.mean()) if num_pairs else None,
        "queries": {
            "all": scored.num_queries,
            "both_kinds": both,
            "unequal_labels": unequal,
            "left_out": scored.num_queries - both,
        },
    }


def _scorer(
    found: Measurements, name: str, *, reference: str | None, keys: list[str]
) -> dict[str, Any]:
    is_retained = reference is not None and name != reference
    return {
        "num_pairs": found.num_pairs(name),
        "num_queries": found.num_queries(name),
        "threshold": found.scored.thresholds.get(name),
        "metrics": metric_figures(found.alone(name), keys),
        "retention": (
            retention_figures(*found.both(name, str(reference)), keys) if is_retained else {}
        ),
    }


def _check_names(scored: ScoredPairs, *names: Iterable[str]) -> None:
    unknown = {name for some in names for name in some} - set(scored.scores)
    if unknown:
        raise ValueError(f"no scorer is called {sorted(unknown)}; there are {list(scored.scores)}")
