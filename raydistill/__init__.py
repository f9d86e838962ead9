"""raydistill: distil BERT relevance models into a student that scores a pair in microseconds."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from raydistill.serving.scorer import Scorer

__version__ = "0.1.0"
__all__ = ["Scorer"]


def __getattr__(name: str) -> object:
    """`Scorer`, imported when it is asked for: commands that fail early need not load numba."""
    if name == "Scorer":
        from raydistill.serving.scorer import Scorer

        return Scorer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
