"""Connect to Ray or start it here; size the pools; say what was found."""

from __future__ import annotations

import logging
import os
import re
import shutil
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

# Before Ray is imported: no usage notice, no progress bars over our own lines, and no pool of
# 32 processes to read the footer of one Parquet file.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_DATA_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("RAY_DATA_PARQUET_FOOTER_NUM_ACTORS", "1")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "600")
# A task that is killed for memory would be tried again for ever, and nothing said.
os.environ.setdefault("RAY_task_oom_retries", "5")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# A trial that is stopped ends the window it reads; with less patience its process is thrown away.
os.environ.setdefault("TUNE_FUNCTION_THREAD_TIMEOUT_S", "30")

import ray
import ray.data
from ray._private.log import PlainRayHandler

from raydistill.config.data import ClusterConfig
from raydistill.errors import UserError, WorkError

logger = logging.getLogger("raydistill")
# With fewer than 3 logical CPUs some Ray Data pipelines wait for ever.
_MIN_LOCAL_CPUS = 4
# A shard is sent to a worker by name. Through the object store go the tokens of a shard on their
# way to a GPU and its logits on their way back: at most 3 bytes a wordpiece and 20 bytes a pair
# (teachers/scoring_steps.py). A core makes one block while its previous block waits.
_BYTES_A_WORDPIECE, _BYTES_A_PAIR, _BLOCKS_A_CORE = 3, 20, 2
_LEAST_STORE_BYTES = 500 << 20
_STORE_SHARE = 0.3  # of the machine's memory, at most; Ray's own default is as much
_MOST_ON_MAC_BYTES = 2 << 30
_SHARED_MEMORY = Path("/dev/shm")  # where it is smaller than the store, Ray takes a slow disk
# What Ray prints, in pages, of each process that ends and each task that is tried again.
_DEATH = re.compile(
    r"A worker died or was killed while|Task .* failed( due to oom)?\. There are ", re.DOTALL
)
_LAST_LINES = 5  # of what Ray said before it did not start


@dataclass(frozen=True)
class Cluster:
    """What computes: cores and GPUs of all machines; a Ray started here has spare logical CPUs."""

    num_cores: int
    num_gpus: int

    def num_actors(self, *, gpus_each: float) -> int:
        """How many teachers run at once: as the GPUs hold, else one a core."""
        if self.num_gpus and gpus_each:
            return max(1, int(self.num_gpus / gpus_each))
        return max(1, self.num_cores)


def warn_if_apart(run_dir: str) -> None:
    """Warn when a run folder on a disk must be seen by several machines."""
    machines = {node["NodeManagerHostname"] for node in ray.nodes() if node["Alive"]}  # type: ignore[no-untyped-call]
    if "://" not in run_dir and len(machines) > 1:
        logger.warning("%s must be one disk that all %d machines share", run_dir, len(machines))


def store_bytes(*, shard_rows: int, max_length: int, num_cores: int, most_bytes: int) -> int:
    """How large the object store of a Ray of our own may become.

    Enough for the tokenised shards that are under way at once, at most `most_bytes`, but never less
    than 500 MB. 65,536 pairs of at most 128 wordpieces: 26 MB a block, 850 MB on 16 cores.
    """
    block_bytes = shard_rows * (max_length * _BYTES_A_WORDPIECE + _BYTES_A_PAIR)
    return max(_LEAST_STORE_BYTES, min(most_bytes, num_cores * _BLOCKS_A_CORE * block_bytes))


def _most_store_bytes() -> int:
    """30 % of the memory of this machine, or of the container; less where less can be shared."""
    memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    of_container = Path("/sys/fs/cgroup/memory.max")
    if of_container.exists() and (text := of_container.read_text().strip()) != "max":
        memory_bytes = min(memory_bytes, int(text))
    most = int(_STORE_SHARE * memory_bytes)
    if sys.platform == "darwin":  # where Ray takes no larger one
        most = min(most, _MOST_ON_MAC_BYTES)
    return min(most, shutil.disk_usage(_SHARED_MEMORY).free) if _SHARED_MEMORY.exists() else most


def connect(
    config: ClusterConfig, *, shard_rows: int = 65_536, max_length: int = 128, verbose: bool = False
) -> Cluster:
    """Use the Ray that is already there (this process's, the job's, the address's), or start one.

    One that is started has an object store for shards of `shard_rows` pairs of `max_length`
    wordpieces at most.

    Raises:
        UserError: an address that does not answer.
    """
    warnings.filterwarnings("ignore", category=FutureWarning, module="ray")
    address = config.address or os.environ.get("RAY_ADDRESS")
    is_local = address is None
    is_first = not ray.is_initialized()
    if is_first:
        num_bytes = store_bytes(
            shard_rows=shard_rows,
            max_length=max_length,
            num_cores=os.cpu_count() or 1,
            most_bytes=_most_store_bytes(),
        )
        _start(address, num_store_bytes=num_bytes, verbose=verbose)
    context = ray.data.DataContext.get_current()
    context.print_on_execution_start = False
    context.enable_progress_bars = False
    context.enable_rich_progress_bars = False
    if is_first and not verbose:
        _quiet_console()
    resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    logical = int(resources.get("CPU", 1))
    cluster = Cluster(
        num_cores=min(logical, os.cpu_count() or 1) if is_local else logical,
        num_gpus=int(resources.get("GPU", 0)) if config.gpus is None else config.gpus,
    )
    if cluster.num_cores == 0 and cluster.num_gpus == 0:
        logger.warning(
            "the cluster has no core and no GPU yet; say cluster.gpus = N if it may grow"
        )
    if is_first:
        where = "a Ray of our own" if is_local else f"the Ray at {address}"
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
            address="local",  # not the one that someone else has started on this machine
            num_cpus=max(_MIN_LOCAL_CPUS, os.cpu_count() or 1),
            include_dashboard=False,
            object_store_memory=num_store_bytes,
            log_to_driver=verbose,
            logging_level=level,
        )


@contextmanager
def _quiet_core() -> Iterator[None]:
    """What Ray's processes write to stderr while it starts is shown only if it does not start.

    Raises:
        WorkError: it did not, with Ray's last words.
    """
    # At level error the driver's own core says, past Python, how Ray Data starts each actor pool.
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
    return "; it said: " + " | ".join(words) if words else ""


def _quiet_console() -> None:
    """Ray's libraries say on the console what stages say in one line; their files have all."""
    for name in ("ray.data", "ray.train"):
        for handler in logging.getLogger(name).handlers:
            if isinstance(handler, PlainRayHandler):
                handler.setLevel(logging.CRITICAL)
    show = ray._private.worker.print_to_stdstream

    def show_others(data: Any, ignore_prefix: bool = False) -> None:  # noqa: ANN401
        if not _DEATH.match("".join(data["lines"])):
            show(data, ignore_prefix)

    ray._private.worker.print_to_stdstream = show_others
