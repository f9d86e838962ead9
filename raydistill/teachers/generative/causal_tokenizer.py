"""Pairs in the prompt of a generative reranker, as token ids.

The token types show what a pair shares: 0 for the tokens before the title, which all pairs of a
query have, 1 for the others. No torch, no Ray.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raydistill.config.prompt import CAUSAL_EXAMPLE, Prompt, Question
from raydistill.errors import UserError
from raydistill.teachers.generative.answers import template_settings
from raydistill.teachers.transformer.pair_tokenizer import Tokens, load_tokenizer
from raydistill.teachers.transformer.prompt_tokenizer import (
    LEAST_ROOM,
    PromptTokenizer,
    folder_prompt,
)

_CHUNK_TEXTS = 8_192  # an encoding of 100 tokens takes 10 KB
_LEAST_TITLE = LEAST_ROOM // 2  # tokens of a title that a long query leaves


def load_causal_tokenizer(
    folder: Path, *, max_length: int, question: Question, trusts_code: bool = False
) -> CausalTokenizer:
    """The tokenizer with which the model in `folder` reads pairs.

    Raises:
        UserError: no tokenizer, no prompt, or a prompt with too little capacity for texts.
    """
    tokenizer = load_tokenizer(folder, trusts_code=trusts_code)
    laid = question.laid()
    if laid is not None:
        return CausalTokenizer(tokenizer, laid, laid, max_length=max_length)
    settings = template_settings(folder)
    pairs, single = (
        folder_prompt(
            folder, tokenizer, has_query=has, instruction=question.instruction, settings=settings
        )
        for has in (True, False)
    )
    if pairs is None and single is None:
        raise UserError(
            f"{folder} has no chat template with the roles query and document, as "
            "sentence-transformers writes it: give the prompt that the model was trained with in "
            f"the run file's table of this teacher, for example {CAUSAL_EXAMPLE}"
        )
    return CausalTokenizer(tokenizer, pairs, single, max_length=max_length)


class CausalTokenizer(PromptTokenizer):
    """A PromptTokenizer that cuts titles first and marks the tokens before the title."""

    def __init__(
        self,
        tokenizer: Any,  # noqa: ANN401
        pairs: Prompt | None,
        single: Prompt | None,
        *,
        max_length: int,
    ) -> None:
        """See PromptTokenizer."""
        self._leading = _leading_ids(tokenizer)
        super().__init__(tokenizer, pairs, single, max_length=max_length)

    def __call__(self, queries: Sequence[str], titles: Sequence[str]) -> Tokens:
        """The token ids of each pair in its prompt, and which of them the query's pairs share.

        Raises:
            UserError: pairs for a prompt of single texts, or the reverse.
        """
        tokens = super().__call__(queries, titles)
        prompt = self.pairs if any(queries) else self.single
        if prompt is None or not titles:
            return tokens
        known: dict[str, NDArray[np.int32]] = {}
        starts_B = np.cumsum(tokens.lengths_B) - tokens.lengths_B
        for query, start, length in zip(queries, starts_B, tokens.lengths_B, strict=True):
            if query not in known:
                ids = self._encoded([_before_title(prompt, query)], prompt)[0]
                known[query] = np.array(ids, np.int32)
            num = _num_shared(tokens.ids_T[start : start + length], known[query])
            tokens.types_T[start + num : start + length] = 1
        return tokens

    def _encoded(self, texts: Sequence[str], prompt: Prompt) -> list[list[int]]:
        """The ids of whole prompts; of the special tokens only those that begin a text are added.

        The answer follows the last token: a tokenizer that adds an end token would answer for us.
        """
        found: list[list[int]] = []
        for at in range(0, len(texts), _CHUNK_TEXTS):
            chunk = list(texts[at : at + _CHUNK_TEXTS])
            encoded = self.tokenizer(chunk, add_special_tokens=False, return_attention_mask=False)
            found += encoded["input_ids"]
        leading = self._leading if prompt.adds_special else []
        return [ids if ids[: len(leading)] == leading else leading + ids for ids in found]

    def _kept(self, num_query: int, num_title: int, *, capacity: int) -> tuple[int, int]:
        """The title is cut, to 4 tokens at most; then the query, so that its prompt is shared."""
        query = min(num_query, max(capacity - min(num_title, _LEAST_TITLE), 0))
        return query, min(num_title, capacity - query)


def _leading_ids(tokenizer: Any) -> list[int]:  # noqa: ANN401
    """The special tokens that a tokenizer puts before a text."""
    plain = tokenizer("a", add_special_tokens=False)["input_ids"]
    whole: list[int] = tokenizer("a")["input_ids"]
    ends = range(len(whole) - len(plain) + 1)
    at = next((at for at in ends if whole[at : at + len(plain)] == plain), 0)
    return whole[:at]


def _before_title(prompt: Prompt, query: str) -> str:
    at = prompt.slots.index("title")
    return prompt.pieces[0] + (query + prompt.pieces[1] if at else "")


def _num_shared(ids: NDArray[np.int32], before: NDArray[np.int32]) -> int:
    """Leading tokens that both have; less than all of a pair's, whose last one is its own.

    A tokenizer may merge the end of the text before the title with the title's first letters.
    """
    most = max(min(len(ids) - 1, len(before)), 0)
    others = np.flatnonzero(ids[:most] != before[:most])
    return int(others[0]) if len(others) else most
