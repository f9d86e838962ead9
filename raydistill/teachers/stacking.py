"""Fit stacking weights, bias and calibration temperature on judged labels; the scale of a cosine.

Input: teachers' logits of a judged split, one column a teacher, and labels. Output: the fitted
parameters with standard errors, by logistic regression. No files, no Ray.

Shapes: B pairs, M teachers.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raydistill.config.teachers import COSINE_BIAS, COSINE_SCALE
from raydistill.errors import UserError

logger = logging.getLogger("raydistill")
_PENALTY = 1.0  # weighs about as much as one pair: a finite temperature for separable labels
# Pairs with a logit of each teacher, where some teachers have logits of some pairs only: with fewer
# the weights are noise.
_FEWEST = 50
_TIE = 1e-3  # splits the weight between teachers with equal logits


@dataclass(frozen=True)
class Stack:
    """Margin of a soft label: sum_m w_m z_m + bias; the weights sum to 1."""

    weights: dict[str, float]
    bias: float = 0.0

    @property
    def counted(self) -> list[str]:
        """The teachers with a weight above 0."""
        return [name for name, weight in self.weights.items() if weight > 0]


@dataclass(frozen=True)
class FittedStack(Stack):
    """A stack fitted on judged labels: sigmoid(margin / temperature) is calibrated to them.

    Standard errors are for resampled queries; None for a weight at its bound of 0.
    """

    temperature: float = 1.0
    weight_errors: dict[str, float | None] | None = None
    bias_error: float = 0.0
    temperature_error: float = 0.0
    num_pairs: int = 0

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain numbers, for metrics.json."""
        return asdict(self)


def fit_stack(
    logits_BM: NDArray[np.float32],
    labels_B: NDArray[np.float32],
    *,
    names: Sequence[str],
    groups_B: NDArray[np.int64] | None = None,
) -> FittedStack:
    """Maximum-likelihood weights, bias and temperature on judged labels, which may be graded.

    Logistic regression with coefficients w_m / T >= 0 and intercept b / T. The penalty is on
    1 / T, the sum of the coefficients, so a duplicated teacher does not change the fit. Standard
    errors are the cluster-robust sandwich estimate, one cluster a group (query; Liang and Zeger
    1986, https://doi.org/10.1093/biomet/73.1.13), converted to w, b and T by the delta method.

    Pairs without a finite logit of each teacher are skipped.

    Raises:
        UserError: no pair to fit on, too few beside those skipped, or no teacher that agrees with
            the labels.
    """
    if not len(labels_B):
        raise UserError("no judged dev pair: nothing to fit weights on")
    is_scored = np.asarray(np.isfinite(logits_BM).all(axis=1))
    if _are_too_few(is_scored):
        shares = ", ".join(
            f"{name} {num:,}" for name, num in zip(names, _num_scored(logits_BM), strict=False)
        )
        raise UserError(
            f"{is_scored.sum():,} of {len(is_scored):,} judged dev pairs have a logit of every "
            f"teacher ({shares}): too few to fit weights on; score more of them, or give "
            "soft_labels.weights"
        )
    logits, labels = logits_BM[is_scored].astype(np.float64), labels_B[is_scored].astype(np.float64)
    groups = np.arange(len(labels)) if groups_B is None else groups_B[is_scored]
    coefficients, intercept = _fit(logits, labels)
    total = coefficients.sum()
    if total < 1e-6:
        raise UserError(
            f"no teacher of {', '.join(names)} agrees with the labels of the judged dev split "
            "(all fitted weights are 0)"
        )
    coefficients[coefficients < 1e-9 * total] = 0
    errors = _errors(logits, labels, groups, coefficients, intercept)
    weights = coefficients / total
    return FittedStack(
        weights=dict(zip(names, weights.tolist(), strict=True)),
        bias=float(intercept / total),
        temperature=float(1 / total),
        weight_errors={
            name: float(error) if weight else None
            for name, weight, error in zip(names, weights, errors, strict=False)
        },
        bias_error=float(errors[-2]),
        temperature_error=float(errors[-1]),
        num_pairs=len(labels),
    )


def columns_to_fit(logits_BM: NDArray[np.float32], *, is_partial: Sequence[bool]) -> list[int]:
    """The teachers whose weights can be fitted together, as columns of the logits.

    All that are not partial; and of the partial ones, in falling order of their logits, each that
    leaves enough pairs with a logit of every chosen teacher. All of them if there is none.
    """
    is_there_BM, num_scored = np.isfinite(logits_BM), _num_scored(logits_BM)
    chosen = [at for at, partial in enumerate(is_partial) if not partial]
    others = [at for at, partial in enumerate(is_partial) if partial]
    for at in sorted(others, key=lambda at: -num_scored[at]):
        if not _are_too_few(np.asarray(is_there_BM[:, [*chosen, at]].all(axis=1))):
            chosen.append(at)
    return sorted(chosen) or others


def joined(stack: Stack, names: Sequence[str]) -> Stack:
    """The stack of all of `names`: those that it lacks get the mean weight of those it has."""
    mean = 1 / len(stack.weights)
    weights = {name: stack.weights.get(name, mean) for name in names}
    total = sum(weights.values())
    return Stack({name: weight / total for name, weight in weights.items()}, stack.bias)


def _are_too_few(is_scored: NDArray[np.bool_]) -> bool:
    """Whether there is no pair to fit on, or only a few are left where most have no logit."""
    num = int(is_scored.sum())
    return not num or (num < _FEWEST and 2 * num < len(is_scored))


