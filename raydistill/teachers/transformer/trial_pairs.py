"""The pairs and settings of a teacher's trial run before its work. Standard library only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

Pairs = Sequence[tuple[str, str]]
# Words that most vocabularies have, at consecutive lengths: some models that pool tokens give
# batch-dependent logits at a few lengths only.
_WORDS = "cordless drill, 18 v, with 2 batteries and a case".split()
SHORT: Pairs = (
    ("sofa", "oak"),
    *(("drill 18 v", " ".join(_WORDS[:n])) for n in (1, 2, 3, 4, 5, 10)),
)
_CHARS_A_TOKEN = 12  # more characters than a token has on average in any language


@dataclass(frozen=True)
class Trial:
    """Settings of a teacher's trial run, the same as `label` uses.

    `pairs` are some of the user's; without them the tokenizer's vocabulary is not checked.
    """

    pairs: Pairs = ()
    has_query: bool | None = None  # None: as in the prompt
    is_base: bool = False  # an encoder for fine-tuning
    trusts_code: bool = False
    device: str = "cpu"
    dtype: str = "float32"  # of the loaded model: float32 shows the smallest differences
    label_dtype: str = "float32"  # in which `label` scores pairs


def long_pair(pairs: Pairs, *, max_length: int) -> tuple[str, str]:
    """A pair that exceeds `max_length` tokens, made of words of SHORT and `pairs`."""
    words = " ".join(f"{query} {title}" for query, title in (*SHORT, *pairs))
    times = 1 + max_length * _CHARS_A_TOKEN // len(words)
    title = " ".join([words] * times)
    return pairs[0][0] if pairs and pairs[0][0] else SHORT[0][0], title
