"""Teacher logits to one soft label: stacking weights, bias, temperature."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def soft_labels(
    logits_BM: NDArray[np.float32],
    *,
    weights_M: ArrayLike,
    bias: float = 0.0,
    temperature: float = 1.0,
) -> NDArray[np.float32]:
    """sigmoid((sum_m w_m z_m + b) / temperature), shape B.

    Source: temperature rescaling and teacher stacking of BERT2DNN (arXiv 2010.10442): the
    temperature divides the margin, on the target only.
    """
    margins = soft_logits(logits_BM, weights_M=weights_M, bias=bias, temperature=temperature)
    with np.errstate(over="ignore"):  # of a margin below -709: 1 / inf is the 0 that it should be
        return np.asarray(1 / (1 + np.exp(-margins.astype(np.float64))), np.float32)


def soft_logits(
    logits_BM: NDArray[np.float32],
    *,
    weights_M: ArrayLike,
    bias: float = 0.0,
    temperature: float = 1.0,
) -> NDArray[np.float32]:
    """What the sigmoid of a soft label is taken of, shape B."""
    weights = np.asarray(weights_M, np.float64)
    if logits_BM.shape[1] != len(weights):
        raise ValueError(f"{len(weights)} stacking weights for {logits_BM.shape[1]} teachers")
    margins = logits_BM.astype(np.float64) @ weights + bias
    return np.asarray(margins / temperature, np.float32)
