"""Connect to a Ray cluster or start a local one, size the actor pools, log the resources."""

from __future__ import annotations

import logging
import os
import re
import shutil
import signal
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

# Set before Ray is imported: no usage notice.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "600")
# How often the end of a fit, its checkpoints and its lost workers are noticed; Ray's default is 2.
os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")
# How soon a driver that waits for Ray notices SIGTERM, of the 3 s that `ray job stop` gives it.
os.environ.setdefault("RAY_get_check_signal_interval_milliseconds", "100")
# Without a limit Ray retries a task that was killed for memory forever, with no message.
os.environ.setdefault("RAY_task_oom_retries", "5")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# A stopped trial first finishes its window; after a shorter timeout Ray discards its process.
os.environ.setdefault("TUNE_FUNCTION_THREAD_TIMEOUT_S", "30")

import ray
from ray._private.log import PlainRayHandler

from raydistill.cluster.pools.machines import may_grow_to
from raydistill.config.cluster import ClusterConfig
from raydistill.errors import UserError, WorkError

logger = logging.getLogger("raydistill")
# Tune and Train wait for ever for cores that their trials and workers hold.
_MIN_LOCAL_CPUS = 4
# Shards are passed to workers by name. The object store holds a shard's tokens on the way to a GPU
# and its logits on the way back: at most 3 bytes a wordpiece and 20 bytes a pair
# (teachers/scoring_steps.py). A core makes one block while its previous block waits.
_BYTES_A_WORDPIECE, _BYTES_A_PAIR, _BLOCKS_A_CORE = 3, 20, 2
_LEAST_STORE_BYTES = 500 << 20
_STORE_SHARE = 0.3  # the maximum share of the machine's memory; also Ray's default
_MOST_ON_MAC_BYTES = 2 << 30
_SHARED_MEMORY = Path("/dev/shm")  # if it is smaller than the store, Ray uses a slow disk
# Ray's page-long messages about each process that ends and each task that is retried.
_DEATH = re.compile(
    r"A worker died or was killed while|Task .* failed( due to oom)?\. There are ", re.DOTALL
)
_LAST_LINES = 5  # of Ray's output before a failed start


@dataclass(frozen=True)
class Cluster:
    """Cores and GPUs of all machines, now or when the cluster has grown.

    A local Ray may have more logical CPUs than `num_cores`, and does not grow.
    """

    num_cores: int
    num_gpus: int
    is_local: bool = False

    def num_actors(self, *, gpus_each: float) -> int:
        """How many teachers run at once: as many as the GPUs allow; without GPUs one a core."""
        if self.num_gpus and gpus_each:
            return max(1, int(self.num_gpus / gpus_each))
        return max(1, self.num_cores)

    def num_workers(
        self, asked: int | tuple[int, int], *, gpus_each: float
    ) -> int | tuple[int, int]:
        """How many workers a fit that asks for so many, or for (least, most), gets here.

        Of a range a local Ray gives no more than it has cores or GPUs for: its logical CPUs may be
        more. A cluster's limit is its own, and may grow.
        """
        if isinstance(asked, int) or not self.is_local:
            return asked
        least, most = asked
        return least, max(least, min(most, self.num_actors(gpus_each=gpus_each)))


def store_bytes(*, shard_rows: int, max_length: int, num_cores: int, most_bytes: int) -> int:
    """The maximum size of a local Ray's object store.

    Sized for the tokenised shards in flight, at most `most_bytes`, but at least 500 MB. 65,536
    pairs of at most 128 wordpieces: 26 MB a block, 850 MB on 16 cores.
    """
    block_bytes = shard_rows * (max_length * _BYTES_A_WORDPIECE + _BYTES_A_PAIR)
    return max(_LEAST_STORE_BYTES, min(most_bytes, num_cores * _BLOCKS_A_CORE * block_bytes))


def _most_store_bytes() -> int:
    """30 % of the machine's or container's memory; at most the free space of /dev/shm."""
    memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    of_container = Path("/sys/fs/cgroup/memory.max")
    if of_container.exists() and (text := of_container.read_text().strip()) != "max":
        memory_bytes = min(memory_bytes, int(text))
    most = int(_STORE_SHARE * memory_bytes)
    if sys.platform == "darwin":  # Ray's maximum on macOS
        most = min(most, _MOST_ON_MAC_BYTES)
    return min(most, shutil.disk_usage(_SHARED_MEMORY).free) if _SHARED_MEMORY.exists() else most


