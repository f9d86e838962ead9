"""The command `score`: a bundle and files of pairs to the same rows with scores."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raydistill.cli.options.shared_options import (
    add_csv,
    add_take_over,
    add_title,
    csv_options,
    positive,
    title_columns,
)
from raydistill.errors import UserError
from raydistill.progress import heartbeat

if TYPE_CHECKING:
    from raydistill.stages.scoring.job import Job
    from raydistill.stages.scoring.rows import Reading

logger = logging.getLogger("raydistill")
_OF_FOLDERS = ("format", "shard_rows", "address", "cpus", "dry_run", "take_over")


def add_score(parser: argparse.ArgumentParser) -> None:
    """The options of `score`."""
    parser.add_argument("--bundle", required=True)
    parser.add_argument(
        "--input",
        required=True,
        action="append",
        nargs="+",
        metavar="INPUT",
        dest="inputs",
        help="files, folders or globs: Parquet, CSV, TSV, JSONL, ...; also s3://; - for lines of "
        "query<TAB>title",
    )
    parser.add_argument(
        "--output",
        help="a folder (no suffix, s3://, or / at the end), written by Ray's tasks; or a local "
        ".parquet, .csv, .tsv or .jsonl file; none with -",
    )
    parser.add_argument("--query", default="query", help="name of the column (default: query)")
    add_title(parser, default="the bundle's columns, else title")
    parser.add_argument(
        "--columns", action="append", metavar="COLUMNS", help="to write beside the score: a,b,c"
    )
    add_csv(parser)
    _add_of_folders(parser)
    parser.set_defaults(command=_run_score)


def _add_of_folders(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("into a folder")
    formats = ("parquet", "csv", "tsv", "jsonl")
    group.add_argument("--format", choices=formats, help="default: parquet")
    text = "most rows of an output of a large input file (default: 262,144)"
    group.add_argument("--shard-rows", type=positive, metavar="ROWS", help=text)
    group.add_argument("--address", help="of a Ray cluster, as cluster.address (RAY_ADDRESS)")
    text = "the cores that an autoscaled cluster may grow to, as cluster.cpus"
    group.add_argument("--cpus", type=positive, help=text)
    text = "print what is left to do, and stop"
    group.add_argument("--dry-run", action="store_true", help=text)
    add_take_over(group)


def _run_score(arguments: argparse.Namespace) -> int:
    arguments.inputs = [one for some in arguments.inputs for one in some]
    if arguments.inputs == ["-"]:
        return _score_lines(arguments)
    if not arguments.output:
        raise UserError("give --output: a folder, or a .parquet, .csv, .tsv or .jsonl file")
    is_folder = _is_folder(arguments.output)
    return _score_catalogue(arguments) if is_folder else _score_files(arguments)


def _is_folder(output: str) -> bool:
    """Whether the output is a folder; a URI with a file's suffix is refused.

    Raises:
        UserError: it is a file of an object store.
    """
    name = output.rpartition("/")[2]
    has_suffix = "." in name.lstrip(".")
    if "://" in output and not output.startswith("file://"):
        if has_suffix and name.rpartition(".")[2] in ("parquet", "csv", "tsv", "jsonl", "gz"):
            raise UserError(
                f"cannot write {output!r} as one file: give a folder, such as "
                f"{output.rpartition('.')[0]}/, or a local file"
            )
        return True
    path = Path(output.removeprefix("file://")).expanduser()
    return not name or not has_suffix or path.is_dir()


def _score_lines(arguments: argparse.Namespace) -> int:
    from raydistill.serving.scorer import Scorer
    from raydistill.stages.scoring.files import score_lines

    _check_absent(
        arguments,
        ("output", "columns", *_OF_FOLDERS),
        "is not for --input -, whose lines go to the standard output",
    )
    scorer = Scorer.load(arguments.bundle)
    num_rows, num_null = score_lines(scorer, sys.stdin.buffer, sys.stdout)
    if num_null:
        logger.warning(
            "%d of %d lines have an empty score: they are not query<TAB>title, or have no text",
            num_null, num_rows,
        )  # fmt: skip
    return 0


def _score_files(arguments: argparse.Namespace) -> int:
    from raydistill.serving.scorer import Scorer
    from raydistill.stages.scoring.files import score_file

    _check_absent(
        arguments,
        _OF_FOLDERS,
        f"is for an output folder; --output {arguments.output!r} is a file",
    )
    scorer = Scorer.load(arguments.bundle)
    num_rows, num_null = score_file(
        scorer,
        sources=arguments.inputs,
        target=arguments.output,
        reading=_reading(arguments, scorer.settings),
        columns=_columns(arguments),
        csv=csv_options(arguments),
    )
    _print_counts(num_rows, num_null, arguments.output)
    return 0


def _check_absent(arguments: argparse.Namespace, names: Sequence[str], reason: str) -> None:
    for name in names:
        if getattr(arguments, name):
            raise UserError(f"--{name.replace('_', '-')} {reason}")


def _score_catalogue(arguments: argparse.Namespace) -> int:
    from raydistill.cluster import places
    from raydistill.serving.bundle import read_bundle
    from raydistill.serving.scorer import local_folder
    from raydistill.stages.scoring import catalogue, job

    given = arguments
    places.check_not_in_package("--output", given.output)
    settings, _ = read_bundle(local_folder(given.bundle))
    work = job.make_job(
        given.output,
        bundle=given.bundle,
        bundle_fingerprint=settings["fingerprint"],
        inputs=given.inputs,
        reading=_reading(given, settings),
        csv=csv_options(given),
        columns=_columns(given),
        kind=given.format or "parquet",
        shard_rows=given.shard_rows or job.SHARD_ROWS,
    )
    if catalogue.is_complete(work):
        print(f"score: nothing left to do in {work.output}")  # noqa: T201
        return 0
    if given.dry_run:
        print(catalogue.left_line(work))  # noqa: T201
        return 0
    found = _on_machines(given, work)
    _print_counts(found["rows_out"], found["without_score"], str(work.output))
    return 0


def _on_machines(arguments: argparse.Namespace, work: Job) -> dict[str, Any]:
    """Score on the cluster; returns the counts."""
    from raydistill.cluster import places, spending
    from raydistill.cluster.connection import connect
    from raydistill.config.cluster import ClusterConfig
    from raydistill.stages.scoring import catalogue

    config = ClusterConfig(address=arguments.address, cpus=arguments.cpus)
    outputs = [("--output", arguments.output)]
    inputs = [("--input", path) for path in arguments.inputs] + [("--bundle", arguments.bundle)]
    connect(config, verbose=arguments.verbose)
    spent = spending.of_this_job(config.prices)
    # There is no run file with cluster.shared_paths: each machine looks whether it sees the output.
    with places.needing(outputs, inputs), heartbeat(lambda: str(spent)):
        return catalogue.run(work, take_over=arguments.take_over)


def _reading(arguments: argparse.Namespace, settings: dict[str, Any]) -> Reading:
    from raydistill.stages.scoring.rows import Reading

    query = "" if settings.get("single_texts") else arguments.query
    return Reading(query, title_columns(arguments.title, default=settings.get("title", "title")))


def _columns(arguments: argparse.Namespace) -> list[str] | None:
    if arguments.columns is None:
        return None
    names = [name.strip() for text in arguments.columns for name in text.split(",")]
    return list(dict.fromkeys(name for name in names if name))


def _print_counts(num_rows: int, num_null: int, output: str) -> None:
    unscored = f", {num_null:,} of them without a score (no text)" if num_null else ""
    print(json.dumps({"rows": num_rows, "output": output}) + unscored)  # noqa: T201
