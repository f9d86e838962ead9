"""Copies of a model folder with other weights or settings."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

Weights = dict[str, torch.Tensor]


def damaged(source: Path, folder: Path, change: Callable[[Weights], Weights]) -> Path:
    shutil.copytree(source, folder)
    weights = change(load_file(folder / "model.safetensors"))
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def reconfigured(source: Path, folder: Path, **settings: object) -> Path:
    shutil.copytree(source, folder)
    config = {**json.loads((folder / "config.json").read_text()), **settings}
    kept = {name: value for name, value in config.items() if value is not None}
    (folder / "config.json").write_text(json.dumps(kept))
    return folder


def without(word: str) -> Callable[[Weights], Weights]:
    return lambda weights: {name: w for name, w in weights.items() if word not in name}
