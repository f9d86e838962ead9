"""From a teacher of the run file to its kind."""

from __future__ import annotations

from raydistill.config.teachers import TREES
from raydistill.errors import UserError
from raydistill.runs.run_folder import Run
from raydistill.teachers.base import TeacherKind
from raydistill.teachers.kinds.bi_encoder import BiEncoderKind
from raydistill.teachers.kinds.causal import CausalKind
from raydistill.teachers.kinds.cross_encoder import CrossEncoderKind
from raydistill.teachers.kinds.scores import ScoresKind

# By the field of `[teachers.NAME]` that is given.
KINDS: dict[str, type[TeacherKind]] = {
    "base": CrossEncoderKind,
    "model": CrossEncoderKind,
    "scores": ScoresKind,
    "bi_encoder": BiEncoderKind,
    "causal": CausalKind,
}


def teacher_of(run: Run, name: str) -> TeacherKind:
    """The teacher of that name.

    Raises:
        UserError: it is the trees, and OpenMP is missing.
    """
    kind = run.config.teacher_kind(name)
    return _trees_kind()(run, name) if kind == TREES else KINDS[kind](run, name)


def _trees_kind() -> type[TeacherKind]:
    """The kind of the trees: imported only if they are enabled, since LightGBM takes 1 s."""
    try:
        from raydistill.teachers.kinds.trees import TreesKind
    except OSError as error:
        raise UserError(
            f"LightGBM cannot be loaded ({error}); install OpenMP (libgomp1, on macOS libomp), or "
            "set trees.enabled = false"
        ) from error
    return TreesKind
