"""What a run needs of a teacher of any kind: one float32 logit a pair, or null. No Ray.

A kind is one module of `teachers/kinds/` with a subclass of TeacherKind, a field of
`[teachers.NAME]` (config/teachers.py: KINDS) and an entry in `kinds/registry.py`. What is in the
fingerprint of its logits follows from the run file (runs/fingerprints.py: `teacher_identity`).
"""

from __future__ import annotations

import os
import socket
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from raydistill.files.model_files import PinnedModel
from raydistill.runs.run_folder import Run
from raydistill.teachers.shards.logits import write_logits
from raydistill.teachers.shards.texts import Step
from raydistill.teachers.transformer.trial_pairs import Pairs


@dataclass(frozen=True)
class Needs:
    """What the actors of a teacher take of the cluster."""

    gpus_each: float = 0.0  # GPUs of an actor where the cluster has GPUs; 0: a core
    num_actors: int | None = None  # None: as many as the cluster holds


@dataclass(frozen=True)
class Steps:
    """The steps of a shard: `before` and `after` run in tasks, the step of `make` in an actor.

    `make` gets the actor's device, "cuda" or "cpu".
    """

    before: Step
    make: Callable[[str], Step]
    after: Step


class ModelTrial(Protocol):
    """A model and how it is tried before data is prepared for it; equal trials are made once."""

    @property
    def model(self) -> PinnedModel:
        """The model; its size decides where it is tried."""

    @property
    def label_dtype(self) -> str:
        """The dtype in which `label` scores."""

    @property
    def gpus_each(self) -> float:
        """GPUs of the task, if the model is not tried on the driver."""

    def here(self, pairs: Pairs, *, device: str, dtype: str) -> bool:
        """Load the model and score some of the user's pairs; returns a verdict for `steps`.

        Raises:
            UserError: the model cannot score them.
        """


@dataclass(frozen=True)
class TeacherKind(ABC):
    """A teacher of a run."""

    run: Run
    name: str

    @property
    @abstractmethod
    def needs(self) -> Needs:
        """What its actors take of the cluster."""

    @abstractmethod
    def model(self) -> PinnedModel:
        """What computes the logits, recorded beside them: a refitted teacher is another one."""

    @abstractmethod
    def steps(self, *, verdict: bool | None) -> Steps:
        """The steps of a shard; `verdict`: of the trial in this process, None if it was not made.

        The first step gets the item of a shard (`folder`, `name`, `target`) and no bytes. The last
        one gets `rows`, `bad_rows` and the scored table (`pair_id`, `logit`, `reason`) as bytes.
        """

    def check(self) -> None:  # noqa: B027 - most kinds have nothing to check
        """Raise UserError if the teacher cannot score, as far as that is known without loading it.

        Called before `prepare`, before the trial.
        """

    def trial(self) -> ModelTrial | None:
        """The trial of its model; None: it has none."""
        return None

    @property
    def write(self) -> Step:
        """The usual last step: write the logits, and the pairs without one to quarantine."""
        folders = self.run.logits(self.name), self.run.rejected_logits(self.name)
        return partial(write_logits, logits=folders[0], quarantine=folders[1])


def this_worker() -> str:
    """The name of this process, by which working processes are counted."""
    return f"{socket.gethostname()} {os.getpid()}"
