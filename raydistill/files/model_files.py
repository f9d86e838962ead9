"""Model names to local folders: resolved once by the driver, verified wherever a model is loaded.

Input: a local folder, the folder of an installed package, an `s3://` URI or a name on the Hugging
Face hub. Output: a local folder whose files have the fingerprint that the driver computed. Imports
neither torch nor transformers.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
import socket
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from raydistill.errors import UserError
from raydistill.files.folder import SUCCESS, Folder

# Suffixes of the files that transformers reads: settings and tokenizer.json, weights, vocabularies
# (vocab.txt, spiece.model, bpe.codes, prophetnet.tokenizer, qwen.tiktoken), chat templates. Weights
# of other libraries are excluded.
MODEL_SUFFIXES = frozenset(
    {".json", ".safetensors", ".bin"}
    | {".txt", ".model", ".codes", ".tokenizer", ".tiktoken", ".jinja"}
)
CODE_SUFFIX = ".py"  # read only with trust_remote_code = true in the run file
EXPORTS = ("onnx", "openvino")  # folders with the same model for other libraries
# Files that a training run writes beside the model; they do not change its output.
_NOT_READ = {SUCCESS, "result.json", "trainer_state.json", "training_args.bin", "optimizer.bin"}
# owner/name, with @commit if pinned; anything else is a path
_HUB_NAME = re.compile(r"([\w-][\w.-]*(?:/[\w-][\w.-]*)?)(?:@([0-9a-f]{40}))?")
_WEIGHTS = {"model.safetensors", "model.safetensors.index.json"}
_OLD_WEIGHTS = ".bin"
_OLD_MODULE = "pytorch_model.bin"
_PATTERNS = [f"*{suffix}" for suffix in sorted(MODEL_SUFFIXES - {_OLD_WEIGHTS})]
_LFS_POINTER = b"version https://git-lfs.github.com/spec/"


@dataclass(frozen=True)
class PinnedModel:
    """A model as the driver resolved it: source (for a hub model, with its commit) and fingerprint.

    `trusts_code`: the run file allows the code in the model's folder to run; the fingerprint then
    covers that code.
    """

    source: str
    fingerprint: str
    trusts_code: bool = False


def pin_source(source: str, *, trusts_code: bool = False) -> str:
    """The source with its current commit if it is a hub name; a folder as an absolute path.

    Other sources are returned unchanged.

    Raises:
        UserError: no model has that name.
    """
    if "://" not in source and Path(source).is_dir():
        return str(Path(source).absolute())  # workers have another working directory
    if _local_folder(source) is not None or "@" in source:
        return source
    return f"{source}@{Path(_hub_snapshot(source, trusts_code=trusts_code)).name}"


def pin_model(source: str, *, trusts_code: bool = False) -> PinnedModel:
    """The model that a source names now, downloaded if need be.

    Raises:
        UserError: no model has that name, the folder is not a model, or a file is a Git LFS
            pointer.
    """
    pinned = pin_source(source, trusts_code=trusts_code)
    folder = model_folder(pinned, trusts_code=trusts_code).download()
    if not any((folder / name).is_file() for name in ("config.json", "modules.json")):
        raise UserError(f"no teacher model in {source!r}: it has no config.json")
    _check_no_pointers(folder)
    return PinnedModel(pinned, _fingerprint(folder, trusts_code=trusts_code), trusts_code)


def _check_no_pointers(folder: Path) -> None:
    """Raise UserError if a file of the model is a Git LFS pointer."""
    for file in model_files(folder):
        with file.open("rb") as stream:
            if stream.read(len(_LFS_POINTER)) == _LFS_POINTER:
                raise UserError(
                    f"{file} is a Git LFS pointer, not the file itself: run `git lfs pull` in the "
                    "model's repository, or download the file"
                )


def model_folder(source: str, *, trusts_code: bool = False) -> Folder:
    """The folder that a source names: local, in a package, on S3, or a snapshot of the hub.

    Raises:
        UserError: no model has that name.
    """
    return _local_folder(source) or Folder(_hub_snapshot(source, trusts_code=trusts_code))


def load_model(model: PinnedModel) -> Path:
    """The local folder of a model, downloaded if need be; its files are hashed once per process.

    Call it again just before the files are loaded: it then compares only their sizes and times.

    Raises:
        UserError: no model has that name, or its fingerprint is not the one the driver computed.
    """
    folder = model_folder(model.source, trusts_code=model.trusts_code).download()
    found = _fingerprint(folder, trusts_code=model.trusts_code)
    if found != model.fingerprint:
        raise UserError(
            f"the model {model.source} is another one on {socket.gethostname()}: the files in "
            f"{folder} have the fingerprint {found}, not {model.fingerprint}; give every machine "
            "the same files (an s3:// folder, a shared disk, the same version of the package) and "
            "submit the job again; of a teacher that finetune made, delete the folder first"
        )
    return folder


# (folder, with code) -> (state of its files, fingerprint)
_hashed: dict[tuple[str, bool], tuple[object, str]] = {}


def _fingerprint(folder: Path, *, trusts_code: bool) -> str:
    """The fingerprint of a folder; its files are read again only if one has changed."""
    infos = [(file, file.stat()) for file in model_files(folder, with_code=trusts_code)]
    state = [(f, i.st_size, i.st_mtime_ns, i.st_ctime_ns, i.st_ino) for f, i in infos]
    key = (str(folder), trusts_code)
    known = _hashed.get(key)
    if known is None or known[0] != state:
        known = _hashed[key] = (state, model_fingerprint(folder, with_code=trusts_code))
    return known[1]


def _local_folder(source: str) -> Folder | None:
    """The local folder, package folder or S3 folder of a source; None for a name on the hub.

    Raises:
        UserError: the source is a path that does not exist.
    """
    if "://" in source or Path(source).is_dir():
        return Folder(source)
    package, _, rest = source.partition("/")
    spec = importlib.util.find_spec(package) if package.isidentifier() else None
    for place in (spec.submodule_search_locations or []) if spec else []:
        if (Path(place) / rest).is_dir():
            return Folder(str(Path(place) / rest))
    if not _HUB_NAME.fullmatch(source):
        hint = "; pin a hub model with the 40 hex digits of a commit" if "@" in source else ""
        raise UserError(f"no teacher model {source!r}: no such folder{hint}")
    return None


def _hub_snapshot(source: str, *, trusts_code: bool) -> str:
    """The local copy of a hub model, at its commit or else at the latest one.

    Raises:
        UserError: the hub has no such model or cannot be reached.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    name, _, commit = source.partition("@")
    patterns = [*_PATTERNS, *([f"*{CODE_SUFFIX}"] if trusts_code else [])]
    try:
        folder = snapshot_download(name, revision=commit or None, allow_patterns=patterns)
        wanted = [f"*{_OLD_WEIGHTS}"]
        if any((Path(folder) / weights).exists() for weights in _WEIGHTS):
            wanted = _weights_of_modules(Path(folder))
        if wanted:  # an older model, or older weights of its dense layers
            folder = snapshot_download(
                name,
                revision=Path(folder).name,
                allow_patterns=wanted,
                ignore_patterns=[f"{export}/*" for export in EXPORTS],
            )
        return str(folder)
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise UserError(
            f"no teacher model {source!r}: not a folder, not an installed package's folder, and "
            f"the hub did not give it ({type(error).__name__})"
        ) from error


