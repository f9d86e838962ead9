"""The figures of a learning curve, written by hand."""


def point(share: float, auc: float, seed: int = 0) -> dict[str, object]:
    kept = {"AUC": auc / 0.8, "AUC above chance": (auc - 0.5) / 0.3, "accuracy": 0.9}
    entry = {"auc": auc, "accuracy": 0.7, "retention": kept}
    return {
        "preset": "match",
        "share": share,
        "labeled_pairs": round(1_000 * share),
        "seed": seed,
    } | entry


FOUND = {
    "num_pairs": 50, "num_queries": 10, "relevant_at": 0.5, "teacher": "teacher a", "seeds": [0, 1],
    "points": [
        point(0.1, 0.65), point(1.0, 0.76), point(0.1, 0.67, seed=1), point(1.0, 0.78, seed=1),
    ],
    "others": {
        "teacher a": {"auc": 0.8, "accuracy": 0.75},
        "no model": {key: point(0, 0.62)[key] for key in ("auc", "accuracy", "retention")},
    },
}  # fmt: skip
