"""The server on Ray Serve: replicas on a cluster, as many as the requests need.

`raydistill serve --ray` calls `serve_on_ray`; `application` is what a RayService or `serve deploy`
names as import_path.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from pydantic import BaseModel, ConfigDict, Field

from raydistill.cluster.connection import connect  # sets Ray's environment before ray is imported

# isort: split
import ray
from ray import serve
from ray.serve.config import AutoscalingConfig, HTTPOptions
from starlette.types import ASGIApp

from raydistill.config.cluster import ClusterConfig
from raydistill.errors import UserError, WorkError
from raydistill.server.app import create_app
from raydistill.server.bundles import located, newest_name
from raydistill.server.limits import TOKEN, Settings

logger = logging.getLogger("raydistill")
NAME = "raydistill"
_AT_WORK = 4  # requests that a replica has before another one is started


class ServeArguments(BaseModel):
    """`args` of the application in a Serve config; a token comes from RAYDISTILL_TOKEN."""

    model_config = ConfigDict(extra="forbid")

    bundle: str
    max_titles: int = Settings.max_titles
    max_body_bytes: int = Settings.max_body_bytes
    max_waiting: int = Settings.max_waiting
    reload_s: float = Settings.reload_s
    min_replicas: int = Field(1, ge=1)
    max_replicas: int = Field(1, ge=1)
    num_cpus: float = Field(1.0, gt=0)


class _Replica:
    """A process of Ray Serve with the application."""

    def __init__(self, bundle: str, settings: Settings) -> None:
        self._bundle, self._settings = bundle, settings

    def __serve_build_asgi_app__(self) -> ASGIApp:
        return create_app(self._bundle, settings=self._settings)


def application(arguments: ServeArguments) -> serve.Application:
    """The application of Ray Serve, of the `args` in its config."""
    settings = Settings(
        max_titles=arguments.max_titles,
        max_body_bytes=arguments.max_body_bytes,
        max_waiting=arguments.max_waiting,
        reload_s=arguments.reload_s,
        token=os.environ.get(TOKEN) or None,
    )
    return deployed(
        arguments.bundle,
        settings=settings,
        replicas=(arguments.min_replicas, arguments.max_replicas),
        num_cpus=arguments.num_cpus,
    )


def deployed(
    bundle: str, *, settings: Settings, replicas: tuple[int, int], num_cpus: float = 1.0
) -> serve.Application:
    """A deployment with a number of replicas, or between two numbers by the requests at work."""
    least, most = replicas
    if most < least:
        raise UserError(f"{least} to {most} replicas; give the smaller number first")
    scaled = {"num_replicas": least}
    if most > least:
        scaling = AutoscalingConfig(
            min_replicas=least, max_replicas=most, target_ongoing_requests=_AT_WORK
        )
        scaled = {"autoscaling_config": scaling}  # type: ignore[dict-item]
    decorated = serve.deployment(
        name=NAME,
        ray_actor_options={"num_cpus": num_cpus},
        max_ongoing_requests=settings.max_waiting,
        health_check_period_s=5,
        graceful_shutdown_timeout_s=30,
        **scaled,  # type: ignore[arg-type]
    )
    return decorated(serve.ingress()(_Replica)).bind(bundle, settings)


def serve_on_ray(
    bundle: str,
    *,
    settings: Settings,
    host: str,
    port: int,
    replicas: tuple[int, int],
    started: Callable[[str], None],
    verbose: bool = False,
) -> None:
    """Serve a bundle on the cluster of RAY_ADDRESS, or else on a local Ray, until a signal.

    Raises:
        UserError: there is no bundle, or no Ray at that address.
        WorkError: no replica starts.
    """
    if port == 0:
        raise UserError("--port 0: Ray Serve takes no free port by itself; give a port")
    newest_name(located(bundle))  # a mistake is said before Ray starts
    folder = Path(bundle).expanduser()
    place = str(folder.absolute()) if folder.exists() else bundle  # replicas have another folder
    app = deployed(place, settings=settings, replicas=replicas)
    connect(ClusterConfig(), verbose=verbose)
    if not verbose:
        logging.getLogger("ray.serve").setLevel(logging.WARNING)
    with _until_a_signal() as stop:
        try:
            serve.start(http_options=HTTPOptions(host=host, port=port))
            serve.run(app, name=NAME, route_prefix="/")
            started(f"http://{host}:{port}")
            stop.wait()
        except RuntimeError as error:
            raise WorkError(f"Ray Serve does not start the replicas: {error}") from error
        finally:
            serve.delete(NAME)
            ray.shutdown()


@contextmanager
def _until_a_signal() -> Iterator[threading.Event]:
    stop = threading.Event()

    def end(sig: int, frame: FrameType | None) -> None:
        stop.set()

    before = {sig: signal.signal(sig, end) for sig in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for sig, handler in before.items():
            signal.signal(sig, handler)
