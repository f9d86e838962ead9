"""The files of a bundle, and the pointer to the newest one: numpy alone.

A bundle is a folder that is never written again: `bundle.json` (what it is), `arrays.npz`
(embedding, network, IDF, scales), `golden.json` (a few pairs and their scores) and a model card.
Each file holds the bundle's fingerprint, so that files of two bundles are never read as one. Above
the bundles lies `current.json`, which names one of them and is replaced in one step.
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

from raydistill import FORMAT
from raydistill.errors import UserError

BUNDLE, ARRAYS, GOLDEN, CARD = "bundle.json", "arrays.npz", "golden.json", "README.md"
CURRENT = "current.json"  # {"bundle": the newest one's folder, "previous": those kept beside it}
_FINGERPRINT = "fingerprint"
_NAME = re.compile(r"[0-9a-f]{16}")
Arrays = Mapping[str, NDArray[Any]]


def bundle_fingerprint(settings: Mapping[str, Any], arrays: Arrays) -> str:
    """16 hex digits from all that decides a score, and what bundle.json says besides."""
    digest = hashlib.blake2b(json.dumps(settings, sort_keys=True).encode(), digest_size=8)
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype.str} {array.shape} ".encode())
        digest.update(array.data.cast("B") if array.size else b"")
    return digest.hexdigest()


def bundle_files(
    settings: Mapping[str, Any], arrays: Arrays, *, golden: list[dict[str, Any]], card: str
) -> tuple[str, dict[str, bytes]]:
    """The fingerprint of a bundle, and its files with the fingerprint in each, bundle.json last."""
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
    """What bundle.json says and the arrays of the bundle in a local folder.

    Raises:
        UserError: there is no bundle, or one whose files are not of one bundle.
    """
    folder = current_bundle(folder)
    if not (folder / BUNDLE).is_file():
        raise UserError(f"no bundle in {folder}: it has no {BUNDLE}")
    settings: dict[str, Any] = json.loads((folder / BUNDLE).read_text(encoding="utf-8"))
    with np.load(folder / ARRAYS) as stored:
        arrays = dict(stored)
    found = {
        BUNDLE: settings.get(_FINGERPRINT),
        ARRAYS: bytes(arrays.pop(_FINGERPRINT, np.empty(0, np.uint8))).decode("utf-8", "replace"),
        **_fingerprint_in(folder / GOLDEN),
    }
    is_ours = settings.get("format") == FORMAT  # what others hold is not known: the Scorer refuses
    if is_ours and (len(set(found.values())) > 1 or not found[BUNDLE]):
        told = ", ".join(f"{name} is of {one or 'none'}" for name, one in found.items())
        raise UserError(f"the files in {folder} are not of one bundle ({told}); copy it again")
    return settings, arrays


def _fingerprint_in(golden: Path) -> dict[str, Any]:
    """That of `golden.json`; it may be missing, as scores need it not."""
    if not golden.is_file():
        return {}
    content = json.loads(golden.read_text(encoding="utf-8"))
    return {GOLDEN: content.get(_FINGERPRINT) if isinstance(content, dict) else None}


def current_bundle(folder: Path) -> Path:
    """The folder itself, or where it holds bundles the one that `current.json` names."""
    pointer = folder / CURRENT
    if not pointer.is_file():
        return folder
    return folder / bundle_name(json.loads(pointer.read_text(encoding="utf-8")), where=str(pointer))


def bundle_name(pointer: object, *, where: str) -> str:
    """The folder that the content of `current.json` names.

    Raises:
        UserError: it names none.
    """
    name = pointer.get("bundle") if isinstance(pointer, dict) else None
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise UserError(f"{where} names no bundle ({name!r}); export again")
    return name
