"""Labels of raw files to numbers in 0..1: scales, grades and truth values, with error reasons.

Input: a column of any type. Output: float32 labels, and for each row its problem or null.
"""

from __future__ import annotations

import difflib
import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from raydistill.files.inputs.raw_rows import decode

_TRUTH = {"true": 1.0, "t": 1.0, "yes": 1.0, "y": 1.0, "false": 0.0, "f": 0.0, "no": 0.0, "n": 0.0}
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_DECIMAL_COMMA = re.compile(r"[+-]?\d*,\d+")
_INFINITE = {"inf", "infinity"}
_MISSING = {"nan", "null", "none", "na", "n/a", "\\n"}  # how programs write a missing value
_MAX_WORDS = 1_000  # distinct words that are counted
_MAX_SHOWN = 8
_MAX_WORD_CHARS = 40
_MOST_NEAR = 2  # grades that a reason names: n grades give at most n (n + 1) / 2 + 1 reasons
_ROUNDING = 1e-6  # relative to the range: the mean of float32 labels may be 1.0000001
NO_NUMBER = "label is null or not a number"
PERCENTAGE = "label is a percentage, not a number in 0..1"
COMMA = "label has a decimal comma, not a point"
NO_GRADE = "label is not among the grades"
_NO_PROBLEM = pa.scalar(None, pa.string())


@dataclass(frozen=True)
class LabelRule:
    """How to read the labels of a file: the ends of a scale, or a value for each grade."""

    scale: tuple[float, float] | None = None
    grades: tuple[tuple[str, float], ...] = ()

    @staticmethod
    def of(given: Mapping[str, object]) -> LabelRule:
        """The rule with `scale` and `grades` as stored in prepare.json."""
        scale, grades = given.get("scale"), given.get("grades")
        ends = (float(scale[0]), float(scale[1])) if isinstance(scale, (list, tuple)) else None
        items = grades.items() if isinstance(grades, Mapping) else ()
        return LabelRule(ends, tuple((str(name), float(value)) for name, value in items))

    @property
    def range(self) -> tuple[float, float]:
        """The smallest and the largest label that the file may contain."""
        return (min(self.scale), max(self.scale)) if self.scale else (0.0, 1.0)

    @property
    def outside(self) -> str:
        """The quarantine reason of a label outside the range."""
        low, high = self.range
        return f"label is outside {low:g}..{high:g}"


@lru_cache
def _known_grades(grades: tuple[tuple[str, float], ...]) -> dict[str | float, float]:
    """Values by grade: by case-folded text, and also by number if the grade is a number."""
    found: dict[str | float, float] = {}
    for name, value in grades:
        text = name.strip().casefold()
        found[text] = value
        if _NUMBER.fullmatch(text):
            found[float(text)] = value
    return found


def read_labels(column: pa.Array, rule: LabelRule) -> tuple[pa.FloatArray, pa.StringArray]:
    """Labels in 0..1 (null for a row with a problem), and the problem of each row or null."""
    raw, problems = _numbers(column, rule)
    values = raw.to_numpy(zero_copy_only=False)
    low, high = rule.range
    with np.errstate(invalid="ignore"):
        is_inside = _inside(values, low, high)
    values = np.clip(values, low, high)
    reasons = pc.case_when(
        pc.make_struct(
            pc.is_valid(problems), pa.array(np.isnan(values)), pa.array(~is_inside)
        ),
        problems, pa.scalar(NO_NUMBER), pa.scalar(rule.outside), pa.scalar(None, pa.string()),
    )  # fmt: skip
    if rule.scale:
        first, last = rule.scale
        values = (values - first) / (last - first)
    labels = np.where(is_inside, values, 0).astype(np.float32)
    return pa.array(labels, mask=np.asarray(pc.is_valid(reasons))), reasons


def read_numbers(column: pa.Array) -> tuple[pa.DoubleArray, pa.StringArray]:
    """Finite numbers of any size, and the problem of each row or null."""
    numbers, problems = _numbers(column, LabelRule())
    values = numbers.to_numpy(zero_copy_only=False)
    is_bad = pa.array(~np.isfinite(values))
    return numbers, pc.coalesce(problems, pc.if_else(is_bad, NO_NUMBER, _NO_PROBLEM))


def _inside(values: NDArray[np.float64], low: float, high: float) -> NDArray[np.bool_]:
    """Which values are in low..high, with a margin for the rounding of float32."""
    margin = _ROUNDING * (high - low)
    return (values >= low - margin) & (values <= high + margin)


def _numbers(column: pa.Array, rule: LabelRule) -> tuple[pa.DoubleArray, pa.StringArray]:
    """Numbers as written in the file (for grades, their values), and problems of the other rows."""
    if pa.types.is_boolean(column.type):
        column = column.cast(pa.int8())
    is_number = pa.types.is_integer(column.type) or pa.types.is_floating(column.type)
    if is_number and not rule.grades:
        missing = pc.if_else(pc.is_null(column), NO_NUMBER, pa.scalar(None, pa.string()))
        return column.cast(pa.float64(), safe=False), missing
    texts = pc.fill_null(decode(column)[0], "")
    distinct = texts.dictionary_encode()
    read = [_number_of(text, rule) for text in distinct.dictionary.to_pylist()]
    numbers = pa.array([number for number, _ in read], pa.float64())
    problems = pa.array([problem for _, problem in read], pa.string())
    return numbers.take(distinct.indices), problems.take(distinct.indices)


