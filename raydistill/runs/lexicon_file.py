"""Read and write a run's lexicon file; the run's n-gram settings as a spec."""

from __future__ import annotations

import io

import numpy as np

from raydistill.runs.run_folder import Run
from raydistill.serving.feature_spec import NgramSpec
from raydistill.serving.lexicon import Lexicon

_FILE = "lexicon.npz"


def spec_of(run: Run) -> NgramSpec:
    """The settings that map a run's texts to ids."""
    settings = run.config.ngrams
    return NgramSpec(
        settings.preset,
        settings.hash_bits,
        char_ngrams=settings.char_ngrams,
        word_dim=settings.num_columns if run.word_encoder else 0,
        vocabulary_rows=settings.vocabulary_rows or 0,
        units=settings.normalizes_units,
        extra_units=settings.unit_names,
    )


def load_lexicon(run: Run) -> Lexicon:
    """The lexicon that `train` uses; vectors in memory equal those of the file exactly."""
    with np.load(io.BytesIO(run.lexicon.read_bytes(_FILE))) as arrays:
        return Lexicon.from_arrays(arrays)


def has_lexicon(run: Run) -> bool:
    """Whether the run's lexicon file exists."""
    return run.lexicon.exists(_FILE)


def save_lexicon(run: Run, lexicon: Lexicon) -> None:
    """Write the run's lexicon file."""
    buffer = io.BytesIO()
    np.savez(buffer, **lexicon.to_arrays())  # type: ignore[arg-type]
    run.lexicon.write_bytes(_FILE, buffer.getvalue())
