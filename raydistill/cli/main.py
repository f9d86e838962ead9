"""`raydistill <stage> --config run.toml --set section.field=value`.

Exit codes: 0 done or nothing to do, 1 a failure (one line says of what), 2 a mistake that the
message says how to mend, 130 stopped by Ctrl-C, 141 when who read the output has left (`| head`).
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import select
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from raydistill.errors import UserError, WorkError
from raydistill.evaluation.markup import plain_lines

if TYPE_CHECKING:
    from raydistill.files.inputs.csv_dialect import CsvOptions
    from raydistill.runs.run_folder import Run

logger = logging.getLogger("raydistill")
_CSV = ("delimiter", "quote", "escape", "encoding")
_HELP = {
    "prepare": "clean, split and shard the raw pairs",
    "finetune": "make cross-encoders of the base encoders",
    "label": "score the pairs with every teacher",
    "tune": "search settings on a sample, and say what they gain",
    "train": "fit the student on the soft labels",
    "export": "write the bundle",
    "evaluate": "measure on the test split, write the report",
    "distill": "all stages, skipping what is complete",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit code."""
    arguments = _parser().parse_args(argv)
    _set_up_console(verbose=arguments.verbose)
    try:
        command: Callable[[argparse.Namespace], int] = arguments.command
        code = command(arguments)
        if sys.stdout is not None:  # it is where it was closed
            sys.stdout.flush()  # here, where the end of a pipe is noticed
        return code
    except BrokenPipeError:
        if not _nobody_reads():
            raise
        return 128 + signal.SIGPIPE
    except UserError as error:
        print(f"raydistill: error: {plain_lines(str(error))}", file=sys.stderr)  # noqa: T201
        return 2
    except WorkError as error:
        if arguments.verbose:
            traceback.print_exc()
        hint = "" if arguments.verbose else " (--verbose shows all of it)"
        print(f"raydistill: failed: {plain_lines(str(error))}{hint}", file=sys.stderr)  # noqa: T201
        return 1
    except KeyboardInterrupt:
        print("raydistill: stopped; the same command goes on from here", file=sys.stderr)  # noqa: T201
        return 130
    except ImportError as error:
        if error.name and error.name.split(".")[0] == "raydistill":
            raise
        need = f"raydistill: error: {error}; pip install 'raydistill[distill]'"
        print(need, file=sys.stderr)  # noqa: T201
        return 2


def _nobody_reads() -> bool:
    """Whether who read our output has left (`| head`); what is still to be written then goes."""
    watch = select.poll()
    watch.register(sys.stdout.fileno(), 0)  # errors alone
    if not watch.poll(0):
        return False
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return True


def stage_main(stage: str) -> None:
    """What a job file calls: the stage with the job's own arguments; exits with its code."""
    sys.exit(main([stage, *sys.argv[1:]]))


