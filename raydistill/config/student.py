"""The tables `[soft_labels]`, `[ngrams]`, `[student]` and `[train]` of the run file."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from raydistill.config.base import ConfigSection, Count, MetricKey, Positive
from raydistill.serving.units.names import Names, checked_units

Target = Literal["logit", "probability"]
TableType = Literal["auto", "float32", "float16", "int8"]


class SoftLabelsConfig(ConfigSection):
    """The soft label: sigmoid((sum_m w_m z_m + bias) / temperature)."""

    temperature: Positive = 1.0
    """What the margin is divided by. Above 1 soft labels move toward 0.5. With
    `train.target = "logit"` it only rescales the target."""
    weights: dict[str, Annotated[float, Field(ge=0)]] | Literal["fitted"] | None = None
    """The weight of each teacher, divided by their sum; or `"fitted"`, on the judged dev split.
    Default: fitted where there are several teachers; equal, and without the trees, where those
    judged pairs allow no fit."""
    bias: float | None = None
    """The constant of the margin. Default: fitted with the weights; 0 where weights are given."""


class NgramsConfig(ConfigSection):
    """Settings of the n-gram ids and the match features."""

    RUNTIME_ONLY = frozenset({"num_words", "word_encoder"})
    FINGERPRINTED_ELSEWHERE = RUNTIME_ONLY  # parts of the lexicon's fingerprint

    preset: Literal["match", "bert2dnn"] = "match"
    """The features and defaults of the student: `"match"` has match features, `"bert2dnn"` is the
    paper's student."""
    hash_bits: int = Field(default=18, ge=8, le=26)
    """Bits of an n-gram id: 18 bits are 2^18 = 262,144 rows of the embedding table."""
    vocabulary_rows: Count | None = None
    """Rows of the embedding table, for the most frequent n-grams only. Default: `hash_bits`
    decides."""
    units: bool = True
    """Whether sizes and units are read in one spelling. Preset `match` only."""
    extra_units: dict[str, str] = Field(default_factory=dict)
    """Units besides the built-in ones: a short name and its other names, such as
    `carat = "ct cts"`. The query key and the bundle use them too."""
    char_ngrams: Literal[0, 2, 3, 4, 5, 6] = 0
    """Characters of a character n-gram. 0: no character n-grams."""
    word_dim: int = Field(default=64, ge=0, le=1_024)
    """Columns of the word vectors. 0: no word vectors. Preset `match` only."""
    num_words: Count = 65_536
    """The number of most frequent words that have a vector."""
    word_encoder: str | None = None
    """The encoder of the word vectors, named as `teachers.NAME.base`. Default: that of the first
    teacher that has an encoder; no word vectors if none has."""

    @field_validator("extra_units")
    @classmethod
    def _are_words(cls, given: dict[str, str]) -> dict[str, str]:
        return dict(checked_units(given))

    @property
    def num_columns(self) -> int:
        """Columns of the word vectors; 0 with preset bert2dnn."""
        return self.word_dim if self.preset == "match" else 0

    @property
    def unit_names(self) -> Names:
        """The units besides the built-in ones."""
        return tuple(self.extra_units.items())

    @property
    def normalizes_units(self) -> bool:
        """Whether sizes and units are normalised; never with preset bert2dnn."""
        return self.units and self.preset == "match"


# Defaults of each preset. bert2dnn: as published. match: the best on real pairs (docs/results.md);
# its layers are as accurate there as those of bert2dnn, with a sixth of the work.
HIDDEN = {"match": (256, 64), "bert2dnn": (1024, 512, 128, 64)}
TARGET: dict[str, Target] = {"match": "logit", "bert2dnn": "probability"}
# Learning rate of the table's Adagrad; None: the network's rate, as published. Most rows occur a
# few times, and at 0.01 a step changes a row by a twelfth of its random initial value.
TABLE_RATE = {"match": 0.1, "bert2dnn": None}


