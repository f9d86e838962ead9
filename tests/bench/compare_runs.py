"""Compare two runs of the same raw files: which outputs are byte-identical.

Folder names contain fingerprints, which change with names of settings: fingerprints are ignored.

python tests/bench/compare_runs.py RUN_A RUN_B
"""

import hashlib
import io
import json
import re
import sys
import zipfile
from pathlib import Path

import torch

FINGERPRINT = re.compile(r"-[0-9a-f]{8,16}(?=/|$)|(?<=/)[0-9a-f]{8,16}(?=/)")
KINDS = {
    "shards of pairs": "pairs/part-*.parquet",
    "judged pairs": "judged/*/part-*.parquet",
    "teachers": "teachers/*/*.safetensors",
    "trees": "teachers/*/models.json",
    "logits of pairs": "logits/*/part-*.parquet",
    "logits of judged pairs": "logits/*/judged/*/part-*.parquet",
    "lexicon": "lexicon/*/lexicon.npz",
    "students": "student/*/weights.pt",
    "model of the bundle": "bundle/*/model.rdm",
    "golden scores": "bundle/*/golden.json",
}


def digest(path: Path) -> str:
    """Hash of the content; of npz, pt and golden.json without archive names and fingerprints."""
    data = path.read_bytes()
    if path.suffix == ".npz":
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = sorted(name for name in archive.namelist() if name != "fingerprint.npy")
            data = b"".join(name.encode() + archive.read(name) for name in names)
    elif path.suffix == ".pt":
        arrays = torch.load(path, weights_only=True)
        data = b"".join(n.encode() + a.numpy().tobytes() for n, a in sorted(arrays.items()))
    elif path.name == "golden.json":
        data = json.dumps(json.loads(data)["pairs"], sort_keys=True).encode()
    return hashlib.sha256(data).hexdigest()[:16]


def contents(run: Path, pattern: str) -> dict[str, str]:
    files = sorted(run.glob(pattern))
    return {FINGERPRINT.sub("", str(f.relative_to(run))): digest(f) for f in files}


def main() -> int:
    first, second = (Path(name) for name in sys.argv[1:3])
    figures = {}
    for kind, pattern in KINDS.items():
        a, b = contents(first, pattern), contents(second, pattern)
        same = sum(a.get(name) == b[name] for name in b)
        figures[kind] = {"files": max(len(a), len(b)), "same": same}
        print(f"{kind:<24}{same:>4} of {max(len(a), len(b)):>4} files are the same bytes")
    print(json.dumps({"bench": "compare_runs", "figures": figures}))
    return int(any(one["files"] != one["same"] for one in figures.values()))


if __name__ == "__main__":
    sys.exit(main())
