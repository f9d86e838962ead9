"""The report of a run without judged test pairs: agreement with the teachers, and nothing else."""

from __future__ import annotations

from typing import Any

_HEAD = (
    "agreement with the teachers",
    *("rank correlation", "nDCG@10", "same decision", "log loss", "µs/pair"),
)
TITLE = "agreement with the teachers, on held-out queries of the transfer set"


def is_agreement(found: dict[str, Any]) -> bool:
    """Whether the figures of a report are agreement with the teachers."""
    return bool(found.get("is_agreement"))


def agreement_rows(found: dict[str, Any]) -> list[tuple[str, ...]]:
    """The head, and a row for each scorer."""
    rows: list[tuple[str, ...]] = [_HEAD]
    for name, entry in found["scorers"].items():
        figures = ("agreement", "ndcg_10", "same_decision", "log_loss")
        speed = entry.get("us_per_pair")
        shown = "" if speed is None else f"{speed:,.1f}"
        named = with_pairs(name, entry, num_all=found["num_pairs"])
        rows.append((named, *(f"{entry[figure]:.4f}" for figure in figures), shown))
    return rows


def with_pairs(name: str, entry: dict[str, Any], *, num_all: int) -> str:
    """A scorer's name, with the number of its pairs where that is not all."""
    num_pairs = entry.get("num_pairs", num_all)
    return name if num_pairs == num_all else f"{name} (of {num_pairs:,} pairs)"


def agreement_intro(found: dict[str, Any]) -> str:
    """What the figures are, and what they are not."""
    ensemble = found["teacher"]
    return (
        f"No judged pair was used: every figure below is agreement with the teachers, on "
        f"{found['num_pairs']:,} pairs of {found['num_queries']:,} queries of the transfer set "
        "that the student was not trained on. It says how much of the teachers the student has "
        "learned, and nothing about whether the teachers are right: that takes judged pairs, of "
        "which some hundred are a test (`judged.dev_share = 0`).\n\n"
        f"The labels are the soft labels of the {ensemble} at temperature 1, which therefore "
        "agrees with itself. *Rank correlation*: Spearman's, over all pairs. *nDCG@10*: the soft "
        "labels are the gains. *Same decision*: the share of pairs that both call relevant, or "
        f"both do not; the {ensemble} does from a soft label of 0.5 on, for "
        f"{found['relevant_share']:.1%} of the pairs, and each other row from the threshold that "
        "agrees best on dev. *Log loss*: against the soft label; its own is the least possible."
    )
