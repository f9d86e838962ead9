"""The student as one would write it with what PyTorch has: one embedding bag and layers."""

from itertools import pairwise

import torch
from torch import nn

HIDDEN = (1024, 512, 128, 64)


def words_to_ids(texts: list[str], num_rows: int) -> list[int]:
    """Ids of the hashed unigrams and bigrams of some texts, as in preset `bert2dnn`."""
    found = []
    for text in texts:
        words = text.lower().split()
        found += [hash(word) % num_rows for word in words]
        marked = ["<s>", *words, "</s>"]
        found += [hash(pair) % num_rows for pair in pairwise(marked)]
    return found


class StockStudent(nn.Module):
    """One bag of n-grams, as in the paper; with `match` features it would be even slower."""

    def __init__(self, bits: int) -> None:
        super().__init__()
        self.bag = nn.EmbeddingBag(1 << bits, 64, mode="sum", sparse=True)
        layers: list[nn.Module] = []
        for size_in, size_out in zip((64, *HIDDEN), HIDDEN, strict=False):
            layers += [nn.Linear(size_in, size_out), nn.ReLU()]
        self.net = nn.Sequential(*layers, nn.Linear(HIDDEN[-1], 1))

    def forward(self, ids: torch.Tensor, offsets: torch.Tensor, counts: torch.Tensor) -> object:
        return self.net(self.bag(ids, offsets) / counts.sqrt()).squeeze(1)
