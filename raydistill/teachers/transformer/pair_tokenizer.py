"""Pairs to token ids: tokenise each distinct text once, then build each pair from the texts' ids.

Input: queries and titles. Output: Tokens, all pairs laid end to end. The ids equal those of the
tokenizer's own pair call; a tokenizer for which they would differ is called on pairs instead. No
torch, no Ray.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from raydistill.errors import UserError

# Set before transformers is imported: its fork warning and progress bars are noise here.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")

from transformers import AutoTokenizer

_MOST_CHARS = 300  # of a library's error text
_CHUNK_TEXTS = 8_192  # the tokenizer's encoding takes 2 KB a text, the ids alone 100 bytes
# Empty, punctuated, in other scripts, one long word: texts that show template differences.
_ODD_TEXTS = ("", "grey sofa", "Sofa, 3 seats; 1/2 in.", "pied-à-terre 椅子 🪑", "a" * 99)


@dataclass(frozen=True)
class Tokens:
    """B pairs laid end to end: T wordpieces, their token types, and the length of each pair.

    A pair that the tokenizer cannot handle has length 0 and an entry in `reasons`.
    """

    ids_T: NDArray[np.int32]
    types_T: NDArray[np.int32]
    lengths_B: NDArray[np.int64]
    reasons: dict[int, str] = field(default_factory=dict)

    def take(self, rows: NDArray[np.int64]) -> Tokens:
        """The pairs of `rows`, in that order; `reasons` are dropped."""
        starts_B = np.cumsum(self.lengths_B) - self.lengths_B
        lengths = self.lengths_B[rows]
        at_T = ranges(starts_B[rows], lengths)
        return Tokens(self.ids_T[at_T], self.types_T[at_T], lengths)


@dataclass(frozen=True)
class Template:
    """The special tokens that a tokenizer adds before, between and after one or two texts."""

    special_ids: tuple[tuple[int, ...], ...]
    special_types: tuple[tuple[int, ...], ...]
    text_types: tuple[int, ...]

    @property
    def num_special(self) -> int:
        """Number of special tokens."""
        return sum(map(len, self.special_ids))


def model_root(folder: Path) -> Path:
    """The folder of the Hugging Face model: `folder`, or the subfolder that `modules.json` names.

    sentence-transformers writes a CrossEncoder in either layout.

    Raises:
        UserError: `modules.json` cannot be read, or its folder has no config.json.
    """
    modules = folder / "modules.json"
    if (folder / "config.json").exists() or not modules.exists():
        return folder
    try:
        root = folder / str(json.loads(modules.read_text(encoding="utf-8"))[0]["path"])
    except (ValueError, LookupError, TypeError) as error:
        raise UserError(
            f"{modules} cannot be read ({type(error).__name__}: {error}); it should be a JSON list "
            "of objects with `path`, as sentence-transformers writes it"
        ) from error
    if not (root / "config.json").is_file():
        raise UserError(f"{modules} names {root}, where there is no config.json")
    return root


def load_tokenizer(folder: Path, *, trusts_code: bool = False) -> Any:  # noqa: ANN401 - a union
    """The tokenizer of a model folder; the folder's own code runs only with `trusts_code`.

    Raises:
        UserError: the folder has no tokenizer, or it cannot be loaded.
    """
    root = model_root(folder)
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(root), trust_remote_code=trusts_code)
    except Exception as error:  # the Rust library raises a plain Exception for a broken file
        raise load_error(error, what=f"no tokenizer in {folder}") from error
    _check_files(tokenizer, root)
    return tokenizer


def load_error(error: Exception, *, what: str) -> UserError:
    """A UserError from transformers' error about a folder, in one line that begins with `what`."""
    text = one_line(error)
    if "trust_remote_code" in text or "contains custom code" in text:
        text = (
            "it needs the Python code in its folder (auto_map in its config), which is not run "
            "by default: review the code, then set trust_remote_code = true in the run file's "
            "[teachers.<name>] of this model"
        )
    return UserError(f"{what}: {text}")


def one_line(error: BaseException) -> str:
    """An error's text in one line, with its class unless the text is written for readers."""
    text = " ".join(str(error).split())
    text = text if len(text) <= _MOST_CHARS else text[:_MOST_CHARS] + "..."
    if type(error) in (OSError, ValueError) and text and not text.startswith("[Errno"):
        return text  # transformers writes these for readers
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _check_files(tokenizer: Any, root: Path) -> None:  # noqa: ANN401
    """Raise UserError if the files of the tokenizer's vocabulary are missing.

    transformers then builds a tokenizer of a few special tokens, and every word is unknown.
    """
    names = dict(tokenizer.vocab_files_names)
    if not names or (root / "tokenizer.json").is_file():
        return  # without vocabulary files: a tokenizer of bytes or characters
    has = {kind: (root / name).is_file() for kind, name in names.items()}
    is_whole = all(has.get(kind, True) for kind in ("vocab_file", "merges_file"))
    if not (is_whole and any(has.values())) and not _other_vocabulary(root):
        wanted = ", ".join(names[kind] for kind in names if not has[kind])
        raise UserError(
            f"no tokenizer in {root}: its vocabulary is missing ({wanted}); copy the tokenizer's "
            "files of the model into the folder"
        )


