"""Run a BERT-like encoder on pairs or texts laid end to end, without padding.

Input: a transformers model and Tokens sorted by length. Output: a cross-encoder's logits, or the
outputs of all wordpieces. All operations except attention act on single wordpieces and need no pair
boundaries. Attention runs once for the pairs of one length and needs no mask. For a head that reads
the first wordpiece only, the last layer computes no other one: the result is exact. No Ray.

Shapes: T wordpieces of a batch, B pairs, D hidden size.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from raydistill.teachers.transformer.pair_tokenizer import Tokens

# Encoders with BERT's layer structure: attention, residual and norm, widening MLP.
ENCODERS = {
    "BertForSequenceClassification": "bert",
    "RobertaForSequenceClassification": "roberta",
    "XLMRobertaForSequenceClassification": "roberta",
    "CamembertForSequenceClassification": "roberta",
}
_WITHOUT_HEAD = frozenset({"BertModel", "RobertaModel", "XLMRobertaModel", "CamembertModel"})


def can_pack(model: Any) -> bool:  # noqa: ANN401
    """Whether PackedEncoder supports the architecture of a cross-encoder."""
    return type(model).__name__ in ENCODERS and _has_layers_of_bert(model.config)


def can_pack_texts(model: Any) -> bool:  # noqa: ANN401
    """Whether PackedLayers supports the architecture of an encoder without a head."""
    return type(model).__name__ in _WITHOUT_HEAD and _has_layers_of_bert(model.config)


def _has_layers_of_bert(config: Any) -> bool:  # noqa: ANN401
    return (
        not (config.is_decoder or config.add_cross_attention)
        and getattr(config, "quantization_config", None) is None  # other weight layout
        and getattr(config, "position_embedding_type", "absolute") == "absolute"
    )


class PackedLayers:
    """An encoder's weights in a packed forward pass; the layers are removed from the encoder."""

    def __init__(self, encoder: Any) -> None:  # noqa: ANN401 - transformers' classes
        """`encoder` passes `can_pack_texts` and is on its device in its dtype."""
        self.embeddings, self.device = encoder.embeddings, encoder.device
        # RoBERTa's positions start at padding id + 1.
        padding_id = getattr(self.embeddings, "padding_idx", None)
        self.first_position = 0 if padding_id is None else padding_id + 1
        num_heads = encoder.config.num_attention_heads
        self.layers = [_Layer(layer, num_heads=num_heads) for layer in encoder.encoder.layer]
        encoder.encoder.layer = torch.nn.ModuleList()  # frees weights that self.layers copied

    def hidden(self, tokens: Tokens, *, is_first_alone: bool) -> Tensor:
        """Outputs of all wordpieces (T, D), or of the first one of each text (B, D).

        The texts are sorted by length.
        """
        groups = equal_lengths(tokens.lengths_B)
        starts_B = np.cumsum(tokens.lengths_B) - tokens.lengths_B
        places_T = np.arange(len(tokens.ids_T)) - np.repeat(starts_B, tokens.lengths_B)
        x_TD = self.embeddings(
            input_ids=self._row(tokens.ids_T),
            token_type_ids=self._row(tokens.types_T),
            position_ids=self._row(places_T + self.first_position),
        )[0]
        for layer in self.layers[:-1]:
            x_TD = layer(x_TD, groups)
        first_B = self._row(starts_B)[0] if is_first_alone else None
        x: Tensor = self.layers[-1](x_TD, groups, first_B=first_B)
        return x

    def _row(self, values: np.ndarray[Any, Any]) -> Tensor:
        row = torch.from_numpy(values.astype(np.int64))
        if self.device.type == "cuda":  # a copy from pageable memory waits for the last batch
            row = row.pin_memory()
        return row.to(self.device, non_blocking=True)[None]


class PackedEncoder(PackedLayers):
    """A cross-encoder's weights in a packed forward pass."""

    def __init__(self, model: Any) -> None:  # noqa: ANN401 - transformers' classes
        """`model` passes `can_pack` and is on its device in its dtype."""
        encoder = getattr(model, ENCODERS[type(model).__name__])
        super().__init__(encoder)
        self.pooler, self.classifier = encoder.pooler, model.classifier

    def __call__(self, tokens: Tokens) -> Tensor:
        """Logits (B, outputs) of pairs sorted by length."""
        return self._head(self.hidden(tokens, is_first_alone=True)[:, None])

    def _head(self, x_B1D: Tensor) -> Tensor:
        """The head's logits: BERT applies its pooler first; RoBERTa's head needs none."""
        logits: Tensor = self.classifier(x_B1D if self.pooler is None else self.pooler(x_B1D))
        return logits


