"""Pairs to logits with a generative reranker: the logit of yes minus that of no. No Ray.

Input: queries and titles, or their Tokens. Output: one float32 logit a pair, in input order. The
tokens before the title are computed once for all titles of a query where the model allows it.
"""

from __future__ import annotations

import copy
import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from raydistill.config.prompt import Question
from raydistill.errors import UserError
from raydistill.teachers.cross_encoder import TOKENS_PER_BATCH, Teacher
from raydistill.teachers.generative.answers import find_answers
from raydistill.teachers.generative.causal_model import (
    CausalModel,
    check_causal_config,
    keep_answers,
    load_causal,
)
from raydistill.teachers.generative.causal_tokenizer import CausalTokenizer, load_causal_tokenizer
from raydistill.teachers.generative.shared_prefix import (
    LEAST_SHARED,
    Group,
    SharedRun,
    can_share,
    groups,
)
from raydistill.teachers.transformer.device import (
    dtype_name,
    set_up_attention,
    teacher_dtype,
)
from raydistill.teachers.transformer.model_loading import (
    check_finite,
    check_positions,
    quiet_transformers,
    read_config,
)
from raydistill.teachers.transformer.padded_model import is_close, named_failure, settle_padding
from raydistill.teachers.transformer.pair_tokenizer import Tokens
from raydistill.teachers.transformer.token_budget import (
    Counters,
    NoMemory,
    TokenBudget,
    attempt,
    free_memory,
)
from raydistill.teachers.transformer.tokenizer_check import check_ids, check_texts
from raydistill.teachers.transformer.trial_pairs import SHORT, Trial, long_pair

logger = logging.getLogger("raydistill")
# The keys and values of the beginnings take at most this share of a batch's tokens: 114 KB a token
# of Qwen3-Reranker-0.6B in bfloat16, 1.9 GB of 16,384 tokens.
_SHARED_TOKENS = 0.25


def check_causal(folder: Path, *, max_length: int, question: Question, trial: Trial) -> bool:
    """Load the model in `folder` and score trial pairs; returns whether prompts may be padded.

    Raises:
        UserError: the model is no causal language model, takes fewer than `max_length` tokens,
            lacks weights, a prompt or an answer, has another model's tokenizer, or its logits
            depend on the batch.
    """
    quiet_transformers()
    config = read_config(folder, trusts_code=trial.trusts_code)
    check_causal_config(folder, config)  # fail before gigabytes of weights are loaded
    check_positions(folder, config, max_length=max_length)
    tokenise = load_causal_tokenizer(
        folder, max_length=max_length, question=question, trusts_code=trial.trusts_code
    )
    find_answers(folder, tokenise.tokenizer, question)
    check_texts(folder, tokenise.tokenizer, [text for pair in trial.pairs for text in pair])
    dtype = teacher_dtype(trial.dtype, device=trial.device)
    model = load_causal(folder, dtype=dtype, trusts_code=trial.trusts_code)
    check_finite(folder, model)
    teacher = CausalTeacher(
        folder,
        device=trial.device,
        dtype=trial.dtype,
        max_length=max_length,
        question=question,
        trusts_code=trial.trusts_code,
        pads=True,
        model=model,
    )
    teacher.try_pairs(trial)
    return teacher.pads


