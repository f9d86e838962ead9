"""Build a Lexicon: the words of the transfer set, their IDF, and their vectors from an encoder.

Each word is encoded alone. Its vector is the mean of its wordpieces' outputs, reduced to a few
dozen columns by principal components (after model2vec, MinishLab 2024, which does so for
wordpieces). No Ray.

Shapes: K words, H columns of the encoder, E columns of a vector.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray

from raydistill.errors import UserError
from raydistill.files.folder import Folder
from raydistill.files.pieces import read_pieces, sample_pieces
from raydistill.serving.lexicon import Lexicon, unit_rows
from raydistill.serving.text.arrow_text import to_texts
from raydistill.serving.tokenizer import single_words
from raydistill.serving.units.names import Names
from raydistill.student.lexicon.document_counts import IDF_BITS, document_counts, idf
from raydistill.teachers.transformer.device import (
    device_use,
    set_up_attention,
    teacher_dtype,
    use_text,
)
from raydistill.teachers.transformer.model_loading import load_encoder, quiet_transformers
from raydistill.teachers.transformer.padded_model import set_padding
from raydistill.teachers.transformer.pair_tokenizer import load_tokenizer, one_line
from raydistill.teachers.transformer.tokenizer_check import check_ids

logger = logging.getLogger("raydistill")
_INSIDE = "'\u2019./"  # characters that may be inside a word
_NO_WORD = rf"[^\p{{L}}\p{{N}}\p{{M}}{_INSIDE}]+"
_LETTERS = r"[^\p{L}\p{N}\p{M}]+"
# As in `tokenizer.classify`: don't becomes do n't, and women 's becomes women's.
_NOT = (r"([\p{L}\p{N}\p{M}])(n['\x{2019}]t)($|[^\p{L}\p{N}\p{M}])", r"\1 \2\3")
_TAIL = (r"(\p{L}) (['\x{2019}](?:d|m|s|ll|re|ve))($|[^\p{L}\p{N}\p{M}'\x{2019}])", r"\1\2\3")
_LEAST_TIMES = 2  # a word with one occurrence is often a typing error
_MOST_CHARS = 40
_MOST_WORDPIECES = 24
_BATCH_WORDS = 1_024
_TRIED = ("sofa", "cordless drill", "18")
_SAMPLE_WORDS = 20_000  # the most frequent words, on which the principal components are fitted


def make_lexicon(
    folder: Folder,
    shards: Mapping[str, int],
    *,
    encoder: Path | None,
    num_words: int,
    dim: int,
    units: bool,
    extra_units: Names = (),
    device: str,
    trusts_code: bool = False,
) -> Lexicon:
    """The lexicon of the pairs in `shards`; without an `encoder` it has IDF values only."""
    idf_I = count_idf(folder, shards, units=units, extra_units=extra_units)
    if encoder is None:
        return Lexicon.from_idf(idf_I)
    texts = read_pieces(folder, sample_pieces(shards), columns=["query", "title"])
    words, hashes_K = frequent_words(texts, most=num_words)
    vectors_KH = encode_words(words, encoder, device=device, trusts_code=trusts_code)
    vectors_KE = unit_rows(principal_components(vectors_KH, num=dim)).astype(np.float16)
    use = device_use(device, dtype=teacher_dtype("auto", device=device))
    text = "lexicon   vectors of %s words from %s, on %s"
    logger.info(text, f"{len(words):,}", encoder, use_text(use))
    return Lexicon.from_idf(idf_I, words_K=hashes_K, vectors_KE=vectors_KE.astype(np.float32))


def frequent_words(
    tables: Iterable[pa.Table], *, most: int
) -> tuple[list[str], NDArray[np.uint64]]:
    """The most frequent words of queries and titles, 2 or more occurrences, and their hashes."""
    times: Counter[str] = Counter()
    for table in tables:
        for name in ("query", "title"):
            _count_words(table[name].combine_chunks(), times)
    # Ties are ordered by letters, as the order of shards may vary.
    ranked = sorted(times.items(), key=lambda item: (-item[1], item[0]))
    words = [word for word, num in ranked if num >= _LEAST_TIMES][:most]
    hashes = single_words(words)[0]
    _, firsts = np.unique(hashes, return_index=True)  # womens and women's have one hash
    firsts.sort()
    return [words[at] for at in firsts], hashes[firsts]


def _count_words(texts: pa.StringArray, times: Counter[str]) -> None:
    distinct = pc.value_counts(texts)
    lower = pc.utf8_lower(distinct.field(0))
    for pattern, spelled in (_NOT, _TAIL):
        lower = pc.replace_substring_regex(lower, pattern, spelled)
    tokens = pc.split_pattern_regex(lower, _NO_WORD)
    counts = np.repeat(distinct.field(1).to_numpy(), pc.list_value_length(tokens).to_numpy())
    found = pa.table({"token": pc.utf8_trim(tokens.flatten(), _INSIDE), "num": counts})
    found = found.group_by("token").aggregate([("num", "sum")])
    names, nums = found["token"].to_pylist(), found["num_sum"].to_pylist()
    kept = {token: num for token, num in zip(names, nums, strict=True) if len(token) <= _MOST_CHARS}
    for token, words in _words_of(list(kept)):
        for word in words:
            times[word] += kept[token]


def _words_of(tokens: list[str]) -> Iterator[tuple[str, list[str]]]:
    """Each token with its words: the token, its parts (and/or) or their characters (沙发)."""
    is_word = single_words(tokens)[1]
    yield from ((token, [token]) for token, good in zip(tokens, is_word, strict=True) if good)
    others = [token for token, good in zip(tokens, is_word, strict=True) if not good]
    for token, parts in zip(
        others,
        pc.split_pattern_regex(pa.array(others, pa.string()), _LETTERS).to_pylist(),
        strict=True,
    ):
        whole = single_words(parts)[1]
        pieces = ([p] if good else list(p) for p, good in zip(parts, whole, strict=True))
        yield token, [word for piece in pieces for word in piece]


def check_encoder(folder: Path, *, trusts_code: bool = False) -> None:
    """Encode a few words with the model in a folder.

    Raises:
        UserError: the model cannot be loaded, lacks weights, or gives vectors that are not finite.
    """
    try:
        vectors_KH = encode_words(_TRIED, folder, device="cpu", trusts_code=trusts_code)
    except UserError:
        raise
    except Exception as error:  # the folder's own code may raise any class
        raise UserError(f"the model in {folder} encodes no words: {one_line(error)}") from error
    if not np.isfinite(vectors_KH).all():
        raise UserError(f"the model in {folder} gives words vectors that are not finite")


def encode_words(
    words: Sequence[str], folder: Path, *, device: str, trusts_code: bool = False
) -> NDArray[np.float32]:
    """Mean of the outputs of each word's wordpieces and special tokens; shape K, H.

    Raises:
        UserError: see `load_encoder` and `load_tokenizer`.
    """
    if not words:
        return np.empty((0, 1), np.float32)
    quiet_transformers()
    model: Any = load_encoder(folder, trusts_code=trusts_code)
    set_up_attention(device)
    model = model.to(device).eval()
    tokenizer = load_tokenizer(folder, trusts_code=trusts_code)
    check_ids(folder, tokenizer, model)
    set_padding(model.config, tokenizer)
    means_BH: list[NDArray[np.float32]] = []
    order = np.argsort([len(word) for word in words], kind="stable")
    dtype = teacher_dtype("auto", device=device)
    autocast = torch.autocast(device, dtype=dtype, enabled=dtype != torch.float32)
    with torch.inference_mode(), autocast:
        for at in range(0, len(words), _BATCH_WORDS):
            batch = tokenizer(
                [words[row] for row in order[at : at + _BATCH_WORDS]],
                truncation=True,
                max_length=_MOST_WORDPIECES,
                padding=True,
                return_tensors="pt",
            ).to(device)
            hidden_BTH = model(**batch).last_hidden_state.float()
            mask_BT1 = batch["attention_mask"].unsqueeze(2)
            mean_BH = (hidden_BTH * mask_BT1).sum(1) / mask_BT1.sum(1)
            means_BH.append(mean_BH.cpu().numpy())
    return np.concatenate(means_BH)[np.argsort(order)]


def principal_components(vectors_KH: NDArray[np.float32], *, num: int) -> NDArray[np.float32]:
    """The centred vectors projected on their first `num` principal components, shape K, num.

    With fewer columns or fewer words than `num`, the last columns are 0.
    """
    centred = vectors_KH - vectors_KH.mean(axis=0)
    sample = centred[:_SAMPLE_WORDS]
    # The eigenvectors of H x H equal the right singular vectors of K x H and cost less.
    _, directions = np.linalg.eigh(sample.T.astype(np.float64) @ sample)
    kept = directions[:, ::-1][:, :num].astype(np.float32)
    out = np.zeros((len(vectors_KH), num), np.float32)
    out[:, : kept.shape[1]] = centred @ kept
    return out


def count_idf(
    folder: Folder, shards: Mapping[str, int], *, units: bool, extra_units: Names = ()
) -> NDArray[np.float32]:
    """IDF of all words from the titles of a sample of the pieces, in the form of a Lexicon.

    `units` and `extra_units` as in the NgramSpec of the run.
    """
    counts, num_titles = np.zeros(1 << IDF_BITS, np.int64), 0
    for table in read_pieces(folder, sample_pieces(shards), columns=["title"]):
        titles = table["title"]
        counts += document_counts(to_texts(titles), units=units, extra_units=extra_units)
        num_titles += len(titles)
    return idf(counts, num_documents=num_titles)
