"""All sections of a report, in their order; those without figures are absent."""

from __future__ import annotations

from collections.abc import Callable

from raydistill.evaluation.report.sections.blocks import Section
from raydistill.evaluation.report.sections.breakdown import cases_section, slices_section
from raydistill.evaluation.report.sections.numbers import Found
from raydistill.evaluation.report.sections.pictures import (
    curve_section,
    scores_section,
    speed_section,
    training_section,
)
from raydistill.evaluation.report.sections.process import (
    cost_section,
    coverage_section,
    data_section,
    search_section,
    stack_section,
    stages_section,
)
from raydistill.evaluation.report.sections.quality import (
    differences_section,
    other_labels_section,
    quality_section,
    retention_section,
)

_SECTIONS: tuple[Callable[[Found], Section | None], ...] = (
    retention_section,
    quality_section,
    differences_section,
    other_labels_section,
    slices_section,
    cases_section,
    scores_section,
    speed_section,
    curve_section,
    training_section,
    search_section,
    stack_section,
    coverage_section,
    stages_section,
    cost_section,
    data_section,
)


def sections(found: Found) -> list[Section]:
    """The sections that the figures are enough for."""
    made = (make(found) for make in _SECTIONS)
    return [section for section in made if section is not None]
