"""A made-up metrics.json (schema 2) with all that it may hold, and variants that lack parts."""

from __future__ import annotations

import copy
import json
import math
from typing import Any

TEACHERS = ("teacher minilm", "teacher trees", "teacher ensemble", "teacher ensemble, calibrated")
BASELINE = "baseline on judged labels only"
KEYS = {
    "auc": ("AUC", "max", "pairs", 0.5), "pr_auc": ("PR-AUC", "max", "pairs", None),
    "accuracy": ("accuracy", "max", "pairs", None), "log_loss": ("log loss", "min", "pairs", None),
    "ece": ("calibration error", "min", "pairs", None),
    "spearman": ("Spearman", "max", "pairs", None),
    "ndcg_5": ("nDCG@5", "max", "queries", None), "ndcg_10": ("nDCG@10", "max", "queries", None),
    "mrr_10": ("MRR@10", "max", "queries", None), "precision_1": ("P@1", "max", "queries", None),
    "precision_5": ("P@5", "max", "queries", None),
    "query_auc": ("AUC per query", "max", "queries", 0.5),
    "pairwise": ("pairwise agreement", "max", "queries", 0.5),
}  # fmt: skip
_OF_ENSEMBLE = dict(zip(KEYS, (0.7708, 0.7304, 0.7145, 0.5693, 0.0047, 0.4712, 0.8123, 0.8511,
                               0.8022, 0.7011, 0.6123, 0.7402, 0.7391), strict=True))  # fmt: skip
_BEHIND = {  # how far each scorer is behind the ensemble, as a share of its metrics
    "teacher minilm": 0.011, "teacher trees": 0.026, "teacher ensemble": 0.0,
    "teacher ensemble, calibrated": 0.0, "student": 0.013, BASELINE: 0.024, "word overlap": 0.12,
    "character trigrams": 0.1, "BM25": 0.11,
}  # fmt: skip
_SPEEDS = {"teacher minilm": 4139.9, "teacher trees": 48.1, "student": 7.9, BASELINE: 7.9,
           "word overlap": 0.61, "character trigrams": 3.2, "BM25": 1.4}  # fmt: skip


def figure(value: float, half: float, **more: float) -> dict[str, float]:
    return {"value": value, "low": value - half, "high": value + 0.9 * half, **more}


def role_of(name: str) -> str:
    if name == "student":
        return "student"
    if name == BASELINE:
        return "baseline"
    if not name.startswith("teacher"):
        return "reference"
    return "ensemble" if "ensemble" in name else "teacher"


def _scorer(name: str, behind: float) -> dict[str, Any]:
    is_method = role_of(name) == "reference"
    metrics: dict[str, Any] = {}
    for key, best in _OF_ENSEMBLE.items():
        worse = 1 + 2 * behind if KEYS[key][1] == "min" else 1 - behind
        half = 0.002 if key == "ece" else 0.012
        metrics[key] = figure(best * worse, half)
    if is_method:  # a score that is no probability
        metrics |= {"log_loss": None, "ece": None}
    kept = {}
    if role_of(name) in ("student", "baseline", "reference"):
        kept = {k: figure(1 - behind, 0.006) for k, m in metrics.items() if m and k != "ece"}
        kept["auc_above_chance"] = figure(1 - 2.8 * behind, 0.017)
    return {
        "role": role_of(name), "num_pairs": 6558, "num_queries": 1048, "threshold": 0.73,
        "us_per_pair": _SPEEDS.get(name), "metrics": metrics, "retention": kept,
    }  # fmt: skip


def _difference(other: str, *, gap: float, p: float) -> dict[str, Any]:
    metrics = {}
    for key, (_, best, _, _) in KEYS.items():
        value = -gap if best == "min" else gap
        metrics[key] = figure(value, 0.0055, p=p)
    return {"one": "student", "other": other, "num_pairs": 6558, "metrics": metrics}


def _cell(name: str, num: int, kept: float) -> dict[str, Any]:
    half = 0.9 / math.sqrt(num)
    keys = ("auc", "ndcg_10", "query_auc")
    metrics = {
        s: {k: figure(_OF_ENSEMBLE[k] * (1 - _BEHIND[s]), half) for k in keys}
        for s in ("teacher ensemble", "student", BASELINE)
    }
    retention: dict[str, Any] = {k: figure(kept, half / 2) for k in keys}
    if num < 20:
        retention["query_auc"] = None
        metrics["student"]["query_auc"] = None  # type: ignore[assignment]
    return {
        "cell": name, "num_pairs": num, "num_queries": num // 6, "metrics": metrics,
        "retention": retention,
    }  # fmt: skip


