"""`verify`: whether the files of a run are whole and fit together; `--repair` removes others."""

from __future__ import annotations

import argparse
import os
import shlex
from typing import TYPE_CHECKING

from raydistill.cli.options.shared_options import add_run, add_take_over, read_run

if TYPE_CHECKING:
    from raydistill.runs.run_folder import Run
    from raydistill.stages.verification.finding import Verified

DAMAGED = 3  # the exit code


def add_verify(parser: argparse.ArgumentParser) -> None:
    """The options of `verify`."""
    add_run(parser)
    text = "remove the damaged files that a stage can make again, and nothing else"
    parser.add_argument("--repair", action="store_true", help=text)
    add_take_over(parser)
    parser.set_defaults(command=_run_verify)


def _run_verify(arguments: argparse.Namespace) -> int:
    from raydistill.runs.run_folder import Run
    from raydistill.stages.verification.repair import alone

    run = Run(read_run(arguments), take_over=arguments.take_over)
    if not arguments.repair:
        return DAMAGED if _verify(run, arguments).damaged else 0
    with alone(run):
        found = _verify(run, arguments)
        return _repair(run, found, arguments) if found.damaged else 0


def _verify(run: Run, arguments: argparse.Namespace) -> Verified:
    from raydistill.stages.verification.verify import verify_run

    address = run.config.cluster.address or os.environ.get("RAY_ADDRESS")
    if address:
        from raydistill.cluster.connection import connect

        connect(run.config.cluster, verbose=arguments.verbose)
    found = verify_run(run, on_cluster=bool(address))
    _print_found(run, found)
    return found


def _print_found(run: Run, found: Verified) -> None:
    width = max(map(len, found.parts), default=0)
    for part, state in found.parts.items():
        print(f"{part:<{width}}  {state}")  # noqa: T201
    for one in found.findings:
        print(f"{'wrong' if one.is_damage else 'note':<6} {one}")  # noqa: T201
    num = len(found.damaged)
    problems = f"{num:,} problem{'s' if num > 1 else ''}" if num else "nothing is wrong"
    print(f"verify: {problems} in {run.root}")  # noqa: T201


def _repair(run: Run, found: Verified, arguments: argparse.Namespace) -> int:
    from raydistill.stages.verification.repair import repair

    done = repair(run, found.damaged)
    for one, reason in done.remain:
        print(f"remains  {one.file}: {one.what}; {reason}")  # noqa: T201
    print(f"repair: {len(done.removed):,} files removed, {len(done.remain):,} problems remain")  # noqa: T201
    if len(done.remain) < len(found.damaged):
        print(f"now run `{_distill(arguments)}`, then verify again")  # noqa: T201
    return DAMAGED if done.remain else 0


def _distill(arguments: argparse.Namespace) -> str:
    """The command that makes the files again, with the settings of this one."""
    given = ["--config", arguments.config]
    given += [word for path in arguments.overlays for word in ("--overlay", path)]
    given += [word for one in arguments.overrides for word in ("--set", one)]
    return shlex.join(["raydistill", "distill", *given])
