"""Commands that are not a stage of a run: `inspect`, `synthesize`, `candidates`."""

from __future__ import annotations

import argparse

from raydistill.cli.options.shared_options import (
    add_csv,
    add_take_over,
    add_title,
    csv_settings,
    positive,
    title_columns,
)
from raydistill.progress import heartbeat


def add_inspect(parser: argparse.ArgumentParser) -> None:
    """The options of `inspect`."""
    parser.add_argument(
        "path", metavar="RUN", help="a run folder; or raw files: file, folder, glob"
    )
    parser.add_argument("--query", default="query", help='of raw files; "" for single texts')
    add_title(parser, default="title")
    parser.add_argument("--json", action="store_true", help="all figures as JSON")
    add_csv(parser)
    parser.set_defaults(command=_run_inspect)


def add_synthesize(parser: argparse.ArgumentParser) -> None:
    """The options of `synthesize`."""
    parser.add_argument("--output", required=True, metavar="FOLDER")
    parser.add_argument("--pairs", type=positive, default=40_000)
    parser.add_argument("--judged", type=positive, default=10_000)
    parser.add_argument("--shard-rows", type=positive, default=65_536)
    parser.add_argument("--seed", type=int, default=0)
    parser.set_defaults(command=_run_synthesize)


def add_candidates(parser: argparse.ArgumentParser) -> None:
    """The options of `candidates`."""
    files = "files, folders or globs: Parquet, CSV, TSV, JSONL; also s3://"
    parser.add_argument("--queries", required=True, nargs="+", metavar="INPUT", help=files)
    parser.add_argument("--titles", required=True, nargs="+", metavar="INPUT")
    parser.add_argument("--output", required=True, metavar="FOLDER", help="for [pairs] input")
    parser.add_argument("--query-column", default="query", help="default: query")
    add_title(parser, option="--title-column", default="title")
    parser.add_argument("--top", type=int, default=20, help="first ranks a query (default: 20)")
    parser.add_argument("--middle", type=int, default=20, help="drawn from later ranks (20)")
    parser.add_argument("--random", type=int, default=15, help="drawn from all titles (15)")
    parser.add_argument("--max-rank", type=int, default=200, help="last middle rank (200)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--shard-queries", type=positive, default=1_024)
    parser.add_argument("--max-query-chars", type=positive, default=200)
    parser.add_argument("--max-title-chars", type=positive, default=1_000)
    parser.add_argument("--lowercase", action="store_true", help="as pairs.lowercase")
    add_csv(parser)
    add_take_over(parser)
    parser.set_defaults(command=_run_candidates)


def _run_inspect(arguments: argparse.Namespace) -> int:
    from raydistill.config.loading import parse_config
    from raydistill.evaluation.dataset_stats import inspect_files, inspect_run, to_json
    from raydistill.evaluation.tables import data_text
    from raydistill.files.folder import Folder
    from raydistill.files.inputs.decoding import decode_text
    from raydistill.runs.run_folder import Run

    folder = Folder(arguments.path)
    if folder.exists("run.toml"):
        name = f"{folder}/run.toml"
        config = parse_config(decode_text(folder.read_bytes("run.toml"), name=name), name=name)
        # run_dir is replaced, as the run folder may have been moved.
        found = inspect_run(Run(config.model_copy(update={"run_dir": folder.uri})))
    else:
        csv = csv_settings(arguments)
        title = title_columns(arguments.title, default="title")
        found = inspect_files(arguments.path, query=arguments.query, title=title, csv=csv)
    print(to_json(found) if arguments.json else data_text(found))  # noqa: T201
    return 0


def _run_synthesize(arguments: argparse.Namespace) -> int:
    from raydistill.cluster import places
    from raydistill.cluster.connection import connect
    from raydistill.config.cluster import ClusterConfig
    from raydistill.stages.standalone import synthesize

    size = synthesize.ShopSize(
        num_pairs=arguments.pairs,
        num_judged=arguments.judged,
        shard_rows=arguments.shard_rows,
        seed=arguments.seed,
    )
    if not synthesize.is_there(arguments.output, size):
        output = "--output", arguments.output
        places.check_not_in_package(*output)
        connect(ClusterConfig(), verbose=arguments.verbose)
        with places.needing([output], []), heartbeat():
            synthesize.run(arguments.output, size)
    return 0


def _run_candidates(arguments: argparse.Namespace) -> int:
    from raydistill.candidates.catalogue import Sources, Texts
    from raydistill.candidates.mix import Mix
    from raydistill.cluster import places
    from raydistill.cluster.connection import connect
    from raydistill.config.cluster import ClusterConfig
    from raydistill.stages.standalone import candidates

    given = arguments
    titles = title_columns(given.title_column, default="title")
    sources = Sources(
        Texts(tuple(given.queries), given.query_column, given.max_query_chars),
        Texts(tuple(given.titles), titles, given.max_title_chars),
        lowercase=given.lowercase,
        csv=csv_settings(given),
    )
    mix = Mix(given.top, given.middle, given.random, max_rank=given.max_rank, seed=given.seed)
    plan = candidates.make_plan(
        given.output, sources=sources, mix=mix, shard_queries=given.shard_queries
    )
    if candidates.is_there(plan):
        print(f"candidates: nothing left to do in {plan.output}")  # noqa: T201
        return 0
    outputs = [("--output", given.output)]
    inputs = [("input", path) for path in (*given.queries, *given.titles)]
    places.check_not_in_package(*outputs[0])
    connect(ClusterConfig(), verbose=given.verbose)
    # There is no run file with cluster.shared_paths: each machine looks whether it sees the output.
    with places.needing(outputs, inputs), heartbeat():
        found = candidates.run(plan, take_over=given.take_over)
    print(  # noqa: T201
        f"{found['rows_out']:,} pairs: {found['top']:,} top, {found['middle']:,} middle, "
        f"{found['random']:,} random; {found['queries_without_a_hit']:,} queries share no word "
        f'with any title\n[pairs] input = ["{plan.output}"], source = "source"'
    )
    return 0
