"""The tables `[teachers.<name>]`, `[trees]`, `[finetune]` and `[label]` of the run file."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from raydistill.config.base import ConfigSection, Count, Positive
from raydistill.config.prompt import Prompt

TREES = "trees"  # the name of the teacher of boosted trees
# The version of the code that computes a logit from a pair: tokens, batches, the packed encoder,
# the features of the trees. Raise it with each change that can change a logit of any teacher:
# existing logits are then computed again.
ENGINE = 2
Dtype = Literal["auto", "float32", "bfloat16", "float16"]


class TeacherConfig(ConfigSection):
    """One teacher: an encoder to fine-tune (`base`) or a ready-made cross-encoder (`model`)."""

    base: str | None = None
    """An encoder to fine-tune on the judged pairs: a folder, an installed package's folder, `s3://`,
    or a hub name, also `owner/name@<commit>`."""
    model: str | None = None
    """A ready-made cross-encoder with one or two outputs, named as `base`. Give one of the two."""
    prompt: str | None = None
    """The prompt of a decoder, with `{query}` and `{title}`. Default: the chat template of its
    folder."""
    trust_remote_code: bool = False
    """Whether Python files in the model's folder may be run."""

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
    """Boosted trees on the match features: a teacher that `label` fits on the judged pairs."""

    RUNTIME_ONLY = frozenset({"num_actors"})

    enabled: bool = True
    """Whether the trees are a teacher. No effect on single texts, which have no match features."""
    num_folds: int = Field(default=5, ge=2)
    """Folds of the train queries. Each model is fitted without one fold; all stop where the mean
    loss on the left-out folds is least."""
    max_trees: Count = 2_000
    """Trees of a model at most."""
    num_leaves: int = Field(default=31, ge=2)
    """Leaves of a tree."""
    learning_rate: Positive = 0.05
    """The learning rate of boosting."""
    seed: int = 0
    """The seed of the folds and of LightGBM."""
    num_actors: Count | None = None
    """Actors that score, a core each. Default: as many as the cluster has cores at that time."""


class FinetuneConfig(ConfigSection):
    """Settings to fine-tune a base encoder as a cross-encoder."""

    RUNTIME_ONLY = frozenset({"num_workers", "num_gpus"})
    epochs: Count = 2
    """Passes over the judged train split; the epoch with the best dev AUC is kept."""
    learning_rate: Positive = 5e-5
    """The highest learning rate of AdamW."""
    batch_rows: Count = 32
    """Pairs of a step, of all workers together; a multiple of `num_workers`."""
    max_length: int = Field(default=128, ge=8)
    """Wordpieces of a pair; longer pairs are cut."""
    warmup_share: float = Field(default=0.1, ge=0, lt=1)
    """The share of the steps in which the learning rate rises from 0."""
    weight_decay: float = Field(default=0.01, ge=0)
    """Weight decay of AdamW."""
    target: Literal["graded", "binary"] = "graded"
    """What the loss compares with: the label, or whether it is at least `judged.relevant_at`."""
    positive_weight: Positive | Literal["balanced"] | None = None
    """The factor of relevant pairs in the loss. `"balanced"`: relevant pairs weigh as much as the
    others. A weight raises the logits by its logarithm. Default: 1."""
    dtype: Dtype = "auto"
    """The type of the matrix work. `"auto"`: bfloat16 where the hardware has it, else float16 on a
    GPU and float32 on a CPU."""
    seed: int = 0
    """The seed of the new head and of the order of the pairs."""
    num_workers: Count = 1
    """Ray Train workers."""
    num_gpus: float = Field(default=1, ge=0)
    """GPUs of a worker, where the cluster has GPUs. 0: CPUs."""

    def fingerprint_fields(self) -> dict[str, Any]:
        """As of any section; without a `positive_weight`, so that older fingerprints stay valid."""
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
    """Settings of the teachers' scoring."""

    RUNTIME_ONLY = frozenset({"tokens_per_batch", "num_gpus", "num_actors", "max_bad_fraction"})
    dtype: Dtype = "auto"
    """The type of the matrix work, as `finetune.dtype`."""
    max_length: int = Field(default=128, ge=8)
    """Wordpieces of a pair; longer pairs are cut."""
    tokens_per_batch: Count | None = None
    """Wordpieces of a batch. Default: 65,536 on a GPU, 4,096 on a core."""
    max_bad_fraction: float = Field(default=0.01, ge=0, le=1)
    """The share of pairs that may have no finite logit; with more the job stops."""
    num_gpus: float = Field(default=1, ge=0)
    """GPUs of an actor, where the cluster has GPUs; 0.5 puts two on one GPU. 0: CPUs."""
    num_actors: Count | None = None
    """Actors that score. Default: as many as the cluster's GPUs hold, else one a core."""