def _num_scored(logits_BM: NDArray[np.float32]) -> list[int]:
    """The number of pairs that each teacher has a logit for."""
    return [int(num) for num in np.isfinite(logits_BM).sum(axis=0)]


@dataclass(frozen=True)
class Calibration:
    """The logit of a cosine: scale x cosine + bias, fitted on `num_pairs` judged pairs, or 0."""

    scale: float = COSINE_SCALE
    bias: float = COSINE_BIAS
    num_pairs: int = 0

    def logits(self, cosines_B: NDArray[np.float32]) -> NDArray[np.float32]:
        """One logit a pair, shape B; NaN of NaN."""
        return (self.scale * cosines_B.astype(np.float64) + self.bias).astype(np.float32)


def fit_calibration(
    cosines_B: NDArray[np.float32], labels_B: NDArray[np.float32], groups_B: NDArray[np.int64]
) -> Calibration:
    """Scale and bias by logistic regression on judged pairs; pairs without a cosine are skipped.

    The default where the cosines do not rise with the labels, or there are none.
    """
    is_known = np.isfinite(cosines_B)
    if _are_too_few(is_known):
        known = f"{is_known.sum():,} of {len(labels_B):,} judged train pairs have one"
        return _default(f"{known}, too few to fit it on")
    logits_B = Calibration().logits(cosines_B)  # near the answer: the penalty is then slight
    try:
        fitted = fit_stack(logits_B[:, None], labels_B, names=["cosine"], groups_B=groups_B)
    except UserError:
        return _default("they do not rise with the labels of the judged train pairs")
    return Calibration(
        scale=COSINE_SCALE / fitted.temperature,
        bias=(COSINE_BIAS + fitted.bias) / fitted.temperature,
        num_pairs=fitted.num_pairs,
    )


def _default(why: str) -> Calibration:
    logger.warning("label     cosines keep their default scale: %s", why)
    return Calibration()


def _fit(
    logits_BM: NDArray[np.float64], labels_B: NDArray[np.float64]
) -> tuple[NDArray[np.float64], float]:
    """Coefficients (>= 0) and intercept of the penalised logistic regression."""
    from scipy.optimize import minimize  # 0.4 s, which workers that read logits do not wait for
    from scipy.special import expit

    num_teachers, means_M = logits_BM.shape[1], logits_BM.mean(axis=0)
    # Centred, as correlation of intercept and coefficients slows the search.
    design = np.column_stack([logits_BM - means_M, np.ones(len(labels_B))])

    def loss(point: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        margins, coefficients = design @ point, point[:-1]
        total = coefficients.sum()
        value = np.sum(np.logaddexp(0, margins) - labels_B * margins)
        value += (_PENALTY * total**2 + _TIE * coefficients @ coefficients) / 2
        slope = design.T @ (expit(margins) - labels_B)
        slope[:-1] += _PENALTY * total + _TIE * coefficients
        return float(value) / len(labels_B), slope / len(labels_B)

    found = minimize(
        loss,
        np.append(np.full(num_teachers, 1 / num_teachers), 0.0),
        jac=True,
        method="L-BFGS-B",
        bounds=[(0, None)] * num_teachers + [(None, None)],
        options={"ftol": 1e-15, "gtol": 1e-9, "maxiter": 2_000, "maxcor": 20},
    )
    coefficients = np.asarray(found.x[:-1], np.float64)
    return coefficients, float(found.x[-1] - means_M @ coefficients)


def _errors(
    logits_BM: NDArray[np.float64],
    labels_B: NDArray[np.float64],
    groups_B: NDArray[np.int64],
    coefficients_M: NDArray[np.float64],
    intercept: float,
) -> NDArray[np.float64]:
    """Standard errors of w (0 at the bound), b and T, in this order."""
    from scipy.special import expit

    num_teachers, total = len(coefficients_M), coefficients_M.sum()
    free = np.append(np.flatnonzero(coefficients_M), num_teachers)
    design = np.column_stack([logits_BM, np.ones(len(labels_B))])[:, free]
    p_B = expit(logits_BM @ coefficients_M + intercept)
    is_weight = np.append(np.ones(len(free) - 1), 0)
    penalty = _PENALTY * np.outer(is_weight, is_weight) + _TIE * np.diag(is_weight)
    inverse = np.linalg.inv((design * (p_B * (1 - p_B))[:, None]).T @ design + penalty)
    _, group_B = np.unique(groups_B, return_inverse=True)
    pull_BF = design * (p_B - labels_B)[:, None]
    pull = np.stack([np.bincount(group_B, weights=column) for column in pull_BF.T], axis=1)
    spread = np.zeros((num_teachers + 1, num_teachers + 1))
    spread[np.ix_(free, free)] = inverse @ (pull.T @ pull) @ inverse
    weights, ones = coefficients_M / total, np.ones(num_teachers)
    slopes = np.zeros((num_teachers + 2, num_teachers + 1))  # d(w, b, T) / d(coefs, intercept)
    slopes[:-2, :-1] = (np.eye(num_teachers) - np.outer(weights, ones)) / total
    slopes[-2] = np.append(-intercept / total**2 * ones, 1 / total)
    slopes[-1, :-1] = -1 / total**2
    return np.sqrt(np.maximum(np.diag(slopes @ spread @ slopes.T), 0))
