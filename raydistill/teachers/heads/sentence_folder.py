"""How a sentence encoder makes an embedding of a text: read from its folder. No torch, no Ray.

Input: a folder as sentence-transformers writes it, or any encoder's folder. Output: SentenceRules.
Without such files: the mean over all wordpieces, no prompts.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from raydistill.errors import UserError
from raydistill.teachers.transformer.pair_tokenizer import model_root

Pooling = Literal["mean", "cls", "max", "lasttoken"]
_MODES: tuple[Pooling, ...] = get_args(Pooling)
_POOLING = "1_Pooling"
# Keys of a pooling config before version 5 of sentence-transformers.
_OLD_MODES = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_lasttoken": "lasttoken",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
}
_NO_EFFECT = frozenset({"Normalize", "Dropout"})  # on a cosine, and outside of training
# The prompts of `encode_query` and `encode_document` of sentence-transformers; the first that is.
_OF_QUERIES, _OF_TITLES = ("query",), ("document", "passage", "corpus")


@dataclass(frozen=True)
class SentenceRules:
    """From a text to its embedding: prompt, wordpieces, the encoder, pooling, dense layers.

    `max_length`: wordpieces that the folder allows; None: it names no limit.
    """

    pooling: Pooling = "mean"
    query_prompt: str = ""
    title_prompt: str = ""
    lowercase: bool = False
    max_length: int | None = None
    dense: tuple[str, ...] = ()  # subfolders of dense layers, in their order


def read_rules(folder: Path) -> SentenceRules:
    """The rules of the model in a folder.

    Raises:
        UserError: a file cannot be read, or names something that is not supported.
    """
    modules = _modules(folder)
    prompts = read_json_object(folder / "config_sentence_transformers.json").get("prompts") or {}
    settings = _transformer_settings(folder)
    length = settings.get("max_seq_length")
    return SentenceRules(
        pooling=_pooling(folder, modules),
        query_prompt=_prompt(prompts, _OF_QUERIES),
        title_prompt=_prompt(prompts, _OF_TITLES),
        lowercase=bool(settings.get("do_lower_case")),
        max_length=int(length) if isinstance(length, int) and length > 0 else None,
        dense=tuple(path for kind, path in modules if kind == "Dense"),
    )


def _modules(folder: Path) -> list[tuple[str, str]]:
    """Kind and subfolder of each module after the encoder.

    Raises:
        UserError: one that is not supported.
    """
    file = folder / "modules.json"
    if not file.is_file():
        return [("Pooling", _POOLING)] if (folder / _POOLING / "config.json").is_file() else []
    entries = _json(file)
    try:
        found = [(str(entry["type"]).rpartition(".")[2], str(entry["path"])) for entry in entries]
    except (LookupError, TypeError) as error:
        raise _unreadable(file, error) from error
    supported = {"Transformer", "Pooling", "Dense", *_NO_EFFECT}
    unknown = [kind for kind, _ in found if kind not in supported]
    kinds = [kind for kind, _ in found if kind not in _NO_EFFECT]
    in_order = kinds[:1] == ["Transformer"] and kinds[1:2] in ([], ["Pooling"])
    if unknown or not in_order or kinds.count("Pooling") > 1:
        raise UserError(
            f"{file} has the modules {', '.join(kind for kind, _ in found)}: a bi_encoder is a "
            "Transformer, a Pooling and any number of Dense and Normalize modules, in this order; "
            "take another encoder"
        )
    return found[1:]


def _pooling(folder: Path, modules: list[tuple[str, str]]) -> Pooling:
    paths = [path for kind, path in modules if kind == "Pooling"]
    if not paths:
        return "mean"
    file = folder / paths[0] / "config.json"
    config = read_json_object(file)
    modes = config.get("pooling_mode")
    if modes is None:
        modes = [mode for key, mode in _OLD_MODES.items() if config.get(key)] or ["mean"]
    modes = [modes] if isinstance(modes, str) else list(modes)
    for mode in _MODES:
        if modes == [mode] and config.get("include_prompt", True):
            return mode
    what = f"pooling {' + '.join(map(str, modes))}"
    if not config.get("include_prompt", True):
        what += " without the prompt's wordpieces (include_prompt = false)"
    raise UserError(
        f"{file} has {what}; a bi_encoder may have one of {', '.join(_MODES)}: take another encoder"
    )


def _prompt(prompts: Any, names: tuple[str, ...]) -> str:  # noqa: ANN401 - JSON
    return next((str(prompts[name]) for name in names if prompts.get(name)), "")


def _transformer_settings(folder: Path) -> dict[str, Any]:
    """`sentence_bert_config.json`, or the file of that kind for another family.

    It lies beside the encoder's config.json: in an old layout in the folder `0_Transformer`.
    """
    places = dict.fromkeys((model_root(folder), folder))
    files = [file for place in places for file in sorted(place.glob("sentence_*_config.json"))]
    return read_json_object(files[0]) if files else {}


def read_json_object(file: Path) -> dict[str, Any]:
    """A JSON object; {} if there is no such file."""
    if not file.is_file():
        return {}
    found = _json(file)
    if not isinstance(found, dict):
        raise _unreadable(file, TypeError("no JSON object"))
    return found


def _json(file: Path) -> Any:  # noqa: ANN401
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise _unreadable(file, error) from error


def _unreadable(file: Path, error: Exception) -> UserError:
    return UserError(
        f"{file} cannot be read ({type(error).__name__}: {error}); it should be as "
        "sentence-transformers writes it: copy the model again"
    )
