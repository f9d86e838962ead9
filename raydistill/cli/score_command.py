"""The command `score`: a bundle and a file of pairs to a file with scores."""

from __future__ import annotations

import argparse
import json
import logging
import sys

from raydistill.cli.options.shared_options import add_csv, add_title, csv_options, title_columns
from raydistill.errors import UserError

logger = logging.getLogger("raydistill")


def add_score(parser: argparse.ArgumentParser) -> None:
    """The options of `score`."""
    parser.add_argument("--bundle", required=True)
    parser.add_argument(
        "--input", required=True, help="Parquet, CSV, TSV, JSONL, or - for lines of query<TAB>title"
    )
    parser.add_argument("--output", help="Parquet, CSV, TSV or JSONL; not needed with -")
    parser.add_argument("--query", default="query", help="name of the column (default: query)")
    add_title(parser, default="the bundle's columns, else title")
    add_csv(parser)
    parser.set_defaults(command=_run_score)


def _run_score(arguments: argparse.Namespace) -> int:
    from raydistill.serving.scorer import Scorer
    from raydistill.stages.standalone.score import score_file, score_lines

    scorer = Scorer.load(arguments.bundle)
    if arguments.input == "-":
        num_rows, num_null = score_lines(scorer, sys.stdin.buffer, sys.stdout)
        if num_null:
            logger.warning(
                "%d of %d lines have an empty score: they are not query<TAB>title, or have no text",
                num_null, num_rows,
            )  # fmt: skip
        return 0
    if not arguments.output:
        raise UserError("give --output FILE (.parquet, .csv, .tsv or .jsonl)")
    query = "" if scorer.settings.get("single_texts") else arguments.query
    num_rows, num_null = score_file(
        scorer,
        source=arguments.input,
        target=arguments.output,
        query=query,
        title=title_columns(arguments.title, default=scorer.settings.get("title", "title")),
        csv=csv_options(arguments),
    )
    unscored = f", {num_null:,} of them without a score (no text)" if num_null else ""
    print(json.dumps({"rows": num_rows, "output": arguments.output}) + unscored)  # noqa: T201
    return 0
