"""The lexicon of a run, as a file; and how the texts of the run become ids."""

from __future__ import annotations

import io

import numpy as np

from raydistill.runs.run_folder import Run
from raydistill.serving.feature_spec import NgramSpec
from raydistill.serving.lexicon import Lexicon


def spec_of(run: Run) -> NgramSpec:
    """How texts become ids in this run."""
    settings = run.config.ngrams
    return NgramSpec(
        settings.preset,
        settings.hash_bits,
        char_ngrams=settings.char_ngrams,
        word_dim=settings.num_columns,
        vocabulary_rows=settings.vocabulary_rows or 0,
        units=settings.normalizes_units,
        extra_units=settings.unit_names,
    )


_FILE = "lexicon.npz"


def load_lexicon(run: Run) -> Lexicon:
    """What `train` knew of words; in memory the vectors are those of the file exactly."""
    with np.load(io.BytesIO(run.lexicon.read_bytes(_FILE))) as arrays:
        return Lexicon.from_arrays(arrays)


def has_lexicon(run: Run) -> bool:
    """Whether the lexicon of the run is there."""
    return run.lexicon.exists(_FILE)


def save_lexicon(run: Run, lexicon: Lexicon) -> None:
    """Write the lexicon of the run."""
    buffer = io.BytesIO()
    np.savez(buffer, **lexicon.to_arrays())  # type: ignore[arg-type]
    run.lexicon.write_bytes(_FILE, buffer.getvalue())
