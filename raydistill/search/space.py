"""`[tune.space]` to what a trial is given: dimensions, and from their values the run it stands for.

Comes in: the run file's table and the fitted stack. Goes out: plain dicts and RunConfigs; no Ray,
no Optuna.
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
_LEAST_WEIGHT = 0.02  # of the fitted ones: the search can take up a teacher whose weight is 0
Values = Mapping[str, Any]  # of a trial, by dimension: what the search sees
Settings = dict[str, Any]  # of a trial, by section.field: what the run file would say


@dataclass(frozen=True)
class Dimension:
    """One axis of the search: a range, or the index of a choice."""

    name: str
    low: float = 0
    high: float = 0
    log: bool = False
    choices: tuple[Any, ...] = ()

    @property
    def is_whole(self) -> bool:
        """Whether values are whole numbers."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    def holds(self, value: object) -> bool:
        """Whether a setting is one that the search could come by."""
        if self.choices:
            return _plain(value) in [_plain(choice) for choice in self.choices]
        return isinstance(value, (int, float)) and self.low <= value <= self.high

    def value_of(self, setting: object) -> object:
        """What the search calls a setting."""
        if self.choices:
            return [_plain(choice) for choice in self.choices].index(_plain(setting))
        return setting

    def setting_of(self, value: Any) -> object:  # noqa: ANN401 - as the run file has it
        """The setting that the search calls `value`."""
        if self.choices:
            return self.choices[value]
        return int(value) if self.is_whole else float(value)


def dimensions(config: RunConfig) -> list[Dimension]:
    """The axes of a run's search.

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
    _check_trees(config)
    return found


def _check_trees(config: RunConfig) -> None:
    """Trees that the run leaves out have no logits, so no trial can take them in."""
    space = config.tune.space.get(WEIGHTS)
    if config.has_trees or not config.trees.enabled or not config.judged.query or space is None:
        return
    for choice in space.choices or ():
        if not isinstance(choice, dict) or TREES in choice:
            raise UserError(
                f"tune.space: {WEIGHTS} = {choice!r} takes in the trees, which the run's own "
                f"{WEIGHTS} leave out; give them {TREES} = 0 there"
            )


def _ratios(config: RunConfig, name: str, *, spread: float) -> list[Dimension]:
    """The simplex round the fitted weights: logs of the ratios to the first teacher's weight."""
    if name != WEIGHTS:
        raise UserError(f"tune.space: {name} has a spread; only {WEIGHTS} can")
    others = config.teacher_names[1:]
    if not others:
        raise UserError(f"tune.space: {WEIGHTS} with one teacher leaves nothing to search")
    return [Dimension(f"{WEIGHTS}.{other}", -spread, spread) for other in others]


def _check(dimension: Dimension) -> None:
    """A value that no run file could hold is found before the trials begin.

    Each field alone: whether settings go together is for the trials to find.
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
    """What the run file would say for the values of a trial."""
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
    """w_m in proportion to the fitted one times e^u_m; the first teacher's u is 0."""
    raw = {
        name: max(fitted.weights[name], _LEAST_WEIGHT) * math.exp(ratios.get(name, 0.0))
        for name in config.teacher_names
    }
    total = sum(raw.values())
    return {name: value / total for name, value in raw.items()}


def default_values(config: RunConfig, space: Sequence[Dimension]) -> dict[str, Any] | None:
    """The untuned configuration as the values of a trial; None where the space does not hold it."""
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
    """`section.field` names as the tables of a run file."""
    tables: dict[str, Any] = {}
    for name, value in settings.items():
        section, field = name.split(".", 1)
        tables.setdefault(section, {})[field] = value
    return tables


def with_settings(config: RunConfig, settings: Settings) -> RunConfig:
    """The run file with other settings.

    Raises:
        UserError: settings that are not allowed, alone or together.
    """
    raw = config.model_dump(mode="json", exclude_none=True)
    lay_over(raw, tables_of(settings))
    return to_config(raw, name="a trial")


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value
