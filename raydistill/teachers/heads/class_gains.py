"""The classes of a model and their gains: K logits to one logit of the expected gain.

Input: the names of a model's outputs and the gains of the run file. Output: one gain an output, and
one logit a pair. No files, no Ray.

Shapes: B pairs, K classes.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from raydistill.errors import UserError

# The gains with which ESCI's authors compute nDCG: Reddy et al., "Shopping Queries Dataset"
# (arXiv 2206.06588), and `ranking/train.py` of github.com/amazon-science/esci-data.
ESCI = {"exact": 1.0, "substitute": 0.1, "complement": 0.01, "irrelevant": 0.0}
_ESCI_LETTERS = {name[0]: name for name in ESCI}
# sigmoid(20) = 1 - 2e-9: beyond it a gain of 1 or 0 is certain in float32, and a single pair would
# have a large share of a fitted stack's loss.
MOST_LOGIT = 20.0
_UNNAMED = re.compile(r"label_(\d+)")
_MOST_NAMED = 20  # classes that a message names
GivenGains = tuple[tuple[str, float], ...] | Literal["esci"]


def class_names(id2label: Mapping[int, str]) -> tuple[str, ...]:
    """The names of a model's outputs in the order of the outputs."""
    return tuple(str(id2label[number]) for number in sorted(id2label))


def resolve_gains(names_K: Sequence[str], given: GivenGains, *, what: str) -> tuple[float, ...]:
    """The gain of each output. Names are compared without case; a `LABEL_2` is also "2".

    Raises:
        UserError: a class without a gain, a gain of no class, or two names for one class.
    """
    if len(names_K) < 2:
        raise UserError(f"{what} has 1 output: its gains would be of classes; leave `gains` out")
    by_class = _esci(names_K, what=what) if given == "esci" else _by_class(names_K, given, what)
    missing = [name for number, name in enumerate(names_K) if number not in by_class]
    if missing:
        raise UserError(
            f"gains lacks {_listed(missing)} of {what}, whose classes are {_listed(names_K)}: "
            f"write a gain for each class, {example(names_K)}"
        )
    return tuple(by_class[number] for number in range(len(names_K)))


def _by_class(names_K: Sequence[str], given: GivenGains, what: str) -> dict[int, float]:
    """Gains by number of the output."""
    found: dict[int, float] = {}
    spelled: dict[int, str] = {}
    for name, gain in given if not isinstance(given, str) else ():
        number = _number_of(name, names_K)
        if number is None:
            near = difflib.get_close_matches(
                name.casefold(), [known.casefold() for known in names_K], n=3, cutoff=0.5
            )
            meant = [known for known in names_K if known.casefold() in near]
            hint = f"; did you mean {_listed(meant)}?" if meant else ""
            raise UserError(
                f"gains names {name!r}, which is no class of {what}: its classes are "
                f"{_listed(names_K)}{hint}"
            )
        if number in found:
            raise UserError(
                f"gains names the class {names_K[number]} of {what} twice, as {spelled[number]!r} "
                f"and {name!r}: leave one of them out"
            )
        found[number], spelled[number] = float(gain), name
    return found


def _number_of(name: str, names_K: Sequence[str]) -> int | None:
    """The output that a name of the run file means; None: none, or more than one."""
    wanted = name.strip().casefold()
    for alike in (
        [n for n, known in enumerate(names_K) if known == name],
        [n for n, known in enumerate(names_K) if known.strip().casefold() == wanted],
        [n for n, known in enumerate(names_K) if _default_number(known) == wanted],
    ):
        if len(alike) == 1:
            return alike[0]
    return None


def _default_number(name: str) -> str | None:
    """The number in a name that transformers gives an unnamed output; None: another name."""
    found = _UNNAMED.fullmatch(name.strip().casefold())
    return str(int(found[1])) if found else None


def _esci(names_K: Sequence[str], *, what: str) -> dict[int, float]:
    """ESCI's published gains by number of the output."""
    keys = [_esci_name(name) for name in names_K]
    if sorted(key or "" for key in keys) != sorted(ESCI):
        raise UserError(
            'gains = "esci" is for the classes Exact, Substitute, Complement and Irrelevant (or '
            f"E, S, C and I); the classes of {what} are {_listed(names_K)}: write a gain for each "
            f"class, {example(names_K)}"
        )
    return {number: ESCI[key] for number, key in enumerate(keys) if key is not None}


def _esci_name(name: str) -> str | None:
    text = name.strip().casefold()
    text = _ESCI_LETTERS.get(text, text)
    return text if text in ESCI else None


def example(names_K: Sequence[str]) -> str:
    """The table of gains to write for these classes."""
    if sorted(_esci_name(name) or "" for name in names_K) == sorted(ESCI):
        values = [f"{ESCI[_esci_name(name) or '']:g}" for name in names_K]
    else:
        values = ["..."] * len(names_K)
    shown = ", ".join(
        f"{_key(name)} = {value}"
        for name, value in zip(names_K[:_MOST_NAMED], values, strict=False)
    )
    more = ", ..." if len(names_K) > _MOST_NAMED else ""
    return f"gains = {{ {shown}{more} }}, each a number in 0..1"


def _key(name: str) -> str:
    """A name as a TOML key."""
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else f'"{name}"'


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _MOST_NAMED
    return ", ".join(names[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


def gains_of(config: Any, given: GivenGains | None, *, what: str) -> tuple[float, ...] | None:  # noqa: ANN401
    """The gain of each output of a model with this config; None: it has one logit, or a margin.

    Raises:
        UserError: more than two outputs and no gains, or gains that do not fit the classes.
    """
    names_K = class_names(config.id2label)
    if given is not None:
        return resolve_gains(names_K, given, what=what)
    if len(names_K) in (1, 2):
        return None
    raise needs_gains(names_K, what=what)


def needs_gains(names_K: Sequence[str], *, what: str) -> UserError:
    """The error of a model with more than two outputs and no gains: its classes, what to write."""
    return UserError(
        f"{what} has {len(names_K)} outputs; a teacher has 1 or 2, or a gain for each class: the "
        f"classes are {_listed(names_K)}; write into the run file's table of this teacher "
        f"{example(names_K)}"
    )


def expected_logit(logits_BK: Tensor, gains_K: Sequence[float]) -> Tensor:
    """log(p / (1 - p)) of the expected gain p = sum_k gain_k softmax(logits)_k; float32, shape B.

    Computed as logsumexp(z + log gain) - logsumexp(z + log(1 - gain)), so that a p near 0 or 1
    keeps its digits; clipped to -20..20. NaN where a logit is not finite. For two classes with the
    gains 0 and 1 it is the difference of the two logits.
    """
    z_BK = logits_BK.float()
    is_finite_B = torch.isfinite(z_BK).all(dim=1)
    z_BK = z_BK - z_BK.amax(dim=1, keepdim=True)  # else two large numbers are subtracted below
    gains = torch.tensor(gains_K, dtype=torch.float64, device="cpu")
    log_gain_K, log_rest_K = (torch.log(part).float() for part in (gains, 1 - gains))
    for_B, against_B = (
        torch.logsumexp(z_BK + part_K.to(z_BK.device), dim=1) for part_K in (log_gain_K, log_rest_K)
    )
    return torch.where(is_finite_B, (for_B - against_B).clamp(-MOST_LOGIT, MOST_LOGIT), torch.nan)
