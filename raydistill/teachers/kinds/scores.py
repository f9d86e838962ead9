"""Scores from files as a teacher: a pair that is in no file has no logit.

stages/fits/scores.py makes the index; a step looks the pairs of a shard up.
"""

from __future__ import annotations

import time
from functools import partial

import pyarrow as pa

from raydistill.data.scores.index import ScoreIndex
from raydistill.errors import UserError
from raydistill.files.model_files import PinnedModel
from raydistill.teachers.base import Needs, Steps, TeacherKind, this_worker
from raydistill.teachers.shards.logits import SCORED
from raydistill.teachers.shards.texts import Item, Step, from_bytes, read_texts, to_bytes


class ScoresKind(TeacherKind):
    """The scores of some pairs."""

    @property
    def needs(self) -> Needs:
        """Cores."""
        return Needs(num_actors=self.run.config.label.num_actors)

    def check(self) -> None:
        """Raise UserError unless there are files that have the columns."""
        self.run.score_files(self.name)

    def model(self) -> PinnedModel:
        """The index; its folder's name has the fingerprint of the files."""
        return PinnedModel(self.run.teacher(self.name).uri, self.run.label_fingerprint(self.name))

    def steps(self, *, verdict: bool | None) -> Steps:
        """No trial has a verdict on files."""
        del verdict
        folder = self.run.teacher(self.name)
        done = folder.success()
        if done is None:
            raise UserError(f"no index of scores in {folder}; do all machines see the run folder?")
        units = self.run.config.ngrams.unit_names
        index = ScoreIndex(folder, done["buckets"], units)
        return Steps(read_texts, partial(_make, index=index), self.write)


def _make(device: str, *, index: ScoreIndex) -> Step:
    del device  # a lookup takes a core

    def look_up(item: Item, data: bytes) -> tuple[Item, bytes]:
        start_s, pairs = time.monotonic(), from_bytes(data)
        logits = index.logits(pairs)
        no_reason = pa.nulls(pairs.num_rows, pa.string())
        table = pa.table([pairs["pair_id"], logits, no_reason], schema=SCORED)
        done = {"rows": table.num_rows, "bad_rows": 0, "tokens": 0, "padded_tokens": 0}
        seconds = time.monotonic() - start_s
        return {**item, **done, "score_s": seconds, "worker": this_worker()}, to_bytes(table)

    return look_up
