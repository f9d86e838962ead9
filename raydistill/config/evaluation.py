"""The tables `[evaluate]` and `[cluster.prices]`: how the report is measured, what hours cost."""

from __future__ import annotations

from pydantic import Field

from raydistill.config.base import ConfigSection, Positive

FEWEST_RESAMPLES = 100  # fewer give no ends of a 95 % interval


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
