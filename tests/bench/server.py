"""The HTTP server under load: requests/s, latency, errors and memory, by number of clients.

`wrk` sends one query with 100 titles a request to `raydistill serve` on this machine, each client
the next request as soon as it has the answer. The load generator takes a part of the same cores.

    python tests/bench/server.py --bundle runs/relevance/bundle --seconds 300
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from raydistill.serving.bundle import GOLDEN, current_bundle

_LUA = """
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
local bodies, next_one = {}, 0
for line in io.lines("BODIES") do bodies[#bodies + 1] = line end
function init(args) math.randomseed(os.time()); next_one = math.random(#bodies) end
function request()
  next_one = next_one % #bodies + 1
  return wrk.format(nil, "PATH", nil, bodies[next_one])
end
function done(summary, latency)
  local e = summary.errors
  print(string.format('{"requests": %d, "seconds": %.3f, "p50_ms": %.3f, "p99_ms": %.3f, ' ..
    '"max_ms": %.3f, "errors": %d}', summary.requests, summary.duration / 1e6,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3, latency.max / 1e3,
    e.connect + e.read + e.write + e.status + e.timeout))
end
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", required=True)
    parser.add_argument("--clients", default="1,8,32")
    parser.add_argument("--seconds", type=int, default=300)
    parser.add_argument("--titles", type=int, default=100)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--path", default="/score", choices=("/score", "/rerank"))
    arguments = parser.parse_args()
    figures: dict[str, Any] = {"workers": arguments.workers, "titles": arguments.titles}
    with tempfile.TemporaryDirectory() as folder:
        script = _script(Path(folder), arguments)
        for clients in map(int, arguments.clients.split(",")):
            with _server(arguments.bundle, workers=arguments.workers) as (address, process):
                _load(address, script, clients=clients, seconds=2)  # warm
                start_mb = _memory_mb(process)
                before, cpu_s = os.getloadavg()[0], _cpu_s(process)
                found = _load(address, script, clients=clients, seconds=arguments.seconds)
                found["requests_per_s"] = round(found["requests"] / found["seconds"], 1)
                used_s = _cpu_s(process) - cpu_s
                found["cpu_ms_a_request"] = round(1_000 * used_s / found["requests"], 3)
                found |= {"rss_start_mb": start_mb, "rss_end_mb": _memory_mb(process)}
                found["other_load"] = round(before, 1)
            figures[f"clients_{clients}"] = found
            print(f"{clients:3d} clients: {found}", flush=True)
    print(json.dumps({"bench": "server", "figures": figures}))


def _script(folder: Path, arguments: argparse.Namespace) -> Path:
    """A script of wrk, and 200 bodies: a query of the golden pairs with titles of all."""
    golden = current_bundle(Path(arguments.bundle)) / GOLDEN
    pairs = json.loads(golden.read_bytes())["pairs"]
    queries = [pair["query"] for pair in pairs if pair["query"].strip()]
    titles = [pair["title"] for pair in pairs if 10 <= len(pair["title"]) <= 300]
    rng, name = random.Random(0), "titles" if arguments.path == "/score" else "texts"
    bodies = [
        json.dumps(
            {"query": rng.choice(queries), name: rng.choices(titles, k=arguments.titles)},
            ensure_ascii=False,
        )
        for _ in range(200)
    ]
    (folder / "bodies").write_text("\n".join(bodies) + "\n")
    script = folder / "post.lua"
    script.write_text(
        _LUA.replace("BODIES", str(folder / "bodies")).replace("PATH", arguments.path)
    )
    return script


@contextmanager
def _server(bundle: str, *, workers: int) -> Iterator[tuple[str, psutil.Process]]:
    command = [sys.executable, "-m", "raydistill", "serve", "--bundle", bundle, "--port", "0"]
    command += ["--workers", str(workers), "--drain-s", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        assert address, "the server did not start"
        time.sleep(1)
        yield address, psutil.Process(process.pid)
        process.terminate()
        assert process.wait() == 0


def _load(address: str, script: Path, *, clients: int, seconds: int) -> dict[str, Any]:
    command = ["wrk", "-t1", f"-c{clients}", f"-d{seconds}s", "--timeout", "10s"]
    command += ["-s", str(script), address]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found: dict[str, Any] = json.loads(out.strip().splitlines()[-1])
    return found


def _cpu_s(process: psutil.Process) -> float:
    """CPU time of the server and its processes: it hardly depends on what else the machine does."""
    times = [one.cpu_times() for one in (process, *process.children(recursive=True))]
    return sum(one.user + one.system for one in times)


def _memory_mb(process: psutil.Process) -> float:
    """Resident memory of the server and the processes that it started."""
    all_of_it = [process, *process.children(recursive=True)]
    return round(sum(one.memory_info().rss for one in all_of_it) / 1e6, 1)


if __name__ == "__main__":
    main()