class CausalTeacher(Teacher):
    """A generative reranker on one device."""

    def __init__(
        self,
        folder: Path,
        *,
        device: str,
        dtype: str,
        max_length: int,
        question: Question | None = None,
        tokens_per_batch: int | None = None,
        trusts_code: bool = False,
        pads: bool | None = None,
        shares: bool | None = None,
        model: Any = None,  # noqa: ANN401 - transformers' classes
    ) -> None:
        """Load the model in `folder`; `max_length` and `tokens_per_batch` count tokens.

        `question`: the prompt and the answers; None: the folder's. `pads`: whether prompts of
        different length may share a batch; None: tested here. `shares`: whether beginnings are
        computed once; None: where the model allows it. `model`: the folder's, if it is loaded.

        Raises:
            UserError: see `check_causal`.
        """
        quiet_transformers()
        set_up_attention(device)
        question = question or Question()
        self.folder, self.device, self.max_length = folder, device, max_length
        self.budget = TokenBudget(tokens_per_batch or TOKENS_PER_BATCH[device])
        self._shared = TokenBudget(max(1, int(_SHARED_TOKENS * self.budget.most)))  # of a group
        self.dtype = teacher_dtype(dtype, device=device)
        if model is None:
            check_causal_config(folder, read_config(folder, trusts_code=trusts_code))
            model = load_causal(folder, dtype=self.dtype, trusts_code=trusts_code)
        self.tokenise: CausalTokenizer = load_causal_tokenizer(
            folder, max_length=max_length, question=question, trusts_code=trusts_code
        )
        self.tokenizer = self.tokenise.tokenizer
        check_positions(folder, model.config, max_length=max_length, model=model)
        check_ids(folder, self.tokenizer, model)
        model = model.to(device).eval()
        keep_answers(folder, model, find_answers(folder, self.tokenizer, question))
        self.config, self.is_packed, self.counters = model.config, False, Counters()
        self._run = self._whole = CausalModel(model)
        if pads is None:
            settle_padding(self._whole, self._read(SHORT), dtype=self.dtype, what=str(folder))
        else:
            self._whole.pads = pads
        allowed = shares is not False and self._whole.pads
        self.shares = allowed and can_share(model, max_length=max_length)

    @property
    def pads(self) -> bool:
        """Whether prompts of different length may share a batch."""
        return self._whole.pads

    def try_pairs(self, trial: Trial) -> None:
        """Score short pairs and one of `max_length` tokens: alone, in one batch, with beginnings.

        Raises:
            UserError: the model fails at a pair, gives no finite logit, or its logits depend on
                the batch.
        """
        pairs = (*SHORT, long_pair(trial.pairs, max_length=self.max_length))
        tokens = self._read(pairs, has_query=trial.has_query)
        what = f"the model in {self.folder}"
        with named_failure(what, tokens, of="pairs"):
            settle_padding(self._whole, tokens, dtype=self.dtype, what=what)
            self._settle_sharing(tokens)
            self._try_label_dtype(tokens, trial.label_dtype)

    def _settle_sharing(self, tokens: Tokens) -> None:
        """Score whole prompts alone if the beginnings on their own give other logits."""
        self.shares = self.shares and self.pads
        if not self.shares:
            return
        shared = self.score(tokens)
        self.shares = False
        whole = self.score(tokens)
        if is_close(whole, shared, dtype=self.dtype):
            self.shares = True
        else:
            self._whole.pads = False  # what the trial says of padding holds for beginnings too

    def _try_label_dtype(self, tokens: Tokens, name: str) -> None:
        """Score in the dtype that `label` uses."""
        dtype = teacher_dtype(name, device=self.device)
        if dtype != self.dtype:
            self._whole.model.to(dtype)
            self.dtype = dtype
        if not np.isfinite(self.score(tokens)).any():
            raise UserError(
                f"the model in {self.folder} gives no pair a finite logit in "
                f'{dtype_name(self.dtype)}; set label.dtype = "float32", or take another checkpoint'
            )

    def score(self, tokens: Tokens) -> NDArray[np.float32]:
        """One logit a pair, in input order; NaN for a pair without tokens.

        Raises:
            torch.OutOfMemoryError: a single pair does not fit.
        """
        if not self.shares:
            return super().score(tokens)
        out = np.full(len(tokens.lengths_B), np.nan, np.float32)
        rows = np.flatnonzero(tokens.lengths_B)
        waiting = list(groups(tokens, rows, most_tokens=self._shared.tokens))
        while waiting:
            group = waiting.pop()
            if len(group.ids_UP) > 1 and group.ids_UP.size > self._shared.tokens:
                waiting += groups(tokens, group.rows, most_tokens=self._shared.tokens)
            elif (logits := self._try_group(tokens, group)) is None:
                waiting.append(group)
            else:
                out[group.rows] = logits
        return out

    def _try_group(self, tokens: Tokens, group: Group) -> NDArray[np.float32] | None:
        """The logits of a group's pairs; None if its beginnings are too many for the memory.

        Later groups are then smaller. The batches are not to blame: their budget stays.
        """
        budget = copy.copy(self.budget)
        try:
            logits = self._score_group(tokens, group)
        except torch.OutOfMemoryError:
            if len(group.ids_UP) == 1:
                raise
        else:
            self._shared.note_good_batch()
            return logits
        self.budget = budget
        self._shared.reduce(group.ids_UP.size)
        free_memory(self.device)
        logger.warning(
            "out of memory: the tokens before the titles are computed for %d tokens at a time",
            self._shared.tokens,
        )
        return None

    def _score_group(self, tokens: Tokens, group: Group) -> NDArray[np.float32]:
        """The logits of pairs whose beginnings are computed first."""
        if group.ids_UP.shape[1] < LEAST_SHARED:
            return super().score(tokens.take(group.rows))
        shared = SharedRun(self._whole, group.ids_UP, tokens_per_batch=self.tokens_per_batch)
        self._run = shared
        try:
            logits = super().score(group.own)
        finally:
            self._run = self._whole
        self.counters.num_tokens += shared.num_tokens
        self.counters.num_padded_tokens += shared.num_tokens
        return logits

    def _score_sorted(self, tokens: Tokens, order: NDArray[np.int64]) -> NDArray[np.float32] | None:
        """As for any teacher; the beginnings are computed first, in an attempt of their own.

        Raises:
            torch.OutOfMemoryError: the beginnings, or a single pair, do not fit.
        """
        if isinstance(self._run, SharedRun):
            found = attempt(SharedRun.prepare, self._run)
            if isinstance(found, NoMemory):
                self.counters.num_out_of_memory += 1
                num_own = int(tokens.lengths_B[order[0]])
                raise self._no_room(self._run.ids_UP.shape[1] + num_own, found)
        return super()._score_sorted(tokens, order)

    def _recover(self, batch: Tokens, problem: NoMemory) -> None:
        """As for any teacher; the beginnings may be what was lost, and are computed again."""
        if isinstance(self._run, SharedRun) and problem.may_be_earlier:
            self._run.forget()
        super()._recover(batch, problem)

    @property
    def _num_before(self) -> int:
        """Tokens before the title that each pair of a batch attends to beside its own."""
        return self._run.ids_UP.shape[1] if isinstance(self._run, SharedRun) else 0

    def _batch_rows(self, lengths: NDArray[np.int64]) -> int:
        most = self.tokens_per_batch // (self._num_before + int(lengths[0]))
        return max(1, min(super()._batch_rows(lengths), most))

    def _num_held_tokens(self, batch: Tokens) -> int:
        return self._num_run_tokens(batch) + len(batch.lengths_B) * self._num_before
