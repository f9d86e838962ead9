"""The tables `[teachers.<name>]`, `[trees]`, `[finetune]` and `[label]` of the run file."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from raydistill.config.base import ConfigSection, Count, Positive
from raydistill.config.data import Columns, Inputs, Scale, check_labels
from raydistill.config.prompt import Prompt, Question

TREES = "trees"  # the name of the teacher of boosted trees
# The version of the code that computes a logit from a pair: tokens, batches, the packed encoder,
# the features of the trees. Raise it with each change that can change a logit of any teacher:
# existing logits are then computed again.
ENGINE = 2
# The logit of a cosine where no judged pairs say: COSINE_SCALE x cosine + COSINE_BIAS.
COSINE_SCALE, COSINE_BIAS = 10.0, -5.0
Dtype = Literal["auto", "float32", "bfloat16", "float16"]


# The fields of which a teacher has exactly one: its kind.
KINDS = {
    "base": "an encoder to fine-tune",
    "model": "a ready-made cross-encoder",
    "causal": "a generative reranker",
    "bi_encoder": "a sentence encoder, whose cosine is the teacher",
    "scores": "files with a score a pair",
}
ENCODERS = {"base", "model", "bi_encoder"}  # the kinds whose model has word vectors
PARTIAL = {"scores"}  # the kinds that have a logit of some pairs only
OF_SCORES = ("query", "title", "score", "kind", "scale")  # fields of a teacher of scores alone


class TeacherConfig(ConfigSection):
    """One teacher, of the kind that the only given field of `KINDS` names."""

    base: str | None = None
    """An encoder to fine-tune on the judged pairs: a folder, an installed package's folder, `s3://`,
    or a hub name, also `owner/name@<commit>`."""
    model: str | None = None
    """A ready-made cross-encoder with one or two outputs, or with classes (`gains`), named as
    `base`."""
    causal: str | None = None
    """A generative reranker, named as `base`: a causal language model that answers yes or no."""
    bi_encoder: str | None = None
    """A sentence encoder, named as `base`. The teacher is the cosine of the embeddings of query and
    title, with a scale and a bias."""
    scores: Inputs | None = None
    """Files with a score a pair, as `pairs.input`. A pair that is in no file has no logit."""
    score: str | None = None
    """The column of the score in the files of `scores`. Default: `score`."""
    kind: Literal["logit", "probability", "grade"] | None = None
    """What a score is: a logit, a probability in 0..1, or a grade on `scale`. Probabilities and
    grades become logits between -6.9 and 6.9 (0.001 and 0.999). Default: a probability."""
    scale: Scale | None = None
    """The grades that stand for 0 and for 1, such as `[0, 3]`."""
    gains: dict[str, float] | Literal["esci"] | None = None
    """The gain in 0..1 of each class: the teacher is the expected gain. Of `model` by the names in
    its `id2label`; `"esci"`: the published gains of Exact, Substitute, Complement, Irrelevant. Of
    `scores` by the columns with the probabilities of the classes, in place of `score`."""
    query: str | None = None
    """The column of the query in the files of `scores`. Default: that of `[pairs]`."""
    title: Columns | None = None
    """The column of the title in the files of `scores`, or a list of columns. Default: as
    `[pairs]`."""
    prompt: str | None = None
    """The prompt of a decoder, with `{query}` and `{title}`; of `causal` also with `{instruction}`.
    Default: the chat template of its folder."""
    instruction: str | None = Field(default=None, min_length=1)
    """What `causal` is asked to judge. Default: as its folder says."""
    yes: str | None = Field(default=None, min_length=1)
    """The token with which `causal` answers yes, given with `no`. Default: that of its folder, else
    `yes`."""
    no: str | None = None
    """The token with which `causal` answers no, given with `yes`; `""`: the logit of `yes` alone is
    the score. Default: that of its folder, else `no`."""
    learns_from: str | None = None
    """The name of another teacher: this `base` is fine-tuned on that teacher's logits of the
    transfer set, where it has them, in place of the judged pairs."""
    trust_remote_code: bool = False
    """Whether Python files in the model's folder may be run."""

    @model_validator(mode="after")
    def _one_source(self) -> TeacherConfig:
        given = [f"`{name}`" for name in KINDS if getattr(self, name) is not None]
        if len(given) != 1:
            kinds = ", ".join(f"`{name}` ({what})" for name, what in KINDS.items())
            what = " and ".join(given) or "none of them"
            raise ValueError(f"give exactly one of {kinds}, not {what}")
        return self

    @model_validator(mode="after")
    def _scores_fit(self) -> TeacherConfig:
        if self.scores is None:
            given = [name for name in OF_SCORES if getattr(self, name) is not None]
            if given:
                raise ValueError(f"`{given[0]}` is for a teacher of `scores`")
            return self
        if self.gains and {self.score, self.kind, self.scale} != {None}:
            raise ValueError("give `score`, with its `kind`, or `gains` of class columns, not both")
        if (self.kind == "grade") != (self.scale is not None):
            raise ValueError('`kind = "grade"` needs a `scale`, such as [0, 3], and no other does')
        check_labels("scores", self.scale, None)
        for each in self.scores:
            if each.label or each.split or each.scale or each.grades or each.source:
                raise ValueError(f"{each.path}: an input of scores has path, query, title and csv")
        return self

    @model_validator(mode="after")
    def _gains_fit(self) -> TeacherConfig:
        given = self.gains
        if given is not None and self.model is None and self.scores is None:
            raise ValueError("`gains` are of the classes of a `model`, or of columns of `scores`")
        if given == "esci" and self.scores is not None:
            raise ValueError('`gains = "esci"` is for a `model`; name the columns of `scores`')
        if isinstance(given, dict):
            wrong = {name: gain for name, gain in given.items() if not 0 <= gain <= 1}
            if wrong:
                most = max(abs(gain) for gain in given.values())
                raise ValueError(
                    f"gains has {_shown(wrong)}: a gain is in 0..1; divide all of them by the "
                    f"largest, {most:g}, and let the least be 0 or more"
                )
            if len(set(given.values())) < 2:
                raise ValueError(
                    f"gains = {{ {_shown(given)} }} has fewer than two different values, so that "
                    "all pairs would be alike: give the relevant classes a larger gain"
                )
        return self

    @property
    def named_gains(self) -> tuple[tuple[str, float], ...] | Literal["esci"] | None:
        """`gains` in a form that can be a key."""
        return tuple(self.gains.items()) if isinstance(self.gains, dict) else self.gains

    @property
    def teacher_kind(self) -> str:
        """The field of `KINDS` that is given."""
        return next(name for name in KINDS if getattr(self, name) is not None)

    @property
    def source(self) -> str | None:
        """The name of its model; None: it has none."""
        given = getattr(self, self.teacher_kind)
        return given if isinstance(given, str) else None

    @property
    def encoder(self) -> str | None:
        """The name of its model if that is an encoder, which has word vectors; else None."""
        return self.source if self.teacher_kind in ENCODERS else None

    @property
    def needs_judged(self) -> bool:
        """Whether it is fitted on judged pairs."""
        return self.base is not None

    def reading(self) -> list[object]:
        """How its model reads pairs, for a fingerprint; [] where nothing is given."""
        prompt: list[object] = [] if self.prompt is None else [self.prompt]
        left_out = {*KINDS, "prompt", "trust_remote_code"}
        others = self.model_dump(mode="json", exclude=left_out, exclude_defaults=True)
        return [*prompt, others] if others else prompt

    @model_validator(mode="after")
    def _only_a_base_learns(self) -> TeacherConfig:
        if self.learns_from is not None and self.base is None:
            raise ValueError(
                f"`learns_from` is for a `base`; a `{self.teacher_kind}` is not fine-tuned"
            )
        return self

    @model_validator(mode="after")
    def _prompt_is_whole(self) -> TeacherConfig:
        if self.prompt is not None:
            if self.model is None and self.causal is None:
                raise ValueError(
                    "`prompt` is for a ready-made `model` or `causal`; a `base` is fine-tuned "
                    "without, and a `bi_encoder` has the prompts of its folder"
                )
            Prompt.parse(self.prompt)
        return self

    @model_validator(mode="after")
    def _question_is_of_a_causal(self) -> TeacherConfig:
        given = [name for name in ("instruction", "yes", "no") if getattr(self, name) is not None]
        if given and self.causal is None:
            raise ValueError(f"`{given[0]}` is for a `causal` teacher")
        if (self.yes is None) != (self.no is None) and self.no != "":
            one, other = ("yes", "no") if self.no is None else ("no", "yes")
            raise ValueError(
                f"`{one}` is given without `{other}`: give both answers, as the model was trained "
                'to give them (`no = ""`: the logit of `yes` alone), or neither'
            )
        if self.causal is not None:
            Question(self.prompt, self.instruction).laid()
        return self


def _shown(gains: dict[str, float]) -> str:
    return ", ".join(f"{name} = {gain:g}" for name, gain in gains.items())


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
    max_pairs: Count = 200_000
    """Pairs at most of a teacher that learns from another one, drawn in turns over the queries."""
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
        """As of any section; without a `positive_weight`, so that older fingerprints stay valid.

        `max_pairs` concerns only teachers that learn from another one: `learned_fields` has it.
        """
        left_out = {"max_pairs", *(["positive_weight"] if self.positive_weight is None else [])}
        return {k: v for k, v in super().fingerprint_fields().items() if k not in left_out}

    def learned_fields(self) -> dict[str, Any]:
        """The settings that count for a teacher with `learns_from`."""
        unused = {"target", "positive_weight"}  # they are about human labels
        fields = {k: v for k, v in self.fingerprint_fields().items() if k not in unused}
        return {**fields, "max_pairs": self.max_pairs}

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
