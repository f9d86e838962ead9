"""The page docs/configuration.md is up to date with the models of the run file."""

from pathlib import Path

import pytest

from raydistill.config.base import ConfigSection
from raydistill.config.reference import SECTIONS, configuration_markdown, meanings
from raydistill.config.run_config import RunConfig

PAGE = Path(__file__).parents[2] / "docs" / "configuration.md"
MODELS = [model for _, model, _ in SECTIONS]


def test_the_page_is_current() -> None:
    assert PAGE.read_text() == configuration_markdown(), (
        "run `python -m raydistill.config.reference > docs/configuration.md`"
    )


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_every_field_has_a_meaning(model: type[ConfigSection]) -> None:
    assert [name for name, text in meanings(model).items() if not text] == []


def _models(model: type[ConfigSection]) -> set[type[ConfigSection]]:
    """A model and all models in the types of its fields."""
    found = {model}
    for field in model.model_fields.values():
        kinds = [field.annotation]
        while kinds:
            kind = kinds.pop()
            kinds += getattr(kind, "__args__", ())
            if isinstance(kind, type) and issubclass(kind, ConfigSection):
                found |= _models(kind)
    return found


def test_every_table_of_the_run_file_is_on_the_page() -> None:
    assert _models(RunConfig) == set(MODELS)


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_what_changes_no_result_is_a_field(model: type[ConfigSection]) -> None:
    assert set(model.RUNTIME_ONLY) <= set(model.model_fields)
    assert model.FINGERPRINTED_ELSEWHERE <= model.RUNTIME_ONLY


def test_a_row_says_type_default_and_effect() -> None:
    page = configuration_markdown()
    assert "| `hash_bits` | whole number, at least 8, at most 26 | `18` |" in page
    num_actors, dedupe = (
        next(line for line in page.splitlines() if line.startswith(f"| `{name}`"))
        for name in ("num_actors", "dedupe")
    )
    assert num_actors.endswith("| no |") and dedupe.endswith("| yes |")
