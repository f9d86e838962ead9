"""A Hugging Face folder to a model whose weights are all those of its checkpoint; no Ray.

Weights that a checkpoint has not are filled at random by transformers, without a word: every
process would then have another model. Here they are an error that names them.
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
_NUM_NAMED = 3  # weights in a message
# Parts of a head, where a model does not say which of its parts is the encoder.
_HEADS = frozenset(
    {"classifier", "classification_head", "score", "pooler", "pre_classifier", "head"}
)


def quiet_transformers() -> None:
    """No load report and no progress bars: a user can do nothing about either."""
    hf_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    hf_logging.disable_progress_bar()  # type: ignore[no-untyped-call]


def read_config(folder: Path, *, trusts_code: bool = False) -> Any:  # noqa: ANN401
    """The settings of the model in a folder.

    Raises:
        UserError: there are none, or they cannot be read.
    """
    root = model_root(folder)
    try:
        config = AutoConfig.from_pretrained(str(root), trust_remote_code=trusts_code)
        _ = config.num_labels  # fails where `id2label` is no table
    except Exception as error:  # what transformers raises depends on what is wrong with the file
        raise load_error(error, what=f"no model in {folder}") from error
    return config


def load_classifier(
    folder: Path, *, dtype: torch.dtype, trusts_code: bool = False, new_head: bool = False
) -> Any:  # noqa: ANN401
    """A cross-encoder on the CPU; with `new_head` an encoder, and a head of one output at random.

    Raises:
        UserError: a model that cannot be loaded, or weights that the checkpoint has not or has in
            another shape; of a model with a new head, those of the encoder.
    """
    outputs = {"num_labels": 1} if new_head else {}
    model, info = _load(
        AutoModelForSequenceClassification, folder, dtype=dtype, trusts_code=trusts_code, **outputs
    )
    missing = [key for key in info["missing_keys"] if not (new_head and _is_of_head(key, model))]
    other = [m for m in info["mismatched_keys"] if not (new_head and _is_of_head(m[0], model))]
    _check_whole(folder, model, missing=missing, mismatched=other, info=info)
    return model


def load_encoder(folder: Path, *, trusts_code: bool = False) -> Any:  # noqa: ANN401
    """The encoder of a model in float32 on the CPU; its pooler may be new: nobody reads it.

    Raises:
        UserError: as `load_classifier`.
    """
    model, info = _load(AutoModel, folder, dtype=torch.float32, trusts_code=trusts_code)
    has_decoder = model.config.is_encoder_decoder  # which nobody reads either

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
            ignore_mismatched_sizes=True,  # they are named below
            **settings,
        )
    except Exception as error:  # a cut file, a missing library, code of the folder: anything
        is_cut = isinstance(error, _CUT) or bool(getattr(error, "errno", None))
        why = " (is a file of its weights cut off, or another one?)" if is_cut else ""
        raise load_error(error, what=f"the model in {folder} cannot be loaded{why}") from error


def _is_of_head(key: str, model: Any) -> bool:  # noqa: ANN401
    """Whether a weight stands outside of the encoder, or in its pooler."""
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
    """Raise UserError that names the weights that are not those of the checkpoint."""
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
    """Of a head of another number of outputs: where that number is written."""
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
    """The likely reason for missing weights."""
    if all(_is_of_head(key, model) for key in missing):
        return "; a model without a head is a `base`, which `finetune` makes a cross-encoder of"
    unexpected = sorted(info["unexpected_keys"])
    if unexpected:
        return f"; the checkpoint has {_named(unexpected)} instead"
    return f"; copy the whole model into {folder.name} again"


def check_finite(folder: Path, model: nn.Module) -> None:
    """Raise UserError that names weights with NaN or infinity in them."""
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
    """How many tokens a model reads at once; None: there is no limit.

    By its config, where a limit below 1 is none; with the `model`, by its rows of position
    embeddings too: RoBERTa and its kin begin behind the row of the padding, and read 2 fewer.
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
    """Raise UserError unless a model reads `max_length` tokens."""
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
