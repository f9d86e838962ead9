"""Emit the native library: `python -m raydistill.serving.native.emit`.

Without `--output` the library goes to the user's cache, unless it is there.
"""

from __future__ import annotations

import os

# numba's own passes are skipped: LLVM optimises the whole afterwards, for the target's CPU. numba
# reads both when it is imported.
os.environ["NUMBA_OPT"] = "0"
os.environ["NUMBA_CPU_NAME"] = "generic"

import argparse
import logging
from pathlib import Path

from raydistill.serving.native.build import built_libraries, own_target
from raydistill.serving.native.emit.emitter import TARGETS, build


def main() -> None:
    """Emit to a folder or to the cache, and log the files."""
    parser = argparse.ArgumentParser(description=__doc__)
    own = own_target()
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--target", action="append", choices=TARGETS, help=f"default: {own}")
    which.add_argument(
        "--machine", choices=("x86_64", "aarch64"), help="all Linux targets of a machine"
    )
    parser.add_argument("--output", type=Path, help="an existing folder")
    parser.add_argument("--checked", action="store_true", help="check every index: for tests")
    args = parser.parse_args()
    targets = args.target or ([own] if own else [])
    if args.machine:
        targets = [name for name in TARGETS if name.startswith(f"linux-{args.machine}")]
    if not targets:
        parser.error(f"no target fits this machine; name one of {', '.join(TARGETS)}")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if args.output:
        build(args.output, targets=targets, checked=args.checked)
        return
    for file in built_libraries(targets, checked=args.checked).values():
        logging.info("%s", file)


if __name__ == "__main__":
    main()
