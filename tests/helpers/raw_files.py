"""Faulty raw files."""

import gzip
from pathlib import Path

import numpy as np


def write_cut_off(path: Path) -> None:
    """Write the first half of a gzip file of CSV."""
    digits = np.random.default_rng(0).bytes(4_000_000).hex()  # more than is read as a header
    lines = (f"{digits[at : at + 40]},x\n" for at in range(0, len(digits), 40))
    data = gzip.compress(("query,title\n" + "".join(lines)).encode(), compresslevel=1)
    path.write_bytes(data[: len(data) // 2])
