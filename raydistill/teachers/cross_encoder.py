"""Pairs to logits: load a cross-encoder, sort by length, batch by token budget, run.

Input: queries and titles, or their Tokens. Output: one float32 logit a pair, in input order. No
Ray.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from raydistill.errors import UserError
from raydistill.teachers.heads.class_gains import GivenGains, expected_logit, gains_of
from raydistill.teachers.transformer.device import (
    device_name,
    dtype_name,
    set_up_attention,
    teacher_dtype,
)
from raydistill.teachers.transformer.model_loading import (
    check_finite,
    check_positions,
    load_classifier,
    quiet_transformers,
    read_config,
)
from raydistill.teachers.transformer.packed_encoder import PackedEncoder, can_pack
from raydistill.teachers.transformer.padded_model import (
    PaddedModel,
    named_failure,
    settle,
    settle_padding,
)
from raydistill.teachers.transformer.pair_tokenizer import PairTokenizer, Tokens
from raydistill.teachers.transformer.prompt_tokenizer import (
    FINE_TUNED,
    PromptTokenizer,
    is_decoder,
    make_tokenizer,
    needs_prompt,
)
from raydistill.teachers.transformer.token_budget import (
    Counters,
    NoMemory,
    TokenBudget,
    attempt,
    free_memory,
    packed_rows,
    padded_rows,
)
from raydistill.teachers.transformer.tokenizer_check import check_ids, check_texts
from raydistill.teachers.transformer.trial_pairs import SHORT, Pairs, Trial, long_pair

logger = logging.getLogger("raydistill")
# CPU: MiniLM's widest activations take 12 MB in bfloat16, one core's share of the cache; larger
# batches were no faster. GPU: 2,000 pairs of 32 wordpieces keep the matrix units fully used.
TOKENS_PER_BATCH = {"cpu": 4_096, "cuda": 65_536}
_AS_LABELED = Trial()


def load_pair_tokenizer(
    folder: Path, *, max_length: int, prompt: str | None = None, trusts_code: bool = False
) -> PairTokenizer | PromptTokenizer:
    """The tokenizer with which the model in `folder` reads pairs.

    Raises:
        UserError: no model, no tokenizer, or a decoder without a prompt.
    """
    config = read_config(folder, trusts_code=trusts_code)
    return make_tokenizer(
        folder, config=config, max_length=max_length, prompt=prompt, trusts_code=trusts_code
    )


def check_model(
    folder: Path,
    *,
    max_length: int,
    prompt: str | None = None,
    gains: GivenGains | None = None,
    trial: Trial = _AS_LABELED,
) -> bool:
    """Load the model in `folder` and score trial pairs; returns whether its pairs may be padded.

    Raises:
        UserError: the model is no cross-encoder with 1 or 2 outputs or classes that fit `gains`
            (with `is_base`: no encoder), takes fewer than `max_length` wordpieces, lacks weights,
            has another model's tokenizer, or its logits depend on the batch.
    """
    quiet_transformers()
    config = read_config(folder, trusts_code=trial.trusts_code)
    if not trial.is_base:
        check_config(folder, config, max_length=max_length, gains=gains)
    dtype = teacher_dtype(trial.dtype, device=trial.device)
    if needs_prompt(config) and not trial.is_base:  # fail before gigabytes of weights are loaded
        load_pair_tokenizer(
            folder, max_length=max_length, prompt=prompt, trusts_code=trial.trusts_code
        )
    model = load_classifier(
        folder, dtype=dtype, trusts_code=trial.trusts_code, new_head=trial.is_base
    )
    check_finite(folder, model)
    if trial.is_base and is_decoder(model.config):
        setattr(model.config, FINE_TUNED, "pairs")
    teacher = Teacher(
        folder,
        device=trial.device,
        dtype=trial.dtype,
        max_length=max_length,
        prompt=prompt,
        gains=None if trial.is_base else gains,
        trusts_code=trial.trusts_code,
        pads=True,
        model=model,
    )
    check_texts(folder, teacher.tokenizer, [text for pair in trial.pairs for text in pair])
    teacher.try_pairs(trial)
    return teacher.pads


def _check_types(folder: Path, tokens: Tokens, config: Any) -> None:  # noqa: ANN401
    """Raise UserError if the tokenizer makes a token type that the model has no embedding for."""
    most, num_types = int(tokens.types_T.max(initial=0)), getattr(config, "type_vocab_size", 0)
    if num_types and most >= num_types:
        raise UserError(
            f"the tokenizer in {folder} makes token type {most} but the model has "
            f"{num_types}: it is the tokenizer of another model"
        )


def check_config(folder: Path, config: Any, *, max_length: int, gains: GivenGains | None) -> None:  # noqa: ANN401
    """Raise UserError unless the config is a cross-encoder's: outputs that fit, long enough."""
    gains_of(config, gains, what=str(folder))
    check_positions(folder, config, max_length=max_length)
    architectures = config.architectures or []
    if any(name.endswith(("ForCausalLM", "LMHeadModel")) for name in architectures):
        raise UserError(
            f"{folder} is a {', '.join(architectures)}, a language model without a classification "
            "head; name it as `causal` if it answers yes or no (Qwen3-Reranker), or as `base` to "
            "have it fine-tuned"
        )
    if architectures and not any("SequenceClassification" in name for name in architectures):
        raise UserError(
            f"{folder} is a {', '.join(architectures)}, not a cross-encoder; name it as `base` to "
            "have it fine-tuned, or as `bi_encoder` for its cosine"
        )


