"""Load a bundle from a local folder or an object store; a remote bundle is copied here first."""

from __future__ import annotations

from pathlib import Path

from raydistill.files.folder import Folder
from raydistill.serving.bundle import CURRENT, bundle_name
from raydistill.serving.scorer import Scorer


def load_scorer(bundle: str | Path) -> Scorer:
    """The Scorer of a bundle in a local folder or at an `s3://` URI.

    In a folder of several bundles, such as `bundle/` of a run, the newest one is loaded.

    Raises:
        UserError: as `Scorer.load`.
    """
    return Scorer.load(_local(str(bundle)))


def _local(bundle: str) -> Path:
    if "://" not in bundle:
        return Path(bundle).expanduser()
    folder = Folder(bundle)
    pointer = folder.read_json(CURRENT)
    if pointer is not None:
        folder = folder / bundle_name(pointer, where=f"{bundle}/{CURRENT}")
    return folder.download()
