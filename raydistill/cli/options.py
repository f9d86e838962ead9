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
    """`--take-over`."""
    text = "take this work from another job that still holds it, and that then stops"
    parser.add_argument("--take-over", action="store_true", help=text)


def add_csv(parser: argparse.ArgumentParser) -> None:
    """`--csv-delimiter` and the others: how delimited text is read."""
    for name in _CSV:
        text = f"of CSV and TSV, as csv.{name} of the run file (default: found out)"
        parser.add_argument(f"--csv-{name}", metavar=name.upper(), help=text)


def csv_settings(arguments: argparse.Namespace) -> dict[str, str]:
    """What was given of how text is delimited, as the run file has it."""
    from raydistill.config.data import to_csv_config

    given = {name: getattr(arguments, f"csv_{name}") for name in _CSV}
    return to_csv_config(given).model_dump(exclude_none=True)


def csv_options(arguments: argparse.Namespace) -> CsvOptions:
    """What was given of how text is delimited, as readers take it."""
    from raydistill.files.inputs.csv_dialect import CsvOptions

    return CsvOptions(**csv_settings(arguments))


def positive(text: str) -> int:
    """A whole number from 1 on; underscores may part its digits."""
    number = int(text.replace("_", ""))
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return number


def split_values(
    option: str, text: str | None, kind: Callable[[str], _Value]
) -> tuple[_Value, ...]:
    """The values of an option, parted by commas; none where it was not given."""
    try:
        return tuple(kind(part.strip()) for part in text.split(",")) if text else ()
    except ValueError as error:
        raise UserError(f"{option} {text}: {error}") from error
