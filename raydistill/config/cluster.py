"""The table `[cluster]` of the run file."""

from __future__ import annotations

from pydantic import Field, field_validator

from raydistill.config.base import ConfigSection
from raydistill.config.evaluation import PricesConfig


class ClusterConfig(ConfigSection):
    """The Ray cluster."""

    RUNTIME_ONLY = frozenset({"address", "gpus", "cpus", "shared_paths"})
    address: str | None = None
    """The address of a Ray cluster. Default: that of the job or of `RAY_ADDRESS`, else a Ray
    started on this machine."""
    gpus: int | None = Field(default=None, ge=0)
    """The GPUs that an autoscaled cluster may grow to. Default: those that it has now."""
    cpus: int | None = Field(default=None, ge=0)
    """The cores that an autoscaled cluster may grow to. Default: those that it has now."""
    shared_paths: tuple[str, ...] = ()
    """Local paths that all machines of the cluster mount, such as `["/mnt/efs"]`. On a cluster of
    several machines, run folder, inputs and models are at `s3://` or below one of them."""
    prices: PricesConfig = PricesConfig()
    """What an hour costs, for the report and the progress lines."""

    @field_validator("shared_paths")
    @classmethod
    def _are_absolute(cls, paths: tuple[str, ...]) -> tuple[str, ...]:
        for path in paths:
            if not path.startswith("/"):
                raise ValueError(f"{path!r} is no absolute path; give one such as /mnt/efs")
        return paths
