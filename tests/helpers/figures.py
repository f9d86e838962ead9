"""A made-up metrics.json (schema 2) with all that it may hold, and variants that lack parts."""

from __future__ import annotations

import copy
import json
import math
from typing import Any

from tests.helpers.figure_parts import (
    BASELINE,
    BEHIND,
    KEYS,
    TEACHERS,
    bins,
    cases,
    cell_of,
    curve,
    data,
    difference,
    figure,
    histogram,
    scorer,
    slices,
    stages,
    training,
    tune,
)


def full() -> dict[str, Any]:
    """A report of a run with all parts."""
    drawn = ("student", "teacher ensemble", BASELINE)
    metrics = [{"key": key, "name": name, "best": best, "of": of, "chance": chance}
               for key, (name, best, of, chance) in KEYS.items()]  # fmt: skip
    covered = {"pairs": 918405, "of": 918405, "share": 1.0, "dev": 6516, "test": 6558}
    cost = [{"stage": name, "pairs": one["rows_out"], "seconds": one["seconds"], "gpu_hours": None,
             "money": one["seconds"] / 3600 * 2.4, "kwh": one["seconds"] / 3600 * 0.3}
            for name, one in stages().items()]  # fmt: skip
    scorers = {name: scorer(name, behind) for name, behind in BEHIND.items()}
    found = {
        "schema": 2, "kind": "judged", "num_pairs": 6558, "num_unscored": 2, "num_queries": 1048,
        "relevant_at": 0.75, "relevant_share": 0.4616, "is_dev_drawn": False,
        "queries": {"all": 1048, "both_kinds": 911, "left_out": 137},
        "bootstrap": {"resamples": 1000, "seed": 0, "level": 0.95, "unit": "query"},
        "metrics": metrics, "scorers": scorers, "teacher": "teacher ensemble",
        "differences": [
            difference(BASELINE, gap=0.0081, p=0.004),
            difference("teacher ensemble", gap=-0.0102, p=2 / 1001),
            difference("teacher minilm", gap=-0.0015, p=0.61),
            difference("teacher trees", gap=0.0099, p=0.002),
        ],
        "other_labels": {
            "name": "other", "num_pairs": 2000, "num_queries": 320,
            "num_missing": 4558, "relevant_share": 0.39,
            "agreement_with_judged": {"num_pairs": 1800, "same_decision": 0.871,
                                      "spearman": figure(0.74, 0.03)},
            "scorers": {
                name: {kind: {key: figure(entry["metrics"][key]["value"] - gap, 0.02)
                              for key in ("auc", "ndcg_10", "query_auc")}
                       for kind, gap in (("metrics", 0.02), ("judged_metrics", 0.01))}
                for name, entry in scorers.items()
            },
        },
        "slices": slices(),
        "charts": {
            "reliability": {name: bins(0.2 * at) for at, name in enumerate(drawn)},
            "histograms": {name: histogram(0.78 - 0.05 * at) for at, name in enumerate(drawn)},
            "student_by_teacher": [
                {"teacher": 0.025 + at / 20, "student": 0.1 + 0.04 * at, "num": 328,
                 "low": max(0.1 + 0.04 * at - 0.15, 0), "high": min(0.1 + 0.04 * at + 0.13, 1)}
                for at in range(20)
            ],
        },
        "cases": cases(), "curve": curve(),
        "cost": {"stages": cost, "currency": "EUR",
                 "money_total": sum(one["money"] for one in cost),
                 "kwh_total": sum(one["kwh"] for one in cost)},
        "coverage": {"minilm": {**covered, "unmatched": 0}, "trees": dict(covered)},
        "sources": {"dev": "judged", "test": "judged"},
        "stack": {"weights": {"minilm": 0.544, "trees": 0.456}, "bias": -0.051,
                  "temperature": 0.984, "weight_errors": {"minilm": 0.044, "trees": 0.044},
                  "bias_error": 0.030, "temperature_error": 0.030, "num_pairs": 6516},
        "single_us": 15.2, "stages": stages(), "training": training(), "tune": tune(),
        "data": data(),
    }  # fmt: skip
    return copy.deepcopy(found)  # no part is shared


