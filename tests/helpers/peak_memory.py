"""Growth of peak memory in bytes: python -m tests.helpers.peak_memory STEP FOLDER.

The step runs on the shard `small` of the folder as a warm-up, then on the shard `large`.
"""

import resource
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from raydistill.files.folder import Folder
from raydistill.files.model_files import pin_model
from raydistill.files.pieces import PIECE_ROWS
from raydistill.serving.feature_spec import NgramSpec
from raydistill.serving.lexicon import Lexicon
from raydistill.student.batches import Loader, plan_windows, scale_features
from raydistill.student.lexicon.builder import count_idf
from raydistill.teachers.scoring_steps import read_tokens
from raydistill.teachers.soft_labels import Targets

Shards = dict[str, int]
DIM = 64  # word vectors: 42 + 2 x 64 = 170 dense features


def train(folder: Folder, shards: Shards) -> None:
    """The work of the driver and of a worker before and in an epoch of two or more windows."""
    words = np.arange(1_000, dtype=np.uint64) << np.uint64(50)
    vectors = np.random.default_rng(0).normal(size=(1_000, DIM)).astype(np.float32)
    count_idf(folder / "pairs", shards, units=True)
    lexicon = Lexicon.from_idf(np.ones(1, np.float32), words_K=words, vectors_KE=vectors)
    targets = Targets((folder / "logits",), (1.0,))
    spec = NgramSpec("match", 18, word_dim=DIM, units=True)
    loader = Loader(folder / "pairs", targets, spec=spec, lexicon=lexicon)
    scale_features(loader, shards)
    windows = plan_windows(shards, seed=0, epoch=0, window_rows=2 * PIECE_ROWS)
    batches = loader.batches(windows, part=0, num_parts=1, batch_rows=4_096, seed=0)
    num_pairs = sum(len(batch.targets_B) for batch in batches)
    if num_pairs != sum(shards.values()):
        raise ValueError(f"{num_pairs} pairs of {shards}")


def label(folder: Folder, shards: Shards) -> None:
    """The step before a teacher, on each shard."""
    model = pin_model(str(folder / "model"))
    for name in shards:
        item = {"folder": str(folder / "pairs"), "name": name}
        read_tokens(item, b"", model=model, max_length=64)


def _peak_bytes() -> int:
    unit = 1 if sys.platform == "darwin" else 1_024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def main(step: Callable[[Folder, Shards], None], folder: Folder) -> None:
    """Print the growth of the peak from shard `small` to shard `large`, in bytes."""
    done = folder.read_json("shards.json") or {}
    step(folder, {"small.parquet": done["small.parquet"]})
    before_bytes = _peak_bytes()
    step(folder, {"large.parquet": done["large.parquet"]})
    sys.stdout.write(f"{_peak_bytes() - before_bytes}\n")


if __name__ == "__main__":
    main({"train": train, "label": label}[sys.argv[1]], Folder(str(Path(sys.argv[2]))))