def connect(
    config: ClusterConfig, *, shard_rows: int = 65_536, max_length: int = 128, verbose: bool = False
) -> Cluster:
    """Use the existing Ray (this process's, the job's or the address's), or start a local one.

    The object store of a local Ray is sized for shards of `shard_rows` pairs of at most
    `max_length` wordpieces.

    Raises:
        UserError: no Ray answers at the address.
    """
    warnings.filterwarnings("ignore", category=FutureWarning, module="ray")
    address = config.address or os.environ.get("RAY_ADDRESS") or None  # "" is none
    is_local = address is None
    is_first = not ray.is_initialized()
    if is_first:
        num_bytes = store_bytes(
            shard_rows=shard_rows,
            max_length=max_length,
            num_cores=os.cpu_count() or 1,
            most_bytes=_most_store_bytes(),
        )
        with _own_sigterm():
            _start(address, num_store_bytes=num_bytes, verbose=verbose)
    if is_first and not verbose:
        _quiet_console()
    resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    logical = int(resources.get("CPU", 1 if is_local else 0))
    if not is_local:
        logical = max(logical, config.cpus or 0)
        may_grow_to(logical)
    cluster = Cluster(
        num_cores=min(logical, os.cpu_count() or 1) if is_local else logical,
        num_gpus=int(resources.get("GPU", 0)) if config.gpus is None else config.gpus,
        is_local=is_local,
    )
    if cluster.num_cores == 0 and cluster.num_gpus == 0:
        logger.warning(
            "the cluster has no core and no GPU yet; set cluster.cpus and cluster.gpus to what it "
            "may grow to"
        )
    if is_first:
        where = "local Ray" if is_local else f"Ray at {address}"
        logger.info("%s: %d cores, %d GPUs", where, cluster.num_cores, cluster.num_gpus)
    return cluster


def _start(address: str | None, *, num_store_bytes: int, verbose: bool) -> None:
    level = logging.INFO if verbose else logging.ERROR
    if address is not None:
        try:
            ray.init(address=address, log_to_driver=verbose, logging_level=level)
        except (ConnectionError, RuntimeError) as error:
            raise UserError(f"no Ray at {address!r} (cluster.address or RAY_ADDRESS)") from error
        return
    with nullcontext() if verbose else _quiet_core():
        ray.init(
            address="local",  # never join a Ray that another user started on this machine
            num_cpus=max(_MIN_LOCAL_CPUS, os.cpu_count() or 1),
            include_dashboard=False,
            object_store_memory=num_store_bytes,
            log_to_driver=verbose,
            logging_level=level,
        )


@contextmanager
def _own_sigterm() -> Iterator[None]:
    """Keep the handler of SIGTERM.

    Of Ray's own ones, set at the start, that of Python exits without a word. That of C++ lies below
    any of Python: it writes addresses to the console, aborts the process 3 s later, and ends it at
    a second signal at once.
    """
    utils: Any = ray._private.utils
    set_handler = utils.set_sigterm_handler
    utils.set_sigterm_handler = lambda handler: None
    try:
        yield
    finally:
        utils.set_sigterm_handler = set_handler
        kept = signal.getsignal(signal.SIGTERM)
        if kept is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, kept)  # takes the place of C++'s


@contextmanager
def _quiet_core() -> Iterator[None]:
    """Hide what Ray's processes write to stderr during the start.

    Raises:
        WorkError: Ray did not start; the message ends with the last lines of that output.
    """
    # At level error the driver's C++ core logs every process that ends.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as said:
        os.dup2(said.fileno(), 2)
        try:
            yield
        except Exception as error:
            raise WorkError(f"Ray did not start: {error}{_last_words(said)}") from error
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)


def _last_words(said: IO[bytes]) -> str:
    said.seek(0)
    lines = [line.strip() for line in said.read().decode(errors="replace").splitlines()]
    words = [line for line in lines if line][-_LAST_LINES:]
    return "; its last output: " + " | ".join(words) if words else ""


def _quiet_console() -> None:
    """Hide console lines of Ray's libraries that repeat a stage's log; their files keep all."""
    for handler in logging.getLogger("ray.train").handlers:
        if isinstance(handler, PlainRayHandler):
            handler.setLevel(logging.CRITICAL)
    show = ray._private.worker.print_to_stdstream

    def show_others(data: Any, ignore_prefix: bool = False) -> None:  # noqa: ANN401
        if not _DEATH.match("".join(data["lines"])):
            show(data, ignore_prefix)

    ray._private.worker.print_to_stdstream = show_others
