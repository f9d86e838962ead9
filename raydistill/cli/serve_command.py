"""The command `serve`: a bundle over HTTP."""

from __future__ import annotations

import argparse
import logging
import os
from typing import TYPE_CHECKING

from raydistill.cli.options.shared_options import positive
from raydistill.errors import UserError

if TYPE_CHECKING:
    from raydistill.server.limits import Settings

logger = logging.getLogger("raydistill")
_MOST_PORT = 65_535


def add_serve(parser: argparse.ArgumentParser) -> None:
    """The options of `serve`."""
    text = "bundle/ of a run (its newest bundle), one bundle, s3://, or a hub's name"
    parser.add_argument("--bundle", required=True, help=text)
    parser.add_argument("--host", default="127.0.0.1", help="default: 127.0.0.1; 0.0.0.0: all")
    parser.add_argument(
        "--port", type=_port, default=8080, help="default: 8080; 0: a free one, which is printed"
    )
    text = "processes that share the port (default: 1)"
    parser.add_argument("--workers", type=positive, default=1, metavar="N", help=text)
    text = "titles a request may have (default: 10,000)"
    parser.add_argument("--max-titles", type=positive, default=10_000, metavar="N", help=text)
    text = "bytes that the body of a request may have (default: 8388608)"
    parser.add_argument("--max-body-bytes", type=positive, default=8 << 20, metavar="N", help=text)
    text = "requests that may wait in a process; more are refused with 429 (default: 256)"
    parser.add_argument("--max-waiting", type=positive, default=256, metavar="N", help=text)
    text = "seconds between two looks for a newer bundle (default: 3)"
    parser.add_argument("--reload-s", type=float, default=3.0, metavar="S", help=text)
    text = "seconds after SIGTERM with requests still taken and /ready at 503 (default: 2)"
    parser.add_argument("--drain-s", type=float, default=2.0, metavar="S", help=text)
    text = "what clients must send as Authorization: Bearer (default: $RAYDISTILL_TOKEN)"
    parser.add_argument("--token", help=text)
    text = "serve by Ray Serve, on the cluster of RAY_ADDRESS or else a local Ray"
    parser.add_argument("--ray", action="store_true", help=text)
    text = "with --ray: number of replicas, or N..M: as many as the requests need (default: 1)"
    parser.add_argument("--replicas", type=_replicas, metavar="N", help=text)
    parser.add_argument("--access-log", action="store_true", help="a line for each request")
    parser.set_defaults(command=_run_serve)


def _port(text: str) -> int:
    number = int(text)
    if not 0 <= number <= _MOST_PORT:
        raise argparse.ArgumentTypeError(f"{text} is no port; give 0 to {_MOST_PORT}")
    return number


def _replicas(text: str) -> tuple[int, int]:
    least, _, most = text.partition("..")
    numbers = int(least), int(most or least)
    if not 1 <= numbers[0] <= numbers[1]:
        raise argparse.ArgumentTypeError(f"{text} is no number of replicas; give N or N..M")
    return numbers


def _run_serve(arguments: argparse.Namespace) -> int:
    if arguments.replicas and not arguments.ray:
        raise UserError("--replicas is for Ray Serve: give --ray too, or --workers instead")
    if arguments.ray and arguments.workers != 1:
        raise UserError("--workers is for one machine; with --ray give --replicas")
    if not 0 <= arguments.drain_s < float("inf"):
        raise UserError(f"--drain-s {arguments.drain_s}: give seconds from 0")
    try:
        from raydistill.server.limits import TOKEN, Settings
    except ImportError as error:
        raise UserError(f"{error}: pip install 'raydistill[serve]'") from error
    settings = Settings(
        max_titles=arguments.max_titles,
        max_body_bytes=arguments.max_body_bytes,
        max_waiting=arguments.max_waiting,
        reload_s=arguments.reload_s,
        token=arguments.token if arguments.token is not None else os.environ.get(TOKEN) or None,
    )
    _serve_by_ray(arguments, settings) if arguments.ray else _serve_here(arguments, settings)
    logger.info("serve     stopped")
    return 0


def _serve_here(arguments: argparse.Namespace, settings: Settings) -> None:
    try:
        from raydistill.server.hosts.process import Place, serve
    except ImportError as error:
        raise UserError(f"{error}: pip install 'raydistill[serve]'") from error
    place = Place(
        host=arguments.host,
        port=arguments.port,
        num_workers=arguments.workers,
        drain_s=arguments.drain_s,
        logs_requests=arguments.access_log,
    )
    serve(arguments.bundle, settings=settings, place=place, started=_say_started)


def _serve_by_ray(arguments: argparse.Namespace, settings: Settings) -> None:
    try:
        from raydistill.server.hosts.ray_serve import serve_on_ray
    except ImportError as error:
        raise UserError(f"{error}: pip install 'raydistill[distill,serve]' 'ray[serve]'") from error
    serve_on_ray(
        arguments.bundle,
        settings=settings,
        host=arguments.host,
        port=arguments.port,
        replicas=arguments.replicas or (1, 1),
        started=_say_started,
        verbose=arguments.verbose,
    )


def _say_started(address: str) -> None:
    print(address, flush=True)  # noqa: T201
