"""Pairs formatted into a prompt, as token ids: the input of a decoder with a classification head.

The whole string is tokenised, as in the model's training: a byte-pair tokenizer may merge the end
of a text with what follows. A string that is too long has its query and title cut; the prompt is
never cut. No torch, no Ray.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import TemplateError
from numpy.typing import NDArray
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
)

from raydistill.config.prompt import EXAMPLE, Prompt
from raydistill.errors import UserError
from raydistill.teachers.transformer.pair_tokenizer import (
    PairTokenizer,
    Tokens,
    kept_longest_first,
    load_tokenizer,
)

LEAST_ROOM = 8  # tokens for query and title together
# In transformers' list of causal language models, but not read from left to right only.
_NOT_CAUSAL = frozenset({"xlnet"})
# Roles and texts that no chat template contains: they show where a template puts its input.
_ROLES = ("query", "document")
_NO_ROLES = ("\u2983no role\u2984", "\u2983nor this\u2984")
_QUERY_MARK, _TITLE_MARK = "\u2983query\u2984", "\u2983title\u2984"
_INSTRUCTION = "config_sentence_transformers.json"
FINE_TUNED = "raydistill_reads"  # key in a model's config: fine-tuned here on plain pairs


def is_decoder(config: Any) -> bool:  # noqa: ANN401 - transformers' configs
    """Whether a model attends from left to right only, as chat models do."""
    kind = config.model_type
    # Some decoders that also take images are only in the list of image models.
    with_images = MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES.get(kind, "")
    return (
        (kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES or str(with_images).endswith("ForCausalLM"))
        and kind not in MODEL_FOR_MASKED_LM_MAPPING_NAMES
        and kind not in _NOT_CAUSAL
        and not getattr(config, "is_encoder_decoder", False)
    )


def needs_prompt(config: Any) -> bool:  # noqa: ANN401
    """Whether the model expects a prompt: a decoder that was not fine-tuned here."""
    return is_decoder(config) and getattr(config, FINE_TUNED, None) != "pairs"


def make_tokenizer(
    folder: Path,
    *,
    config: Any,  # noqa: ANN401
    max_length: int,
    prompt: str | None,
    trusts_code: bool = False,
) -> PairTokenizer | PromptTokenizer:
    """The tokenizer of the model in `folder`: with `prompt`, with the folder's, or without one.

    Raises:
        UserError: a decoder without a prompt, or a prompt with too little capacity for texts.
    """
    tokenizer = load_tokenizer(folder, trusts_code=trusts_code)
    if prompt is not None:
        laid = Prompt.parse(prompt)
        return PromptTokenizer(tokenizer, laid, laid, max_length=max_length)
    if not needs_prompt(config):
        return PairTokenizer(tokenizer, max_length=max_length)
    pairs, single = (folder_prompt(folder, tokenizer, has_query=has) for has in (True, False))
    if pairs is None and single is None:
        raise UserError(
            f"{folder} is a decoder ({config.model_type}) with a classification head: such a model "
            "is trained on a prompt with query and title in it, and without one its scores are "
            "nearly random. Give the prompt that it was trained with, in the run file's table of "
            f"this teacher ({EXAMPLE}) or as a chat template with the roles query and document in "
            "its folder (chat_template.jinja, as sentence-transformers writes it)"
        )
    return PromptTokenizer(tokenizer, pairs, single, max_length=max_length)


def folder_prompt(
    folder: Path,
    tokenizer: Any,  # noqa: ANN401
    *,
    has_query: bool,
    instruction: str | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Prompt | None:
    """The folder's chat template as a prompt; None if it has no roles query and document.

    sentence-transformers puts a pair into messages of these two roles, and its default prompt (the
    instruction) into a message of the role system. `instruction` takes the place of that prompt;
    `settings` are the template's own.

    Raises:
        UserError: the template has no place for `instruction`.
    """
    if not tokenizer.chat_template:
        return None
    system = _instructions(folder) if instruction is None else [instruction]
    render = partial(_rendered, tokenizer, settings=settings or {})
    for shape in (_plain, _structured):
        text = render(shape(system, _ROLES, has_query=has_query))
        if text is None or "'type': 'text'" in text:  # the template printed a Python list
            continue
        if _same_as_any_role(text, render(shape(system, _NO_ROLES, has_query=has_query))):
            return None
        if instruction is not None and instruction not in text:
            raise UserError(
                f"the chat template of {folder} has no place for an instruction (a message of the "
                "role system): leave `instruction` out, or give a `prompt`"
            )
        return Prompt.of_marks(text, query=_QUERY_MARK, title=_TITLE_MARK, has_query=has_query)
    return None


def _same_as_any_role(text: str, strange: str | None) -> bool:
    """Whether a chat template formats query and document as messages of any role, as chats do."""
    if strange is None:
        return False
    for role, other in zip(_ROLES, _NO_ROLES, strict=True):
        strange = strange.replace(other, role)
    return strange == text


def _plain(system: list[str], roles: tuple[str, str], *, has_query: bool) -> list[dict[str, Any]]:
    """The messages of a pair, or of a single text, in the given roles."""
    messages = [{"role": "system", "content": text} for text in system]
    messages += [{"role": roles[0], "content": _QUERY_MARK}] if has_query else []
    return [*messages, {"role": roles[1], "content": _TITLE_MARK}]


def _rendered(
    tokenizer: Any,  # noqa: ANN401
    messages: list[dict[str, Any]],
    *,
    settings: Mapping[str, Any],
) -> str | None:
    """The chat template's output; None if the template fails or drops a text."""
    try:
        text = str(tokenizer.apply_chat_template(messages, tokenize=False, **settings))
    except (TemplateError, TypeError, ValueError, ArithmeticError, LookupError):
        return None
    has_query = any(_QUERY_MARK in str(message["content"]) for message in messages)
    is_whole = text.count(_TITLE_MARK) == 1 and text.count(_QUERY_MARK) == int(has_query)
    return text if is_whole else None