def _other_vocabulary(root: Path) -> bool:
    """Whether there is a vocabulary file that transformers converts for any tokenizer class."""
    names = ("tekken.json", "tokenizer.model", "spiece.model", "sentencepiece.bpe.model")
    return any((root / name).is_file() for name in names) or any(root.glob("*.tiktoken"))


def ranges(starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """`start, start + 1, ...` (`length` numbers) for each row, rows concatenated."""
    before = np.cumsum(lengths) - lengths
    return np.repeat(starts - before, lengths) + np.arange(int(lengths.sum()))


def kept_longest_first(
    first: NDArray[np.int64], second: NDArray[np.int64], *, capacity: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """How many wordpieces of each text are kept if both together may have `capacity`.

    Source: `truncate_encodings` of huggingface/tokenizers: the longer text is cut to `capacity`
    minus the shorter one; if the shorter one exceeds half of `capacity`, each gets half, and
    the longer one gets the odd wordpiece.
    """
    short = np.minimum(first, second)
    cut = np.where(short > capacity, short, np.maximum(short, capacity - short))
    is_half = short + cut > capacity
    kept_short = np.where(is_half, capacity // 2, short)
    kept_long = np.where(is_half, capacity // 2 + capacity % 2, cut)
    fits, is_swapped = first + second <= capacity, first > second
    return (
        np.where(fits, first, np.where(is_swapped, kept_long, kept_short)),
        np.where(fits, second, np.where(is_swapped, kept_short, kept_long)),
    )


def _kept(lengths: list[NDArray[np.int64]], *, capacity: int) -> list[NDArray[np.int64]]:
    if len(lengths) == 1:
        return [np.minimum(lengths[0], capacity)]
    return list(kept_longest_first(*lengths, capacity=capacity))


class PairTokenizer:
    """A tokenizer, and the templates by which its pairs are built from texts' ids."""

    def __init__(self, tokenizer: Any, *, max_length: int) -> None:  # noqa: ANN401
        """`max_length` counts the wordpieces of a pair, special tokens included."""
        self.tokenizer, self.max_length = tokenizer, max_length
        self.has_types = "token_type_ids" in tokenizer.model_input_names
        self._templates = {num: self._checked_template(num) for num in (1, 2)}

    def __call__(self, queries: Sequence[str], titles: Sequence[str]) -> Tokens:
        """The token ids of each pair; if all queries are "", the titles are single texts."""
        texts = (titles,) if not any(queries) else (queries, titles)
        template = self._templates[len(texts)]
        return self._built(template, texts) if template else self._called(texts)

    def _checked_template(self, num_texts: int) -> Template | None:
        """The tokenizer's template, if ids built with it equal the tokenizer's own; else None."""
        template = self._template(num_texts) if self.tokenizer.is_fast else None
        if template is None:
            return None
        odd = (*_ODD_TEXTS, "oak " * self.max_length)
        columns = zip(*((a, b) for a in odd for b in odd), strict=True)
        texts = tuple(columns)[:num_texts]
        built, called = self._built(template, texts), self._called(texts)
        same = all(
            np.array_equal(getattr(built, name), getattr(called, name))
            for name in ("ids_T", "types_T", "lengths_B")
        )
        return template if same else None

    def _template(self, num_texts: int) -> Template | None:
        """The special tokens around short texts; None if the texts are not in their order."""
        found = self.tokenizer(*("a", "b")[:num_texts], return_token_type_ids=True)
        ids: list[list[int]] = [[]]
        types: list[list[int]] = [[]]
        text_types: list[int] = []
        parts = zip(found.sequence_ids(0), found["input_ids"], found["token_type_ids"], strict=True)
        for text, id_, type_ in parts:
            if text is None:
                ids[-1].append(id_)
                types[-1].append(type_)
            elif text == len(text_types):  # the first wordpiece of the next text
                text_types.append(type_)
                ids.append([])
                types.append([])
        if len(text_types) != num_texts:
            return None
        types = types if self.has_types else [[0] * len(piece) for piece in types]
        return Template(
            special_ids=tuple(map(tuple, ids)),
            special_types=tuple(map(tuple, types)),
            text_types=tuple(text_types) if self.has_types else (0,) * num_texts,
        )

    def _built(self, template: Template, texts: Sequence[Sequence[str]]) -> Tokens:
        """Pairs built from the ids of their texts."""
        ids, starts_of, lengths_of, reasons = self._texts(texts)
        kept = _kept(lengths_of, capacity=self.max_length - template.num_special)
        lengths_B = np.sum(kept, axis=0) + template.num_special
        bad = np.fromiter(reasons, np.int64, len(reasons))
        for count in (lengths_B, *kept):
            count[bad] = 0
        pieces = _Pieces(lengths_B)
        for at, special in enumerate(template.special_ids):
            pieces.put_same(special, template.special_types[at])
            if at == len(texts):
                break
            starts = starts_of[at]
            if self.tokenizer.truncation_side == "left":
                starts = starts + lengths_of[at] - kept[at]
            pieces.put(ids, starts, kept[at], type_=template.text_types[at])
        return Tokens(pieces.ids_T, pieces.types_T, lengths_B, reasons)

    def _texts(
        self, texts: Sequence[Sequence[str]]
    ) -> tuple[NDArray[np.int32], list[NDArray[np.int64]], list[NDArray[np.int64]], dict[int, str]]:
        """Ids of the distinct texts end to end; each column's starts and lengths; reasons."""
        joined = pa.array(chain(*texts), pa.string()).dictionary_encode()
        encoded, bad = _encode_texts(self.tokenizer, joined.dictionary.to_pylist())
        lengths = np.fromiter(map(len, encoded), np.int64, len(encoded))
        starts = np.cumsum(lengths) - lengths
        ids = np.fromiter(chain.from_iterable(encoded), np.int32, int(lengths.sum()))
        which = np.asarray(joined.indices).reshape(len(texts), -1)
        rows = np.argwhere(np.isin(which.T, list(bad))) if bad else ()
        reasons = {int(row): bad[int(which[column, row])] for row, column in rows}
        return ids, [starts[at] for at in which], [lengths[at] for at in which], reasons

    def _called(self, texts: Sequence[Sequence[str]]) -> Tokens:
        """The tokenizer's own call for all pairs at once; one by one if that call fails."""
        reasons: dict[int, str] = {}
        try:
            found = self._call(texts)
        except Exception:  # the Rust library raises a plain Exception for a text it cannot handle
            found = {"input_ids": [], "token_type_ids": []}
            for row, pair in enumerate(zip(*texts, strict=True)):
                one: dict[str, list[list[int]]]
                try:
                    one = self._call([[text] for text in pair])
                except Exception as error:
                    reasons[row] = _reason(error)
                    one = {"input_ids": [[]], "token_type_ids": [[]]}
                for name, values in found.items():
                    values += one[name]
        lengths_B = np.fromiter(map(len, found["input_ids"]), np.int64, len(texts[0]))
        ids = np.fromiter(chain.from_iterable(found["input_ids"]), np.int32)
        types = np.fromiter(chain.from_iterable(found["token_type_ids"]), np.int32)
        return Tokens(ids, types if self.has_types else np.zeros_like(ids), lengths_B, reasons)

    def _call(self, texts: Sequence[Sequence[str]]) -> dict[str, list[list[int]]]:
        encoded = self.tokenizer(
            *map(list, texts),
            truncation="longest_first",
            max_length=self.max_length,
            return_attention_mask=False,
            return_token_type_ids=True,
        )
        return {name: encoded[name] for name in ("input_ids", "token_type_ids")}


class _Pieces:
    """The ids and types of all pairs, filled from left to right within each pair."""

    def __init__(self, lengths_B: NDArray[np.int64]) -> None:
        total = int(lengths_B.sum())
        self.ids_T, self.types_T = np.empty(total, np.int32), np.zeros(total, np.int32)
        self._is_there = lengths_B > 0
        self._at_B = np.cumsum(lengths_B) - lengths_B

    def put_same(self, ids: Sequence[int], types: Sequence[int]) -> None:
        """Append the same special tokens to each pair that is not empty."""
        for id_, type_ in zip(ids, types, strict=True):
            at = self._at_B[self._is_there]
            self.ids_T[at], self.types_T[at] = id_, type_
            self._at_B = self._at_B + 1

    def put(
        self,
        ids: NDArray[np.int32],
        starts_B: NDArray[np.int64],
        lengths_B: NDArray[np.int64],
        *,
        type_: int,
    ) -> None:
        """Append to each pair the ids of its own text."""
        at_T = ranges(self._at_B, lengths_B)
        self.ids_T[at_T] = ids[ranges(starts_B, lengths_B)]
        self.types_T[at_T] = type_
        self._at_B = self._at_B + lengths_B


def _encode_texts(
    tokenizer: Any,  # noqa: ANN401
    texts: Sequence[str],
) -> tuple[list[list[int]], dict[int, str]]:
    """Each text's ids without special tokens; for a text that fails, no ids and the reason."""
    rust = tokenizer.backend_tokenizer
    rust.no_truncation()  # a call with truncation leaves truncation switched on
    rust.no_padding()
    ids: list[list[int]] = []
    bad: dict[int, str] = {}
    for at in range(0, len(texts), _CHUNK_TEXTS):
        chunk = texts[at : at + _CHUNK_TEXTS]
        try:
            ids += [e.ids for e in rust.encode_batch_fast(chunk, add_special_tokens=False)]
        except Exception:  # the Rust library raises a plain Exception for a text it cannot handle
            for row, text in enumerate(chunk, start=at):
                try:
                    ids.append(rust.encode(text, add_special_tokens=False).ids)
                except Exception as error:
                    bad[row] = _reason(error)
                    ids.append([])
    return ids, bad


def _reason(error: Exception) -> str:
    return f"the tokenizer: {error}"
