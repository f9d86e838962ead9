"""Peak memory does not depend on the rows of a shard: one of 655,360 pairs, read in pieces."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from raydistill.files.folder import Folder
from raydistill.files.pieces import PIECE_ROWS
from raydistill.files.schema import LOGITS, PAIRS
from tests.helpers.models import make_bert
from tests.helpers.words import WORDS

ROOT = Path(__file__).parents[1]
SHARDS = {"small.parquet": 1_000, "large.parquet": 10 * PIECE_ROWS}
MB = 1_000_000


def texts(rng: np.random.Generator, *, num: int, num_words: int) -> pa.Array:
    return pa.array([" ".join(rng.choice(WORDS, num_words)) for _ in range(num)])


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pairs of few distinct texts, so that they are made fast, and their logits."""
    path = tmp_path_factory.mktemp("large")
    folder, rng = Folder(str(path)), np.random.default_rng(0)
    queries, titles = texts(rng, num=500, num_words=3), texts(rng, num=4_000, num_words=12)
    for name, rows in SHARDS.items():
        ids = pa.array(np.arange(rows))
        columns = [
            ids,
            queries.take(pa.array(np.sort(rng.integers(500, size=rows)))),
            titles.take(pa.array(rng.integers(4_000, size=rows))),
            pa.array(np.ones(rows, np.float32)),
        ]
        (folder / "pairs").write_table(name, pa.table(columns, schema=PAIRS))
        logits = pa.table([ids, pa.array(np.zeros(rows, np.float32))], schema=LOGITS)
        (folder / "logits").write_table(name, logits)
    folder.write_json("shards.json", SHARDS)
    make_bert(path / "model", num_labels=1)
    return path


# train: of a pair 680 bytes of dense features, some 50 ids of 4, 28 of offsets, target and place:
# 0.9 kB. Two windows of 131,072 pairs and two pieces: 393,216 pairs, 354 MB; the texts and what
# Arrow and malloc hold back, 150 MB. Before there were pieces it took 2,438 MB.
# label: the block takes 19 wordpieces x 3 + 20 = 77 bytes a pair, 50 MB, and there are four of it
# while it is written; a piece at work takes 50 MB: strings, ranges of int64. Before, 614 MB.
@pytest.mark.slow
@pytest.mark.timeout(300)  # 15 s each on a machine at rest
@pytest.mark.parametrize(("step", "most_bytes"), [("train", 504 * MB), ("label", 300 * MB)])
def test_the_peak_goes_by_pieces(store: Path, step: str, most_bytes: int) -> None:
    command = [sys.executable, "-m", "tests.helpers.peak_memory", step, str(store)]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert int(found.stdout) < most_bytes
