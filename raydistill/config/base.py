"""The base of every table of the run file: frozen, validated fields; some only change speed."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

Share = Annotated[float, Field(gt=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]


class ConfigSection(BaseModel):
    """One table of the run file.

    RUNTIME_ONLY names the fields that are not part of `fingerprint_fields`: they change speed and
    no result. FINGERPRINTED_ELSEWHERE names those of them that do change results, through another
    part of a fingerprint. The docstring under a field is its meaning in docs/configuration.md
    (`reference.py` reads it).
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    RUNTIME_ONLY: ClassVar[frozenset[str]] = frozenset()
    FINGERPRINTED_ELSEWHERE: ClassVar[frozenset[str]] = frozenset()

    def fingerprint_fields(self) -> dict[str, Any]:
        """The settings that change the output, from which a fingerprint is made."""
        return self.model_dump(mode="json", exclude=set(self.RUNTIME_ONLY))
