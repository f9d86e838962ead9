"""`[tune.space]` to the dimensions of the search, and a trial's values to its RunConfig.

Input: the run file's table and the fitted stack. Output: plain dicts and RunConfigs. No Ray, no
Optuna.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import TypeAdapter, ValidationError

from raydistill.config.loading import lay_over, to_config
from raydistill.config.run_config import RunConfig
from raydistill.config.student import SEARCHED
from raydistill.config.teachers import TREES
from raydistill.errors import UserError
from raydistill.teachers.stacking import Stack

WEIGHTS, BIAS = "soft_labels.weights", "soft_labels.bias"
_LEAST_WEIGHT = 0.02  # minimum of a fitted weight: no factor changes a weight of 0
Values = Mapping[str, Any]  # of a trial, by dimension name: the values that Optuna proposes
Settings = dict[str, Any]  # of a trial, by section.field, as in the run file


@dataclass(frozen=True)
class Dimension:
    """One dimension of the search: a range of numbers, or the index of a choice."""

    name: str
    low: float = 0
    high: float = 0
    log: bool = False
    choices: tuple[Any, ...] = ()

    @property
    def is_whole(self) -> bool:
        """Whether the values are integers."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    def holds(self, value: object) -> bool:
        """Whether a setting is one of the choices or in the range."""
        if self.choices:
            return _plain(value) in [_plain(choice) for choice in self.choices]
        return isinstance(value, (int, float)) and self.low <= value <= self.high

    def value_of(self, setting: object) -> object:
        """The search's value for a setting: the index of a choice, or the number itself."""
        if self.choices:
            return [_plain(choice) for choice in self.choices].index(_plain(setting))
        return setting

    def setting_of(self, value: Any) -> object:  # noqa: ANN401 - any type of the run file
        """The setting for a value of the search; the inverse of `value_of`."""
        if self.choices:
            return self.choices[value]
        return int(value) if self.is_whole else float(value)


def dimensions(config: RunConfig) -> list[Dimension]:
    """The dimensions of a run's search.

    Raises:
        UserError: nothing to search, or values that the setting does not allow.
    """
    if not config.tune.space:
        raise UserError(
            'tune.space is empty: say what to search, as in "soft_labels.temperature" = ...'
        )
    found = []
    for name, given in config.tune.space.items():
        if given.low is not None and given.high is not None:
            found.append(Dimension(name, given.low, given.high, given.log))
        elif given.spread is not None:
            found += _ratios(config, name, spread=given.spread)
        else:
            found.append(Dimension(name, choices=given.choices or ()))
    for dimension in found:
        _check(dimension)
    _check_agreement(config)
    _check_trees(config)
    return found


def _check_agreement(config: RunConfig) -> None:
    """Raise UserError for what cannot be searched by agreement with the teachers, or only by it."""
    metric, is_judged = config.tune.metric, config.learns_from_judged
    if config.judged and metric == "agreement":  # the test pairs have judged labels
        raise UserError(
            'tune.metric = "agreement" is for runs without judged pairs; "spearman" is the rank '
            "correlation with the labels, judged or the teachers'"
        )
    names = [name for name in (WEIGHTS, BIAS) if name in config.tune.space]
    if names and not is_judged:
        raise UserError(
            f"tune.space: {names[0]} needs judged dev pairs: without them students are compared "
            "with the ensemble itself, which it would change"
        )


def _check_trees(config: RunConfig) -> None:
    """Raise UserError if the space gives a weight to trees that the run excludes: no logits."""
    space = config.tune.space.get(WEIGHTS)
    if config.has_trees or not config.trees.enabled or not config.has_query or space is None:
        return
    for choice in space.choices or ():
        if not isinstance(choice, dict) or TREES in choice:
            raise UserError(
                f"tune.space: {WEIGHTS} = {choice!r} takes in the trees, which the run's own "
                f"{WEIGHTS} leave out; give them {TREES} = 0 there"
            )


def _ratios(config: RunConfig, name: str, *, spread: float) -> list[Dimension]:
    """One dimension for each teacher but the first: the log of a factor of its fitted weight."""
    if name != WEIGHTS:
        raise UserError(f"tune.space: {name} has a spread; only {WEIGHTS} can")
    others = config.teacher_names[1:]
    if not others:
        raise UserError(f"tune.space: {WEIGHTS} with one teacher leaves nothing to search")
    return [Dimension(f"{WEIGHTS}.{other}", -spread, spread) for other in others]


def _check(dimension: Dimension) -> None:
    """Raise UserError for a value that its field does not allow, before the trials start.

    Fields are checked one by one; a combination that is not allowed fails in its trial.
    """
    if dimension.name.startswith(f"{WEIGHTS}."):
        return
    section, name = dimension.name.split(".", 1)
    field = SEARCHED[section].model_fields[name]
    kind: Any = field.annotation
    for rule in field.metadata:
        kind = Annotated[kind, rule]
    for setting in dimension.choices or (dimension.low, dimension.high):
        try:
            TypeAdapter(kind).validate_python(setting)
        except ValidationError as error:
            message = error.errors()[0]["msg"]
            raise UserError(f"tune.space: {dimension.name} = {setting!r}: {message}") from error


def settings_of(
    config: RunConfig, space: Sequence[Dimension], values: Values, *, fitted: Stack
) -> Settings:
    """The settings of the run file for the values of a trial."""
    found: Settings = {}
    ratios = {}
    for dimension in space:
        setting = dimension.setting_of(values[dimension.name])
        if dimension.name.startswith(f"{WEIGHTS}."):
            ratios[dimension.name.removeprefix(f"{WEIGHTS}.")] = float(values[dimension.name])
        else:
            found[dimension.name] = setting
    if ratios:
        found[WEIGHTS] = _weights(config, ratios, fitted=fitted)
        given = config.soft_labels.bias
        found.setdefault(BIAS, fitted.bias if given is None else given)
    return found


def _weights(config: RunConfig, ratios: Mapping[str, float], *, fitted: Stack) -> dict[str, float]:
    """Weights w_m proportional to fitted weight * e^u_m, sum 1; the first teacher has u = 0."""
    raw = {
        name: max(fitted.weights[name], _LEAST_WEIGHT) * math.exp(ratios.get(name, 0.0))
        for name in config.teacher_names
    }
    total = sum(raw.values())
    return {name: value / total for name, value in raw.items()}


def default_values(config: RunConfig, space: Sequence[Dimension]) -> dict[str, Any] | None:
    """The values of a trial of the run file as it is; None if it is outside the space."""
    found: dict[str, Any] = {}
    for dimension in space:
        if dimension.name.startswith(f"{WEIGHTS}."):
            if config.stacking_weights() is not None:
                return None
            found[dimension.name] = 0.0
            continue
        section, field = dimension.name.split(".", 1)
        setting = getattr(getattr(config.resolved, section), field)
        if not dimension.holds(setting):
            return None
        found[dimension.name] = dimension.value_of(setting)
    return found


def tables_of(settings: Settings) -> dict[str, Any]:
    """Settings by `section.field` as nested tables of a run file."""
    tables: dict[str, Any] = {}
    for name, value in settings.items():
        section, field = name.split(".", 1)
        tables.setdefault(section, {})[field] = value
    return tables


def with_settings(config: RunConfig, settings: Settings) -> RunConfig:
    """The run's configuration with some settings replaced.

    Raises:
        UserError: settings that are not allowed, alone or together.
    """
    raw = config.model_dump(mode="json", exclude_none=True)
    lay_over(raw, tables_of(settings))
    return to_config(raw, name="a trial")


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value
