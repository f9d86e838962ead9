"""Options that several commands share."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from raydistill.errors import UserError

if TYPE_CHECKING:
    from raydistill.config.run_config import RunConfig
    from raydistill.files.inputs.csv_dialect import CsvOptions

_CSV = ("delimiter", "quote", "escape", "encoding")
_Value = TypeVar("_Value")


# What options are added to: a parser, or a group of its options.
Parser = argparse.ArgumentParser | argparse._ArgumentGroup


def add_run(parser: Parser, *, required: bool = True) -> None:
    """Add `--config`, `--overlay` and `--set`."""
    parser.add_argument("--config", required=required, metavar="RUN.TOML")
    parser.add_argument(
        "--overlay",
        action="append",
        default=[],
        metavar="FILE.TOML",
        dest="overlays",
        help="settings that override the run file, such as tune/best.toml; --set overrides both",
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="SECTION.FIELD=VALUE", dest="overrides"
    )


def read_run(arguments: argparse.Namespace) -> RunConfig:
    """The settings of `--config`, `--overlay` and `--set`."""
    from raydistill.config.loading import load_config, read_overlay

    above = [read_overlay(path) for path in arguments.overlays]
    return load_config(arguments.config, overlays=above, overrides=arguments.overrides)


def add_take_over(parser: Parser) -> None:
    """Add `--take-over`."""
    text = "take over the lease of another job, which then stops"
    parser.add_argument("--take-over", action="store_true", help=text)


def add_csv(parser: Parser) -> None:
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


def add_title(parser: Parser, *, option: str = "--title", default: str) -> None:
    """Add `--title`: one column, or several that are joined as by prepare."""
    text = f"names of columns: a,b,c, or the option repeated (default: {default})"
    parser.add_argument(option, action="append", metavar="COLUMNS", help=text)


def title_columns(given: Sequence[str] | None, *, default: str | Sequence[str]) -> str | list[str]:
    """The columns of a repeated option whose values may be lists with commas; one as a string."""
    names = [name.strip() for text in given or () for name in text.split(",") if name.strip()]
    names = list(dict.fromkeys(names)) or ([default] if isinstance(default, str) else [*default])
    return names[0] if len(names) == 1 else names


def positive(text: str) -> int:
    """An integer of at least 1; underscores may separate its digits."""
    number = int(text.replace("_", ""))
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return number


def not_negative(text: str) -> int:
    """An integer of at least 0."""
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"{text} is less than 0")
    return number


def split_values(
    option: str, text: str | None, kind: Callable[[str], _Value]
) -> tuple[_Value, ...]:
    """The comma-separated values of an option; none if it was not given."""
    try:
        return tuple(kind(part.strip()) for part in text.split(",")) if text else ()
    except ValueError as error:
        raise UserError(f"{option} {text}: {error}") from error
