"""fastText and model2vec with weights of no meaning, to time beside a student.

Input: pairs, for their words. Output: functions that score a query's titles. Both packages are
optional.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raydistill.evaluation.latency import Pair, Score

_BUCKETS = 2_000_000  # rows for word bigrams: fastText's default, 800 MB
_THREADS = 10  # each sets a tenth of the weights: of fewer threads the others stay as malloc gives
_VOCABULARY, _VECTOR_SIZE = 29_528, 256  # those of potion-base-8M


def fasttext_scorer(pairs: Sequence[Pair], *, buckets: int = _BUCKETS) -> Score:
    """A classifier of words and bigrams, 100 columns, fitted to the texts with random labels."""
    import fasttext  # imported here, as below: optional

    labels = random.Random(0)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "train.txt"
        file.write_text("".join(f"__label__{labels.randint(0, 1)} {_one_text(query, title)}\n"
                                for query, title in pairs))  # fmt: skip
        model = fasttext.train_supervised(
            str(file), wordNgrams=2, bucket=buckets, epoch=1, thread=_THREADS, verbose=0
        )

    def score(query: str, titles: Sequence[str]) -> object:
        texts = [_one_text(query, title) for title in titles]
        return model.predict(texts if len(texts) > 1 else texts[0])

    return score


def _one_text(query: str, title: str) -> str:
    return f"{query} {title}".lower().replace("\n", " ")


def model2vec_scorer(pairs: Sequence[Pair]) -> Score:
    """Cosines of static embeddings with random vectors; each word of the texts is one token."""
    from model2vec import StaticModel
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

    words = [*(f"[unused{at}]" for at in range(_VOCABULARY)), *words_of(pairs)][-_VOCABULARY:]
    ids = {"[UNK]": 0, **{word: at for at, word in enumerate(words, start=1)}}
    tokenizer: Any = Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()  # type: ignore[no-untyped-call, unused-ignore]
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    vectors = np.random.default_rng(0).normal(size=(len(ids), _VECTOR_SIZE)).astype(np.float32)
    model = StaticModel(vectors, tokenizer, normalize=True)

    def score(query: str, titles: Sequence[str]) -> NDArray[np.float32]:
        found = model.encode([query, *titles])
        return np.asarray(found[1:] @ found[0])

    return score


def words_of(pairs: Sequence[Pair]) -> list[str]:
    """The words of all texts, in lower case."""
    return sorted({word for pair in pairs for text in pair for word in text.lower().split()})


WORD_MODELS: dict[str, Callable[[Sequence[Pair]], Score]] = {
    "fastText": fasttext_scorer,
    "model2vec": model2vec_scorer,
}
