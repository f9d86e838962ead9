"""Copy a bundle of an object store or a hub to this machine; `Scorer.load` calls it."""

from __future__ import annotations

from pathlib import Path

from raydistill.errors import UserError
from raydistill.files.folder import Folder
from raydistill.serving.bundle import BUNDLE, CURRENT, MODEL, NGRAMS, bundle_name
from raydistill.serving.native.layout import read_model, verify


def local_bundle(bundle: str) -> Path:
    """The local folder of a bundle at an `s3://` URI or with a hub's name, `owner/name[@commit]`.

    In a folder of several bundles, such as `bundle/` of a run, the newest one is copied.

    The model file's checksum is compared once it is here.

    Raises:
        UserError: there is no such bundle, or its model file is damaged.
    """
    if "://" not in bundle:
        return _hub_snapshot(bundle)
    folder = Folder(bundle)
    pointer = folder.read_json(CURRENT)
    if pointer is not None:
        folder = folder / bundle_name(pointer, where=f"{bundle}/{CURRENT}")
    if not folder.exists(BUNDLE):
        raise UserError(f"no bundle in {bundle}: it has no {BUNDLE}")
    copy = folder.download()
    verify(read_model(copy / MODEL))
    return copy


def _hub_snapshot(name: str) -> Path:
    """The local copy of a bundle on the Hugging Face hub, at a commit or else at the latest one."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    repo, _, commit = name.partition("@")
    try:
        folder = snapshot_download(
            repo, revision=commit or None, allow_patterns=[BUNDLE, MODEL, NGRAMS]
        )
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise UserError(
            f"no bundle {name!r}: not a folder, and the hub did not give it "
            f"({type(error).__name__})"
        ) from error
    verify(read_model(Path(folder) / MODEL))
    return Path(folder)
