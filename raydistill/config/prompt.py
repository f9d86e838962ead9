"""A decoder's prompt: a text with slots for the query and the title; a reranker's question."""

from __future__ import annotations

import re
from dataclasses import dataclass

_SLOT = re.compile(r"(\{query\}|\{title\})")
EXAMPLE = (
    r'prompt = "<Instruct>: is the product what the query asks for?\n<Query>: {query}\n'
    r'<Document>: {title}\n"'
)


INSTRUCTION = "{instruction}"
# As the model card of Qwen3-Reranker has it.
CAUSAL_EXAMPLE = (
    r'prompt = "<|im_start|>system\nJudge whether the Document meets the requirements based on the '
    r"Query and the Instruct provided. Note that the answer can only be \"yes\" or \"no\"."
    r"<|im_end|>\n<|im_start|>user\n<Instruct>: {instruction}\n<Query>: {query}\n"
    r'<Document>: {title}<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"'
)


@dataclass(frozen=True)
class Prompt:
    """The text before, between and after one or two slots, `query` and `title`, in prompt order.

    `adds_special`: whether the tokenizer adds its special tokens around the complete prompt.
    """

    pieces: tuple[str, ...]
    slots: tuple[str, ...]
    adds_special: bool = True

    @classmethod
    def parse(cls, text: str, *, adds_special: bool = True) -> Prompt:
        """The prompt of a text with `{title}` once and `{query}` at most once.

        Other braces are text.

        Raises:
            ValueError: no `{title}`, or a slot that is repeated.
        """
        parts = _SLOT.split(text)
        slots = tuple(part.strip("{}") for part in parts[1::2])
        if slots.count("title") != 1 or slots.count("query") > 1:
            raise ValueError(
                f"a prompt has {{title}} once and {{query}} at most once, not "
                f"{slots.count('title')} and {slots.count('query')} times"
            )
        return cls(tuple(parts[::2]), slots, adds_special)

    @classmethod
    def of_marks(cls, text: str, *, query: str, title: str, has_query: bool) -> Prompt:
        """The prompt of a rendered text that has these two marks in the places of the slots.

        Each mark occurs once. The text already has the tokenizer's special tokens.
        """
        marks = {query: "query", title: "title"} if has_query else {title: "title"}
        parts = re.split("|".join(f"({re.escape(mark)})" for mark in marks), text)
        parts = [part for part in parts if part is not None]
        return cls(tuple(parts[::2]), tuple(marks[part] for part in parts[1::2]), False)

    @property
    def has_query(self) -> bool:
        """Whether the prompt has a slot for a query; a prompt for single texts has none."""
        return "query" in self.slots

    def laid(self, query: str, title: str) -> str:
        """The prompt with the texts in their slots."""
        texts = {"query": query, "title": title}
        parts = [self.pieces[0]]
        for slot, piece in zip(self.slots, self.pieces[1:], strict=True):
            parts += [texts[slot], piece]
        return "".join(parts)


@dataclass(frozen=True)
class Question:
    """What a generative reranker is asked, as the run file has it; None: as its folder says.

    `prompt` has `{title}`, `{query}` (not with single texts) and `{instruction}` (if there is one).
    `yes` and `no` are the tokens whose logits are compared; `no = ""`: the logit of `yes` alone.
    """

    prompt: str | None = None
    instruction: str | None = None
    yes: str | None = None
    no: str | None = None

    def laid(self) -> Prompt | None:
        """The prompt with the instruction in its place; None: the folder's.

        Raises:
            ValueError: see `Prompt.parse`; or a prompt with a slot for an instruction and no
                instruction, or the reverse.
        """
        if self.prompt is None:
            return None
        if (INSTRUCTION in self.prompt) != (self.instruction is not None):
            problem = (
                "`prompt` has {instruction}, and `instruction` is not given"
                if self.instruction is None
                else "`instruction` is given, and `prompt` has no {instruction} for it"
            )
            raise ValueError(problem)
        return Prompt.parse(self.prompt.replace(INSTRUCTION, self.instruction or ""))
