"""Options that several commands share."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from raydistill.errors import UserError

if TYPE_CHECKING:
    from raydistill.files.inputs.csv_dialect import CsvOptions

_CSV = ("delimiter", "quote", "escape", "encoding")
_Value = TypeVar("_Value")


def add_take_over(parser: argparse.ArgumentParser) -> None:
    """Add `--take-over`."""
    text = "take over the lease of another job, which then stops"
    parser.add_argument("--take-over", action="store_true", help=text)


def add_csv(parser: argparse.ArgumentParser) -> None:
    """Add `--csv-delimiter`, `--csv-quote`, `--csv-escape` and `--csv-encoding`."""
    for name in _CSV:
        text = f"of CSV and TSV, as csv.{name} of the run file (default: detected)"
        parser.add_argument(f"--csv-{name}", metavar=name.upper(), help=text)


def csv_settings(arguments: argparse.Namespace) -> dict[str, str]:
    """The `--csv-*` options in the form of the run file."""
    from raydistill.config.data import to_csv_config

    given = {name: getattr(arguments, f"csv_{name}") for name in _CSV}
    return to_csv_config(given).model_dump(exclude_none=True)


def csv_options(arguments: argparse.Namespace) -> CsvOptions:
    """The `--csv-*` options in the form that readers take."""
    from raydistill.files.inputs.csv_dialect import CsvOptions

    return CsvOptions(**csv_settings(arguments))


def positive(text: str) -> int:
    """An integer of at least 1; underscores may separate its digits."""
    number = int(text.replace("_", ""))
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return number


def split_values(
    option: str, text: str | None, kind: Callable[[str], _Value]
) -> tuple[_Value, ...]:
    """The comma-separated values of an option; none if it was not given."""
    try:
        return tuple(kind(part.strip()) for part in text.split(",")) if text else ()
    except ValueError as error:
        raise UserError(f"{option} {text}: {error}") from error
