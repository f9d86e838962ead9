"""CSV and TSV to Arrow tables, block by block, in constant memory.

`csv_scan` finds the records, Arrow reads the plain ones, `csv_fields` the others. Every column is
binary: Arrow would infer types from the first block and fail on a later one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
from numpy.typing import NDArray

from raydistill.errors import UserError
from raydistill.files.inputs.csv_dialect import CsvOptions, Dialect, settle
from raydistill.files.inputs.csv_fields import read_record
from raydistill.files.inputs.csv_scan import NOTHING, PLAIN, byte_kinds, scan, with_backslash
from raydistill.files.inputs.decoding import Joined, Readable, read_full
from raydistill.files.inputs.raw_rows import RawRows, Stretch
from raydistill.files.prefetch import prefetch

_HEAD_BYTES = 1 << 18  # contains the header
_MAX_LINE_BYTES = 1 << 28
_MAX_RECORDS = 1 << 17  # per block
_TEXT = pa.binary()


@dataclass(frozen=True)
class _Block:
    """Records of a part of the file: begin, end, first line and lines of each; and its kind.

    R: records of the block; 4: those four values.
    """

    data: bytes
    spans_R4: NDArray[np.int64]
    kinds_R: NDArray[np.uint8]
    begin: int = 0  # of the data, in bytes from the first row
    first_row: int = 0

    def record(self, at: np.intp) -> bytes:
        begin, end = self.spans_R4[at, :2]
        return self.data[begin:end].rstrip(b"\r\n")


def read_dialect(stream: Readable, options: CsvOptions, *, is_tsv: bool) -> Dialect | None:
    """The dialect of a file, from its head alone; None for an empty file.

    Raises:
        UserError: the header is not UTF-8.
    """
    return settle(read_full(stream, _HEAD_BYTES), options, is_tsv=is_tsv)


def read_delimited(
    stream: Readable,
    options: CsvOptions,
    *,
    is_tsv: bool,
    columns: Sequence[str] | None,
    block_bytes: int,
    keep_bad: bool,
    stretch: Stretch | None = None,
    lines: Readable | None = None,
) -> Iterator[RawRows]:
    """The rows of a UTF-8 stream, block by block.

    `columns` None: all columns. `keep_bad`: the table contains the bad rows too. `stretch`: these
    rows alone, whose bytes are `lines`; `stream` has the head.

    Raises:
        UserError: the header is not UTF-8, or a line has more than 268,435,456 bytes.
    """
    head = read_full(stream, _HEAD_BYTES)
    dialect = settle(head, options, is_tsv=is_tsv)
    if dialect is None:
        return
    wanted = list(dialect.names if columns is None else columns)
    rows: Readable = Joined(head[dialect.first_byte :], stream)
    first_row, first_line = 0, dialect.first_line
    if stretch is not None and lines is not None:
        rows, first_row, first_line = lines, stretch.first_row, stretch.first_line
    blocks = _blocks(rows, dialect, block_bytes=block_bytes, first_line=first_line)
    for block in prefetch(blocks, depth=1):  # scanned while Arrow reads the previous one
        numbered = replace(block, first_row=first_row)
        first_row += len(block.kinds_R)
        yield _to_rows(numbered, dialect, wanted, keep_bad=keep_bad)
    if not first_row and stretch is None:
        empty = pa.table({name: pa.array([], _TEXT) for name in wanted})
        yield RawRows(empty, np.empty(0, np.int64))


def find_stretches(
    stream: Readable, options: CsvOptions, *, is_tsv: bool, block_bytes: int, most_rows: int
) -> list[Stretch]:
    """The rows of a UTF-8 stream in stretches of at least `most_rows` rows; the last has fewer.

    A stretch ends between two plain records: a quote that is never closed is not cut. Bytes are
    counted from the start of the stream.
    """
    head = read_full(stream, _HEAD_BYTES)
    dialect = settle(head, options, is_tsv=is_tsv)
    if dialect is None:
        return []
    starts, row, end = [(dialect.first_byte, 0, dialect.first_line)], 0, dialect.first_byte
    rows = Joined(head[dialect.first_byte :], stream)
    for block in _blocks(rows, dialect, block_bytes=block_bytes, first_line=dialect.first_line):
        places = block.spans_R4[:, 0] + (dialect.first_byte + block.begin)
        is_plain = block.kinds_R == PLAIN
        can_cut = np.flatnonzero(is_plain[1:] & is_plain[:-1]) + 1
        while True:
            due = starts[-1][1] + most_rows - row  # the record that should begin the next stretch
            at = int(np.searchsorted(can_cut, due))
            if at == len(can_cut):
                break
            record = int(can_cut[at])
            line = int(block.spans_R4[record, 2])
            starts.append((int(places[record]), row + record, line))
        row += len(block.kinds_R)
        end = int(block.spans_R4[-1, 1]) + dialect.first_byte + block.begin
    ends = [*starts[1:], (end, row, 0)]
    return [
        Stretch(begin, stop, first_row, line, stop_row - first_row)
        for (begin, first_row, line), (stop, stop_row, _) in zip(starts, ends, strict=True)
    ]


def _blocks(
    stream: Readable, dialect: Dialect, *, block_bytes: int, first_line: int
) -> Iterator[_Block]:
    first, second = dialect.marks, dialect.marks
    if dialect.can_escape:
        second = with_backslash(first)
    marks, kinds = (first, second), (byte_kinds(first), byte_kinds(second))
    line, rest, begin = first_line, b"", 0
    is_last = False
    while not is_last:
        more = stream.read(block_bytes)
        is_last = not more
        data = rest + (more or b"\n")
        at = 0
        while at < len(data):
            most = min((len(data) - at) // 2 + 1, _MAX_RECORDS)
            spans_R4, kinds_R = np.empty((most, 4), np.int64), np.empty(most, np.uint8)
            num, after, num_lines = scan(
                np.frombuffer(data, np.uint8), at, is_last, marks, kinds, dialect.shape,
                spans_R4, kinds_R,
            )  # fmt: skip
            spans_R4[:num, 2] += line
            line += num_lines
            if num:
                yield _Block(data, spans_R4[:num], kinds_R[:num], begin)
            if after == at:
                break
            at = after
        rest = data[at:]
        begin += at
        if len(rest) > _MAX_LINE_BYTES:
            raise UserError(f"line {line + 1} has more than {_MAX_LINE_BYTES:,} bytes")


def _to_rows(block: _Block, dialect: Dialect, columns: Sequence[str], *, keep_bad: bool) -> RawRows:
    num = len(block.kinds_R)
    rows, lines = block.first_row + np.arange(num), block.spans_R4[:, 2] + 1
    num_breaks = int(block.spans_R4[:, 3].sum()) - num
    odd = np.flatnonzero(block.kinds_R != PLAIN)
    plain = _read_plain(block, dialect, columns)
    if not len(odd):
        return RawRows(plain, rows, lines=lines, num_breaks=num_breaks)
    read = [
        read_record(block.record(at), int(block.kinds_R[at]), dialect.marks, len(dialect.names))
        for at in odd
    ]
    is_good = np.array([not reason for _, reason in read])
    bad = [(int(rows[at]), reason) for at, (_, reason) in zip(odd, read, strict=True) if reason]
    those = [_as_long(fields, dialect) for fields, reason in read if keep_bad or not reason]
    places = odd if keep_bad else odd[is_good]
    order = np.argsort(np.concatenate([np.flatnonzero(block.kinds_R == PLAIN), places]))
    table = pa.concat_tables([plain, _to_table(those, dialect, columns)]).take(pa.array(order))
    stays = np.ones(num, bool)
    stays[odd[~is_good]] = keep_bad
    bad_lines = lines[odd[~is_good]].tolist()
    return RawRows(table, rows[stays], bad, lines[stays], bad_lines, num_breaks, int(is_good.sum()))


def _read_plain(block: _Block, dialect: Dialect, columns: Sequence[str]) -> pa.Table:
    """The plain records as a table, read by Arrow as one block."""
    is_plain = block.kinds_R == PLAIN
    num_plain = int(is_plain.sum())
    if not num_plain:
        return pa.table({name: pa.array([], _TEXT) for name in columns})
    source = _plain_bytes(block, is_plain)
    quote = dialect.marks[1]
    names = list(dialect.names)
    table = pacsv.read_csv(
        pa.BufferReader(source),
        read_options=pacsv.ReadOptions(
            column_names=names, use_threads=False, block_size=max(source.size, 1) + 1
        ),
        parse_options=pacsv.ParseOptions(
            delimiter=chr(dialect.marks[0]),
            quote_char=chr(quote) if quote != NOTHING else False,
            newlines_in_values=True,
        ),
        convert_options=pacsv.ConvertOptions(
            include_columns=columns,
            column_types=dict.fromkeys(names, _TEXT),
            strings_can_be_null=False,
        ),
    )
    if table.num_rows != num_plain:
        raise RuntimeError(f"Arrow read {table.num_rows:,} of {num_plain:,} records")
    return table


def _plain_bytes(block: _Block, is_plain: NDArray[np.bool_]) -> pa.Buffer:
    """The bytes of the plain records; not copied if all records are plain."""
    if is_plain.all():
        begin, end = int(block.spans_R4[0, 0]), int(block.spans_R4[-1, 1])
        return pa.py_buffer(block.data).slice(begin, end - begin)
    edges = np.flatnonzero(np.diff(is_plain, prepend=False, append=False)).reshape(-1, 2)
    spans, view = block.spans_R4, memoryview(block.data)
    parts = [view[spans[first, 0] : spans[stop - 1, 1]] for first, stop in edges]
    return pa.py_buffer(b"".join(parts))


def _as_long(fields: list[bytes], dialect: Dialect) -> list[bytes | None]:
    """As many fields as the header has: missing ones are null, extra ones join the last."""
    num = len(dialect.names)
    if len(fields) <= num:
        return [*fields, *[None] * (num - len(fields))]
    return [*fields[: num - 1], bytes([dialect.marks[0]]).join(fields[num - 1 :])]


def _to_table(
    rows: Sequence[Sequence[bytes | None]], dialect: Dialect, columns: Sequence[str]
) -> pa.Table:
    places = {name: at for at, name in enumerate(dialect.names)}
    return pa.table(
        {name: pa.array([row[places[name]] for row in rows], _TEXT) for name in columns}
    )
