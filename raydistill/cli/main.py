"""`raydistill COMMAND ...`: the parser, the console, exit codes.

Exit codes: 0 success or nothing to do; 1 a failure, described in one line; 2 a user's mistake, with
the remedy in the message; 3 a figure fell short of `--fail-under` or `--fail-over`, `verify` found
damage, or `doctor` something missing; 130 stopped by Ctrl-C; 141 the reader of the output has
closed the pipe (`| head`); 143 stopped by SIGTERM.
"""

from __future__ import annotations

import argparse
import logging
import os
import select
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import NoReturn

from raydistill.cli.bench_command import add_bench
from raydistill.cli.checks.doctor_command import add_doctor
from raydistill.cli.checks.plan_command import add_plan
from raydistill.cli.checks.verify_command import add_verify
from raydistill.cli.data_commands import add_candidates, add_inspect, add_synthesize
from raydistill.cli.evaluate_command import add_compare, add_evaluate
from raydistill.cli.explain_command import add_explain, add_neighbors
from raydistill.cli.onnx_command import add_onnx
from raydistill.cli.score_command import add_score
from raydistill.cli.select_command import add_select
from raydistill.cli.serve_command import add_serve
from raydistill.cli.stage_commands import STAGES_HELP, add_stage
from raydistill.credentials import masked
from raydistill.errors import UserError, WorkError
from raydistill.evaluation.markup import plain_lines

logger = logging.getLogger("raydistill")
_UNWIND_S = 2.0  # `ray job stop` kills a driver 3 s after SIGTERM


class Terminated(KeyboardInterrupt):
    """SIGTERM: `ray job stop`, a head that goes away; handled as Ctrl-C is."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    arguments = _parser().parse_args(argv)
    _set_up_console(verbose=arguments.verbose)
    try:
        command: Callable[[argparse.Namespace], int] = arguments.command
        with _sigterm_unwinds():
            code = command(arguments)
        if sys.stdout is not None:  # None if the caller closed it
            sys.stdout.flush()  # a closed pipe raises here, not at exit
        return code
    except BrokenPipeError:
        if not _nobody_reads():
            raise
        return 128 + signal.SIGPIPE
    except UserError as error:
        print(f"raydistill: error: {_shown(str(error))}", file=sys.stderr)  # noqa: T201
        return 2
    except WorkError as error:
        if arguments.verbose:
            traceback.print_exc()
        hint = "" if arguments.verbose else " (--verbose shows all of it)"
        print(f"raydistill: failed: {_shown(str(error))}{hint}", file=sys.stderr)  # noqa: T201
        return 1
    except KeyboardInterrupt as error:
        return _stopped(is_sigterm=isinstance(error, Terminated))
    except ImportError as error:
        if error.name and error.name.split(".")[0] == "raydistill":
            raise
        need = f"raydistill: error: {error}; pip install 'raydistill[distill]'"
        print(need, file=sys.stderr)  # noqa: T201
        return 2


def _stopped(*, is_sigterm: bool) -> int:
    """Print the last line of a command that was stopped; returns its exit code."""
    by = " by SIGTERM" if is_sigterm else ""
    print(f"raydistill: stopped{by}; run the same command to resume", file=sys.stderr, flush=True)  # noqa: T201
    return 128 + (signal.SIGTERM if is_sigterm else signal.SIGINT)


@contextmanager
def _sigterm_unwinds() -> Iterator[None]:
    """SIGTERM ends the command inside as Ctrl-C does: leases are released, workers end.

    A command that has not ended after 2 s says its last line, releases its leases, and exits: a
    loaded machine may take longer to end the workers, which Ray does also without a driver.
    """
    came, over = threading.Event(), threading.Event()

    def terminate(number: int, frame: object) -> NoReturn:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # another would stop the release of a lease
        came.set()
        raise Terminated

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, terminate)
    threading.Thread(target=_exit_if_late, args=(came, over), daemon=True).start()
    try:
        yield
    except KeyboardInterrupt as error:
        if came.is_set():  # inside `ray.get` Ray raises a KeyboardInterrupt of its own
            raise Terminated from error
        raise
    finally:
        signal.signal(signal.SIGTERM, before)  # first: `terminate` inside `set` would wait for ever
        over.set()
        came.set()  # the thread ends


def _exit_if_late(came: threading.Event, over: threading.Event) -> None:
    """Exit if SIGTERM came and the command has not ended `_UNWIND_S` later.

    Nothing of the run is lost: its files are written under temporary names, as a kill may come at
    any time.
    """
    came.wait()
    if over.wait(_UNWIND_S):
        return
    try:
        with suppress(OSError, ValueError):  # nobody may read stderr any more
            _stopped(is_sigterm=True)
        if (lease := sys.modules.get("raydistill.runs.lease")) is not None:  # else none was taken
            lease.release_all()
    finally:
        os._exit(128 + signal.SIGTERM)


def _shown(text: str) -> str:
    """A text without characters that a terminal executes, and without credentials."""
    return masked(plain_lines(text))


def _nobody_reads() -> bool:
    """Whether the pipe's reader has closed it (`| head`); then stdout is sent to /dev/null."""
    watch = select.poll()
    watch.register(sys.stdout.fileno(), 0)  # error events only
    if not watch.poll(0):
        return False
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return True


