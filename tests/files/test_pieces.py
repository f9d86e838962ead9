import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raydistill.files.folder import Folder
from raydistill.files.pieces import (
    PIECE_ROWS,
    ParquetRows,
    Piece,
    PieceReader,
    pieces_of,
    read_pieces,
    sample_pieces,
    shard_pieces,
)

ROWS = 2 * PIECE_ROWS + 10


@pytest.fixture(params=["local", pytest.param("s3", marks=pytest.mark.server)])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Folder:
    """A shard of three pieces."""
    place = Folder(str(tmp_path / "run"))
    if request.param == "s3":
        place = Folder(request.getfixturevalue("s3")) / f"pieces-{tmp_path.name}"
    place.write_table("part-00000.parquet", numbers(ROWS))
    return place


def numbers(num_rows: int) -> pa.Table:
    values = np.random.default_rng(0).integers(1 << 60, size=num_rows)
    return pa.table({"n": np.arange(num_rows), "value": values})


def test_a_shard_is_cut_every_65_536_rows() -> None:
    assert [(p.start, p.stop) for p in shard_pieces("a", ROWS)] == [
        (0, 65_536), (65_536, 131_072), (131_072, 131_082),
    ]  # fmt: skip
    assert [str(p) for p in pieces_of({"b": 65_537, "a": 65_536})] == [
        "a", "b[0:65536]", "b[65536:65537]",
    ]  # fmt: skip
    assert [p.is_whole for p in shard_pieces("empty", 0)] == [True]


def test_pieces_are_row_groups_and_read_as_they_were_written(folder: Folder) -> None:
    file = folder.open_table("part-00000.parquet")
    sizes = [file.metadata.row_group(at).num_rows for at in range(file.num_row_groups)]
    assert sizes == [65_536, 65_536, 10]
    pieces = pieces_of({"part-00000.parquet": ROWS})
    assert pa.concat_tables(read_pieces(folder, pieces)).equals(numbers(ROWS))
    (last,) = read_pieces(folder, pieces[2:], columns=["n"])
    assert last["n"].to_pylist() == list(range(131_072, 131_082))
    across = folder.read_rows("part-00000.parquet", 65_530, 65_540, columns=["n"])
    assert across["n"].to_pylist() == list(range(65_530, 65_540))
    beyond = folder.read_rows("part-00000.parquet", 131_080, 10**9, columns=["n"])
    assert beyond["n"].to_pylist() == [131_080, 131_081]


@pytest.mark.slow
def test_row_groups_of_other_sizes_are_read_too(tmp_path: Path) -> None:
    """Whatever wrote the shard."""
    for size in (1_000, 1_000_000):
        pq.write_table(numbers(ROWS), tmp_path / "a.parquet", row_group_size=size)
        tables = read_pieces(Folder(str(tmp_path)), pieces_of({"a.parquet": ROWS}))
        assert pa.concat_tables(tables).equals(numbers(ROWS))
    pq.write_table(numbers(0), tmp_path / "a.parquet")
    (table,) = read_pieces(Folder(str(tmp_path)), pieces_of({"a.parquet": 0}))
    assert table.equals(numbers(0))


class Counting(io.BytesIO):
    """A file that counts the bytes that are read."""

    num_bytes = 0

    def read(self, size: int | None = -1) -> bytes:
        found = super().read(size)
        self.num_bytes += len(found)
        return found


def test_a_piece_is_read_without_the_others() -> None:
    sink = io.BytesIO()
    pq.write_table(numbers(16 * PIECE_ROWS), sink, row_group_size=PIECE_ROWS)
    file = Counting(sink.getvalue())
    ParquetRows(pq.ParquetFile(file, pre_buffer=True)).read(PIECE_ROWS, 2 * PIECE_ROWS)
    assert file.num_bytes < len(sink.getvalue()) / 8


def test_a_shard_of_several_pieces_is_opened_once(tmp_path: Path) -> None:
    folder, reader = Folder(str(tmp_path)), PieceReader()
    folder.write_table("a.parquet", numbers(ROWS))
    first, second, _ = pieces_of({"a.parquet": ROWS})
    reader.read(folder, first, columns=["n"])
    (tmp_path / "a.parquet").unlink()  # who has it open can read on
    assert reader.read(folder, second, columns=["n"])["n"][0].as_py() == 65_536


def test_a_shard_of_other_rows_is_refused(folder: Folder) -> None:
    piece = Piece("part-00000.parquet", 0, 65_536, ROWS + 1)
    with pytest.raises(ValueError, match=r"has 131082 rows, 131083 planned"):
        PieceReader().read(folder, piece, columns=["n"])


def test_of_shards_of_one_piece_the_first_sixteen_are_the_sample() -> None:
    shards = {f"part-{at:05d}": 65_536 - at for at in reversed(range(40))}
    assert [str(piece) for piece in sample_pieces(shards)] == sorted(shards)[:16]
    small = {f"part-{at:05d}": 1_000 for at in range(3_000)}  # a sample is of rows, not of shards
    assert [piece.shard for piece in sample_pieces(small)] == sorted(small)[:1_048]
    few = {name: shards[name] for name in sorted(shards)[:3]}
    assert [str(piece) for piece in sample_pieces(few)] == sorted(few)


@pytest.mark.parametrize("num_shards", [1, 3, 16, 40])
def test_of_large_shards_the_sample_is_as_large_and_not_their_beginning(num_shards: int) -> None:
    shards = {f"part-{at:05d}": 40 * PIECE_ROWS for at in range(num_shards)}
    sample = sample_pieces(shards)
    assert sample == sample_pieces(dict(reversed(shards.items())))
    assert len(set(sample)) == 16
    assert sum(piece.num_rows for piece in sample) == 1_048_576
    assert len({piece.shard for piece in sample}) == min(num_shards, 16)
    starts = [piece.start / piece.shard_rows for piece in sample]
    assert min(starts) < 0.25 and max(starts) > 0.75