class StudentConfig(ConfigSection):
    """Settings of the student's network."""

    embedding_dim: Count = 64
    """Columns of the embedding table."""
    hidden: tuple[Count, ...] | None = None
    """Sizes of the hidden layers. Default: the preset's."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """The share of hidden units that a training step sets to 0."""


class TrainConfig(ConfigSection):
    """Settings of the student's fit; `batch_rows` is the batch of all workers together."""

    RUNTIME_ONLY = frozenset(
        {"num_workers", "num_gpus", "checkpoint_every_windows", "keep_checkpoints"}
    )
    epochs: Count = 3
    """Passes over the transfer set."""
    judged_epochs: Count = 10
    """Passes of the baseline on judged labels only over the judged train split."""
    evaluate_every_pairs: Count | None = None
    """Pairs between two evaluations on dev. Default: at each epoch's end only, which is always
    evaluated. The weights with the best `metric` are kept."""
    metric: MetricKey | None = None
    """The metric on dev that chooses the weights to keep. Default: `"auc"`. Without judged dev
    pairs it compares with the teachers' soft labels; the default is then `"spearman"`."""
    patience: Count | None = None
    """Evaluations without a better `metric` after which training stops. Default: it does not
    stop."""
    average_from: Annotated[float, Field(ge=0, lt=1)] | None = None
    """The share of the training from which on the mean of the weights at all evaluations is
    evaluated too, and kept if it is best. Default: no mean."""
    batch_rows: Count = 128
    """Pairs of a step, of all workers together."""
    learning_rate: Positive = 0.01
    """The learning rate of the network's Adagrad."""
    table_learning_rate: Positive | None = None
    """The learning rate of the embedding table's Adagrad. Default: the preset's."""
    warmup_share: float = Field(default=0.0, ge=0, lt=1)
    """The share of the training in which the learning rates rise from 0."""
    target: Target | None = None
    """What the student learns: the soft label (`"probability"`, sigmoid cross-entropy) or its logit
    (`"logit"`, half the squared distance). Judged labels are always learned as probabilities.
    Default: the preset's."""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """The learning rates after the warm-up; `"linear"` and `"cosine"` end at 0."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """The type of the matrix work; the weights are float32. `"auto"`: bfloat16 where the hardware
    multiplies in it."""
    window_rows: Count = 524_288
    """Pairs that are shuffled together, in pieces of 65,536 and at least one piece. Two windows are
    in memory: 2 x 524,288 pairs x 0.85 kB = 0.9 GB with preset `match`."""
    checkpoint_every_windows: Count = 8
    """Windows between two checkpoints, counted over all epochs."""
    keep_checkpoints: Count = 2
    """Checkpoints that are kept."""
    seed: int = 0
    """The seed of the weights, the order of the pairs and dropout."""
    num_workers: Count | tuple[Count, Count] = 1
    """Ray Train workers. `[1, 4]`: as many as the cluster holds, from 1 to 4; the fit goes on
    without machines that are lost and takes new ones. Each batch has as many parts as the most
    workers, and the student does not depend on how many of them there are at any moment."""
    num_gpus: float = Field(default=0, ge=0)
    """GPUs of a worker, where the cluster has GPUs. 0: CPUs."""

    def fingerprint_fields(self) -> dict[str, Any]:
        """As of any section; without a `metric`, so that older fingerprints stay valid."""
        fields = super().fingerprint_fields()
        return {k: v for k, v in fields.items() if k != "metric" or v is not None}

    @field_validator("num_workers", mode="before")
    @classmethod
    def _number_or_range(cls, given: object) -> object:
        values = list(given) if isinstance(given, (list, tuple)) and len(given) == 2 else [given]
        counts = [value for value in values if type(value) is int and value >= 1]
        if len(counts) < len(values) or counts != sorted(counts):
            raise ValueError("give a whole number of at least 1, or two: [least, most]")
        return given

    @property
    def most_workers(self) -> int:
        """The largest number of workers, which is the number of parts of a batch."""
        return self.num_workers if isinstance(self.num_workers, int) else self.num_workers[1]

    def table_rate(self, preset: str) -> float:
        """Learning rate of the embedding table."""
        return self.table_learning_rate or TABLE_RATE[preset] or self.learning_rate


# The tables that tune can search: their settings change neither the pairs nor the logits.
SEARCHED: dict[str, type[ConfigSection]] = {
    "soft_labels": SoftLabelsConfig,
    "ngrams": NgramsConfig,
    "student": StudentConfig,
    "train": TrainConfig,
}


class ExportConfig(ConfigSection):
    """How a student becomes a bundle."""

    table: TableType = "auto"
    """The type of the stored embedding table: int8 takes a quarter of float32, and the word vectors
    are int8 too, else float16. All but `"float32"` leave out the rows of n-grams that no training
    pair has. `"auto"`, here and below, takes the smallest that loses less than 0.001 of the AUC and
    of nDCG@10 on the judged dev split."""
    columns: Count | Literal["auto"] = "auto"
    """Columns of the stored table, if the student has more: those that change the first layer most.
    `"auto"` tries a quarter and a half; with `table = "float32"` all stay."""
    layers: Literal["auto", "float32", "int8"] = "auto"
    """The type of the stored hidden layers. With int8 their inputs are rounded to 7 bits; with
    `table = "float32"`, `"auto"` is float32."""