def without(*names: str) -> dict[str, Any]:
    """The full report with parts as they are where there is nothing."""
    empty = {"differences": [], "slices": [], "charts": {}, "stages": {}, "training": {},
             "coverage": {}, "cases": {}}  # fmt: skip
    return full() | {name: empty.get(name) for name in names}


def one_teacher() -> dict[str, Any]:
    """A run with one teacher, whose scores are partial."""
    found = without("stack", "tune", "curve", "cost", "other_labels")
    teacher = found["scorers"].pop("teacher minilm")
    for name in TEACHERS[1:]:
        del found["scorers"][name]
    found["teacher"] = "teacher minilm"
    teacher["num_pairs"] = 5000
    found["scorers"] = {"teacher minilm": teacher, **found["scorers"]}
    found["differences"] = [
        one for one in found["differences"] if one["other"] in ("teacher minilm", BASELINE)
    ]
    found["differences"][1]["num_pairs"] = 5000
    found["coverage"] = {"minilm": {"pairs": 700000, "of": 918405, "share": 0.762, "dev": 4980,
                                    "test": 5000, "unmatched": 12}}  # fmt: skip
    for name in ("reliability", "histograms"):
        found["charts"][name].pop("teacher ensemble")
    for one in found["slices"]:
        for cell in one["cells"]:
            cell["metrics"]["teacher minilm"] = cell["metrics"].pop("teacher ensemble")
    return found


def agreement() -> dict[str, Any]:
    """A run without judged pairs: labels are the teachers' soft labels."""
    found = without("other_labels", "stack", "curve", "tune", "cost")
    for name in (BASELINE, "word overlap", "character trigrams", "BM25", TEACHERS[3]):
        del found["scorers"][name]
    for entry in found["scorers"].values():
        entry["retention"] = {}
    found["scorers"]["teacher ensemble"]["metrics"] |= {
        key: {"value": 1.0, "low": 1.0, "high": 1.0} for key in ("ndcg_10", "accuracy", "spearman")
    }
    for one in found["slices"]:
        for cell in one["cells"]:
            cell["retention"] = {}
            del cell["metrics"][BASELINE]
    del found["training"]["judged_only"]
    for name in ("reliability", "histograms"):
        del found["charts"][name][BASELINE]
    sources = {"dev": "held_out", "test": "held_out"}
    differences = [one for one in found["differences"] if one["other"] in found["scorers"]]
    return found | {"kind": "agreement", "relevant_at": None, "sources": sources,
                    "differences": differences, "is_dev_drawn": True}  # fmt: skip


def single_texts() -> dict[str, Any]:
    """A run of single texts: no queries, so no metric within a query."""
    found = without("other_labels", "curve", "tune", "cost", "slices")
    found["metrics"] = [one for one in found["metrics"] if one["of"] == "pairs"]
    have = {one["key"] for one in found["metrics"]}
    for entry in found["scorers"].values():
        for kind in ("metrics", "retention"):
            entry[kind] = {key: one for key, one in entry[kind].items() if key in have}
    for one in found["differences"]:
        one["metrics"] = {key: one["metrics"][key] for key in have}
    for kind in ("student_higher", "student_lower", "student_right"):
        for case in found["cases"][kind]:
            case["query"] = ""
    found["cases"]["neighbors"] = []
    queries = {"all": 6558, "both_kinds": 0, "left_out": 6558}
    return found | {"queries": queries, "num_queries": 6558}


