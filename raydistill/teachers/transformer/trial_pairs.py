"""With which pairs a teacher is tried before it works, and how. Standard library only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

Pairs = Sequence[tuple[str, str]]
# Of words that most vocabularies have, and of lengths one after the other: models that pool tokens
# differ at some lengths alone.
_WORDS = "cordless drill, 18 v, with 2 batteries and a case".split()
SHORT: Pairs = (
    ("sofa", "oak"),
    *(("drill 18 v", " ".join(_WORDS[:n])) for n in (1, 2, 3, 4, 5, 10)),
)
_CHARS_A_TOKEN = 12  # at least so many characters are a token's in any language


@dataclass(frozen=True)
class Trial:
    """How a teacher is tried: as `label` will use it.

    `pairs` are some of the user's; without them nothing is said of the tokenizer's words.
    """

    pairs: Pairs = ()
    has_query: bool | None = None  # None: as the prompt has it
    is_base: bool = False  # an encoder that is to be fine-tuned
    trusts_code: bool = False
    device: str = "cpu"
    dtype: str = "float32"  # in which it is loaded: float32 shows the smallest differences
    label_dtype: str = "float32"  # in which pairs will be scored


def long_pair(pairs: Pairs, *, max_length: int) -> tuple[str, str]:
    """A pair that is cut at `max_length` tokens, of the words of some pairs."""
    words = " ".join(f"{query} {title}" for query, title in (*SHORT, *pairs))
    times = 1 + max_length * _CHARS_A_TOKEN // len(words)
    title = " ".join([words] * times)
    return pairs[0][0] if pairs and pairs[0][0] else SHORT[0][0], title