def equal_lengths(lengths_B: np.ndarray[Any, Any]) -> list[tuple[int, int]]:
    """(length, number of pairs) of each run of equal lengths."""
    edges = np.flatnonzero(np.diff(lengths_B, prepend=-1, append=-1))
    return [(int(lengths_B[start]), int(stop - start)) for start, stop in pairwise(edges)]


class _Layer:
    """One layer of the encoder."""

    def __init__(self, layer: Any, *, num_heads: int) -> None:  # noqa: ANN401
        attention = layer.attention.self
        self.num_heads = num_heads
        self.query = _Linear([attention.query])
        self.key_value = _Linear([attention.key, attention.value])
        self.project = _Linear([layer.attention.output.dense])
        self.norm_1, self.norm_2 = layer.attention.output.LayerNorm, layer.output.LayerNorm
        self.activation = layer.intermediate.intermediate_act_fn
        self.is_gelu = type(self.activation).__name__ == "GELUActivation"
        self.widen, self.shrink = _Linear([layer.intermediate.dense]), _Linear([layer.output.dense])

    def __call__(
        self, x_TD: Tensor, groups: Sequence[tuple[int, int]], *, first_B: Tensor | None = None
    ) -> Tensor:
        """The layer's output for all wordpieces, or only for the wordpieces at `first_B`."""
        asking = x_TD if first_B is None else x_TD[first_B]
        mixed = _attend(
            self.query(asking),
            self.key_value(x_TD),
            groups,
            num_heads=self.num_heads,
            is_first_alone=first_B is not None,
        )
        x = self.norm_1(self.project(mixed).add_(asking))
        wide = self.widen(x, gelu=True) if self.is_gelu else self.activation(self.widen(x))
        out: Tensor = self.norm_2(self.shrink(wide).add_(x))
        return out


def _attend(
    query: Tensor,
    key_value_T2D: Tensor,
    groups: Sequence[tuple[int, int]],
    *,
    num_heads: int,
    is_first_alone: bool,
) -> Tensor:
    """Attention within each pair: one unmasked call for all pairs of one length."""
    parts, at, query_at = [], 0, 0
    for length, num in groups:
        asking = 1 if is_first_alone else length
        key, value = (
            key_value_T2D[at : at + num * length].view(num, length, 2, num_heads, -1).unbind(2)
        )
        q = query[query_at : query_at + num * asking].view(num, asking, num_heads, -1)
        mixed = functional.scaled_dot_product_attention(
            q.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)
        )
        parts.append(mixed.transpose(1, 2).reshape(num * asking, -1))
        at, query_at = at + num * length, query_at + num * asking
    return parts[0] if len(parts) == 1 else torch.cat(parts)


class _Linear:
    """x @ weight.T + bias of one or more linear modules concatenated.

    On a CPU the weight is reordered once into oneDNN's layout, and GELU is fused into the kernel.
    These are the operators that torch's inductor emits for a frozen graph, used without its
    compiler. Measured on one core of an EPYC 9004 with 1,024 wordpieces of MiniLM: 10 % faster in
    bfloat16 and 14 % faster in float32 than functional.linear.
    """

    def __init__(self, modules: Sequence[torch.nn.Linear]) -> None:
        self.weight = torch.cat([module.weight for module in modules]).detach()
        self.bias = torch.cat([module.bias for module in modules]).detach()
        self.is_laid_out = self.weight.device.type == "cpu" and has_onednn(self.weight.dtype)
        if self.is_laid_out:
            self.weight = torch.ops.mkldnn._reorder_linear_weight(self.weight)

    def __call__(self, x: Tensor, *, gelu: bool = False) -> Tensor:
        if not self.is_laid_out:
            out = functional.linear(x, self.weight, self.bias)
            return functional.gelu(out) if gelu else out
        after = "gelu" if gelu else "none"
        laid: Tensor = torch.ops.mkldnn._linear_pointwise(
            x, self.weight, self.bias, after, [], "none"
        )
        return laid


@cache
def has_onednn(dtype: torch.dtype) -> bool:
    """Whether this torch and CPU have oneDNN's linear operator, and its numbers are right.

    The operators are private to torch, so a small product is compared with functional.linear.
    """
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    x, weight = (torch.linspace(-1, 1, 1_024).view(16, 64).to(dtype) for _ in range(2))
    bias = torch.linspace(-1, 1, 16).to(dtype)
    try:
        expected = functional.gelu(functional.linear(x, weight, bias))
        laid_out = torch.ops.mkldnn._reorder_linear_weight(weight)
        found = torch.ops.mkldnn._linear_pointwise(x, laid_out, bias, "gelu", [], "none")
    except (AttributeError, RuntimeError, TypeError):
        return False
    return bool(torch.allclose(found.float(), expected.float(), rtol=0.05, atol=0.05))
