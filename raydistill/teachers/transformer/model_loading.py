"""Load a Hugging Face folder as a model whose weights all come from its checkpoint; no Ray.

transformers fills weights that are missing from the checkpoint with random numbers and does not
raise an error: each process would then have a different model. Here missing weights raise a
UserError that names them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification
from transformers.utils import logging as hf_logging

from raydistill.errors import UserError
from raydistill.teachers.transformer.pair_tokenizer import load_error, model_root

_CUT = (SafetensorError, UnpicklingError, EOFError)
_NUM_NAMED = 3  # weights that a message names
# Names of the head's modules, for models that do not declare their encoder (base_model_prefix).
_HEADS = frozenset(
    {"classifier", "classification_head", "score", "pooler", "pre_classifier", "head"}
)


def quiet_transformers() -> None:
    """Switch off load reports and progress bars: neither asks for an action by the user."""
    hf_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    hf_logging.disable_progress_bar()  # type: ignore[no-untyped-call]


def read_config(folder: Path, *, trusts_code: bool = False) -> Any:  # noqa: ANN401
    """The config of the model in `folder`.

    Raises:
        UserError: the folder has no config, or the config cannot be read.
    """
    root = model_root(folder)
    try:
        config = AutoConfig.from_pretrained(str(root), trust_remote_code=trusts_code)
        _ = config.num_labels  # raises where `id2label` is not a table
    except Exception as error:  # the class of transformers' error depends on the defect
        raise load_error(error, what=f"no model in {folder}") from error
    return config


def load_classifier(
    folder: Path, *, dtype: torch.dtype, trusts_code: bool = False, new_head: bool = False
) -> Any:  # noqa: ANN401
    """A cross-encoder on the CPU; `new_head` gives an encoder a random head with one output.

    Raises:
        UserError: the model cannot be loaded, or a weight is missing from the checkpoint or has
            another shape there; with `new_head` only the encoder's weights count.
    """
    outputs = {"num_labels": 1} if new_head else {}
    model, info = _load(
        AutoModelForSequenceClassification, folder, dtype=dtype, trusts_code=trusts_code, **outputs
    )
    missing = [key for key in info["missing_keys"] if not (new_head and _is_of_head(key, model))]
    other = [m for m in info["mismatched_keys"] if not (new_head and _is_of_head(m[0], model))]
    _check_whole(folder, model, missing=missing, mismatched=other, info=info)
    return model


def load_whole(kind: Any, folder: Path, *, dtype: torch.dtype, trusts_code: bool = False) -> Any:  # noqa: ANN401
    """A model of transformers' class `kind` on the CPU, all of whose weights are read.

    Raises:
        UserError: see `load_classifier`.
    """
    model, info = _load(kind, folder, dtype=dtype, trusts_code=trusts_code)
    missing, other = info["missing_keys"], info["mismatched_keys"]
    _check_whole(folder, model, missing=list(missing), mismatched=list(other), info=info)
    return model


def load_encoder(
    folder: Path, *, dtype: torch.dtype = torch.float32, trusts_code: bool = False
) -> Any:  # noqa: ANN401
    """The encoder of a model on the CPU; the pooler may be random, as it is unused.

    Raises:
        UserError: see `load_classifier`.
    """
    model, info = _load(AutoModel, folder, dtype=dtype, trusts_code=trusts_code)
    has_decoder = model.config.is_encoder_decoder  # the decoder is unused too

    def is_read(key: str) -> bool:
        parts = key.split(".")
        return "pooler" not in parts and not (has_decoder and parts[0] == "decoder")

    missing = [key for key in info["missing_keys"] if is_read(key)]
    other = [entry for entry in info["mismatched_keys"] if is_read(entry[0])]
    _check_whole(folder, model, missing=missing, mismatched=other, info=info)
    return model.get_encoder() if has_decoder else model


def _load(
    kind: Any,  # noqa: ANN401
    folder: Path,
    *,
    dtype: torch.dtype,
    trusts_code: bool,
    **settings: int,
) -> tuple[Any, dict[str, Any]]:
    try:
        return kind.from_pretrained(  # type: ignore[no-any-return]
            str(model_root(folder)),
            dtype=dtype,
            trust_remote_code=trusts_code,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # the caller raises an error that names the weights
            **settings,
        )
    except Exception as error:  # a truncated file, a missing library, the folder's code: any class
        is_cut = isinstance(error, _CUT) or bool(getattr(error, "errno", None))
        why = " (is a file of its weights cut off, or another one?)" if is_cut else ""
        raise load_error(error, what=f"the model in {folder} cannot be loaded{why}") from error


def _is_of_head(key: str, model: Any) -> bool:  # noqa: ANN401
    """Whether a weight is outside the encoder, or in the encoder's pooler."""
    parts, prefix = key.split("."), model.base_model_prefix
    if prefix and hasattr(model, prefix):
        return parts[0] != prefix or "pooler" in parts
    return not _HEADS.isdisjoint(parts)


