"""The cost of power-loss-safe writes, of hashing raw files and of loading bundles.

python tests/bench/safety.py --bundle runs/demo/bundle --rounds 15

Interleaved rounds, medians, wall time. For the cost in a complete stage, run `prepare.py` from two
checkouts.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from raydistill.data.identities import look_at
from raydistill.files.durable import write_whole
from raydistill.files.inputs.input_files import InputFile
from raydistill.serving.bundle import read_bundle
from raydistill.serving.native.layout import verify
from raydistill.serving.scorer import Scorer

_SIZES = {"4 KB": 1 << 12, "5 MB": 5 << 20}
_RAW_BYTES = 1 << 29


def write_unsynced(path: Path, data: bytes) -> None:
    """Write and rename without a sync: the system chooses when the bytes reach the disk."""
    temporary = path.with_suffix(".tmp")
    temporary.write_bytes(data)
    os.replace(temporary, path)


def ways_of(folder: Path, bundle: Path) -> dict[str, Callable[[], object]]:
    ways: dict[str, Callable[[], object]] = {}
    for name, size in _SIZES.items():
        data = os.urandom(size)
        ways[f"write {name}, unsynced"] = lambda data=data: write_unsynced(folder / "a", data)
        ways[f"write {name}"] = lambda data=data: write_whole(folder / "a", data)
    raw = folder / "raw.csv"
    raw.write_bytes(os.urandom(_RAW_BYTES))
    file = InputFile(str(raw), _RAW_BYTES)
    ways["512 MB hashed by blocks"] = lambda: look_at(file, whole=False)
    ways["512 MB hashed whole"] = lambda: look_at(file, whole=True)
    _, model = read_bundle(bundle)
    ways["bundle, load"] = lambda: Scorer.load(bundle)
    ways["bundle, its checksum"] = lambda: verify(model)
    return ways


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--folder", type=Path, help="on the disk that counts")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        ways = ways_of(Path(folder), arguments.bundle)
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(arguments.rounds):
            for name, way in ways.items():
                start_s = time.perf_counter()
                way()
                seconds[name].append(time.perf_counter() - start_s)
    found = {name: round(1e3 * statistics.median(those), 2) for name, those in seconds.items()}
    for name, median_ms in found.items():
        print(f"{name:28}{median_ms:10.2f} ms")
    print(json.dumps({"bench": "safety", "figures_ms": found}))


if __name__ == "__main__":
    main()
