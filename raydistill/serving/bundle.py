"""The files of a bundle, and the pointer to the newest bundle.

A bundle is a folder that is never modified: `bundle.json` (settings), `model.rdm` (all numbers, to
be mapped into memory), `golden.json` (pairs with their scores and what leads to them), a model card
and `ngrams.json` (texts of common n-grams; a bundle of before has none). bundle.json has the
model's size and checksum, and the other files its fingerprint, so that files of two bundles are not
read as one. The folder of bundles has `current.json`, which names one of them and is replaced
atomically. Imports only NumPy.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raydistill.errors import UserError
from raydistill.serving.native.layout import describe, read_model

BUNDLE, MODEL, GOLDEN, CARD = "bundle.json", "model.rdm", "golden.json", "README.md"
NGRAMS = "ngrams.json"  # optional: texts of common n-grams, which the model has as hashes alone
CURRENT = "current.json"  # {"bundle": folder of the newest one, "previous": older ones}
BUNDLE_FORMAT = 11  # the version of a bundle's files
_FINGERPRINT, _OF_MODEL = "fingerprint", "model"
_NAME = re.compile(r"[0-9a-f]{16}")
_START, _START_BYTES = re.compile(rb'\s*\{\s*"fingerprint":\s*"([0-9a-f]{16})"'), 100
_AGAIN = "export the bundle again, or copy all of its files"
Model = NDArray[np.uint8]


def bundle_files(
    settings: Mapping[str, Any],
    model: bytes,
    *,
    golden: list[dict[str, Any]],
    card: str,
    ngrams: Sequence[str] = (),
) -> tuple[str, dict[str, bytes]]:
    """The fingerprint of a bundle, and its files (name: content), bundle.json last.

    `model`: the content of model.rdm; `golden`: pairs and their scores; `card`: the model card;
    `ngrams`: texts of common n-grams, of which `neighbors` finds the nearest.
    """
    whole = {**settings, _OF_MODEL: _identity(np.frombuffer(model, np.uint8))}
    found = _fingerprint(whole)
    pairs = {_FINGERPRINT: found, "pairs": golden}
    texts = {_FINGERPRINT: found, "ngrams": list(ngrams)}
    return found, {
        MODEL: model,
        GOLDEN: (json.dumps(pairs, ensure_ascii=False) + "\n").encode(),
        **({NGRAMS: (json.dumps(texts, ensure_ascii=False) + "\n").encode()} if ngrams else {}),
        CARD: f"{card}\n<!-- fingerprint {found} -->\n".encode(),
        BUNDLE: (json.dumps({_FINGERPRINT: found, **whole}, indent=2) + "\n").encode(),
    }


def _fingerprint(settings: Mapping[str, Any]) -> str:
    """16 hex digits: BLAKE2b over all settings, the model's size and checksum among them."""
    content = json.dumps(settings, sort_keys=True).encode()
    return hashlib.blake2b(content, digest_size=8).hexdigest()


def _identity(model: Model) -> dict[str, Any]:
    header = describe(model)
    return {"bytes": header["bytes"], "checksum": f"{header['checksum']:016x}"}


def read_bundle(folder: Path) -> tuple[dict[str, Any], Model]:
    """The settings of bundle.json and the mapped model of the bundle in a local folder.

    Raises:
        UserError: there is no bundle, it has another format, a file cannot be read, or its files
            are of different bundles.
    """
    folder = current_bundle(folder)
    if not (folder / BUNDLE).is_file():
        raise UserError(f"no bundle in {folder}: it has no {BUNDLE}{_hint(folder)}")
    settings = read_settings(folder / BUNDLE)
    if settings.get("format") != BUNDLE_FORMAT:
        raise UserError(
            f"bundle format {settings.get('format')!r}; this raydistill reads {BUNDLE_FORMAT}: "
            "export the bundle again"
        )
    named = settings.get(_FINGERPRINT)
    if named != _fingerprint({k: v for k, v in settings.items() if k != _FINGERPRINT}):
        raise UserError(f"{folder / BUNDLE} was changed after the export; {_AGAIN}")
    model = read_model(folder / MODEL)
    if settings.get(_OF_MODEL) != (found := _identity(model)):
        _refuse(folder, MODEL, wanted=settings.get(_OF_MODEL), found=found)
    if (folder / GOLDEN).is_file() and (golden := _fingerprint_at_start(folder / GOLDEN)) != named:
        _refuse(folder, GOLDEN, wanted=named, found=golden)
    return settings, model


def _hint(folder: Path) -> str:
    """What to give instead of a folder that holds a bundle's, such as a run's; "" of others."""
    inner = folder / "bundle"
    is_there = any((inner / name).is_file() for name in (CURRENT, BUNDLE))
    return f"; give {inner}" if is_there else ""


def read_ngrams(folder: Path) -> list[str] | None:
    """The texts of common n-grams in a bundle's local folder; None: it has no such file.

    Raises:
        UserError: the file cannot be read, is of another bundle, or has no list of texts.
    """
    folder = current_bundle(folder)
    if not (folder / NGRAMS).is_file():
        return None
    named = read_settings(folder / BUNDLE).get(_FINGERPRINT)
    content = _check_fingerprint(folder, NGRAMS, wanted=named)
    texts = content.get("ngrams")
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        kind = "other values" if isinstance(texts, list) else type(texts).__name__
        raise UserError(
            f"{folder / NGRAMS}: ngrams must be a list of texts, it holds {kind}; {_AGAIN}"
        )
    return texts


def _check_fingerprint(folder: Path, name: str, *, wanted: object) -> dict[str, Any]:
    """The content of a file, if it is of the bundle with a fingerprint."""
    content = read_settings(folder / name)
    if content.get(_FINGERPRINT) != wanted:
        _refuse(folder, name, wanted=wanted, found=content.get(_FINGERPRINT))
    return content


def _fingerprint_at_start(file: Path) -> str | None:
    """The fingerprint in golden.json, whose pairs scoring does not need: they are not parsed."""
    with file.open("rb") as content:
        found = _START.match(content.read(_START_BYTES))
    return found[1].decode() if found else None


def _refuse(folder: Path, name: str, *, wanted: object, found: object) -> None:
    raise UserError(
        f"the files in {folder} are not of one bundle ({BUNDLE} is of {wanted or 'none'}, {name} "
        f"is of {found or 'none'}); copy it again"
    )


def read_settings(file: Path) -> dict[str, Any]:
    """The settings in a `bundle.json`.

    Raises:
        UserError: the file does not exist, or is not a JSON object.
    """
    try:
        settings = json.loads(file.read_bytes())
    except (OSError, ValueError) as error:
        raise UserError(f"{file} cannot be read as JSON ({error}); {_AGAIN}") from error
    if not isinstance(settings, dict):
        raise UserError(f"{file} holds a JSON {type(settings).__name__}, not an object; {_AGAIN}")
    return settings


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
