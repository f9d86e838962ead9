"""The commands `evaluate` (of a run, or of a bundle on any judged file) and `compare`."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from raydistill.cli.options.judged_options import (
    FELL_SHORT,
    OF_JUDGED,
    add_bounds,
    add_judged,
    bounds_of,
    given_options,
    judged_rules,
)
from raydistill.cli.options.shared_options import add_run, positive, read_run
from raydistill.cli.stage_commands import add_of_stage, run_stage_command
from raydistill.errors import UserError

if TYPE_CHECKING:
    from raydistill.evaluation.comparison.bounds import Bound
    from raydistill.evaluation.metrics.bootstrap import Draws

_OF_BUNDLE = ("judged", *OF_JUDGED, "teacher", "max_length", "slice", "output")
_OF_RUN = (
    *("overlays", "overrides", "dry_run", "take_over"),
    *("curve", "curve_shares", "curve_presets", "curve_seeds"),
)
_BY = ("ndcg_10", "query_auc")
_OF_RUNS = ("relevant_at", "resamples", "seed")  # of a comparison without --judged too
_EXAMPLE = "retention.ndcg_10=0.97 or auc=0.75"


def add_evaluate(parser: argparse.ArgumentParser) -> None:
    """The options of `evaluate`."""
    run = parser.add_argument_group("a run: its test split, its report/")
    add_run(run, required=False)
    add_of_stage(run, "evaluate")
    bundle = parser.add_argument_group("a bundle: any judged file, without a run folder")
    bundle.add_argument("--bundle", metavar="BUNDLE", help="a folder, s3:// or a hub name")
    add_judged(bundle)
    text = "a cross-encoder to compare with: folder, s3://, hub; may be repeated"
    bundle.add_argument("--teacher", action="append", metavar="[NAME=]MODEL", help=text)
    text = "wordpieces of a pair that teachers read (default: 128)"
    bundle.add_argument("--max-length", type=positive, help=text)
    text = "a column whose values become slices of the report; may be repeated"
    bundle.add_argument("--slice", action="append", metavar="COLUMN", help=text)
    text = "for report.html, report.md and metrics.json (default: the table on the console alone)"
    bundle.add_argument("--output", metavar="FOLDER", help=text)
    add_bounds(parser, example=_EXAMPLE)
    parser.set_defaults(command=_run_evaluate)


def _run_evaluate(arguments: argparse.Namespace) -> int:
    _check_form(arguments)
    from raydistill.evaluation.comparison.bounds import OF_REPORT, STUDENT

    bounds = bounds_of(arguments, scopes=OF_REPORT, default=STUDENT)
    if arguments.bundle is not None:
        return _check(_run_bundle(arguments, bounds), bounds)
    code = run_stage_command("evaluate", arguments)
    if not bounds:
        return code
    from raydistill.runs.run_folder import Run

    return _check(Run(read_run(arguments)).report.read_json("metrics.json") or {}, bounds)


def _check_form(arguments: argparse.Namespace) -> None:
    """Raise UserError unless the options are those of a run, or those of a bundle."""
    if (arguments.config is None) == (arguments.bundle is None):
        both = "" if arguments.config is None else ", not both"
        raise UserError(
            f"give --config RUN.TOML (a run), or --bundle BUNDLE with --judged INPUT{both}"
        )
    is_run = arguments.bundle is None
    form, other = ("--config", "--bundle") if is_run else ("--bundle", "--config")
    wrong = given_options(arguments, _OF_BUNDLE if is_run else _OF_RUN)
    wrong = [_SPELLED.get(name, name) for name in wrong]
    if wrong:
        raise UserError(f"{wrong[0]} is for evaluate with {other}, not with {form}")
    if not is_run and not arguments.judged:
        raise UserError("--bundle needs --judged INPUT, the judged pairs to measure it on")
    if (arguments.curve or arguments.dry_run) and (arguments.fail_under or arguments.fail_over):
        raise UserError("--fail-under and --fail-over are of a report: leave --curve or --dry-run")


_SPELLED = {"--overlays": "--overlay", "--overrides": "--set"}


def _run_bundle(arguments: argparse.Namespace, bounds: list[Bound]) -> dict[str, Any]:
    from raydistill.evaluation.comparison.bounds import RETENTION, STUDENT, TEACHER
    from raydistill.serving.scorer import Scorer
    from raydistill.stages.quality import evaluate_bundle as stage

    for bound in bounds:
        if bound.scope in (RETENTION, TEACHER) and not arguments.teacher:
            raise UserError(f"{bound.name}: give --teacher MODEL, or a bound of {STUDENT}")
    scorer = Scorer.load(arguments.bundle)
    plan = stage.BundleEvaluation(
        scorer,
        judged_rules(arguments, settings=scorer.settings),
        bundle=arguments.bundle,
        slices=tuple(arguments.slice or ()),
        teachers=tuple(arguments.teacher or ()),
        max_length=arguments.max_length or 128,
        draws=_draws(arguments),
    )
    found = stage.evaluate_bundle(plan)
    print(f"\n{stage.console(found)}\n")  # noqa: T201
    if arguments.output:
        print(f"report: {stage.write(found, arguments.output)}")  # noqa: T201
    return found


def _check(found: dict[str, Any], bounds: list[Bound]) -> int:
    from raydistill.evaluation.comparison.bounds import figures_of_report, shortfalls

    return _report(shortfalls(figures_of_report(found), bounds) if bounds else [])


def _report(shortfalls: list[str]) -> int:
    """Print each figure that fell short; returns the exit code."""
    for line in shortfalls:
        print(f"raydistill: fell short: {line}", file=sys.stderr)  # noqa: T201
    return FELL_SHORT if shortfalls else 0


def add_compare(parser: argparse.ArgumentParser) -> None:
    """The options of `compare`."""
    text = "before: a run folder, a run file, or a bundle"
    parser.add_argument("one", metavar="A", help=text)
    parser.add_argument("other", metavar="B", help="after; differences are B - A")
    add_judged(parser)
    text = "the metric that decides which queries moved (default: ndcg_10)"
    parser.add_argument("--by", choices=_BY, default="ndcg_10", help=text)
    parser.add_argument("--output", metavar="FOLDER", help="for compare.md and compare.json")
    add_bounds(parser, example="difference.auc=-0.002 or B.ndcg_10=0.8")
    parser.set_defaults(command=_run_compare)


def _run_compare(arguments: argparse.Namespace) -> int:
    from raydistill.evaluation.comparison.bounds import (
        OF_COMPARISON,
        figures_of_comparison,
        shortfalls,
    )
    from raydistill.evaluation.comparison.comparison_text import comparison_text
    from raydistill.stages.quality import compare, sides

    bounds = bounds_of(arguments, scopes=OF_COMPARISON)
    given = (sides.open_side(path) for path in (arguments.one, arguments.other))
    both = sides.Sides(*given)
    if arguments.judged:
        rules = judged_rules(arguments, settings=both.settings(has_title=bool(arguments.title)))
        pairs = sides.pairs_of_files(rules)
    else:
        _check_no_files(arguments)
        pairs = sides.pairs_of_runs(both, relevant_at=arguments.relevant_at)
    found = compare.compare(both, pairs, draws=_draws(arguments), by=arguments.by)
    print(f"\n{comparison_text(found)}\n")  # noqa: T201
    if arguments.output:
        print(f"comparison: {compare.write(found, arguments.output)}")  # noqa: T201
    return _report(shortfalls(figures_of_comparison(found), bounds))


def _check_no_files(arguments: argparse.Namespace) -> None:
    wrong = given_options(arguments, [n for n in OF_JUDGED if n not in _OF_RUNS])
    if wrong:
        raise UserError(f"{wrong[0]} is for --judged INPUT: runs are compared on their test splits")


def _draws(arguments: argparse.Namespace) -> Draws:
    from raydistill.evaluation.metrics.bootstrap import Draws

    return Draws(arguments.resamples or 1_000, arguments.seed or 0)
