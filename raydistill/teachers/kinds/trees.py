"""Boosted trees as a teacher: fitted on the judged pairs, they score on one core an actor."""

from __future__ import annotations

from functools import partial

from raydistill.files.model_files import PinnedModel
from raydistill.runs.run_folder import Run
from raydistill.teachers.base import Needs, Steps, TeacherKind
from raydistill.teachers.shards.texts import Step, read_texts
from raydistill.teachers.trees import load_trees, make_scorer


class TreesKind(TeacherKind):
    """The trees of a run."""

    @property
    def needs(self) -> Needs:
        """Cores."""
        return Needs(num_actors=self.run.config.trees.num_actors)

    def model(self) -> PinnedModel:
        """The fitted trees.

        Raises:
            UserError: they are not fitted yet.
        """
        return PinnedModel(self.run.teacher(self.name).uri, load_trees(self.run).fingerprint)

    def steps(self, *, verdict: bool | None) -> Steps:
        """No trial has a verdict on the trees."""
        del verdict
        make = partial(_make, run=self.run, fingerprint=load_trees(self.run).fingerprint)
        return Steps(read_texts, make, self.write)


def _make(device: str, *, run: Run, fingerprint: str) -> Step:
    del device  # the trees score on a core
    return make_scorer(run=run, fingerprint=fingerprint)
