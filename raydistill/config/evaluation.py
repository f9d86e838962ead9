"""The tables `[tune]`, `[tune.space]`, `[evaluate]` and `[cluster.prices]`."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from raydistill.config.base import ConfigSection, Count, MetricKey, Positive

FEWEST_RESAMPLES = 100  # fewer give no ends of a 95 % interval


class SpaceConfig(ConfigSection):
    """The values of a searched setting: a range, choices, or a spread of the stacking weights."""

    low: int | float | None = None
    """The lowest value of a range. Values are whole numbers if `low` and `high` are."""
    high: int | float | None = None
    """The highest value of a range."""
    log: bool = False
    """Whether the range is searched on a logarithmic scale."""
    choices: Annotated[tuple[Any, ...], Field(min_length=1)] | None = None
    """The allowed values."""
    spread: Positive | None = None
    """For `soft_labels.weights` only: each ratio to the first teacher's weight is the fitted ratio
    times e^-spread to e^spread."""

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
    """Settings of the search."""

    RUNTIME_ONLY = frozenset({"num_concurrent"})
    num_trials: Count = 50
    """Trials of the search."""
    sample_pairs: Count = 100_000
    """Pairs of the transfer set that the trials train on."""
    max_epochs: Count | None = None
    """Epochs of a trial at most. Default: `train.epochs`."""
    metric: Literal[MetricKey, "agreement"] | None = None
    """The metric on the dev split that the search improves. Default: `"auc"`. Without judged dev
    pairs it compares with the teachers' soft labels; the default is then `"spearman"`, and
    `"agreement"` is another name of it."""
    speed: bool = False
    """Whether µs/pair is a second objective; the result is then a Pareto front."""
    seed: int = 0
    """The seed of the sample and of Optuna."""
    num_final: Count = 3
    """The best configurations that are trained again on the whole transfer set."""
    final_seeds: Count = 3
    """Seeds with which each final configuration is trained."""
    num_concurrent: Count | None = None
    """Trials at once. Default: one a core."""
    space: dict[str, SpaceConfig] = Field(default_factory=dict)
    """The searched settings, by `"section.field"` of `[soft_labels]`, `[ngrams]`, `[student]` and
    `[train]` (see `[tune.space]`)."""


class EvaluateConfig(ConfigSection):
    """How the report is measured."""

    resamples: int = Field(default=1_000, ge=FEWEST_RESAMPLES)
    """Resamples of the queries for the 95 % intervals and p-values (bootstrap)."""
    seed: int = Field(default=0, ge=0)
    """The seed of the resamples."""
    slices: tuple[str, ...] = ()
    """Columns of the judged files whose values become slices of the report, such as `["source"]`;
    numbers of more than 20 different values are cut into thirds."""
    weight: str | None = None
    """The column of the judged files that has how often each query is asked, for the slice of head,
    torso and tail. Default: how often its pairs occur in the files."""


class PricesConfig(ConfigSection):
    """What an hour of a machine costs; what is not given is not in the report."""

    currency: str = "USD"
    """The currency of the prices."""
    gpu_hour: Positive | None = None
    """The price of an hour of one GPU, with its share of the machine."""
    cpu_hour: Positive | None = None
    """The price of an hour of one CPU core."""
    gpu_kw: Positive | None = None
    """The power of one GPU at work in kilowatts, with its share of the machine."""
    cpu_kw: Positive | None = None
    """The power of one CPU core at work in kilowatts."""

    def money(self, *, gpu_hours: float, cpu_hours: float) -> float | None:
        """The price of these hours; None if hours of a kind without a price are among them."""
        return _sum((gpu_hours, self.gpu_hour), (cpu_hours, self.cpu_hour))

    def kwh(self, *, gpu_hours: float, cpu_hours: float) -> float | None:
        """The energy of these hours; None if hours of a kind without a power are among them."""
        return _sum((gpu_hours, self.gpu_kw), (cpu_hours, self.cpu_kw))


def _sum(*used: tuple[float, float | None]) -> float | None:
    """The sum of hours times their price; None where nothing has a price, or something lacks it."""
    known = [hours * price for hours, price in used if price is not None]
    is_whole = all(price is not None for hours, price in used if hours)
    return sum(known) if known and is_whole else None
