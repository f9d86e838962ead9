"""Plots of a search."""

import numpy as np
import pytest

from raydistill.search.plots import draw
from raydistill.search.results import FAILED, FINISHED, US_PER_PAIR, Trial


@pytest.mark.slow
def test_plots_are_the_same_bytes_for_the_same_trials() -> None:
    some = [
        Trial(str(at), FINISHED, {"student.hidden": (8,) * (1 + at % 2), "train.learning_rate": r},
              {"auc": 0.5 + r, US_PER_PAIR: 10.0 + at})
        for at, r in enumerate(np.geomspace(0.001, 0.1, 5).tolist())
    ]  # fmt: skip
    found = draw(some, metric="auc")
    assert sorted(found) == ["front.svg", "settings.svg"]
    assert b"train.learning_rate" in found["settings.svg"] and found == draw(some, metric="auc")
    failed = Trial("failed", FAILED, {"student.hidden": (8,)}, {}, error="ValueError: no")
    assert draw([failed], metric="auc") == {}
    assert sorted(draw(some[:1], metric="auc")) == ["front.svg", "settings.svg"]
