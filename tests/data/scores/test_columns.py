import math

import numpy as np
import pyarrow as pa
import pytest

from raydistill.data.scores.columns import CLIP, ScoreRule


def read(rule: ScoreRule, **columns: list[object]) -> tuple[list[float], list[str | None]]:
    values, problems = rule.read(pa.table({k: pa.array(v) for k, v in columns.items()}))
    logits = rule.logits(values.astype(np.float64))
    return [round(float(logit), 4) for logit in logits], problems.to_pylist()


def test_a_probability_is_clipped_and_a_bad_one_has_a_reason() -> None:
    most = round(math.log((1 - CLIP) / CLIP), 4)  # log 999 = 6.9068
    assert most == 6.9068
    logits, problems = read(ScoreRule("probability", ("p",)), p=["0.5", "0", "1", "x", "1.2", None])
    assert logits[:3] == [0.0, -most, most]
    assert problems == [None, None, None, "column p is null or not a number",
                        "column p is outside 0..1", "column p is null or not a number"]  # fmt: skip


def test_a_grade_is_a_share_of_its_scale() -> None:
    rule = ScoreRule("grade", ("g",), scale=(0.0, 4.0))
    logits, problems = read(rule, g=[2, 3, 0, 5])
    assert logits[:3] == [0.0, pytest.approx(math.log(3), abs=1e-4), -6.9068]  # 3/4: log 3
    assert problems == [None, None, None, "column g is outside 0..4"]


def test_a_logit_is_itself_of_any_size_but_finite() -> None:
    logits, problems = read(ScoreRule("logit", ("z",)), z=[-12.5, 3.25, float("nan"), float("inf")])
    assert logits[:2] == [-12.5, 3.25]
    assert problems[:2] == [None, None] and None not in problems[2:]


def test_a_logit_beyond_32_bits_is_bad() -> None:
    rows = ["1e39", "-1e39", "3e38"]
    for given in (rows, [float(row) for row in rows]):
        logits, problems = read(ScoreRule("logit", ("z",)), z=list(given))
        assert problems == ["column z is too large for a 32-bit float"] * 2 + [None]
        assert logits[2] == pytest.approx(3e38)


def test_classes_give_the_logit_of_their_expected_gain() -> None:
    rule = ScoreRule("probability", ("exact", "part", "no"), gains=(1.0, 0.5, 0.0))
    logits, problems = read(
        rule, exact=[0.5, 1.0, 0.0, 2.0], part=[0.5, 0.0, 0.0, 0.0], no=[0.0, 1.0, 0.0, 0.0]
    )
    # (0.5 + 0.25) / 1 = 0.75; (1 + 0) / 2 = 0.5: shares of their sum
    assert logits[:2] == [pytest.approx(math.log(3), abs=1e-4), 0.0]
    assert problems == [None, None, "the class probabilities are all 0",
                        "column exact is outside 0..1"]  # fmt: skip
