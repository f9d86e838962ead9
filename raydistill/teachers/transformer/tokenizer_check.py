"""Check that a tokenizer belongs to its model and covers the user's language; no Ray."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from raydistill.errors import UserError

_MOST_LOST = 0.5  # share of the characters of a sample of texts
_MARKS = "\u2581\u0120##"  # prefixes that tokenizers add to a word or to its continuation


def check_ids(folder: Path, tokenizer: Any, model: Any) -> None:  # noqa: ANN401
    """Raise UserError if a tokenizer has ids without a row in the model's embedding."""
    num_rows = num_embeddings(model)
    if num_rows is None:
        return
    token, largest = max(tokenizer.get_vocab().items(), key=lambda item: item[1])
    if largest >= num_rows:
        num_beyond = sum(id_ >= num_rows for id_ in tokenizer.get_vocab().values())
        raise UserError(
            f"the tokenizer in {folder} is not of its model: {num_beyond} of its tokens, "
            f"{token!r} with id {largest} among them, have no row in the embedding of {num_rows} "
            "rows; give the model the tokenizer that it was trained with, or resize its embedding"
        )


def num_embeddings(model: Any) -> int | None:  # noqa: ANN401
    """Rows of the token embedding table; None: no table, as in a model that hashes characters."""
    try:
        table = model.get_input_embeddings()
    except NotImplementedError:
        return None
    return table.num_embeddings if isinstance(table, nn.Embedding) else None


def check_texts(folder: Path, tokenizer: Any, texts: Sequence[str]) -> None:  # noqa: ANN401
    """Raise UserError if more than half of the texts' characters become unknown tokens."""
    texts = [text for text in texts if text.strip()]
    if not texts:
        return
    lost = lost_share(tokenizer, texts)
    if lost > _MOST_LOST:
        unknown = tokenizer.unk_token or "nothing"
        raise UserError(
            f"the tokenizer in {folder} does not know the words of these pairs: {lost:.0%} of the "
            f"characters of {len(texts)} texts become {unknown} (as in {texts[0][:60]!r}); is it "
            "the tokenizer of this model, and is the model one for this language?"
        )


def lost_share(tokenizer: Any, texts: Sequence[str]) -> float:  # noqa: ANN401
    """The share of characters other than spaces that belong to no known token."""
    if not tokenizer.is_fast:
        return _lost_tokens(tokenizer, texts)
    encoded = tokenizer(list(texts), add_special_tokens=False, return_offsets_mapping=True)
    num_chars = num_known = 0
    for text, ids, spans in zip(
        texts, encoded["input_ids"], encoded["offset_mapping"], strict=True
    ):
        known: set[int] = set()
        tokens = tokenizer.convert_ids_to_tokens(ids)
        for id_, token, (start, stop) in zip(ids, tokens, spans, strict=True):
            if id_ != tokenizer.unk_token_id and (token or "").strip(_MARKS):
                known.update(range(start, stop))
        chars = {at for at, char in enumerate(text) if not char.isspace()}
        num_chars, num_known = num_chars + len(chars), num_known + len(chars & known)
    return 1 - num_known / num_chars


def _lost_tokens(tokenizer: Any, texts: Sequence[str]) -> float:  # noqa: ANN401
    """The share of unknown tokens, for tokenizers that give no character offsets."""
    tokens = [token for text in texts for token in tokenizer.tokenize(text)]
    said: list[str] = [
        token for token in tokens if token == tokenizer.unk_token or token.strip(_MARKS)
    ]
    num_unknown = sum(bool(token == tokenizer.unk_token) for token in said)
    return num_unknown / len(said) if said else 1.0
