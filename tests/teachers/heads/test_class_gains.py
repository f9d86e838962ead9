"""Gains of classes; expected values are written by hand."""

import math

import pytest
import torch

from raydistill.errors import UserError
from raydistill.teachers.heads.class_gains import (
    MOST_LOGIT,
    class_names,
    expected_logit,
    needs_gains,
    resolve_gains,
)

ESCI = ("Exact", "Substitute", "Complement", "Irrelevant")


def gains(names: tuple[str, ...], given: object) -> tuple[float, ...]:
    pairs = tuple(given.items()) if isinstance(given, dict) else given
    return resolve_gains(names, pairs, what="m")  # type: ignore[arg-type]


def test_gains_are_in_the_order_of_the_outputs() -> None:
    assert class_names({1: "b", 0: "a", 10: "k"}) == ("a", "b", "k")
    assert gains(("bad", "good"), {"good": 1.0, "bad": 0.25}) == (0.25, 1.0)
    assert gains(("bad", "good"), {"GOOD": 1.0, " Bad": 0}) == (0, 1.0)
    assert gains(("a", "A"), {"A": 1.0, "a": 0.5}) == (0.5, 1.0)  # the same letters first


def test_unnamed_outputs_have_numbers() -> None:
    unnamed = ("LABEL_0", "LABEL_1", "LABEL_2")
    assert gains(unnamed, {"2": 1.0, "label_1": 0.5, "0": 0.0}) == (0.0, 0.5, 1.0)
    assert gains(("1", "2", "3"), {"1": 0.1, "2": 0.2, "3": 0.3}) == (0.1, 0.2, 0.3)


@pytest.mark.parametrize("names", [ESCI, ("I", "C", "S", "E"), ("irrelevant", "C", "s", "EXACT")])
def test_the_published_gains_of_esci(names: tuple[str, ...]) -> None:
    by_letter = {"e": 1.0, "s": 0.1, "c": 0.01, "i": 0.0}
    assert gains(names, "esci") == tuple(by_letter[name[0].lower()] for name in names)


@pytest.mark.parametrize(
    ("names", "given", "words"),
    [
        (ESCI, {"Exact": 1.0, "Irelevant": 0.0}, r"'Irelevant'.*did you mean Irrelevant\?"),
        (ESCI, {"Exact": 1.0, "x": 0.0}, "no class of m: its classes are Exact, Substitute"),
        (ESCI, {"Exact": 1.0, "irrelevant": 0}, "lacks Substitute, Complement of m.* Exact = 1,"),
        (ESCI, {"Exact": 1.0, "exact": 0}, "class Exact of m twice, as 'Exact' and 'exact'"),
        (("a", "b"), "esci", "classes of m are a, b: write .*a = ..., b = ..."),
        (("a",), {"a": 1.0}, "has 1 output.*leave `gains` out"),
        (("a", "A"), {"á": 1.0}, "no class"),
    ],
)
def test_names_that_do_not_fit(names: tuple[str, ...], given: object, words: str) -> None:
    with pytest.raises(UserError, match=words):
        gains(names, given)


def test_a_model_without_gains_is_told_what_to_write() -> None:
    assert str(needs_gains(("fair", "very good", "bad"), what="m")) == (
        "m has 3 outputs; a teacher has 1 or 2, or a gain for each class: the classes are fair, "
        "very good, bad; write into the run file's table of this teacher gains = { fair = ..., "
        '"very good" = ..., bad = ... }, each a number in 0..1'
    )
    assert "and 80 more" in str(needs_gains([f"c{n}" for n in range(100)], what="m"))


def test_the_expected_gain_is_one_logit() -> None:
    """Softmax 1/2, 1/4, 1/4 of gains 1, 0.1, 0: p = 0.525."""
    z = torch.tensor([[math.log(2.0), 0.0, 0.0], [7 + math.log(2.0), 7.0, 7.0]])
    found = expected_logit(z, (1.0, 0.1, 0.0))
    assert found.dtype == torch.float32
    assert found.tolist() == pytest.approx([math.log(0.525 / 0.475)] * 2, abs=1e-6)


def test_two_classes_have_the_margin() -> None:
    z = torch.tensor([[1.0, 3.5], [-200.0, -203.0], [0.0, 15.0]])
    assert expected_logit(z, (0.0, 1.0)).tolist() == pytest.approx([2.5, -3.0, 15.0])


def test_extreme_logits_keep_their_order_until_the_clip() -> None:
    """p = 0.1 + 0.9 e^-z: no digit is lost where p is near the least gain; beyond 20 it is cut."""
    z = torch.tensor([[0.0, 12.0], [0.0, 16.0], [0.0, 1e4], [1e4, 0.0]])
    found = expected_logit(z, (1.0, 0.0))
    assert found.tolist() == pytest.approx([-12.0, -16.0, -MOST_LOGIT, MOST_LOGIT])
    assert expected_logit(z[2:], (0.9, 0.1)).tolist() == pytest.approx(
        [math.log(0.1 / 0.9), math.log(9.0)]
    )


def test_what_is_not_finite_has_no_logit() -> None:
    z = torch.tensor([[math.inf, 0.0], [math.nan, 0.0], [-math.inf, 0.0], [0.0, 1.0]])
    assert torch.isnan(expected_logit(z, (1.0, 0.0))).tolist() == [True, True, True, False]


def test_half_precision_is_computed_in_float32() -> None:
    z = torch.tensor([[1.0, 2.0, 3.0]], dtype=torch.float16)
    expected = expected_logit(z.float(), (0.0, 0.5, 1.0))
    assert torch.equal(expected_logit(z, (0.0, 0.5, 1.0)), expected)