def _structured(
    system: list[str], roles: tuple[str, str], *, has_query: bool
) -> list[dict[str, Any]]:
    """`_plain` with content as a list of parts, as templates for text and images expect it."""
    return [
        {**message, "content": [{"type": "text", "text": message["content"]}]}
        for message in _plain(system, roles, has_query=has_query)
    ]


def _instructions(folder: Path) -> list[str]:
    """The default prompt of a CrossEncoder's folder: no text or one."""
    file = folder / _INSTRUCTION
    if not file.exists():
        return []
    try:
        settings = json.loads(file.read_text(encoding="utf-8"))
        prompt = (settings.get("prompts") or {}).get(settings.get("default_prompt_name"))
    except (ValueError, AttributeError) as error:
        raise UserError(
            f"{file} cannot be read ({error}); it should be a JSON object with `prompts` and "
            "`default_prompt_name`: correct it or remove it"
        ) from error
    return [str(prompt)] if prompt else []


class PromptTokenizer:
    """A tokenizer that formats pairs into a prompt; has the interface of PairTokenizer."""

    has_types = False

    def __init__(
        self,
        tokenizer: Any,  # noqa: ANN401
        pairs: Prompt | None,
        single: Prompt | None,
        *,
        max_length: int,
    ) -> None:
        """`pairs` and `single`: prompts for each input; `max_length` includes the prompt's tokens.

        Raises:
            UserError: a prompt leaves fewer than 8 tokens for texts.
        """
        self.tokenizer, self.max_length = tokenizer, max_length
        self.pairs, self.single = pairs, single
        for prompt in filter(None, (pairs, single)):
            num_prompt = len(self._encoded([prompt.laid("", "")], prompt)[0])
            if num_prompt + LEAST_ROOM > max_length:
                raise UserError(
                    f"the prompt has {num_prompt} tokens and label.max_length is {max_length}: "
                    f"give at least {num_prompt + LEAST_ROOM}, and what queries and titles need"
                )

    def __call__(self, queries: Sequence[str], titles: Sequence[str]) -> Tokens:
        """The token ids of each pair in its prompt; if all queries are "", of single texts.

        Raises:
            UserError: pairs for a prompt of single texts, or the reverse.
        """
        if not titles:
            return Tokens(np.empty(0, np.int32), np.empty(0, np.int32), np.empty(0, np.int64))
        is_single = not any(queries)
        prompt = self.single if is_single else self.pairs
        if prompt is None or prompt.has_query == is_single:
            kind = "single texts" if is_single else "pairs of query and title"
            raise UserError(f"the teacher's prompt takes no {kind}; give it another `prompt`")
        reasons: dict[int, str] = {}
        ids = self._all(prompt, queries, titles, reasons)
        lengths_B = np.fromiter(map(len, ids), np.int64, len(ids))
        ids_T = np.fromiter(chain.from_iterable(ids), np.int32, int(lengths_B.sum()))
        return Tokens(ids_T, np.zeros_like(ids_T), lengths_B, reasons)

    def _all(
        self,
        prompt: Prompt,
        queries: Sequence[str],
        titles: Sequence[str],
        reasons: dict[int, str],
    ) -> list[list[int]]:
        """The ids of each pair; a pair that the tokenizer cannot handle has none, and a reason."""
        pairs = list(zip(queries, titles, strict=True))
        try:
            ids = self._encoded([prompt.laid(*pair) for pair in pairs], prompt)
            for row, found in enumerate(ids):
                if len(found) > self.max_length:
                    ids[row] = self._cut(prompt, *pairs[row], excess=found)
        except Exception as error:  # the Rust library raises a plain Exception for such a text
            if len(pairs) == 1:
                reasons[0] = f"the tokenizer: {error}"
                return [[]]
            ids = []
            for row, (query, title) in enumerate(pairs):
                why: dict[int, str] = {}
                ids += self._all(prompt, [query], [title], why)
                if why:
                    reasons[row] = why[0]
        return ids

    def _encoded(self, texts: Sequence[str], prompt: Prompt) -> list[list[int]]:
        if not texts:
            return []
        found: list[list[int]] = self.tokenizer(
            list(texts), add_special_tokens=prompt.adds_special, return_attention_mask=False
        )["input_ids"]
        return found

    def _cut(self, prompt: Prompt, query: str, title: str, *, excess: list[int]) -> list[int]:
        """The ids of a pair that is too long: query and title are cut, the longer one first."""
        ends_q, ends_t = (self._ends(text) for text in (query, title))
        capacity = self.max_length - (len(excess) - len(ends_q) - len(ends_t))
        while True:  # a cut may split a character or merged token into more: try one token less
            capacity = min(max(capacity, 0), len(ends_q) + len(ends_t))
            num_q, num_t = self._kept(len(ends_q), len(ends_t), capacity=capacity)
            short = prompt.laid(query[: _end(ends_q, num_q)], title[: _end(ends_t, num_t)])
            ids = self._encoded([short], prompt)[0]
            if len(ids) <= self.max_length:
                return ids
            capacity -= 1

    def _kept(self, num_query: int, num_title: int, *, capacity: int) -> tuple[int, int]:
        """How many tokens of query and title are kept: the longer text is cut first."""
        lengths: list[NDArray[np.int64]] = [np.array([num]) for num in (num_query, num_title)]
        kept = kept_longest_first(*lengths, capacity=capacity)
        return int(kept[0][0]), int(kept[1][0])

    def _ends(self, text: str) -> list[int]:
        """The end position of each token in a text, in characters."""
        offsets = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)[
            "offset_mapping"
        ]
        return [end for _, end in offsets]


def _end(ends: Sequence[int], num: int) -> int:
    return ends[num - 1] if num else 0
