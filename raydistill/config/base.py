"""The base class of the tables of the run file: frozen, validated fields."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

Share = Annotated[float, Field(gt=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
# The keys of `evaluation.metrics.catalogue`.
MetricKey = Literal[
    "auc", "pr_auc", "accuracy", "log_loss", "ece", "spearman", "ndcg_5", "ndcg_10", "mrr_10",
    "precision_1", "precision_5", "query_auc", "pairwise",
]  # fmt: skip
# Those that compare the pairs of one query.
OF_QUERIES = frozenset(
    {"ndcg_5", "ndcg_10", "mrr_10", "precision_1", "precision_5", "query_auc", "pairwise"}
)


class ConfigSection(BaseModel):
    """One table of the run file.

    RUNTIME_ONLY: names of the fields that are not in `fingerprint_fields`, as they change speed and
    no result. FINGERPRINTED_ELSEWHERE: those of them that change results and are in another part of
    a fingerprint. `reference.py` copies the docstring under a field to docs/configuration.md.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    RUNTIME_ONLY: ClassVar[frozenset[str]] = frozenset()
    FINGERPRINTED_ELSEWHERE: ClassVar[frozenset[str]] = frozenset()

    def fingerprint_fields(self) -> dict[str, Any]:
        """The settings that change the output: the input of a fingerprint."""
        return self.model_dump(mode="json", exclude=set(self.RUNTIME_ONLY))
