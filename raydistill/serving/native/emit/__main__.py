"""Emit the native library: `python -m raydistill.serving.native.emit`."""

from __future__ import annotations

import os

os.environ["NUMBA_OPT"] = "0"  # numba's own passes; LLVM optimises the whole afterwards
os.environ["NUMBA_CPU_NAME"] = "generic"

import logging
import sys
from pathlib import Path

from raydistill.serving.native.emit.emitter import build

logging.basicConfig(level=logging.INFO)
build(Path(sys.argv[1]), targets=sys.argv[2:] or ["linux-x86_64-v3"])
