"""Models that several stages start from."""

from pathlib import Path

import pytest


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
