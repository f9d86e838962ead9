"""A student's arrays made smaller: fewer columns of the table, and factors for int8 layers.

Reads arrays and a sample of the network's inputs; no files.

Shapes: B pairs of the sample, N bags, D columns of the table, R of the smaller one, X inputs and O
outputs of the first layer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raydistill.serving.native.int8_layers import input_factors

Arrays = dict[str, NDArray[Any]]
Floats = NDArray[np.float32]
_BLOCK_ROWS = 1 << 16
_DIGITS = 6  # of the projection, behind the point
_SMALL = 1e-9  # of the largest eigenvalue: below it a direction is noise


def with_columns(
    arrays: Mapping[str, NDArray[Any]], x_BX: Floats, *, num_bags: int, columns: int
) -> tuple[Arrays, Floats]:
    """The arrays with a table of fewer columns, and the sample's inputs with it.

    A bag is linear in the table and enters the first layer alone, so table E and weights W of a bag
    become E P and W Q. P and Q are those of the given rank that change the first layer's sums least
    in the mean square over the sample's bags: with C their covariance and G the sum of W^T W, from
    the largest eigenvectors of C^(1/2) G C^(1/2) (Eckart and Young 1936, in the metric of C).
    """
    table_VD, weights_OX = arrays["embedding"], arrays["weight_0"]
    dim, width = table_VD.shape[1], num_bags * table_VD.shape[1]
    bags_ND = x_BX[:, :width].reshape(-1, dim).astype(np.float64)
    weights_NOD = weights_OX[:, :width].reshape(len(weights_OX), num_bags, dim).astype(np.float64)
    shrink_DR, grow_RD = _projection(bags_ND, weights_NOD.reshape(-1, dim), columns)
    first = (weights_NOD @ grow_RD.T).reshape(len(weights_OX), -1)
    found = {
        **arrays,
        "embedding": _projected(table_VD, shrink_DR),
        "weight_0": np.hstack([first, weights_OX[:, width:]]).astype(np.float32),
    }
    bags_BX = (bags_ND @ shrink_DR).reshape(len(x_BX), -1)
    return found, np.hstack([bags_BX, x_BX[:, width:]]).astype(np.float32)


def _projected(table_VD: Floats, shrink_DR: NDArray[np.float64]) -> Floats:
    """The product in float64, some rows at a time: its float32 is the same on every CPU."""
    out_VR = np.empty((len(table_VD), shrink_DR.shape[1]), np.float32)
    for at in range(0, len(table_VD), _BLOCK_ROWS):
        out_VR[at : at + _BLOCK_ROWS] = table_VD[at : at + _BLOCK_ROWS].astype(float) @ shrink_DR
    return out_VR


def _projection(
    bags_ND: NDArray[np.float64], weights_ND: NDArray[np.float64], rank: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """P (D x R) and Q (R x D) of `with_columns`."""
    values, vectors = np.linalg.eigh(bags_ND.T @ bags_ND / max(len(bags_ND), 1))
    is_seen = values > _SMALL * max(values[-1], 0)
    roots = np.sqrt(np.where(is_seen, values, 0))
    inverse = np.where(is_seen, 1 / np.where(is_seen, roots, 1), 0)
    root, pseudo = (vectors * scale @ vectors.T for scale in (roots, inverse))
    _, found = np.linalg.eigh(root @ (weights_ND.T @ weights_ND) @ root)
    largest = found[:, ::-1][:, :rank]
    largest = largest * np.where(largest[np.abs(largest).argmax(axis=0), range(rank)] < 0, -1, 1)
    # On a grid: libraries of linear algebra differ in the last digits, and a bundle's bytes should
    # not depend on them.
    return np.round(pseudo @ largest, _DIGITS), np.round(largest.T @ root, _DIGITS)


def with_factors(arrays: Mapping[str, NDArray[Any]], x_BX: Floats) -> Arrays:
    """The arrays with the factors of the inputs of int8 layers."""
    return {**arrays, "input_factors": input_factors(x_BX, arrays["weight_0"])}
