"""The command `bench`: the latency of a bundle beside other models."""

from __future__ import annotations

import argparse
from pathlib import Path

from raydistill.cli.options.shared_options import add_title, split_values, title_columns
from raydistill.errors import UserError


def add_bench(parser: argparse.ArgumentParser) -> None:
    """The options of `bench`."""
    parser.add_argument("--bundle", required=True, help="a folder")
    parser.add_argument("--teacher", metavar="MODEL", help="a cross-encoder: folder, s3://, hub")
    parser.add_argument(
        "--pairs", metavar="FILE", help="Parquet, CSV, TSV, JSONL (default: the bundle's pairs)"
    )
    parser.add_argument("--query", default="query", help="name of the column (default: query)")
    add_title(parser, default="title")
    parser.add_argument("--seconds", type=float, default=20, help="of all calls (default: 20)")
    parser.add_argument(
        "--runtimes", metavar="A,B", help="of transformers (default: all; none: no transformers)"
    )
    parser.add_argument("--json", action="store_true", help="all figures as one line of JSON")
    parser.set_defaults(command=_run_bench)


def _run_bench(arguments: argparse.Namespace) -> int:
    from raydistill.stages.standalone import bench
    from raydistill.teachers.transformer.runtimes import RUNTIMES

    given = arguments
    names = split_values("--runtimes", given.runtimes, str) or RUNTIMES
    if unknown := [name for name in names if name not in (*RUNTIMES, "none")]:
        raise UserError(f"--runtimes: no {unknown[0]!r}; there are {', '.join(RUNTIMES)}, none")
    bundle = Path(given.bundle).expanduser()
    if given.pairs:
        pairs = bench.read_pairs(
            given.pairs, query=given.query, title=title_columns(given.title, default="title")
        )
    else:
        pairs = bench.golden_pairs(bundle)
    plan = bench.Bench(bundle, teacher=given.teacher, seconds=given.seconds, names=names)
    found = bench.run(plan, pairs)
    print(found.text())  # noqa: T201
    if given.json:
        print(bench.to_json(found))  # noqa: T201
    return 0