def _slices() -> list[dict[str, Any]]:
    cells = {
        "query seen in training": (("seen", 3200, 0.991), ("unseen", 3358, 0.983)),
        "weight of the query": (("head", 2100, 0.992), ("torso", 2400, 0.987),
                                ("tail", 2058, 0.97)),
        "query length": (("1 word", 612, 0.958), ("2 words", 2533, 0.989), ("3 words", 2320, 0.99),
                         ("4 words or more", 1093, 0.981)),
        "numbers in the query": (("with", 903, 0.967), ("without", 5655, 0.989)),
        "confidence of the ensemble": (("low", 2186, 0.968), ("middle", 2186, 0.985),
                                       ("high", 2186, 0.998)),
        "script of the query": (("Latin", 6541, 0.987), ("Cyrillic", 17, 0.91)),
    }  # fmt: skip
    found = [
        {"slice": name, "note": None, "cells": [_cell(*cell) for cell in those]}
        for name, those in cells.items()
    ]
    found[1]["note"] = "A third of the rows each, by how often the query occurs."
    return found


def _bins(shift: float) -> list[dict[str, Any]]:
    return [
        {"score": 0.05 + at / 10, "label": min(max(0.05 + at / 10 + shift * (5 - at) / 20, 0), 1),
         "num": 200 + 90 * at}
        for at in range(10)
    ]  # fmt: skip


def _histogram(center: float) -> dict[str, Any]:
    def counts(middle: float, total: int) -> list[int]:
        heights = [math.exp(-((at / 20 + 0.025 - middle) ** 2) / 0.03) for at in range(20)]
        return [round(total * height / sum(heights)) for height in heights]

    edges = [round(at / 20, 2) for at in range(21)]
    return {"edges": edges, "relevant": counts(center, 3027), "other": counts(center - 0.28, 3531)}


def _case(query: str, title: str, label: float, student: float, teacher: float) -> dict[str, Any]:
    words = [("n-gram of the query", query.split()[0]), ("n-gram of the title", title.split()[-1]),
             ("match feature", "share of the query's words in the title"),
             ("n-gram of the title", title.split()[0])]  # fmt: skip
    values = (1.31, -0.84, 0.52, -0.11)
    sign = 1 if student > 0.5 else -1
    drivers = [
        {"kind": kind, "text": text, "value": sign * value}
        for (kind, text), value in zip(words, values, strict=True)
    ]
    return {"query": query, "title": title, "label": label, "student": student, "teacher": teacher,
            "drivers": drivers,
            "logit": sign * 1.2, "baseline_logit": -0.2, "rest": 0.05}  # fmt: skip


def _cases() -> dict[str, Any]:
    return {
        "method": "integrated gradients",
        "student_higher": [
            _case("12x24 air filter", "Filtrete 12 in. x 24 in. Air Filter Cover Plate", 0.33, 0.84,
                  0.31),
            _case("outdoor bench cushion", "Hampton Bay Outdoor Bench", 0.5, 0.79, 0.36),
        ],
        "student_lower": [
            _case("commode", "KOHLER Wellworth 2-Piece 1.28 GPF Elongated Toilet in White", 1.0,
                  0.22, 0.83),
            _case("sheetrock", "USG 1/2 in. x 4 ft. x 8 ft. UltraLight Gypsum Panel", 1.0, 0.35,
                  0.86),
        ],
        "student_right": [
            _case("hdx 75 galon trash bags", "HDX 75 Gal. Extra Large Trash Bags (50-Count)", 1.0,
                  0.93, 0.44),
        ],
        "neighbors_of": "word vectors",
        "neighbors": [
            {"word": "ipad", "count": 312, "neighbors": [
                {"text": "tablet", "cosine": 0.81}, {"text": "ipad air", "cosine": 0.77}]},
            {"word": "faucet", "count": 205, "neighbors": [
                {"text": "faucets", "cosine": 0.91}, {"text": "tap", "cosine": 0.62}]},
        ],
    }  # fmt: skip