def _weights_of_modules(folder: Path) -> list[str]:
    """The older weights that modules of a sentence encoder may have: those without safetensors.

    Such a module is a dense layer in a subfolder that `modules.json` names.
    """
    try:
        modules = json.loads((folder / "modules.json").read_text(encoding="utf-8"))
        places = [str(module["path"]) for module in modules]
    except (OSError, ValueError, LookupError, TypeError):
        return []  # no sentence encoder; a broken file is named where it is used
    found = [place for place in places if not any((folder / place).glob("model.safetensors*"))]
    return sorted(f"{PurePosixPath(place)}/{_OLD_MODULE}" for place in found)


def model_fingerprint(folder: Path, *, with_code: bool = False) -> str:
    """16 hex digits: BLAKE2b over the names and contents of the files of `model_files`."""
    digest = hashlib.blake2b(digest_size=8)
    for file in model_files(folder, with_code=with_code):
        digest.update(file.relative_to(folder).as_posix().encode() + b"\0")
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "blake2b").digest())
    return digest.hexdigest()


def model_bytes(folder: Path) -> int:
    """Size of the files of a model in bytes; nearly all of it is weights."""
    return sum(file.stat().st_size for file in model_files(folder))


def model_files(folder: Path, *, with_code: bool = False) -> list[Path]:
    """The files that determine the output of the model in a folder, sorted; links are followed.

    If there is a `model.safetensors`, `.bin` files are ignored, except the weights of a module of a
    sentence encoder in a subfolder without one: other programs add files to the local copy of a hub
    model, so some copies have both.

    Raises:
        UserError: a link to a file that does not exist.
    """
    has_safetensors = any(folder.glob("model.safetensors*"))
    of_modules = _weights_of_modules(folder) if has_safetensors else []
    suffixes = MODEL_SUFFIXES | ({CODE_SUFFIX} if with_code else set())
    found: list[Path] = []
    seen: set[str] = set()
    for place, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [f for f in folders if not f.startswith(".") and f not in EXPORTS]
        if (real := os.path.realpath(place)) in seen:  # a link to a folder above
            folders.clear()
            continue
        seen.add(real)
        for file in (Path(place, name) for name in names if not name.startswith(".")):
            is_old = file.name.endswith((".bin", ".bin.index.json")) and has_safetensors
            if is_old and file.name == _OLD_MODULE:
                is_old = file.relative_to(folder).as_posix() not in of_modules
            if file.suffix in suffixes and file.name not in _NOT_READ and not is_old:
                found.append(file)
    for file in found:
        if not file.exists():
            raise UserError(f"{file} is a link to a missing file; repair the model folder")
    return sorted(found)
