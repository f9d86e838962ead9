"""The command `select`: the pairs of a run that an expensive teacher should label."""

from __future__ import annotations

import argparse

from raydistill.cli.options.shared_options import add_run, positive, read_run


def add_select(parser: argparse.ArgumentParser) -> None:
    """The options of `select`."""
    add_run(parser)
    parser.add_argument("--budget", required=True, type=positive, help="number of pairs")
    parser.add_argument("--output", required=True, metavar="FILE", help=".parquet, .csv or .jsonl")
    text = "random, or uncertain: what the student and the teachers know least (default: random)"
    parser.add_argument("--strategy", metavar="random|uncertain", help=text)
    text = "leave out its labeled pairs (default: the teacher of scores from files)"
    parser.add_argument("--teacher", metavar="NAME", help=text)
    text = "dev and test pairs first, to measure the expensive teacher on them"
    parser.add_argument("--judged", action="store_true", help=text)
    parser.add_argument("--seed", type=int, default=0)
    parser.set_defaults(command=_run_select)


def _run_select(arguments: argparse.Namespace) -> int:
    from raydistill.runs.run_folder import Run
    from raydistill.stages.standalone.select import Choice, select_pairs
    from raydistill.stages.standalone.selection_file import columns_hint

    choice = Choice(
        budget=arguments.budget,
        output=arguments.output,
        strategy=arguments.strategy,
        teacher=arguments.teacher,
        judged=arguments.judged,
        seed=arguments.seed,
    )
    run = Run(read_run(arguments))
    run.check_owner()
    found = select_pairs(run, choice)
    if not found["is_new"]:
        print(f"select: nothing left to do, {choice.output} is this selection")  # noqa: T201
        return 0
    judged = f", {found['judged']:,} of them of the dev and test splits" if choice.judged else ""
    print(  # noqa: T201
        f"{found['rows']:,} pairs of {found['queries']:,} queries{judged}: {choice.output}"
    )
    hint = columns_hint(run.config)
    if hint is not None:
        print(f"name the labeled file {hint}")  # noqa: T201
    return 0