def stage_main(stage: str) -> None:
    """The entry point of a job file: run the stage with its arguments, exit with its code."""
    sys.exit(main([stage, *sys.argv[1:]]))


def _parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--verbose", action="store_true", help="show the output of Ray and its workers"
    )
    parser = argparse.ArgumentParser(
        prog="raydistill", description="Distil BERT relevance models into a microsecond student."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, text in STAGES_HELP.items():
        command = commands.add_parser(name, parents=[common], help=text, description=text)
        add_evaluate(command) if name == "evaluate" else add_stage(command, name)
    text = "compare two runs or bundles: metrics with intervals, and which queries moved"
    add_compare(commands.add_parser("compare", parents=[common], help=text, description=text))
    text = "select the pairs that an expensive teacher should label"
    add_select(commands.add_parser("select", parents=[common], help=text, description=text))
    add_score(commands.add_parser("score", parents=[common], help="score files of pairs"))
    text = "write a bundle as an ONNX graph: n-gram ids and match features to scores"
    add_onnx(commands.add_parser("onnx", parents=[common], help=text, description=text))
    text = "serve a bundle over HTTP: scores, and the /rerank of search engines"
    add_serve(commands.add_parser("serve", parents=[common], help=text, description=text))
    text = "time a bundle beside BERT, TinyBERT, a teacher, fastText and model2vec"
    add_bench(commands.add_parser("bench", parents=[common], help=text, description=text))
    text = "hours, money, energy and bytes of a run with 1 to N GPUs, before it is begun"
    add_plan(commands.add_parser("plan", parents=[common], help=text, description=text))
    text = "read all files of a run, and name what is missing, damaged or counted wrong"
    add_verify(commands.add_parser("verify", parents=[common], help=text, description=text))
    text = "what this machine lacks for a run or for serving, and the command that mends it"
    add_doctor(commands.add_parser("doctor", parents=[common], help=text, description=text))
    text = "what drove the score of a pair: its n-grams and match features"
    add_explain(commands.add_parser("explain", parents=[common], help=text, description=text))
    text = "the nearest n-grams of a word"
    add_neighbors(commands.add_parser("neighbors", parents=[common], help=text, description=text))
    text = "describe a run's data, or raw files of pairs"
    add_inspect(commands.add_parser("inspect", parents=[common], help=text, description=text))
    add_synthesize(
        commands.add_parser("synthesize", parents=[common], help="write a made-up shop's raw files")
    )
    text = "make unlabeled pairs of a query list and a title catalogue"
    add_candidates(commands.add_parser("candidates", parents=[common], help=text, description=text))
    return parser


class _PlainFormatter(logging.Formatter):
    """Log lines as `_shown` shows them: they may quote users' texts and settings."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as plain text."""
        return _shown(super().format(record))


def _set_up_console(*, verbose: bool) -> None:
    """Send our log lines to stderr and hide libraries' progress bars."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_PlainFormatter("%(asctime)s %(message)s", datefmt="%H:%M:%S"))
    logger.handlers = [handler]
    logger.setLevel(logging.INFO)
    logger.propagate = False