def few() -> dict[str, Any]:
    """A small test: wide intervals, figures that could not be measured, no difference."""
    found = without("other_labels", "curve", "tune", "cost", "cases")
    found |= {"num_pairs": 90, "num_queries": 20}
    found["queries"] = {"all": 20, "both_kinds": 12, "left_out": 8}
    for entry in found["scorers"].values():
        entry |= {"num_pairs": 90, "num_queries": 20}
        entry["metrics"]["precision_5"] = None
        entry["metrics"]["query_auc"] = {"value": math.nan, "low": math.nan, "high": math.nan}
        for kind in ("metrics", "retention"):
            for one in filter(None, entry[kind].values()):
                one |= {"low": one["value"] - 0.1, "high": one["value"] + 0.1}
    for one in found["differences"]:
        one["num_pairs"] = 90
        for key, value in one["metrics"].items():
            one["metrics"][key] = figure(value["value"], 0.1, p=0.8)
    cells = [cell_of("with", 12, 0.9), cell_of("without", 78, 0.99)]
    found["slices"] = [{"slice": "numbers in the query", "note": None, "cells": cells}]
    return found


SCRIPT = "<script>alert(1)</script>"
FORMULA = r"$\frac{a$"  # matplotlib fails on it, read as a formula


def hostile() -> dict[str, Any]:
    """Texts of users that try to be markup, in all places that have some."""
    found = full()
    teacher = f"teacher {SCRIPT}"
    found["scorers"] = {
        (teacher if name == "teacher minilm" else name): one
        for name, one in found["scorers"].items()
    }
    for one in found["differences"]:
        one["other"] = teacher if one["other"] == "teacher minilm" else one["other"]
    for kind in ("student_higher", "student_lower", "student_right"):
        case = found["cases"][kind][0]
        case |= {"query": SCRIPT, "title": f"</td>{SCRIPT}\x1b[31m \u202e | {'x' * 300}"}
        case["drivers"][0] |= {"text": SCRIPT, "kind": SCRIPT}
    found["cases"]["neighbors"][0]["word"] = SCRIPT
    found["cases"]["neighbors"][0]["neighbors"][0]["text"] = SCRIPT
    found["slices"][0] |= {"slice": SCRIPT, "note": SCRIPT}
    found["slices"][0]["cells"][0] |= {"cell": SCRIPT}
    found["data"]["datasets"]["pairs"]["sample"][0] |= {"query": SCRIPT, "title": SCRIPT}
    found["data"]["rejects"]["judged"][0] |= {"query": SCRIPT, "title": SCRIPT, "reason": SCRIPT}
    found["tune"]["errors"][0]["error"] = SCRIPT
    found["tune"]["best_trials"][0]["settings"]["student.hidden"] = SCRIPT
    found["curve"]["teacher"] = found["curve"]["points"][0]["preset"] = SCRIPT
    found["curve"]["others"][SCRIPT] = found["curve"]["others"].pop("teacher ensemble")
    found["coverage"]["minilm"]["unmatched"] = 3
    found["coverage"][SCRIPT] = found["coverage"].pop("minilm")
    found["stack"]["weights"][SCRIPT] = found["stack"]["weights"].pop("minilm")
    found["stack"]["weight_errors"][SCRIPT] = found["stack"]["weight_errors"].pop("minilm")
    found["stages"][f"label {SCRIPT}"] = found["stages"].pop("label minilm")
    found["cost"]["stages"][0]["stage"] = SCRIPT
    found["other_labels"]["name"] = SCRIPT
    return _renamed(found, {"teacher ensemble": f"teacher {FORMULA} {'long-' * 30}"})


def _renamed(found: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    """The report with other names of scorers, wherever they stand."""

    def rename(part: dict[str, Any]) -> dict[str, Any]:
        values = ((k, names.get(v, v) if isinstance(v, str) else v) for k, v in part.items())
        return {names.get(key, key): value for key, value in values}

    renamed: dict[str, Any] = json.loads(json.dumps(found), object_hook=rename)
    return renamed


VARIANTS = {
    "full": full, "one_teacher": one_teacher, "agreement": agreement, "few": few,
    "single_texts": single_texts, "hostile": hostile,
}  # fmt: skip
