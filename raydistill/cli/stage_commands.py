"""Commands on a run: `prepare` to `evaluate`, `tune`, `distill`, and the learning curve."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from raydistill.cli.options.shared_options import (
    Parser,
    add_run,
    add_take_over,
    read_run,
    split_values,
)

if TYPE_CHECKING:
    from raydistill.runs.run_folder import Run

STAGES_HELP = {
    "prepare": "clean, split and shard the raw pairs",
    "finetune": "make cross-encoders of the base encoders",
    "label": "score the pairs with every teacher",
    "tune": "search settings on a sample, and report the gain",
    "train": "fit the student on the soft labels",
    "export": "write the bundle",
    "evaluate": "measure a run on its test split, or a bundle on any judged file",
    "distill": "all stages, skipping what is complete",
}


def add_stage(parser: argparse.ArgumentParser, name: str) -> None:
    """The options of a command that runs stages."""
    add_run(parser)
    add_of_stage(parser, name)
    parser.set_defaults(command=lambda arguments: run_stage_command(name, arguments))


def add_of_stage(parser: Parser, name: str) -> None:
    """The options of a command that runs stages, without those of `add_run`."""
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="print the settings and the plan: what is left, what it asks for; and stop",
    )
    add_take_over(parser)
    if name == "evaluate":
        _add_curve(parser)


def _add_curve(parser: Parser) -> None:
    text = "fit students on shares of the pairs, and write curve/ and no report"
    parser.add_argument("--curve", action="store_true", help=text)
    parser.add_argument("--curve-shares", metavar="1,3,10,30,100", help="in percent of the pairs")
    parser.add_argument("--curve-presets", metavar="match,bert2dnn", help="default: the run's")
    parser.add_argument("--curve-seeds", metavar="0,1,2", help="default: train.seed")


def run_stage_command(name: str, arguments: argparse.Namespace) -> int:
    """Run a stage, or all of them; returns the exit code."""
    from raydistill.runs.run_folder import Run

    run = Run(read_run(arguments), take_over=arguments.take_over)
    if arguments.dry_run:
        return _dry_run(run)
    if name == "evaluate" and arguments.curve:
        return _run_curve(run, arguments)
    from raydistill.stages.distill import run_all, run_stage

    if name == "distill":
        did = run_all(run, verbose=arguments.verbose)
        _print_table(run.report.read_json("metrics.json"))
        print(f"report: {run.report}/report.html\nbundle: {run.bundle}")  # noqa: T201
    else:
        did = run_stage(name, run, verbose=arguments.verbose)
    if not did:
        print(f"{name}: nothing left to do in {run.root}")  # noqa: T201
    return 0


def _run_curve(run: Run, arguments: argparse.Namespace) -> int:
    from raydistill.cluster.connection import connect
    from raydistill.evaluation.learning_curve import SHARES, console_curve
    from raydistill.stages.distill import check_run, on_machines
    from raydistill.stages.standalone import curve

    percents = split_values("--curve-shares", arguments.curve_shares, float)
    settings = curve.CurveSettings(
        tuple(percent / 100 for percent in percents) or SHARES,
        split_values("--curve-presets", arguments.curve_presets, _preset),
        split_values("--curve-seeds", arguments.curve_seeds, int),
    )
    check_run(run)
    cluster = connect(run.config.cluster, verbose=arguments.verbose)
    with on_machines("curve", run):
        found = curve.fit_curve(run, settings, cluster)
    print(f"\n{console_curve(found)}\n\ncurve: {run.root}/curve/{curve.TABLE}")  # noqa: T201
    return 0


def _preset(name: str) -> str:
    if name not in ("match", "bert2dnn"):
        raise ValueError(f"no preset {name!r}; give match or bert2dnn")
    return name


def _dry_run(run: Run) -> int:
    from raydistill.stages.distill import check_run
    from raydistill.stages.left import plan_lines

    print(run.config.resolved.to_toml())  # noqa: T201
    check_run(run)
    for line in plan_lines(run):
        print(line)  # noqa: T201
    return 0


def _print_table(found: dict[str, object] | None) -> None:
    from raydistill.evaluation.report.console import console_table

    if found is not None:
        print(f"\n{console_table(found)}\n")  # noqa: T201
