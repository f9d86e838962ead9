"""The outputs of an encoder for the wordpieces of a text to its embedding. No Ray.

Shapes: B texts, T wordpieces of all of them laid end to end, D columns of the encoder, E columns of
the embedding.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from raydistill.errors import UserError
from raydistill.teachers.heads.sentence_folder import Pooling, read_json_object
from raydistill.teachers.transformer.packed_encoder import equal_lengths

_ACTIVATIONS: dict[str, type[nn.Module]] = {
    kind.__name__: kind for kind in (nn.Identity, nn.Tanh, nn.ReLU, nn.GELU, nn.SiLU)
}


def pool(x_TD: Tensor, lengths_B: NDArray[Any], mode: Pooling) -> Tensor:
    """One vector a text, float32, shape B, D; `lengths_B` counts the wordpieces of each.

    Texts of one length are pooled together: no sum depends on the batch, nor on the order in which
    a GPU adds.
    """
    parts, start = [], 0
    for length, num in equal_lengths(lengths_B):
        x_NLD = x_TD[start : start + num * length].view(num, length, -1).float()
        parts.append(_pooled(x_NLD, mode))
        start += num * length
    return torch.cat(parts)


def _pooled(x_NLD: Tensor, mode: Pooling) -> Tensor:
    if mode == "cls":
        return x_NLD[:, 0]
    if mode == "lasttoken":
        return x_NLD[:, -1]
    return x_NLD.amax(dim=1) if mode == "max" else x_NLD.mean(dim=1)


class DenseLayers(nn.Module):
    """The dense layers after the pooling; none: the identity."""

    def __init__(self, folder: Path, paths: Sequence[str]) -> None:
        """Read the layers of the subfolders `paths`.

        Raises:
            UserError: a file is missing or unreadable, or the activation is not supported.
        """
        super().__init__()
        self.layers = nn.Sequential(*(_dense(folder / path) for path in paths))

    def forward(self, x_BD: Tensor) -> Tensor:
        """Embeddings, shape B, E."""
        embedded: Tensor = self.layers(x_BD)
        return embedded


def _dense(folder: Path) -> nn.Sequential:
    config = read_json_object(folder / "config.json")
    name = str(config.get("activation_function", "torch.nn.modules.activation.Tanh"))
    activation = _ACTIVATIONS.get(name.rpartition(".")[2])
    if activation is None or not name.startswith("torch."):
        raise UserError(
            f"the dense layer in {folder} has the activation {name}; a bi_encoder may have one of "
            f"{', '.join(_ACTIVATIONS)}: take another encoder"
        )
    weights = _weights(folder)
    try:
        linear = nn.Linear(
            config["in_features"], config["out_features"], bias="linear.bias" in weights
        )
        linear.load_state_dict({k.removeprefix("linear."): v for k, v in weights.items()})
    except (KeyError, RuntimeError) as error:
        raise UserError(
            f"the dense layer in {folder} does not fit its config.json ({error}); copy the model "
            "again"
        ) from error
    return nn.Sequential(linear.float(), activation())


def _weights(folder: Path) -> dict[str, Tensor]:
    file = folder / "model.safetensors"
    try:
        if file.is_file():
            return load_file(file)
        found: dict[str, Tensor] = torch.load(
            folder / "pytorch_model.bin", map_location="cpu", weights_only=True
        )
    except (OSError, SafetensorError, RuntimeError, EOFError) as error:
        raise UserError(
            f"the weights of the dense layer in {folder} cannot be loaded ({error}); copy the "
            "model again"
        ) from error
    return found
