"""Options of the commands that read judged files: their columns, labels, and bounds of figures."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from raydistill.cli.options.shared_options import (
    Parser,
    add_csv,
    add_title,
    csv_settings,
    not_negative,
    title_columns,
)
from raydistill.errors import UserError

if TYPE_CHECKING:
    from raydistill.config.data import JudgedConfig
    from raydistill.evaluation.comparison.bounds import Bound

FELL_SHORT = 3  # the exit code
# The options of `add_judged` beside --judged, none of which has a default in argparse.
OF_JUDGED = (
    *("query", "title", "label", "scale", "grade", "relevant_at", "max_bad_fraction"),
    *("resamples", "seed", "csv_delimiter", "csv_quote", "csv_escape", "csv_encoding"),
)


def add_judged(parser: Parser) -> None:
    """Add `--judged` and how its files are read."""
    text = "judged pairs: a file, a folder or a glob in quotes, local or s3://; may be repeated"
    parser.add_argument("--judged", action="append", metavar="INPUT", help=text)
    parser.add_argument("--query", help="name of its column (default: query)")
    add_title(parser, default="the bundle's columns, else title")
    parser.add_argument("--label", help="name of its column (default: label)")
    text = "the labels that stand for 0 and for 1, such as 0,3 (default: labels are 0..1)"
    parser.add_argument("--scale", metavar="LOW,HIGH", help=text)
    text = "the label in 0..1 of a word, as Exact=1; repeat it for each word"
    parser.add_argument("--grade", action="append", metavar="WORD=LABEL", help=text)
    text = "the label from which a pair is relevant (default: 0.5)"
    parser.add_argument("--relevant-at", type=float, metavar="LABEL", help=text)
    text = "the share of rows that may be unusable (default: 0.05)"
    parser.add_argument("--max-bad-fraction", type=float, metavar="SHARE", help=text)
    text = "resamples of the queries for intervals, at least 100 (default: 1000)"
    parser.add_argument("--resamples", type=resamples, help=text)
    parser.add_argument("--seed", type=not_negative, help="of the resamples (default: 0)")
    add_csv(parser)


def resamples(text: str) -> int:
    """The value of `--resamples`, held to the bound of `[evaluate] resamples`."""
    from raydistill.config.evaluation import FEWEST_RESAMPLES

    number = int(text.replace("_", ""))
    if number < FEWEST_RESAMPLES:
        raise argparse.ArgumentTypeError(
            f"{text} is too few for an interval: give at least {FEWEST_RESAMPLES}"
        )
    return number


def add_bounds(parser: argparse.ArgumentParser, *, example: str) -> None:
    """Add `--fail-under` and `--fail-over`."""
    text = f"exit with 3 if a figure is less, such as {example}; may be repeated"
    parser.add_argument(
        "--fail-under", action="append", default=[], metavar="NAME=NUMBER", help=text
    )
    text = "exit with 3 if a figure is more: of log_loss and ece, where less is better"
    parser.add_argument(
        "--fail-over", action="append", default=[], metavar="NAME=NUMBER", help=text
    )


def given_options(arguments: argparse.Namespace, names: Sequence[str]) -> list[str]:
    """The options of `names` that were given, as the user writes them."""
    values = {name: getattr(arguments, name) for name in names}
    given = [
        name for name, value in values.items() if value is not None and value not in ([], False)
    ]
    return [f"--{name.replace('_', '-')}" for name in given]


def judged_rules(arguments: argparse.Namespace, *, settings: dict[str, Any]) -> JudgedConfig:
    """The files of `--judged` and their rules; `settings`: those of the bundle."""
    from raydistill.config.data import to_judged_config

    given = arguments
    title = title_columns(given.title, default=settings.get("title", "title"))
    options = {
        "input": tuple(given.judged),
        "query": "" if settings.get("single_texts") else given.query,
        "title": title,
        "label": given.label,
        "scale": _scale(given.scale),
        "grades": _grades(given.grade),
        "relevant_at": given.relevant_at,
        "max_bad_fraction": given.max_bad_fraction,
        "max_query_chars": settings.get("max_query_chars"),
        "max_title_chars": settings.get("max_title_chars"),
        "csv": csv_settings(given),
    }
    return to_judged_config({name: value for name, value in options.items() if value is not None})


def _scale(text: str | None) -> tuple[float, float] | None:
    if text is None:
        return None
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError as error:
        raise UserError(f"--scale {text}: give the two ends, such as 0,3") from error
    return low, high


def _grades(texts: Sequence[str] | None) -> dict[str, float] | None:
    if not texts:
        return None
    grades = {}
    for text in texts:
        word, _, number = text.rpartition("=")
        try:
            grades[word] = float(number)
        except ValueError as error:
            raise UserError(f"--grade {text}: give WORD=LABEL, such as Exact=1") from error
        if not word:
            raise UserError(f"--grade {text}: give WORD=LABEL, such as Exact=1")
    return grades


def bounds_of(
    arguments: argparse.Namespace, *, scopes: Sequence[str], default: str | None = None
) -> list[Bound]:
    """The bounds of `--fail-under` and `--fail-over`; [] without importing anything if none."""
    if not arguments.fail_under and not arguments.fail_over:
        return []
    from raydistill.evaluation.comparison.bounds import read_bounds

    return read_bounds(arguments.fail_under, arguments.fail_over, scopes=scopes, default=default)