def _parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--verbose", action="store_true", help="show what Ray and its workers say")
    parser = argparse.ArgumentParser(
        prog="raydistill", description="Distil BERT relevance models into a microsecond student."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, text in _HELP.items():
        _add_stage(commands.add_parser(name, parents=[common], help=text, description=text), name)
    _add_score(commands.add_parser("score", parents=[common], help="score a file of pairs"))
    text = "say what is in a run's data, or in raw files of pairs"
    _add_inspect(commands.add_parser("inspect", parents=[common], help=text, description=text))
    _add_synthesize(
        commands.add_parser("synthesize", parents=[common], help="write a made-up shop's raw files")
    )
    text = "make unlabeled pairs of a query list and a title catalogue"
    _add_candidates(
        commands.add_parser("candidates", parents=[common], help=text, description=text)
    )
    return parser


def _add_stage(parser: argparse.ArgumentParser, name: str) -> None:
    parser.add_argument("--config", required=True, metavar="RUN.TOML")
    parser.add_argument(
        "--overlay",
        action="append",
        default=[],
        metavar="FILE.TOML",
        dest="overlays",
        help="settings laid over the run file, as tune/best.toml; --set lies above it",
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="SECTION.FIELD=VALUE", dest="overrides"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="print the settings and what is complete, and stop"
    )
    _add_take_over(parser)
    if name == "evaluate":
        _add_curve(parser)
    parser.set_defaults(command=lambda arguments: _run_stage(name, arguments))


def _add_take_over(parser: argparse.ArgumentParser) -> None:
    text = "take this work from another job that still holds it, and that then stops"
    parser.add_argument("--take-over", action="store_true", help=text)


def _add_curve(parser: argparse.ArgumentParser) -> None:
    text = "fit students on shares of the pairs, and write curve/ and no report"
    parser.add_argument("--curve", action="store_true", help=text)
    parser.add_argument("--curve-shares", metavar="1,3,10,30,100", help="in percent of the pairs")
    parser.add_argument("--curve-presets", metavar="match,bert2dnn", help="default: the run's")
    parser.add_argument("--curve-seeds", metavar="0,1,2", help="default: train.seed")


def _add_score(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--bundle", required=True)
    parser.add_argument(
        "--input", required=True, help="Parquet, CSV, TSV, JSONL, or - for lines of query<TAB>title"
    )
    parser.add_argument("--output", help="Parquet, CSV, TSV or JSONL; not needed with -")
    parser.add_argument("--query", default="query", help="name of the column (default: query)")
    parser.add_argument("--title", default="title", help="name of the column (default: title)")
    _add_csv(parser)
    parser.set_defaults(command=_run_score)


def _add_inspect(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "path", metavar="RUN", help="a run folder; or raw files: file, folder, glob"
    )
    parser.add_argument("--query", default="query", help='of raw files; "" for single texts')
    parser.add_argument("--title", default="title", help="of raw files (default: title)")
    parser.add_argument("--json", action="store_true", help="all figures as JSON")
    _add_csv(parser)
    parser.set_defaults(command=_run_inspect)


def _add_synthesize(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--output", required=True, metavar="FOLDER")
    parser.add_argument("--pairs", type=_count, default=40_000)
    parser.add_argument("--judged", type=_count, default=10_000)
    parser.add_argument("--shard-rows", type=_count, default=65_536)
    parser.add_argument("--seed", type=int, default=0)
    parser.set_defaults(command=_run_synthesize)


def _add_candidates(parser: argparse.ArgumentParser) -> None:
    files = "files, folders or globs: Parquet, CSV, TSV, JSONL; also s3://"
    parser.add_argument("--queries", required=True, nargs="+", metavar="INPUT", help=files)
    parser.add_argument("--titles", required=True, nargs="+", metavar="INPUT")
    parser.add_argument("--output", required=True, metavar="FOLDER", help="for [pairs] input")
    parser.add_argument("--query-column", default="query", help="default: query")
    parser.add_argument("--title-column", default="title", help="default: title")
    parser.add_argument("--top", type=int, default=20, help="first ranks a query (default: 20)")
    parser.add_argument("--middle", type=int, default=20, help="drawn from later ranks (20)")
    parser.add_argument("--random", type=int, default=15, help="drawn from all titles (15)")
    parser.add_argument("--max-rank", type=int, default=200, help="last middle rank (200)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--shard-queries", type=_count, default=1_024)
    parser.add_argument("--max-query-chars", type=_count, default=200)
    parser.add_argument("--max-title-chars", type=_count, default=1_000)
    parser.add_argument("--lowercase", action="store_true", help="as pairs.lowercase")
    _add_csv(parser)
    _add_take_over(parser)
    parser.set_defaults(command=_run_candidates)


def _add_csv(parser: argparse.ArgumentParser) -> None:
    for name in _CSV:
        text = f"of CSV and TSV, as csv.{name} of the run file (default: found out)"
        parser.add_argument(f"--csv-{name}", metavar=name.upper(), help=text)


def _csv_settings(arguments: argparse.Namespace) -> dict[str, str]:
    """What was given of how text is delimited, as the run file has it."""
    from raydistill.config.data import to_csv_config

    given = {name: getattr(arguments, f"csv_{name}") for name in _CSV}
    return to_csv_config(given).model_dump(exclude_none=True)


def _csv_options(arguments: argparse.Namespace) -> CsvOptions:
    from raydistill.files.inputs.csv_dialect import CsvOptions

    return CsvOptions(**_csv_settings(arguments))


def _count(text: str) -> int:
    number = int(text.replace("_", ""))
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return number


def _run_stage(name: str, arguments: argparse.Namespace) -> int:
    from raydistill.config.loading import load_config
    from raydistill.runs.run_folder import Run

    above = [read_overlay(path) for path in arguments.overlays]
    config = load_config(arguments.config, overlays=above, overrides=arguments.overrides)
    run = Run(config, take_over=arguments.take_over)
    if arguments.dry_run:
        return _dry_run(run)
    if name == "evaluate" and arguments.curve:
        return _run_curve(run, arguments)
    from raydistill.stages.distill import run_all, run_stage

    if name == "distill":
        did = run_all(run, verbose=arguments.verbose)
        _print_table(run.report.read_json("metrics.json"))
        print(f"report: {run.report}/report.md\nbundle: {run.bundle}")  # noqa: T201
    else:
        did = run_stage(name, run, verbose=arguments.verbose)
    if not did:
        print(f"{name}: nothing left to do in {run.root}")  # noqa: T201
    return 0


def _run_curve(run: Run, arguments: argparse.Namespace) -> int:
    from raydistill.cluster.connection import connect
    from raydistill.evaluation.learning_curve import SHARES, console_curve
    from raydistill.stages.standalone import curve

    percents = _values("--curve-shares", arguments.curve_shares, float)
    settings = curve.CurveSettings(
        tuple(percent / 100 for percent in percents) or SHARES,
        _values("--curve-presets", arguments.curve_presets, _preset),
        _values("--curve-seeds", arguments.curve_seeds, int),
    )
    run.check_owner()
    found = curve.fit_curve(run, settings, connect(run.config.cluster, verbose=arguments.verbose))
    print(f"\n{console_curve(found)}\n\ncurve: {run.root}/curve/{curve.TABLE}")  # noqa: T201
    return 0


_Value = TypeVar("_Value")


def _values(option: str, text: str | None, kind: Callable[[str], _Value]) -> tuple[_Value, ...]:
    """The values of an option, parted by commas; none where it was not given."""
    try:
        return tuple(kind(part.strip()) for part in text.split(",")) if text else ()
    except ValueError as error:
        raise UserError(f"{option} {text}: {error}") from error


def _preset(name: str) -> str:
    if name not in ("match", "bert2dnn"):
        raise ValueError(f"no preset {name!r}; give match or bert2dnn")
    return name


def read_overlay(path: str) -> dict[str, object]:
    """The tables of an overlay file, local or `s3://`.

    Raises:
        UserError: no such file, or not TOML.
    """
    from raydistill.config.loading import parse_tables
    from raydistill.files.folder import Folder
    from raydistill.files.inputs.decoding import decode_text

    folder, _, name = path.rpartition("/")
    if not Folder(folder or ".").exists(name):
        raise UserError(f"no such overlay file: {path}")
    return parse_tables(decode_text(Folder(folder or ".").read_bytes(name), name=path), name=path)


def _dry_run(run: Run) -> int:
    from raydistill.runs.run_folder import STAGES
    from raydistill.stages.distill import is_complete, outputs

    print(run.config.resolved.to_toml())  # noqa: T201
    run.check_owner()
    for stage in (*STAGES, *(["tune"] if run.config.tune.space else [])):
        state = "complete" if is_complete(stage, run) else "to do"
        folders = ", ".join(folder.uri for folder in outputs(stage, run)) or "nothing to make"
        print(f"{stage:<9} {state:<9} {folders}")  # noqa: T201
    return 0


def _print_table(found: dict[str, object] | None) -> None:
    from raydistill.evaluation.report import console_table

    if found is not None:
        print(f"\n{console_table(found)}\n")  # noqa: T201


def _run_score(arguments: argparse.Namespace) -> int:
    from raydistill.files.bundles import load_scorer
    from raydistill.stages.standalone.score import score_file, score_lines, stdin_lines

    scorer = load_scorer(arguments.bundle)
    if arguments.input == "-":
        num_rows, num_null = score_lines(scorer, stdin_lines(), sys.stdout)
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
        title=arguments.title,
        csv=_csv_options(arguments),
    )
    unscored = f", {num_null:,} of them without a score (no text)" if num_null else ""
    print(json.dumps({"rows": num_rows, "output": arguments.output}) + unscored)  # noqa: T201
    return 0


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
        # A run folder that was moved is still the run.
        found = inspect_run(Run(config.model_copy(update={"run_dir": folder.uri})))
    else:
        csv = _csv_settings(arguments)
        found = inspect_files(arguments.path, query=arguments.query, title=arguments.title, csv=csv)
    print(to_json(found) if arguments.json else data_text(found))  # noqa: T201
    return 0


def _run_synthesize(arguments: argparse.Namespace) -> int:
    from raydistill.cluster.connection import connect
    from raydistill.config.data import ClusterConfig
    from raydistill.stages.standalone import synthesize

    size = synthesize.ShopSize(
        num_pairs=arguments.pairs,
        num_judged=arguments.judged,
        shard_rows=arguments.shard_rows,
        seed=arguments.seed,
    )
    if not synthesize.is_there(arguments.output, size):
        connect(ClusterConfig(), verbose=arguments.verbose)
        synthesize.run(arguments.output, size)
    return 0


def _run_candidates(arguments: argparse.Namespace) -> int:
    from raydistill.candidates.catalogue import Sources, Texts
    from raydistill.candidates.mix import Mix
    from raydistill.cluster.connection import connect, warn_if_apart
    from raydistill.config.data import ClusterConfig
    from raydistill.stages.standalone import candidates

    given = arguments
    sources = Sources(
        Texts(tuple(given.queries), given.query_column, given.max_query_chars),
        Texts(tuple(given.titles), given.title_column, given.max_title_chars),
        lowercase=given.lowercase,
        csv=_csv_settings(given),
    )
    mix = Mix(given.top, given.middle, given.random, max_rank=given.max_rank, seed=given.seed)
    plan = candidates.make_plan(
        given.output, sources=sources, mix=mix, shard_queries=given.shard_queries
    )
    if candidates.is_there(plan):
        print(f"candidates: nothing left to do in {plan.output}")  # noqa: T201
        return 0
    connect(ClusterConfig(), verbose=given.verbose)
    warn_if_apart(plan.output.uri)
    found = candidates.run(plan, take_over=given.take_over)
    print(  # noqa: T201
        f"{found['rows_out']:,} pairs: {found['top']:,} top, {found['middle']:,} middle, "
        f"{found['random']:,} random; {found['queries_without_a_hit']:,} queries share no word "
        f'with any title\n[pairs] input = ["{plan.output}"], source = "source"'
    )
    return 0


class _PlainFormatter(logging.Formatter):
    """Log lines without what a terminal obeys: they quote names and texts of users."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as text."""
        return plain_lines(super().format(record))


def _set_up_console(*, verbose: bool) -> None:
    """One log line a fact, on stderr; what libraries say only when asked for."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_PlainFormatter("%(asctime)s %(message)s", datefmt="%H:%M:%S"))
    logger.handlers = [handler]
    logger.setLevel(logging.INFO)
    logger.propagate = False


if __name__ == "__main__":
    sys.exit(main())
