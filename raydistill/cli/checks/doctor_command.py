"""`doctor`: what this machine lacks for a run or for serving, and the command that mends it."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

from raydistill.cli.options.shared_options import add_run, read_run
from raydistill.credentials import masked
from raydistill.machine.check import Check
from raydistill.machine.doctor import examine

if TYPE_CHECKING:
    from raydistill.config.run_config import RunConfig

LACKING = 3  # the exit code


def add_doctor(parser: argparse.ArgumentParser) -> None:
    """The options of `doctor`."""
    add_run(parser, required=False)
    text = "start no local Ray, and ask no cluster: seconds less"
    parser.add_argument("--no-ray", action="store_true", help=text)
    parser.add_argument("--json", action="store_true", help="all checks as JSON")
    parser.set_defaults(command=_run_doctor)


def _run_doctor(arguments: argparse.Namespace) -> int:
    config = _config(arguments)
    checks: list[Check] = []
    found = examine(
        run_dir=config.run_dir if config else None,
        address=config.cluster.address if config else None,
        is_of_run=bool(arguments.config),
        starts_ray=not arguments.no_ray,
    )
    for one in found:  # an address or an endpoint may have a password
        check = replace(one, text=masked(one.text), mend=masked(one.mend))
        checks.append(check)
        if not arguments.json:
            print(_line(check), flush=True)  # noqa: T201
    num_missing = sum(check.status == "missing" for check in checks)
    num_warnings = sum(check.status == "warning" for check in checks)
    if arguments.json:
        print(json.dumps([asdict(check) for check in checks], indent=2))  # noqa: T201
    else:
        print(f"doctor: {num_missing} missing, {num_warnings} warnings")  # noqa: T201
    return LACKING if num_missing else 0


def _config(arguments: argparse.Namespace) -> RunConfig | None:
    """The run file; None without one, or without the libraries that read it: a line names them."""
    try:
        return read_run(arguments) if arguments.config else None
    except ImportError:
        return None


def _line(check: Check) -> str:
    line = f"{check.status:<8} {check.name:<16} {check.text}"
    return f"{line}\n{'':<8} {'':<16} -> {check.mend}" if check.mend else line