def _check_whole(
    folder: Path,
    model: Any,  # noqa: ANN401
    *,
    missing: Sequence[str],
    mismatched: Sequence[tuple[str, Sequence[int], Sequence[int]]],
    info: dict[str, Any],
) -> None:
    """Raise UserError that names weights missing from the checkpoint or of another shape."""
    kind = type(model).__name__
    if mismatched:
        shapes = [
            f"{name} is {tuple(found)} in the checkpoint and {tuple(wanted)} by config.json"
            for name, found, wanted in sorted(mismatched)
        ]
        raise UserError(
            f"the checkpoint in {folder} does not fit its config.json: {_named(shapes)}"
            f"{_outputs_hint(mismatched)}"
        )
    if missing:
        hint = _hint(folder, model, missing, info)
        raise UserError(
            f"the checkpoint in {folder} lacks {len(missing)} weights of {kind}: "
            f"{_named(sorted(missing))}; they would be random numbers{hint}"
        )
    if info["error_msgs"]:
        raise UserError(
            f"the model in {folder} cannot be loaded: {' '.join(map(str, info['error_msgs']))}"
        )


def _named(items: Sequence[str]) -> str:
    more = len(items) - _NUM_NAMED
    return ", ".join(items[:_NUM_NAMED]) + (f" and {more} more" if more > 0 else "")


def _outputs_hint(mismatched: Sequence[tuple[str, Sequence[int], Sequence[int]]]) -> str:
    """Where to set the number of outputs, if the checkpoint's head has another number."""
    for _, found, wanted in mismatched:
        if (
            len(found) == len(wanted)
            and tuple(found[1:]) == tuple(wanted[1:])
            and found[0] in (1, 2)
        ):
            return (
                f'; if the model has {found[0]} outputs, write "num_labels": {found[0]} (or an '
                "`id2label` of as many entries) into its config.json"
            )
    return ""


def _hint(
    folder: Path,
    model: Any,  # noqa: ANN401
    missing: Sequence[str],
    info: dict[str, Any],
) -> str:
    """The likely reason for the missing weights."""
    if all(_is_of_head(key, model) for key in missing):
        return "; a model without a head is a `base`, which `finetune` makes a cross-encoder of"
    unexpected = sorted(info["unexpected_keys"])
    if unexpected:
        return f"; the checkpoint has {_named(unexpected)} instead"
    return f"; copy the whole model into {folder.name} again"


def check_finite(folder: Path, model: nn.Module) -> None:
    """Raise UserError that names the weights with NaN or infinite values."""
    bad = [
        name
        for name, weight in model.named_parameters()
        if weight.is_floating_point() and not bool(torch.isfinite(weight.sum(dtype=torch.float64)))
    ]
    if bad:
        raise UserError(
            f"weights of the model in {folder} are NaN or infinite: {_named(bad)}; take another "
            "checkpoint"
        )


def most_positions(config: Any, model: nn.Module | None = None) -> int | None:  # noqa: ANN401
    """The largest number of tokens that a model can take; None: no limit.

    The limit is `max_position_embeddings` of the config (a value below 1 is no limit) and, with
    `model`, the usable rows of its position embeddings: RoBERTa's positions start after the
    padding row, so RoBERTa takes 2 tokens fewer than it has rows.
    """
    limits = [_written_limit(config)]
    for name, module in model.named_modules() if model is not None else ():
        last = name.rpartition(".")[2]
        if isinstance(module, nn.Embedding) and last in (
            "position_embeddings",
            "wpe",
            "embed_positions",
        ):
            behind = 0 if module.padding_idx is None else module.padding_idx + 1
            limits.append(module.num_embeddings - max(behind, int(getattr(module, "offset", 0))))
    return min((limit for limit in limits if limit is not None), default=None)


def _written_limit(config: Any) -> int | None:  # noqa: ANN401
    text = config.get_text_config()
    limit = getattr(text, "max_position_embeddings", None)
    return int(limit) if isinstance(limit, int | float) and limit >= 1 else None


def check_positions(folder: Path, config: Any, *, max_length: int, model: Any = None) -> None:  # noqa: ANN401
    """Raise UserError if a model takes fewer than `max_length` tokens."""
    most = most_positions(config, model)
    if most is not None and most < max_length:
        written = _written_limit(config)
        why = (
            f" ({written} positions, of which padding takes {written - most})"
            if (written is not None and written > most)
            else ""
        )
        raise UserError(
            f"{folder} reads {most} wordpieces{why}, label.max_length is {max_length}; lower it"
        )
