"""The tables `[teachers.<name>]`, `[trees]`, `[finetune]` and `[label]` of the run file."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from raydistill.config.base import ConfigSection, Count, Positive
from raydistill.config.prompt import Prompt

TREES = "trees"  # the name of that teacher among the others
# The version of the code between a pair and its logit: tokens, batches, the packed encoder, the
# features of the trees. Raise it with every change after which some teacher may give some pair
# another logit: logits that are there are then made again, not taken for those of the new code.
ENGINE = 2
Dtype = Literal["auto", "float32", "bfloat16", "float16"]


class TeacherConfig(ConfigSection):
    """One teacher: an encoder to fine-tune (`base`) or a ready-made cross-encoder (`model`)."""

    base: str | None = None
    model: str | None = None
    prompt: str | None = (
        None  # with {query} and {title}: what a decoder was trained to answer after
    )
    trust_remote_code: bool = False  # whether Python files in the model's folder may be run

    @model_validator(mode="after")
    def _one_source(self) -> TeacherConfig:
        if (self.base is None) == (self.model is None):
            raise ValueError(
                "give either `base` (an encoder to fine-tune) or `model` (a ready-made "
                f"cross-encoder), not {'both' if self.base else 'neither'}"
            )
        return self

    @model_validator(mode="after")
    def _prompt_is_whole(self) -> TeacherConfig:
        if self.prompt is not None:
            if self.model is None:
                raise ValueError(
                    "`prompt` is for a ready-made `model`; a `base` is fine-tuned without"
                )
            Prompt.parse(self.prompt)
        return self


class TreesConfig(ConfigSection):
    """Boosted trees on the match features: a teacher fitted on the judged pairs by `label`."""

    RUNTIME_ONLY = frozenset({"num_actors"})

    enabled: bool = True  # without effect on single texts, which have no match features
    num_folds: int = Field(default=5, ge=2)  # of queries: a model a fold, stopped on that fold
    max_trees: Count = 2_000  # a model
    num_leaves: int = Field(default=31, ge=2)
    learning_rate: Positive = 0.05
    seed: int = 0
    num_actors: Count | None = None  # cores that score; None: those that the cluster has by then


class FinetuneConfig(ConfigSection):
    """How a base encoder becomes a cross-encoder."""

    RUNTIME_ONLY = frozenset({"num_workers", "num_gpus"})
    epochs: Count = 2
    learning_rate: Positive = 5e-5
    batch_rows: Count = 32
    max_length: int = Field(default=128, ge=8)
    warmup_share: float = Field(default=0.1, ge=0, lt=1)
    weight_decay: float = Field(default=0.01, ge=0)
    target: Literal["graded", "binary"] = "graded"
    # In the loss; "balanced": relevant pairs weigh as much as the others. Logits rise by its log.
    positive_weight: Positive | Literal["balanced"] | None = None
    dtype: Dtype = "auto"
    seed: int = 0
    num_workers: Count = 1
    num_gpus: float = Field(default=1, ge=0)  # a worker, where the cluster has GPUs

    def fingerprint_fields(self) -> dict[str, Any]:
        """As of any section; a weight that is not given leaves older fingerprints as they are."""
        left_out = {"positive_weight"} if self.positive_weight is None else set()
        return {k: v for k, v in super().fingerprint_fields().items() if k not in left_out}

    @model_validator(mode="after")
    def _even_batches(self) -> FinetuneConfig:
        if self.batch_rows % self.num_workers:
            raise ValueError(
                f"batch_rows = {self.batch_rows} is not a multiple of num_workers = "
                f"{self.num_workers}"
            )
        return self


class LabelConfig(ConfigSection):
    """How teachers score pairs."""

    RUNTIME_ONLY = frozenset({"tokens_per_batch", "num_gpus", "num_actors", "max_bad_fraction"})
    dtype: Dtype = "auto"
    max_length: int = Field(default=128, ge=8)
    tokens_per_batch: Count | None = None  # None: 65,536 on a GPU, 4,096 on a core
    max_bad_fraction: float = Field(default=0.01, ge=0, le=1)  # of pairs without a finite logit
    num_gpus: float = Field(default=1, ge=0)  # an actor, where the cluster has GPUs
    num_actors: Count | None = None  # None: as many as the cluster holds
