"""The files of a bundle, and the pointer to the newest bundle.

A bundle is a folder that is never modified: `bundle.json` (settings), `arrays.npz` (embedding,
network, IDF, scales), `golden.json` (a few pairs and their scores) and a model card. Each file has
the bundle's fingerprint, so that files of two bundles are not read as one. The folder of bundles
has `current.json`, which names one of them and is replaced atomically.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raydistill.errors import UserError
from raydistill.serving.bundle_check import read_arrays, read_settings
from raydistill.serving.feature_spec import FORMAT

BUNDLE, ARRAYS, GOLDEN, CARD = "bundle.json", "arrays.npz", "golden.json", "README.md"
CURRENT = "current.json"  # {"bundle": folder of the newest one, "previous": older ones}
_FINGERPRINT = "fingerprint"
_NAME = re.compile(r"[0-9a-f]{16}")
Arrays = Mapping[str, NDArray[Any]]


def bundle_fingerprint(settings: Mapping[str, Any], arrays: Arrays) -> str:
    """16 hex digits: BLAKE2b over all settings of bundle.json and all arrays."""
    digest = hashlib.blake2b(json.dumps(settings, sort_keys=True).encode(), digest_size=8)
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype.str} {array.shape} ".encode())
        digest.update(array.data.cast("B") if array.size else b"")
    return digest.hexdigest()


def bundle_files(
    settings: Mapping[str, Any], arrays: Arrays, *, golden: list[dict[str, Any]], card: str
) -> tuple[str, dict[str, bytes]]:
    """The fingerprint of a bundle, and its files (name: content), bundle.json last.

    Each file contains the fingerprint. `golden`: pairs and their scores; `card`: the model card.
    """
    found = bundle_fingerprint(settings, arrays)
    buffer = io.BytesIO()
    np.savez(buffer, **arrays, **{_FINGERPRINT: np.frombuffer(found.encode(), np.uint8)})  # type: ignore[arg-type]
    pairs = {_FINGERPRINT: found, "pairs": golden}
    return found, {
        ARRAYS: buffer.getvalue(),
        GOLDEN: json.dumps(pairs, ensure_ascii=False, indent=1).encode(),
        CARD: f"{card}\n<!-- fingerprint {found} -->\n".encode(),
        BUNDLE: (json.dumps({_FINGERPRINT: found, **settings}, indent=2) + "\n").encode(),
    }


def read_bundle(folder: Path) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """The settings of bundle.json and the arrays of the bundle in a local folder.

    Raises:
        UserError: there is no bundle, a file cannot be read, or the fingerprints differ.
    """
    folder = current_bundle(folder)
    if not (folder / BUNDLE).is_file():
        raise UserError(f"no bundle in {folder}: it has no {BUNDLE}")
    settings, arrays = read_settings(folder / BUNDLE), read_arrays(folder / ARRAYS)
    stored = arrays.pop(_FINGERPRINT, np.empty(0, np.uint8))
    if settings.get("format") == FORMAT:  # Scorer rejects any other format
        found = {
            BUNDLE: settings.get(_FINGERPRINT),
            ARRAYS: stored.tobytes().decode("ascii", "replace"),
        }
        if (folder / GOLDEN).is_file():  # not needed for scoring
            found[GOLDEN] = read_settings(folder / GOLDEN).get(_FINGERPRINT)
        _check_one(folder, found)
    return settings, arrays


def _check_one(folder: Path, found: Mapping[str, Any]) -> None:
    """Raise UserError unless all files of a folder have the same fingerprint."""
    if len(set(found.values())) > 1 or not found[BUNDLE]:
        told = ", ".join(f"{name} is of {one or 'none'}" for name, one in found.items())
        raise UserError(f"the files in {folder} are not of one bundle ({told}); copy it again")


def current_bundle(folder: Path) -> Path:
    """The bundle that `current.json` in the folder names; without that file, the folder itself."""
    pointer = folder / CURRENT
    if not pointer.is_file():
        return folder
    return folder / bundle_name(read_settings(pointer), where=str(pointer))


def bundle_name(pointer: Mapping[str, Any], *, where: str) -> str:
    """The name of the bundle's folder in the content of `current.json`.

    Raises:
        UserError: it is missing or not 16 hex digits.
    """
    name = pointer.get("bundle")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise UserError(f"{where} names no bundle ({name!r}); export again")
    return name
