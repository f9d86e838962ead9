"""Ways to damage the files of a run folder, as disks, copies and people do."""

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


def flip(file: Path) -> None:
    """Change one bit in the middle."""
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 4
    file.write_bytes(bytes(content))


def append_rows(file: Path) -> None:
    table = pq.read_table(file)
    pq.write_table(pa.concat_tables([table, table.slice(0, 3)]), file)


def swap(one: Path, other: Path) -> None:
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)


def to_folder(file: Path) -> None:
    """Put a folder with somebody's file in place of a file."""
    file.unlink()
    file.mkdir()
    (file / "mine.txt").write_text("mine")


def empty(file: Path) -> None:
    file.write_bytes(b"")


def edit(file: Path, **fields: object) -> None:
    """Change fields of a JSON file."""
    file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))


def copy(source: Path, target: Path) -> None:
    shutil.copyfile(source, target)


def files_of(folder: Path) -> dict[str, bytes]:
    """The content of all files, by their paths below the folder."""
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}