def _curve() -> dict[str, Any]:
    def point(share: float, auc: float, seed: int) -> dict[str, Any]:
        auc += 0.001 * seed
        kept = {"AUC": auc / 0.77, "AUC above chance": (auc - 0.5) / 0.27, "accuracy": 0.98}
        return {"preset": "match", "share": share, "labeled_pairs": round(905331 * share),
                "seed": seed, "auc": auc, "accuracy": 0.70, "retention": kept}  # fmt: skip

    levels = {0.01: 0.700, 0.03: 0.722, 0.1: 0.741, 0.3: 0.753, 1.0: 0.760}
    points = [point(share, auc, seed) for share, auc in levels.items() for seed in (0, 1)]
    others = {
        "teacher ensemble": {"auc": 0.77, "accuracy": 0.71},
        "character overlap": {"auc": 0.68, "accuracy": 0.65, "retention": {
            "AUC": 0.883, "AUC above chance": 0.667, "accuracy": 0.91}},
    }  # fmt: skip
    return {"num_pairs": 6558, "num_queries": 1048, "relevant_at": 0.75, "seeds": [0, 1],
            "teacher": "teacher ensemble", "points": points, "others": others}  # fmt: skip


def _tune() -> dict[str, Any]:
    def trial(at: int) -> dict[str, Any]:
        settings = {"soft_labels.temperature": round(0.5 * 1.25**at, 3),
                    "soft_labels.weights.minilm": round(0.3 + 0.05 * at, 3),
                    "student.hidden": "[1024, 512]"}  # fmt: skip
        return {"name": f"trial-{at}", "state": "finished" if at < 5 else "stopped",
                "log_loss": 0.57 + 0.001 * (at - 3) ** 2, "auc": 0.755 - 0.001 * abs(at - 3),
                "us_per_pair": 9.0 - 0.3 * at, "settings": settings}  # fmt: skip

    def student(seed: int, auc: float) -> dict[str, Any]:
        metrics = {"auc": auc + 0.0005 * seed, "log_loss": 0.57}
        return {"seed": seed, "dev": metrics, "test": metrics, "us_per_pair": 7.9}

    return {
        "metric": "auc", "is_agreement": False, "num_sample": 100_000,
        "states": {"finished": 5, "stopped": 3, "failed": 1},
        "errors": [{"name": "trial-9", "error": "out of memory"}],
        "best_trials": [trial(at) for at in range(8)], "front": [trial(4), trial(7)],
        "finals": [{"name": "untuned", "students": [student(0, 0.757), student(1, 0.757)]},
                   {"name": "trial-3", "students": [student(0, 0.759), student(1, 0.759)]}],
        "chosen": "trial-3", "plots": ["settings.svg"],
        "verdict": "trial-3 gains +0.0020 auc on the test split (standard error 0.0002, 2 seeds).",
    }  # fmt: skip


