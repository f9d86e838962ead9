import numpy as np
import pyarrow as pa
import pytest

from raydistill.files.pieces import PIECE_ROWS, PieceReader, shard_pieces
from raydistill.search.sample import InMemoryFolder, _shares


@pytest.mark.parametrize("num_pairs", [1, 1_000, 10**9])
def test_many_shards_give_the_same_share_each(num_pairs: int) -> None:
    shards = {f"part-{at:05d}.parquet": 100 + at for at in range(200)}
    found = _shares(shards, num_pairs=num_pairs, rng=np.random.default_rng(0))
    assert len(found) == min(num_pairs, 200)
    rows = sum(piece.num_rows for piece in found)
    assert sum(found.values()) == min(num_pairs, rows)
    share = sum(found.values()) / rows
    assert all(abs(num - share * piece.num_rows) <= 1 for piece, num in found.items() if num > 1)


def test_of_small_shards_as_many_pairs_are_drawn_as_asked_for() -> None:
    shards = {f"part-{at:05d}.parquet": 1_000 for at in range(200)}
    found = _shares(shards, num_pairs=150_000, rng=np.random.default_rng(0))
    assert sum(found.values()) == 150_000 and len(found) == 200


def test_of_large_shards_pieces_are_drawn() -> None:
    """64 x 65,536 rows are read at most, not 64 shards of a million."""
    shards = {f"part-{at:05d}.parquet": 1_048_576 for at in range(10)}
    found = _shares(shards, num_pairs=6_400, rng=np.random.default_rng(0))
    assert len(found) == len({str(piece) for piece in found}) == 64
    assert sum(piece.num_rows for piece in found) == 4_194_304
    assert set(found.values()) == {100}


def test_tables_in_memory_are_read_by_pieces_too() -> None:
    rows = np.arange(PIECE_ROWS + 5)
    folders = [
        InMemoryFolder({"a": pa.table({"n": rows + more, "m": rows})}) for more in (0, 10**6)
    ]
    reader, (_, last) = PieceReader(), shard_pieces("a", len(rows))
    for folder, first in zip(folders, (PIECE_ROWS, 10**6 + PIECE_ROWS), strict=True):
        table = reader.read(folder, last, columns=["n"])
        assert table.to_pydict() == {"n": list(range(first, first + 5))}
        assert folder.read_rows("a", PIECE_ROWS, 10**9, columns=["n"]).equals(table)
