import numpy as np
import pytest

from raydistill.samples import _MOST_PIECES, _shares


@pytest.mark.parametrize("num_pairs", [1, 1_000, 10**9])
def test_many_shards_give_the_same_share_each(num_pairs: int) -> None:
    shards = {f"part-{at:05d}.parquet": 100 + at for at in range(200)}
    found = _shares(shards, num_pairs=num_pairs, rng=np.random.default_rng(0))
    assert len(found) == min(num_pairs, _MOST_PIECES)
    rows = sum(piece.num_rows for piece in found)
    assert sum(found.values()) == min(num_pairs, rows)
    share = sum(found.values()) / rows
    assert all(abs(num - share * piece.num_rows) <= 1 for piece, num in found.items() if num > 1)