def _training() -> dict[str, Any]:
    def fit(epochs: int, loss: float, auc: float) -> dict[str, Any]:
        evaluations = [
            {"epoch": float(at), "pairs": 905331.0 * at, "loss": loss / at**0.7,
             "learning_rate": 0.01, "dev_auc": auc - 0.01 / at, "dev_log_loss": 0.56 + 0.01 / at}
            for at in range(1, epochs + 1)
        ]  # fmt: skip
        return {"weights": "9f4e", "dev_auc": auc, "pairs": 905331 * epochs, "device": "cpu",
                "evaluations": evaluations, "dtype": "bfloat16"}  # fmt: skip

    student = fit(5, 0.0091, 0.758)
    student["losses"] = [
        {"pairs": 905331 * 5 * at // 100, "loss": 0.02 / at**0.5} for at in range(1, 101)
    ]
    return {"student": student, "judged_only": fit(10, 0.57, 0.752)}


def _data() -> dict[str, Any]:
    counts = {"rows_in": 62979, "rows_out": 62979, "duplicates": 0, "quarantined": 0, "held_out": 0}
    sample = [
        {"query": "chalky finish paint", "weight": 1.0, "label": 1.0,
         "title": "DecoArt Americana Decor 8-oz. Whisper Chalky Finish"},
        {"query": "INTERIOR DOORS", "weight": 1.0, "label": 0.33,
         "title": "JELD-WEN Craftsman Smooth 3-Panel Primed Molded Interior Door Slab"},
    ]  # fmt: skip
    one = {"pairs_read": 6558, "share_read": 1, "queries": 1037, "titles_read": 6220,
           "rows_a_pair": 1.0, "words": {"query": [3, 5, 14], "title": [11, 20, 43]},
           "sample": sample, "wordpieces": {"pair": [25, 40, 96]},
           "relevant_share": 0.4616}  # fmt: skip
    reject = {"reason": "label is not in 0..1", "rows": 3, "query": "x", "title": "y"}
    return {
        "rows": {"judged": counts, "pairs": {**counts, "rows_in": 1025123, "held_out": 119792}},
        "num_shards": 74, "max_length": 96, "datasets": {"judged test": one, "pairs": one},
        "overlap": {"test": {"queries": 0.0, "pairs": 0.0}}, "rejects": {"judged": [reject]},
        "are_rejects_cut": False,
    }  # fmt: skip


def _stages() -> dict[str, Any]:
    rows = {"prepare judged": (62979, 18.4), "prepare pairs": (905331, 7.4),
            "finetune minilm": (49905, 1166.1), "label minilm": (918405, 1929.3),
            "label trees": (918405, 32.3), "train student": (905331, 106.7),
            "export": (200, 18.6)}  # fmt: skip
    return {
        name: {"rows_in": num, "rows_out": num, "quarantined": 0, "seconds": seconds}
        for name, (num, seconds) in rows.items()
    }


def full() -> dict[str, Any]:
    """A report of a run with all parts."""
    drawn = ("student", "teacher ensemble", BASELINE)
    metrics = [{"key": key, "name": name, "best": best, "of": of, "chance": chance}
               for key, (name, best, of, chance) in KEYS.items()]  # fmt: skip
    covered = {"pairs": 918405, "of": 918405, "share": 1.0, "dev": 6516, "test": 6558}
    cost = [{"stage": name, "pairs": one["rows_out"], "seconds": one["seconds"], "gpu_hours": None,
             "money": one["seconds"] / 3600 * 2.4, "kwh": one["seconds"] / 3600 * 0.3}
            for name, one in _stages().items()]  # fmt: skip
    scorers = {name: _scorer(name, behind) for name, behind in _BEHIND.items()}
    found = {
        "schema": 2, "kind": "judged", "num_pairs": 6558, "num_unscored": 2, "num_queries": 1048,
        "relevant_at": 0.75, "relevant_share": 0.4616, "is_dev_drawn": False,
        "queries": {"all": 1048, "both_kinds": 911, "left_out": 137},
        "bootstrap": {"resamples": 1000, "seed": 0, "level": 0.95, "unit": "query"},
        "metrics": metrics, "scorers": scorers, "teacher": "teacher ensemble",
        "differences": [
            _difference(BASELINE, gap=0.0081, p=0.004),
            _difference("teacher ensemble", gap=-0.0102, p=2 / 1001),
            _difference("teacher minilm", gap=-0.0015, p=0.61),
            _difference("teacher trees", gap=0.0099, p=0.002),
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
        "slices": _slices(),
        "charts": {
            "reliability": {name: _bins(0.2 * at) for at, name in enumerate(drawn)},
            "histograms": {name: _histogram(0.78 - 0.05 * at) for at, name in enumerate(drawn)},
            "student_by_teacher": [
                {"teacher": 0.025 + at / 20, "student": 0.1 + 0.04 * at, "num": 328,
                 "low": max(0.1 + 0.04 * at - 0.15, 0), "high": min(0.1 + 0.04 * at + 0.13, 1)}
                for at in range(20)
            ],
        },
        "cases": _cases(), "curve": _curve(),
        "cost": {"stages": cost, "currency": "EUR",
                 "money_total": sum(one["money"] for one in cost),
                 "kwh_total": sum(one["kwh"] for one in cost)},
        "coverage": {"minilm": {**covered, "unmatched": 0}, "trees": dict(covered)},
        "sources": {"dev": "judged", "test": "judged"},
        "stack": {"weights": {"minilm": 0.544, "trees": 0.456}, "bias": -0.051,
                  "temperature": 0.984, "weight_errors": {"minilm": 0.044, "trees": 0.044},
                  "bias_error": 0.030, "temperature_error": 0.030, "num_pairs": 6516},
        "single_us": 15.2, "stages": _stages(), "training": _training(), "tune": _tune(),
        "data": _data(),
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
    found["slices"] = [{"slice": "numbers in the query", "note": None,
                        "cells": [_cell("with", 12, 0.9), _cell("without", 78, 0.99)]}]  # fmt: skip
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
