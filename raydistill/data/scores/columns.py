"""Columns of a file of scores to values, and values to logits.

A value is what the file's rows are averaged in: a logit, or a share in 0..1 (a probability, a grade
on its scale, the expected gain of class probabilities). A share becomes log(p / (1 - p)), with p
between CLIP and 1 - CLIP, as APIs give 0 and 1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial, reduce

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from raydistill.config.teachers import TeacherConfig
from raydistill.data.grades import LabelRule, read_labels, read_numbers
from raydistill.files.inputs.raw_rows import one_chunk

CLIP = 1e-3  # a logit of -6.9 or 6.9: a cross-encoder's are about as large
_NO_MASS = "the class probabilities are all 0"
_TOO_LARGE = "label is too large for a 32-bit float"
_Read = Callable[[pa.Array], tuple[pa.Array, pa.StringArray]]


@dataclass(frozen=True)
class ScoreRule:
    """How the scores of a teacher are read: their kind, and their columns in the files."""

    kind: str  # "logit", "probability" or "grade"
    columns: tuple[str, ...]  # one, or one for each class
    scale: tuple[float, float] | None = None  # of grades: what stands for 0 and for 1
    gains: tuple[float, ...] = ()  # of the classes, in 0..1

    @staticmethod
    def of(teacher: TeacherConfig) -> ScoreRule:
        """The rule of a teacher of scores."""
        if isinstance(teacher.gains, dict):
            columns, gains = zip(*teacher.gains.items(), strict=True)
            return ScoreRule("probability", columns, gains=gains)
        return ScoreRule(teacher.kind or "probability", (teacher.score or "score",), teacher.scale)

    @property
    def is_logit(self) -> bool:
        """Whether values are logits; else they are shares in 0..1."""
        return self.kind == "logit"

    def read(self, table: pa.Table) -> tuple[NDArray[np.float32], pa.StringArray]:
        """The value of each row, and its problem or null; the value of a bad row has no meaning."""
        read: _Read = partial(read_labels, rule=LabelRule(self.scale))
        if self.is_logit:
            read = read_numbers
        found = [_named(read, table, column) for column in self.columns]
        problems = reduce(pc.coalesce, [problem for _, problem in found])
        if not self.gains:
            return found[0][0], problems
        shares_BC = np.stack([values for values, _ in found], axis=1).astype(np.float64)
        total_B = shares_BC.sum(axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            gains_B = shares_BC @ np.asarray(self.gains) / total_B
        no_mass = pc.if_else(pa.array(total_B == 0), _NO_MASS, pa.scalar(None, pa.string()))
        return gains_B.astype(np.float32), pc.coalesce(problems, no_mass)

    def logits(self, values_B: NDArray[np.float64]) -> NDArray[np.float32]:
        """The logits of (mean) values."""
        if self.is_logit:
            return values_B.astype(np.float32)
        shares_B = np.clip(values_B, CLIP, 1 - CLIP)
        return np.log(shares_B / (1 - shares_B)).astype(np.float32)


def _named(read: _Read, table: pa.Table, column: str) -> tuple[NDArray[np.float32], pa.StringArray]:
    """The values of a column, 0 where they are bad, and problems that name the column."""
    values, problems = read(one_chunk(table[column]))
    with np.errstate(over="ignore"):
        values_B = values.fill_null(0).to_numpy(zero_copy_only=False).astype(np.float32)
    is_inf = pa.array(~np.isfinite(values_B))
    too_large = pc.if_else(is_inf, _TOO_LARGE, pa.scalar(None, pa.string()))
    problems = pc.coalesce(problems, too_large)
    return values_B, pc.replace_substring_regex(problems, "^label", f"column {column}")
