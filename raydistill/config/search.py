"""The tables `[tune]` and `[tune.space]` of the run file."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from raydistill.config.base import ConfigSection, Count, Positive


class SpaceConfig(ConfigSection):
    """What a searched setting may be: a range, some choices, or how far weights may lie apart."""

    low: int | float | None = None  # both whole numbers: so are the values
    high: int | float | None = None
    log: bool = False
    choices: Annotated[tuple[Any, ...], Field(min_length=1)] | None = None
    spread: Positive | None = None  # of soft_labels.weights: each ratio times e^-spread to e^spread

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        has_range = self.low is not None or self.high is not None or self.log
        if has_range + (self.choices is not None) + (self.spread is not None) != 1:
            raise ValueError("give {low, high} or {choices} or, for soft_labels.weights, {spread}")
        if has_range and (self.low is None or self.high is None or self.low >= self.high):
            raise ValueError("low and high: give both, low below high")
        if self.log and self.low is not None and self.low <= 0:
            raise ValueError("log = true needs low above 0")
        return self


class TuneConfig(ConfigSection):
    """How settings are searched."""

    RUNTIME_ONLY = frozenset({"num_concurrent"})
    num_trials: Count = 50
    sample_pairs: Count = 100_000  # of the transfer set, for the trials
    max_epochs: Count | None = None  # of a trial; None: train.epochs
    metric: Literal["log_loss", "auc", "accuracy", "ece"] = "log_loss"  # on the judged dev split
    speed: bool = False  # microseconds a pair as a second objective
    seed: int = 0
    num_final: Count = 3  # the best configurations are trained again on the whole transfer set
    final_seeds: Count = 3
    num_concurrent: Count | None = None  # trials at once; None: one a core
    space: dict[str, SpaceConfig] = Field(default_factory=dict)  # by section.field
