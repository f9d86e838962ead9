"""`plan`: what a run will take, before it is begun."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from raydistill.cli.options.shared_options import add_run, not_negative, positive, read_run
from raydistill.errors import UserError

if TYPE_CHECKING:
    from raydistill.config.run_config import RunConfig
    from raydistill.runs.run_folder import Run


def add_plan(parser: argparse.ArgumentParser) -> None:
    """The options of `plan`."""
    add_run(parser)
    text = "pairs a second of one GPU (with --gpus 0: of one core), instead of a measurement"
    parser.add_argument(
        "--pairs-per-s", action="append", default=[], metavar="[TEACHER=]N", help=text
    )
    text = "up to how many GPUs (default: cluster.gpus, else those here); 0: cores alone"
    parser.add_argument("--gpus", type=not_negative, metavar="N", help=text)
    text = "cores beside each GPU; without GPUs, cores in all (default: as here)"
    parser.add_argument("--cores", type=positive, metavar="N", help=text)
    text = "raw rows of the transfer set to plan for (default: those of the run's files)"
    parser.add_argument("--pairs", type=positive, metavar="N", help=text)
    text = "a finished run whose stages tell their time (default: the run itself)"
    parser.add_argument("--like", metavar="FOLDER", help=text)
    parser.add_argument("--sample", type=positive, default=4_096, metavar="N", help="pairs scored")
    text = "seconds a teacher scores the sample, about (default: 10)"
    parser.add_argument("--seconds", type=positive, default=10, metavar="N", help=text)
    parser.add_argument("--json", action="store_true", help="all figures as JSON")
    parser.set_defaults(command=_run_plan)


def _run_plan(arguments: argparse.Namespace) -> int:
    from raydistill.runs.run_folder import Run

    config = read_run(arguments)
    run = Run(config)
    run.check_owner()
    given = _given(arguments.pairs_per_s, config)
    like = run if arguments.like is None else _run_of(arguments.like)
    address = config.cluster.address or os.environ.get("RAY_ADDRESS")
    if address:
        from raydistill.cluster.connection import connect

        connect(config.cluster, verbose=arguments.verbose)
    from raydistill.stages.distill import where_models_are_seen
    from raydistill.stages.planning.plan import PlanOptions, make_plan
    from raydistill.stages.planning.plan_text import plan_text

    options = PlanOptions(
        given, arguments.gpus, arguments.cores, arguments.pairs,
        sample_pairs=arguments.sample, seconds=arguments.seconds,
    )  # fmt: skip
    with where_models_are_seen(run):
        plan = make_plan(run, like=like, options=options, on_cluster=bool(address))
    prices = config.cluster.prices
    print(  # noqa: T201
        json.dumps(plan.to_dict(prices), indent=2)
        if arguments.json
        else plan_text(plan, prices=prices)
    )
    return 0


def _given(texts: Sequence[str], config: RunConfig) -> dict[str, float]:
    """Rates by teacher: `minilm=4000`, or a number for all teachers of `[teachers]`."""
    found: dict[str, float] = {}
    for text in texts:
        name, _, number = text.rpartition("=")
        try:
            rate = float(number.replace("_", ""))
        except ValueError as error:
            raise UserError(f"--pairs-per-s {text}: write 4000 or TEACHER=4000") from error
        if not 0 < rate < float("inf"):
            raise UserError(f"--pairs-per-s {text}: give a number above 0")
        found |= {name: rate} if name else dict.fromkeys(config.teachers, rate)
    return found


def _run_of(path: str) -> Run:
    """The finished run in a folder."""
    from raydistill.config.loading import parse_config
    from raydistill.files.folder import Folder
    from raydistill.files.inputs.decoding import decode_text
    from raydistill.runs.run_folder import RUN_FILE, Run

    folder = Folder(path)
    if not folder.exists(RUN_FILE):
        raise UserError(f"--like {path}: no run folder, it has no {RUN_FILE}")
    name = f"{folder}/{RUN_FILE}"
    config = parse_config(decode_text(folder.read_bytes(RUN_FILE), name=name), name=name)
    return Run(config.model_copy(update={"run_dir": folder.uri}))
