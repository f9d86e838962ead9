"""The distinct texts of pairs, and their wordpieces as a sentence encoder reads them. No torch.

Input: queries and titles. Output: the distinct texts with their prompts, which of them each pair
has, and Tokens, one row a text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from raydistill.teachers.heads.sentence_folder import SentenceRules, read_rules
from raydistill.teachers.transformer.pair_tokenizer import PairTokenizer, Tokens, load_tokenizer

UNKNOWN = "the encoder's tokenizer knows no part of it"


@dataclass(frozen=True)
class DistinctTexts:
    """The texts to embed, with prompts, and the row among them of each pair's query and title."""

    texts: list[str]
    query_B: NDArray[np.int64]
    title_B: NDArray[np.int64]


def distinct_texts(queries: pa.Array, titles: pa.Array, rules: SentenceRules) -> DistinctTexts:
    """Each different text once, a query and a title with the same text too."""
    columns = [
        _with_prompt(column, prompt)
        for column, prompt in ((queries, rules.query_prompt), (titles, rules.title_prompt))
    ]
    joined = pa.concat_arrays(columns).dictionary_encode()
    places = np.asarray(joined.indices).astype(np.int64)
    return DistinctTexts(
        joined.dictionary.to_pylist(), places[: len(queries)], places[len(queries) :]
    )


def _with_prompt(texts: pa.Array, prompt: str) -> pa.Array:
    column = texts.cast(pa.large_string())
    if not prompt:
        return column
    return pc.binary_join_element_wise(
        pa.scalar(prompt, pa.large_string()), column, pa.scalar("", pa.large_string())
    )


class SentenceTokenizer:
    """The tokenizer of a sentence encoder, with the rules of its folder."""

    def __init__(self, folder: Path, *, max_length: int, trusts_code: bool = False) -> None:
        """`max_length` counts the wordpieces of a text; the folder may allow fewer.

        Raises:
            UserError: the folder has no tokenizer, or rules that cannot be followed.
        """
        self.rules = read_rules(folder)
        self.tokenizer = load_tokenizer(folder, trusts_code=trusts_code)
        limits = (max_length, self.rules.max_length, int(self.tokenizer.model_max_length))
        self.max_length = min(limit for limit in limits if limit is not None)
        self.read = PairTokenizer(self.tokenizer, max_length=self.max_length)
        self._special_ids = np.array(sorted(self.tokenizer.all_special_ids), np.int32)
        prompts = {self.rules.query_prompt, self.rules.title_prompt} - {""}
        self._prompts = {
            prompt: int(self._num_known(self._read([prompt]))[0]) for prompt in prompts
        }

    def __call__(self, texts: Sequence[str]) -> Tokens:
        """The wordpieces of each text, prompt included.

        A text that the tokenizer cannot handle, or of which it knows nothing, has no wordpieces and
        an entry in `reasons`.
        """
        tokens = self._read(texts)
        is_unknown = self._num_known(tokens) <= self._num_of_prompts(texts)
        reasons = {int(row): UNKNOWN for row in np.flatnonzero(is_unknown)} | tokens.reasons
        if not reasons:
            return tokens
        rows = np.arange(len(texts))
        kept = tokens.take(rows[~np.isin(rows, list(reasons))])
        lengths = tokens.lengths_B.copy()
        lengths[list(reasons)] = 0
        return Tokens(kept.ids_T, kept.types_T, lengths, reasons)

    def _num_of_prompts(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """Known wordpieces of each text's prompt."""
        found = np.zeros(len(texts), np.int64)
        for prompt, num in self._prompts.items():
            starts = np.fromiter((text.startswith(prompt) for text in texts), bool, len(texts))
            found = np.where(starts, np.maximum(found, num), found)
        return found

    def _read(self, texts: Sequence[str]) -> Tokens:
        spelled = [text.lower() for text in texts] if self.rules.lowercase else texts
        return self.read([""] * len(texts), spelled)

    def _num_known(self, tokens: Tokens) -> NDArray[np.int64]:
        """Wordpieces of each text that are neither special nor unknown."""
        is_known_T = ~np.isin(tokens.ids_T, self._special_ids)
        sums_T = np.concatenate([[0], np.cumsum(is_known_T)])
        ends_B = np.cumsum(tokens.lengths_B)
        return np.asarray(sums_T[ends_B] - sums_T[ends_B - tokens.lengths_B], np.int64)
