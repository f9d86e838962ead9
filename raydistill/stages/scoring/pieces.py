"""What a worker does with an item of a catalogue: read, score, write, and a record of it.

Does not use Ray. A piece that is a stream is written as outputs of `shard_rows` rows, each with a
record of its own: a task that runs again reads the stream, and scores what has no record.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from itertools import groupby

import numpy as np
import pyarrow as pa

from raydistill.cluster.tasks import Item
from raydistill.errors import UserError, WorkError
from raydistill.files.inputs.input_files import InputFile
from raydistill.files.inputs.raw_rows import RawRows, Stretch
from raydistill.files.inputs.readers import read_raw
from raydistill.files.prefetch import prefetch
from raydistill.files.retry import tried_at
from raydistill.files.uris import open_uri
from raydistill.serving.native.build import built_library, found_library, own_target
from raydistill.serving.scorer import Scorer
from raydistill.stages.scoring.job import Job
from raydistill.stages.scoring.outputs import Output, Writer
from raydistill.stages.scoring.plan import decoded, piece_name
from raydistill.stages.scoring.rows import place_of_bad, scores_of, sliced, with_scores

DONE = "_done"  # in the output folder: what each item wrote


def record_name(*numbers: int) -> str:
    """The name of the record of an item; with more numbers, of one output of its stream."""
    return f"{DONE}/{'-'.join(f'{number:06d}' for number in numbers)}.json"


def score_item(item: Item, *, job: Job, schema: pa.Schema) -> Item:
    """Write the outputs of an item, then its record; returns the record.

    Raises:
        UserError: a file cannot be read or has changed, or a text does not fit in the format.
    """
    scorer, library = _scorer(job.bundle, job.bundle_fingerprint)
    start_s = time.process_time()
    record: Item = {"outputs": {}, "bad": [], "library": library}
    for number, part in enumerate(item["parts"]):
        work = _Part(job, schema, scorer, part, (item["number"], number))
        if part["is_stream"]:
            work.score_stream()
        else:
            work.score()
        record["outputs"] |= work.outputs
        if work.num_bad:
            record["bad"].append([part["uri"], work.num_bad, work.first_bad])
    record["core_s"] = time.process_time() - start_s
    job.output.write_json(record_name(item["number"]), record)
    return record


@cache
def _scorer(bundle: str, fingerprint: str) -> tuple[Scorer, str]:
    """The scorer of this process, and the name of what it scores with.

    A machine without a native library makes one, once for all of its processes: what numba would
    compile takes as long, and scores differ in the last digits.
    """
    target = own_target()
    if target is not None and found_library()[0] is None:
        try:
            built_library(target)
        except WorkError:  # numba is missing: `load` says what to install
            pass
    scorer = Scorer.load(bundle)
    if scorer.settings["fingerprint"] != fingerprint:
        raise UserError(
            f"{bundle} is {scorer.settings['fingerprint']} here, not {fingerprint}, which the job "
            "began with: name one bundle, not the folder of the newest one"
        )
    library = found_library()[0]
    return scorer, library.name.partition(".")[0] if library else "numba"


@dataclass
class _Part:
    """A piece of a file, or a whole file, and what was written of it."""

    job: Job
    schema: pa.Schema
    scorer: Scorer
    part: Item
    numbers: tuple[int, int]  # of the item, and of the part in it
    outputs: dict[str, list[int]] = field(default_factory=dict)  # rows, and those without a score
    num_bad: int = 0
    first_bad: str = ""

    def blocks(self) -> Iterator[RawRows]:
        """The rows of the part; the next block is read while one is scored."""
        part = self.part
        rows = read_raw(
            self._file,
            columns=part["columns"],
            span=tuple(part["span"]),
            stretch=Stretch(**part["stretch"]) if part["stretch"] else None,
            texts=self.job.reading.columns,
            keep_bad=True,
            types=decoded(part["types"]) if part["types"] else None,
        )
        return prefetch(rows, depth=1)

    @property
    def _file(self) -> InputFile:
        part = self.part
        return InputFile(part["uri"], part["size_bytes"], part["mtime_ns"], self.job.csv)

    def score(self) -> None:
        """Score the part into one output."""
        with Output(self.job.output) as output:
            counts = self._write(output, self.blocks())
            self._commit(output, self.part["name"], counts)

    def score_stream(self) -> None:
        """Score a whole file; its outputs have numbers, and records, if there are several."""
        for number, cuts in groupby(_cut(self.blocks(), most_rows=self.job.shard_rows), _number):
            name = record_name(*self.numbers, number)
            record = self.job.output.read_json(name)
            if record is not None and all(map(self.job.output.exists, record["outputs"])):
                self.outputs |= record["outputs"]
                for _ in cuts:  # read on to the next piece
                    pass
                continue
            rows = _Rows(cuts)
            with Output(self.job.output) as output:
                counts = self._write(output, rows)
                if number == 0 and rows.is_last:
                    self._commit(output, self.part["name"], counts)
                    return
                written = self._commit(output, piece_name(self.part["name"], number), counts)
            self.job.output.write_json(name, {"outputs": {written: counts}})

    def _write(self, output: Output, blocks: Iterable[RawRows]) -> list[int]:
        """Score blocks and write them; returns rows, and rows without a score."""
        num_rows = num_unscored = 0
        with Writer(output.sink, self.job.kind, self.schema) as writer:
            for raw in blocks:
                if raw.bad:
                    self.first_bad = self.first_bad or place_of_bad(raw)
                    self.num_bad += len(raw.bad)
                scores = scores_of(self.scorer, raw, self.job.reading)
                writer.write(with_scores(raw.table, scores, self.schema))
                num_rows += len(scores)
                num_unscored += scores.null_count
        return [num_rows, num_unscored]

    def _commit(self, output: Output, name: str, counts: list[int]) -> str:
        """Give the output its name, to which the suffix is added; returns the whole name."""
        self._check_unchanged()
        whole = f"{name}.{self.job.kind}"
        output.commit(whole)
        self.outputs[whole] = counts
        return whole

    def _check_unchanged(self) -> None:
        filesystem, path = open_uri(self.part["uri"])
        info = tried_at(self.part["uri"], lambda: filesystem.get_file_info(path))
        if (info.size, info.mtime_ns or 0) != (self.part["size_bytes"], self.part["mtime_ns"]):
            raise UserError(
                f"{self.part['uri']} was changed while it was scored: score all files again, into "
                "another --output"
            )


_Cut = tuple[int, RawRows, bool]  # the number of the output, rows, whether they are the last ones


def _number(cut: _Cut) -> int:
    return cut[0]


class _Rows:
    """The blocks of some cuts; afterwards, whether they were the last of the file."""

    def __init__(self, cuts: Iterable[_Cut]) -> None:
        self._cuts, self.is_last = cuts, False

    def __iter__(self) -> Iterator[RawRows]:
        for _, raw, is_last in self._cuts:
            self.is_last = is_last
            yield raw


def _cut(blocks: Iterable[RawRows], *, most_rows: int) -> Iterator[_Cut]:
    """Blocks cut so that each output has `most_rows` rows, the last one fewer."""
    ahead: tuple[int, RawRows] | None = None
    num_rows = 0
    for raw in blocks:
        start, stop = 0, len(raw.rows)
        while start < stop or ahead is None:  # the first one may have no rows
            size = min(stop - start, most_rows - num_rows % most_rows)
            if ahead is not None:
                yield *ahead, False
            ahead = num_rows // most_rows, sliced(raw, start, start + size)
            start += size
            num_rows += size
    yield *(ahead or (0, _nothing())), True


def _nothing() -> RawRows:
    """No rows: of a JSON file that has none."""
    return RawRows(pa.table({}), np.empty(0, np.int64))