class Teacher:
    """A cross-encoder on one device."""

    gains_K: tuple[float, ...] | None = None  # of a model with classes

    def __init__(
        self,
        folder: Path,
        *,
        device: str,
        dtype: str,
        max_length: int,
        tokens_per_batch: int | None = None,
        prompt: str | None = None,
        gains: GivenGains | None = None,
        trusts_code: bool = False,
        pads: bool | None = None,
        model: Any = None,  # noqa: ANN401 - transformers' classes
    ) -> None:
        """Load the model in `folder`; `max_length` and `tokens_per_batch` count wordpieces.

        `prompt` contains `{query}` and `{title}`; None: the folder's prompt, if it has one.
        `gains`: of the model's classes; None: it has one or two outputs. `pads`:
        whether pairs of different length may share a batch; None: tested here. `model`: the
        folder's model, if it is loaded already.

        Raises:
            UserError: the folder's model is no cross-encoder, lacks weights, or its logits depend
                on the batch.
        """
        quiet_transformers()
        set_up_attention(device)
        self.folder, self.device, self.max_length = folder, device, max_length
        self.budget = TokenBudget(tokens_per_batch or TOKENS_PER_BATCH[device])
        self.dtype = teacher_dtype(dtype, device=device)
        if model is None:
            config = read_config(folder, trusts_code=trusts_code)
            check_config(folder, config, max_length=max_length, gains=gains)
        self.tokenise = make_tokenizer(
            folder,
            config=config if model is None else model.config,
            max_length=max_length,
            prompt=prompt,
            trusts_code=trusts_code,
        )
        self.tokenizer = self.tokenise.tokenizer
        if model is None:
            model = load_classifier(folder, dtype=self.dtype, trusts_code=trusts_code)
        check_positions(folder, model.config, max_length=max_length, model=model)
        check_ids(folder, self.tokenizer, model)
        model = model.to(device).eval()
        self.config, self.gains_K = model.config, gains_of(model.config, gains, what=str(folder))
        self.is_packed = can_pack(model)
        self.counters = Counters()
        self._run: Callable[[Tokens], Tensor] = self._runner(model, pads=pads)

    def _runner(self, model: Any, *, pads: bool | None) -> Callable[[Tokens], Tensor]:  # noqa: ANN401
        if self.is_packed:
            return PackedEncoder(model)
        run = PaddedModel(model, self.tokenizer, has_types=self.tokenise.has_types)
        if pads is None:
            settle_padding(run, self._read(SHORT), dtype=self.dtype, what=str(self.folder))
        else:
            run.pads = pads
        return run

    def _read(self, pairs: Pairs, *, has_query: bool | None = None) -> Tokens:
        """Tokens of pairs, longest first; `has_query` None: queries, if the prompt takes them."""
        if has_query is None:
            prompt = self.tokenise.pairs if isinstance(self.tokenise, PromptTokenizer) else None
            has_query = not isinstance(self.tokenise, PromptTokenizer) or (
                prompt is not None and prompt.has_query
            )
        queries = [query if has_query else "" for query, _ in pairs]
        tokens = self.tokenise(queries, [title for _, title in pairs])
        if tokens.reasons:
            raise UserError(
                f"{self.folder} cannot read a pair: {next(iter(tokens.reasons.values()))}"
            )
        return tokens.take(np.argsort(-tokens.lengths_B, kind="stable"))

    def try_pairs(self, trial: Trial) -> None:
        """Score short pairs and one of `max_length` tokens, each alone and all in one batch.

        Raises:
            UserError: the model fails at a pair, gives no finite logit, or its logits depend on
                the batch.
        """
        pairs = (*SHORT, long_pair(trial.pairs, max_length=self.max_length))
        tokens = self._read(pairs, has_query=trial.has_query)
        _check_types(self.folder, tokens, self.config)
        what = f"the model in {self.folder}"
        with named_failure(what, tokens, of="pairs"):
            settle(self._run, tokens, dtype=self.dtype, what=what)
            self._try_dtype(tokens, trial.label_dtype)

    def _try_dtype(self, tokens: Tokens, name: str) -> None:
        """Score in the dtype that `label` uses; a packed model is run in its own dtype."""
        dtype = teacher_dtype(name, device=self.device)
        if isinstance(self._run, PaddedModel) and dtype != self.dtype:
            self._run.model.to(dtype)
            self.dtype = dtype
        logits = self.score(tokens)
        if not np.isfinite(logits).any():
            raise UserError(
                f"the model in {self.folder} gives no pair a finite logit in "
                f'{dtype_name(self.dtype)}; set label.dtype = "float32", or take another checkpoint'
            )

    @property
    def pads(self) -> bool:
        """Whether pairs of different length may share a batch."""
        return not isinstance(self._run, PaddedModel) or self._run.pads

    @property
    def tokens_per_batch(self) -> int:
        """The current token limit of a batch."""
        return self.budget.tokens

    def logits(self, queries: Sequence[str], titles: Sequence[str]) -> NDArray[np.float32]:
        """One logit a pair, in input order; if all queries are "", the titles are single texts.

        The logit of a model with two outputs is its margin: class 1 minus class 0; of a model with
        gains that of the expected gain.
        """
        return self.score(self.tokenise(queries, titles))

    def score(self, tokens: Tokens) -> NDArray[np.float32]:
        """One logit a pair, in input order; NaN for a pair without tokens.

        The longest pairs run first, so that a batch that does not fit fails early.

        Raises:
            torch.OutOfMemoryError: a single pair does not fit.
        """
        out = np.full(len(tokens.lengths_B), np.nan, np.float32)
        order = np.argsort(-tokens.lengths_B, kind="stable")
        order = order[: np.count_nonzero(tokens.lengths_B)]
        while (logits := self._score_sorted(tokens, order)) is None:
            logger.warning(
                "out of memory may have corrupted the logits of these %d pairs: scoring them again",
                len(order),
            )
        out[order] = logits
        return out

    def _score_sorted(self, tokens: Tokens, order: NDArray[np.int64]) -> NDArray[np.float32] | None:
        """The logits of the rows of `order`; None if all of them must be scored again.

        Logits are copied to the host at the end, so that the GPU runs one batch while the next is
        prepared. Torch's allocator raises before a batch runs; any other out-of-memory error may
        belong to an earlier batch, whose logits are then invalid.
        """
        lengths, margins, batches = tokens.lengths_B[order], list[Tensor](), list[Tokens]()
        at = 0
        while at < len(order):
            num = self._batch_rows(lengths[at:])
            batch = tokens.take(order[at : at + num])
            found = attempt(self._margins, batch)
            if isinstance(found, NoMemory):
                self._recover(batch, found)
                if found.may_be_earlier:
                    return None
                continue
            self.budget.note_good_batch()
            margins.append(found)
            batches.append(batch)
            at += num
        fetched = attempt(_fetch, margins)
        if isinstance(fetched, NoMemory):
            self._recover(batches[0], fetched)
            return None
        for batch in batches:
            self._count(batch)
        return fetched

    def _recover(self, batch: Tokens, problem: NoMemory) -> None:
        """Reduce the token budget and free the failed batch's memory.

        Raises:
            torch.OutOfMemoryError: the batch is a single pair.
        """
        self.counters.num_out_of_memory += 1
        num_tokens = self._num_held_tokens(batch)
        if len(batch.lengths_B) == 1:
            raise self._no_room(num_tokens, problem)
        self.budget.reduce(num_tokens)
        free_memory(self.device)
        logger.warning(
            "out of memory: batches are reduced to %d tokens (%s)",
            self.tokens_per_batch,
            problem.reason,
        )

    def _no_room(self, num_tokens: int, problem: NoMemory) -> torch.OutOfMemoryError:
        return torch.OutOfMemoryError(
            f"a pair of {num_tokens} tokens does not fit in the memory of "
            f"{device_name(self.device)} in {dtype_name(self.dtype)}: lower label.max_length "
            f'(now {self.max_length}), set label.dtype = "float16" or "bfloat16", give an '
            f"actor more of its GPU (label.num_gpus), or end what else runs on it "
            f"({problem.reason})"
        )

    def _batch_rows(self, lengths: NDArray[np.int64]) -> int:
        if self.is_packed:
            return packed_rows(lengths, tokens_per_batch=self.tokens_per_batch)
        if not self.pads:
            lengths = lengths[lengths == lengths[0]]
        most = self.tokens_per_batch
        return padded_rows(lengths, tokens_per_batch=most, device=self.device)

    def _margins(self, batch: Tokens) -> Tensor:
        with torch.inference_mode():
            logits = self._run(batch).float()
            if self.gains_K is not None:
                return expected_logit(logits, self.gains_K)
            return logits[:, 1] - logits[:, 0] if logits.shape[1] == 2 else logits[:, 0]

    def _num_run_tokens(self, batch: Tokens) -> int:
        """Tokens of a batch that the model runs, padding included."""
        if self.is_packed:
            return len(batch.ids_T)
        return len(batch.lengths_B) * int(batch.lengths_B[0])

    def _num_held_tokens(self, batch: Tokens) -> int:
        """Tokens whose states are in memory while a batch runs."""
        return self._num_run_tokens(batch)

    def _count(self, batch: Tokens) -> None:
        self.counters.num_pairs += len(batch.lengths_B)
        self.counters.num_tokens += len(batch.ids_T)
        self.counters.num_padded_tokens += self._num_run_tokens(batch)


def _fetch(margins: list[Tensor]) -> NDArray[np.float32]:
    """All margins as one array; allocates nothing on the device, unlike torch.cat."""
    fetched = [margins_B.cpu().numpy() for margins_B in margins]
    return np.concatenate(fetched) if fetched else np.empty(0, np.float32)