def _number_of(given: str, rule: LabelRule) -> tuple[float | None, str | None]:
    """The number that a text represents and None, or None and its problem."""
    text = given.strip().casefold()
    is_number = bool(_NUMBER.fullmatch(text))
    if rule.grades:
        grades = _known_grades(rule.grades)
        value = grades.get(text, grades.get(float(text)) if is_number else None)
        if value is not None:
            return value, None
        return None, _no_grade(text, rule.grades) if text else NO_NUMBER
    if is_number:
        return float(text), None
    if text in _TRUTH:
        return _TRUTH[text], None
    if text.lstrip("+-") in _INFINITE:
        return float(text), None
    if text.endswith("%") and _NUMBER.fullmatch(text[:-1].rstrip().replace(",", ".")):
        return None, PERCENTAGE
    return None, COMMA if _DECIMAL_COMMA.fullmatch(text) else NO_NUMBER


def _no_grade(text: str, grades: tuple[tuple[str, float], ...]) -> str:
    """The reason with the grades nearest to a text, in the run file's order; else all grades.

    The text itself is left out: as many reasons as texts could not be counted.
    """
    spelled = {name.strip().casefold(): name for name, _ in grades}
    short = text if len(text) <= _MAX_WORD_CHARS else ""  # a comparison takes time of its length
    near = difflib.get_close_matches(short, spelled, n=_MOST_NEAR, cutoff=0.5)
    names = [name for key, name in spelled.items() if key in near]
    if names:
        return f"{NO_GRADE}; the nearest: {', '.join(names)}"
    more = ", ..." if len(spelled) > _MAX_SHOWN else ""
    return f"{NO_GRADE}: {', '.join([*spelled.values()][:_MAX_SHOWN])}{more}"


@dataclass
class LabelTally:
    """Counts of the labels of all files with one rule."""

    rule: LabelRule
    num_rows: int = 0
    num_outside: int = 0
    least: float = math.inf
    most: float = -math.inf
    problems: Counter[str] = field(default_factory=Counter)
    words: Counter[str] = field(default_factory=Counter)  # neither number nor grade
    num_words: int = 0

    def add(self, column: pa.Array) -> None:
        """Count the labels of a column."""
        self.num_rows += len(column)
        numbers, problems = _numbers(column, self.rule)
        values = numbers.drop_null().to_numpy()
        values = values[~np.isnan(values)]
        if len(values):
            self.least = min(self.least, float(values.min()))
            self.most = max(self.most, float(values.max()))
        low, high = self.rule.range
        self.num_outside += int(np.sum(~_inside(values, low, high)))
        bad = pc.is_valid(problems)
        if pc.any(bad).as_py():
            self._add_bad(problems.filter(bad), decode(column.filter(bad))[0])

    def _add_bad(self, problems: pa.StringArray, texts: pa.Array) -> None:
        for problem, text in zip(problems.to_pylist(), texts.to_pylist(), strict=True):
            word = (text or "").strip()
            self.problems[NO_GRADE if problem.startswith(NO_GRADE) else problem] += 1
            is_word = word != "" and word.casefold() not in _MISSING
            self.num_words += is_word
            if is_word and (word in self.words or len(self.words) < _MAX_WORDS):
                self.words[word] += 1

    def problem(self, *, name: str, max_bad_fraction: float) -> str | None:
        """The message for all counted labels; None if at most a few are unreadable."""
        if self.num_outside:
            return self._out_of_range(name)
        unread = (PERCENTAGE, COMMA, NO_NUMBER, NO_GRADE)
        bad = {problem: self.problems[problem] for problem in unread if self.problems[problem]}
        if not bad or self.num_words <= max_bad_fraction * self.num_rows:
            return None
        return self._unread(name, max(bad, key=lambda one: bad[one]))

    def _out_of_range(self, name: str) -> str:
        low, high = self.rule.range
        found = f"labels from {self.least:g} to {self.most:g}, {self.num_outside:,} of the "
        found += f"{self.num_rows:,} outside {low:g}..{high:g}"
        if self.rule.scale or self.rule.grades or math.isinf(self.most - self.least):
            way_out = f"give {name}.scale the ends of the scale, or correct the labels"
        else:
            way_out = (
                f"give the ends of their scale, {name}.scale = [{self.least:g}, {self.most:g}], or "
                f'a value in 0..1 for each grade, [{name}.grades] "{self.most:g}" = 1.0'
            )
        return f"{name} has {found}: {way_out}"

    def _unread(self, name: str, problem: str) -> str:
        shown = ", ".join(
            f"{word[:40]!r} ({num:,})" for word, num in self.words.most_common(_MAX_SHOWN)
        )
        more = ", ..." if len(self.words) > _MAX_SHOWN else ""
        ways_out = {
            PERCENTAGE: "percentages are not converted: write them as numbers, and give "
            f"{name}.scale = [0, 100] (or divide them by 100)",
            COMMA: "decimal commas are not converted: write them with a point (0.5)",
        }
        word = next(iter(self.words), "Exact")
        default = f'give each a value in 0..1 in [{name}.grades], as "{word[:40]}" = 1.0'
        return (
            f"{name} has {self.num_words:,} labels of {self.num_rows:,} that are no number"
            f"{' and no grade' if self.rule.grades else ''}: {shown}{more}; "
            f"{ways_out.get(problem, default)}"
        )
