"""The tables `[soft_labels]`, `[ngrams]`, `[student]` and `[train]` of the run file."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from raydistill.config.base import ConfigSection, Count, Positive
from raydistill.serving.text.unit_names import Names, checked_units

Target = Literal["logit", "probability"]


class SoftLabelsConfig(ConfigSection):
    """The soft label: sigmoid((sum_m w_m z_m + bias) / temperature)."""

    temperature: Positive = 1.0
    # "fitted": on the judged dev split (stacking.py). None: fitted too where there are several
    # teachers; equal, and without the trees, where those judged pairs allow no fit.
    weights: dict[str, Annotated[float, Field(ge=0)]] | Literal["fitted"] | None = None
    bias: float | None = None  # None: fitted with the weights, 0 with given ones


class NgramsConfig(ConfigSection):
    """Text to n-gram ids and match features."""

    RUNTIME_ONLY = frozenset({"num_words", "word_encoder"})  # parts of the lexicon's fingerprint

    preset: Literal["match", "bert2dnn"] = "match"
    hash_bits: int = Field(default=18, ge=8, le=26)  # 2^18 = 262,144 rows of the embedding table
    vocabulary_rows: Count | None = None  # in place of them: the most frequent n-grams alone
    units: bool = True  # match: sizes and units in one spelling
    # Their short names, and what else they are called behind a number: { carat = "ct cts" }. They
    # are read so by the query key too, and by whatever scores with the bundle.
    extra_units: dict[str, str] = Field(default_factory=dict)
    char_ngrams: Literal[0, 2, 3, 4, 5, 6] = 0  # letters of character n-grams; 0: none
    word_dim: int = Field(default=64, ge=0, le=1_024)  # of the word vectors of `match`; 0: none
    num_words: Count = 65_536  # the most frequent ones have vectors
    word_encoder: str | None = None  # as teachers.X.base; None: the first teacher's encoder

    @field_validator("extra_units")
    @classmethod
    def _are_words(cls, given: dict[str, str]) -> dict[str, str]:
        return dict(checked_units(given))

    @property
    def num_columns(self) -> int:
        """Columns of the word vectors; bert2dnn has none."""
        return self.word_dim if self.preset == "match" else 0

    @property
    def unit_names(self) -> Names:
        """The units besides the built-in ones."""
        return tuple(self.extra_units.items())

    @property
    def normalizes_units(self) -> bool:
        """Whether sizes are read in one spelling; bert2dnn reads texts as they are."""
        return self.units and self.preset == "match"


# What a preset takes where the file is silent. bert2dnn: as published. match: what won on real
# pairs; its layers are as good as those of bert2dnn there, with a sixth of the work.
HIDDEN = {"match": (256, 64), "bert2dnn": (1024, 512, 128, 64)}
TARGET: dict[str, Target] = {"match": "logit", "bert2dnn": "probability"}
# Of the table's Adagrad; None: the rate of the network, as published. Most rows come a few times,
# and at 0.01 each step moves a row by a twelfth of the noise that it began with.
TABLE_RATE = {"match": 0.1, "bert2dnn": None}


class StudentConfig(ConfigSection):
    """The network."""

    embedding_dim: Count = 64
    hidden: tuple[Count, ...] | None = None  # None: as the preset wants it
    dropout: float = Field(default=0.0, ge=0, lt=1)


class TrainConfig(ConfigSection):
    """How the student is fitted; `batch_rows` is the batch of all workers together."""

    RUNTIME_ONLY = frozenset(
        {"num_workers", "num_gpus", "checkpoint_every_windows", "keep_checkpoints"}
    )
    epochs: Count = 3
    judged_epochs: Count = 10  # of the baseline on judged labels only
    evaluate_every_pairs: Count | None = None  # on dev, also at each epoch's end; the best is kept
    patience: Count | None = None  # stop after so many evaluations without a better AUC
    average_from: Annotated[float, Field(ge=0, lt=1)] | None = None  # share of the training from
    # which on the mean of the weights at all evaluations competes for the best
    batch_rows: Count = 128
    learning_rate: Positive = 0.01  # of Adagrad
    table_learning_rate: Positive | None = None  # None: as the preset wants it
    warmup_share: float = Field(default=0.0, ge=0, lt=1)  # of the training; the rate rises from 0
    # What the student learns: the soft label (sigmoid cross-entropy) or its logit (half the squared
    # distance); judged labels are probabilities. None: logit with preset `match`, the paper's
    # probability with `bert2dnn`.
    target: Target | None = None
    schedule: Literal["constant", "linear", "cosine"] = "constant"  # after it; the others end at 0
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"  # of the matrix work; weights: float32
    # Rows that are shuffled together, in pieces of 65,536 (pieces.py), at least one piece. Two
    # windows are in memory: 2 x 524,288 pairs x 0.85 kB = 0.9 GB with preset match.
    window_rows: Count = 524_288
    checkpoint_every_windows: Count = 8  # counted over all epochs
    keep_checkpoints: Count = 2
    seed: int = 0
    num_workers: Count = 1
    num_gpus: float = Field(default=0, ge=0)

    def table_rate(self, preset: str) -> float:
        """Learning rate of the embedding table."""
        return self.table_learning_rate or TABLE_RATE[preset] or self.learning_rate


# What a trial of tune can change: settings that ask for no other pairs and no other logits.
SEARCHED: dict[str, type[ConfigSection]] = {
    "soft_labels": SoftLabelsConfig,
    "ngrams": NgramsConfig,
    "student": StudentConfig,
    "train": TrainConfig,
}
