"""Runs that several stages start from."""

from pathlib import Path

import pytest

from raydistill.runs.run_folder import Run
from tests.helpers.logits import write_logits
from tests.helpers.runs import run_config


@pytest.fixture
def labeled(raw_files: Path, tiny_bert: Path, prepared_dir: Path) -> Run:
    run = Run(run_config(prepared_dir, raw_files, tiny_bert))
    write_logits(run)
    return run


@pytest.fixture(scope="session")
def encoder(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny BERT without its head, as a sentence encoder is published."""
    from transformers import AutoModel, AutoTokenizer

    from raydistill.teachers.cross_encoder import quiet_transformers

    folder = tmp_path_factory.mktemp("models") / "encoder"
    quiet_transformers()
    AutoModel.from_pretrained(tiny_bert).save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_bert).save_pretrained(folder)
    return folder
