"""Figures of parts of the pairs are those of the scoreboard of these pairs."""

import json
from dataclasses import replace

import numpy as np
import pytest

from raydistill.evaluation.metrics.bootstrap import Draws
from raydistill.evaluation.metrics.summary import metric_values
from raydistill.evaluation.scoreboard.scoreboard import scoreboard
from raydistill.evaluation.scoreboard.slices import slice_figures
from tests.helpers.scored import DRAWS, some_pairs

SHOWN = ("student", "teacher", "partial")


def test_cells_are_measured_alone() -> None:
    scored = some_pairs()
    even = scored.groups_B % 2 == 0
    high = np.random.default_rng(0).random(240) < 0.5  # of pairs, not of queries
    masks = {"number": {"even": even, "odd": ~even}, "side": {"high": high}}
    found = slice_figures(scored, masks=masks, shown=SHOWN, reference="teacher", draws=DRAWS)
    assert [one["slice"] for one in found] == ["number", "side"]
    assert [cell["cell"] for cell in found[0]["cells"]] == ["even", "odd"]
    for mask, cell in ((even, found[0]["cells"][0]), (high, found[1]["cells"][0])):
        assert cell["num_pairs"] == mask.sum()
        assert cell["num_queries"] == len(np.unique(scored.groups_B[mask]))
        of = {}
        for name in SHOWN:
            rows = mask & np.isfinite(scored.scores[name])
            of[name] = metric_values(
                scored.scores[name][rows], scored.labels_B[rows], scored.groups_B[rows],
                relevant_at=0.75, keys=("auc", "ndcg_10", "query_auc"),
            )  # fmt: skip
            for key, value in of[name].items():
                figure = cell["metrics"][name][key]
                assert figure["value"] == pytest.approx(value)
                assert figure["low"] <= figure["value"] <= figure["high"]
        kept = cell["retention"]["auc"]["value"]
        assert kept == pytest.approx(of["student"]["auc"] / of["teacher"]["auc"])


def test_all_pairs_are_the_scoreboard() -> None:
    scored = some_pairs()
    masks = {"all": {"all": np.ones(240, np.bool_)}}
    found = slice_figures(scored, masks=masks, shown=SHOWN, reference="partial", draws=DRAWS)
    whole = scoreboard(scored, reference="partial", draws=DRAWS)["scorers"]
    cell = found[0]["cells"][0]
    for name in SHOWN:
        for key, value in cell["metrics"][name].items():
            assert value == pytest.approx(whole[name]["metrics"][key])
    for key, value in cell["retention"].items():  # on the pairs that both score
        assert value == pytest.approx(whole["student"]["retention"][key])


def test_an_empty_cell_and_one_of_one_kind() -> None:
    scored = some_pairs()
    masks = {"x": {"none": np.zeros(240, np.bool_), "relevant": scored.relevant_B}}
    found = slice_figures(scored, masks=masks, shown=SHOWN, reference="teacher", draws=Draws(10))
    json.dumps(found, allow_nan=False)
    none, relevant = found[0]["cells"]
    assert (none["num_pairs"], none["num_queries"]) == (0, 0)
    assert none["metrics"]["student"] == {"auc": None, "ndcg_10": None, "query_auc": None}
    assert relevant["metrics"]["student"]["auc"] is None
    assert relevant["retention"]["auc"] is None


def test_scorers_that_are_not_there_are_not_shown() -> None:
    scored = some_pairs()
    scored = replace(scored, scores={"student": scored.scores["student"]})
    masks = {"all": {"all": np.ones(240, np.bool_)}}
    cell = slice_figures(scored, masks=masks, shown=SHOWN, reference=None, draws=DRAWS)[0]["cells"][
        0
    ]
    assert set(cell["metrics"]) == {"student"} and cell["retention"] == {}


def test_a_cell_of_few_queries_has_no_interval() -> None:
    scored = some_pairs()
    queries = scored.queries_B
    masks = {"x": {"four": queries < 4, "five": queries < 5}}
    shown = ("student", "teacher")
    found = slice_figures(scored, masks=masks, shown=shown, reference="teacher", draws=DRAWS)
    four, five = found[0]["cells"]
    assert (four["num_queries"], five["num_queries"]) == (4, 5)
    for figures in (four["metrics"]["student"], four["retention"]):
        assert figures["auc"]["value"] > 0
        assert figures["auc"]["low"] is None and figures["auc"]["high"] is None
    assert five["metrics"]["student"]["auc"]["low"] is not None
