"""A causal language model that gives each pair one logit: that of yes minus that of no.

Shapes: B pairs, S tokens of the longest pair, A answers (2, or yes alone). Of the output matrix
only the answers' rows are kept; what the model does with its logits (scaling, soft-capping) it does
with theirs. No Ray.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from raydistill.errors import UserError
from raydistill.teachers.generative.answers import Answers
from raydistill.teachers.transformer.model_loading import load_whole
from raydistill.teachers.transformer.pair_tokenizer import Tokens, ranges
from raydistill.teachers.transformer.prompt_tokenizer import is_decoder

_PROBE_TOKENS = 8
_CLOSE = 1e-3  # of the largest logit: the same sums in another order differ by less than 1e-5


def check_causal_config(folder: Path, config: Any) -> None:  # noqa: ANN401
    """Raise UserError unless the config is a causal language model's, with its output matrix."""
    names = list(config.architectures or [])
    said = ", ".join(names) or f"model of type {config.model_type}"
    if any("SequenceClassification" in name for name in names):
        raise UserError(
            f"{folder} is a {said}: its score is the output of a classification head, not the "
            "logits of yes and no; name it as `model`"
        )
    if not is_decoder(config):
        raise UserError(
            f"{folder} is a {said}, which is no causal language model; name a cross-encoder as "
            "`model`, an encoder as `base` to have it fine-tuned or as `bi_encoder` for its cosine"
        )
    if names and not any(name.endswith(("ForCausalLM", "LMHeadModel")) for name in names):
        raise UserError(
            f"{folder} is a {said}, without the output matrix of a causal language model "
            "(...ForCausalLM); name the complete model"
        )


def load_causal(folder: Path, *, dtype: torch.dtype, trusts_code: bool = False) -> Any:  # noqa: ANN401
    """The model on the CPU, with all its weights.

    Raises:
        UserError: the model cannot be loaded, or a weight is missing from the checkpoint or has
            another shape there.
    """
    return load_whole(AutoModelForCausalLM, folder, dtype=dtype, trusts_code=trusts_code)


class AnswerRows(nn.Module):
    """The rows of an output matrix that belong to the answers, multiplied in float32.

    In bfloat16 a logit of 20 has steps of 0.125: too coarse for a difference.
    """

    weight: Tensor
    bias: Tensor | None

    def __init__(self, matrix: nn.Linear, ids: Tensor) -> None:
        """The rows `ids` of `matrix`."""
        super().__init__()
        with torch.no_grad():
            self.register_buffer("weight", matrix.weight[ids].float().clone())
            bias = getattr(matrix, "bias", None)
            self.register_buffer("bias", None if bias is None else bias[ids].float().clone())

    def forward(self, hidden: Tensor) -> Tensor:
        """Logits (..., A)."""
        bias = None if self.bias is None else self.bias.float()
        return nn.functional.linear(hidden.float(), self.weight.float(), bias)


def keep_answers(folder: Path, model: Any, answers: Answers) -> None:  # noqa: ANN401
    """Replace a model's output matrix by the rows of the answers, on the model's device.

    Raises:
        UserError: the model has no output matrix, no row of an answer, or other logits after that.
    """
    ids = [answers.yes] if answers.no is None else [answers.yes, answers.no]
    matrix = model.get_output_embeddings()
    rows = getattr(matrix, "weight", None)
    path = next((name for name, module in model.named_modules() if module is matrix), "")
    if not path or rows is None or rows.ndim != 2 or not rows.is_floating_point():
        raise UserError(f"the output matrix of the model in {folder} cannot be read")
    if max(ids) >= len(rows):
        raise UserError(
            f"token {max(ids)} has no row in the output matrix of the model in {folder}, which has "
            f"{len(rows)}: the tokenizer, or 1_LogitScore, is that of another model"
        )
    probe = torch.arange(1, 1 + min(_PROBE_TOKENS, len(rows) - 1), device=rows.device)[None]
    before = _logits(model, probe)[..., ids]
    parent, _, name = path.rpartition(".")
    kept = AnswerRows(matrix, torch.tensor(ids, device=rows.device))
    setattr(model.get_submodule(parent), name, kept)
    after = _logits(model, probe)
    if not bool(torch.isfinite(before).all()):
        return  # the caller reports pairs without a finite logit
    tolerance = _CLOSE if rows.dtype == torch.float32 else 5e-2
    is_same = after.shape == before.shape
    if not is_same or bool((after - before).abs().max() > tolerance * (1 + before.abs().max())):
        raise UserError(
            f"the model in {folder} ({type(model).__name__}) computes other logits from some rows "
            "of its output matrix than from all of them: such a model is no `causal` teacher"
        )


def _logits(model: Any, ids_BS: Tensor) -> Tensor:  # noqa: ANN401
    with torch.inference_mode():
        logits: Tensor = model(input_ids=ids_BS, use_cache=False).logits.float()
    return logits


class CausalModel:
    """A model with answer rows that runs whole prompts, padded on the right.

    No token sees those after it, so neither padding nor a mask can change a logit.
    """

    def __init__(self, model: Any) -> None:  # noqa: ANN401
        """`model`: after `keep_answers`."""
        self.model = model
        self.pads = True  # False: all pairs of a batch have one length

    def __call__(self, tokens: Tokens) -> Tensor:
        """Logits (B, 1): yes minus no, or yes alone."""
        ids_BS = self.laid(tokens)
        return margins(_logits(self.model, ids_BS), tokens.lengths_B)

    def laid(self, tokens: Tokens) -> Tensor:
        """The token ids of the pairs as rows (B, S)."""
        lengths_B, width = tokens.lengths_B, int(tokens.lengths_B.max())
        rows: NDArray[np.int64] = np.zeros(len(lengths_B) * width, np.int64)
        rows[ranges(np.arange(len(lengths_B)) * width, lengths_B)] = tokens.ids_T
        return torch.from_numpy(rows.reshape(-1, width)).to(self.model.device)


def margins(logits_BSA: Tensor, lengths_B: NDArray[np.int64]) -> Tensor:
    """(B, 1): the logit of yes minus that of no, after the last token of each row."""
    last_B = torch.from_numpy(lengths_B - 1).to(logits_BSA.device)
    rows_B = torch.arange(len(last_B), device=logits_BSA.device)
    logits_BA = logits_BSA[rows_B, last_B]
    return logits_BA[:, :1] - logits_BA[:, 1:] if logits_BA.shape[1] == 2 else logits_BA
