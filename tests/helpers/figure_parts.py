"""The parts of a made-up metrics.json (schema 2): scorers, slices, cases, data, stages."""

from __future__ import annotations

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
BEHIND = {  # how far each scorer is behind the ensemble, as a share of its metrics
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


def scorer(name: str, behind: float) -> dict[str, Any]:
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


def difference(other: str, *, gap: float, p: float) -> dict[str, Any]:
    metrics = {}
    for key, (_, best, _, _) in KEYS.items():
        value = -gap if best == "min" else gap
        metrics[key] = figure(value, 0.0055, p=p)
    return {"one": "student", "other": other, "num_pairs": 6558, "metrics": metrics}


def cell_of(name: str, num: int, kept: float) -> dict[str, Any]:
    half = 0.9 / math.sqrt(num)
    keys = ("auc", "ndcg_10", "query_auc")
    metrics = {
        s: {k: figure(_OF_ENSEMBLE[k] * (1 - BEHIND[s]), half) for k in keys}
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


def slices() -> list[dict[str, Any]]:
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
        {"slice": name, "note": None, "cells": [cell_of(*cell) for cell in those]}
        for name, those in cells.items()
    ]
    found[1]["note"] = "A third of the rows each, by how often the query occurs."
    return found


def bins(shift: float) -> list[dict[str, Any]]:
    return [
        {"score": 0.05 + at / 10, "label": min(max(0.05 + at / 10 + shift * (5 - at) / 20, 0), 1),
         "num": 200 + 90 * at}
        for at in range(10)
    ]  # fmt: skip


def histogram(center: float) -> dict[str, Any]:
    def counts(middle: float, total: int) -> list[int]:
        heights = [math.exp(-((at / 20 + 0.025 - middle) ** 2) / 0.03) for at in range(20)]
        return [round(total * height / sum(heights)) for height in heights]

    edges = [round(at / 20, 2) for at in range(21)]
    return {"edges": edges, "relevant": counts(center, 3027), "other": counts(center - 0.28, 3531)}


def case(query: str, title: str, label: float, student: float, teacher: float) -> dict[str, Any]:
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


def cases() -> dict[str, Any]:
    return {
        "method": "integrated gradients",
        "student_higher": [
            case("12x24 air filter", "Filtrete 12 in. x 24 in. Air Filter Cover Plate", 0.33, 0.84,
                  0.31),
            case("outdoor bench cushion", "Hampton Bay Outdoor Bench", 0.5, 0.79, 0.36),
        ],
        "student_lower": [
            case("commode", "KOHLER Wellworth 2-Piece 1.28 GPF Elongated Toilet in White", 1.0,
                  0.22, 0.83),
            case("sheetrock", "USG 1/2 in. x 4 ft. x 8 ft. UltraLight Gypsum Panel", 1.0, 0.35,
                  0.86),
        ],
        "student_right": [
            case("hdx 75 galon trash bags", "HDX 75 Gal. Extra Large Trash Bags (50-Count)", 1.0,
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


def curve() -> dict[str, Any]:
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


def tune() -> dict[str, Any]:
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


def training() -> dict[str, Any]:
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


def data() -> dict[str, Any]:
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


def stages() -> dict[str, Any]:
    rows = {"prepare judged": (62979, 18.4), "prepare pairs": (905331, 7.4),
            "finetune minilm": (49905, 1166.1), "label minilm": (918405, 1929.3),
            "label trees": (918405, 32.3), "train student": (905331, 106.7),
            "export": (200, 18.6)}  # fmt: skip
    return {
        name: {"rows_in": num, "rows_out": num, "quarantined": 0, "seconds": seconds}
        for name, (num, seconds) in rows.items()
    }
