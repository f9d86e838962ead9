"""fastText and model2vec with weights of no meaning, to time beside a student; fastText fitted.

Input: pairs, for their words. Output: functions that score a query's titles; of the fitted one, a
function that scores pairs. Both packages are optional.
"""

from __future__ import annotations

import importlib.util
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
FASTTEXT = "fastText on judged labels"
# The best of 5, 10 and 25 epochs with rates 0.05, 0.1 and 0.5 on the dev pairs of two data sets
# (tests/bench/fasttext_baseline.py); 200,000 buckets take 80 MB.
_EPOCHS, _RATE, _FITTED_BUCKETS = 5, 0.05, 200_000
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


def has_fasttext() -> bool:
    """Whether fastText is installed."""
    return importlib.util.find_spec("fasttext") is not None


def fasttext_classifier(
    pairs: Sequence[Pair], relevant_B: NDArray[np.bool_]
) -> Callable[[Sequence[Pair]], NDArray[np.float32]]:
    """A classifier of words and bigrams fitted to labels: a function of pairs to probabilities.

    One thread: the same pairs give the same scores.
    """
    import fasttext

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "train.txt"
        with file.open("w", encoding="utf-8") as lines:
            for (query, title), is_relevant in zip(pairs, relevant_B, strict=True):
                text = _one_text(query, title).replace("__label__", "label")  # not one more label
                lines.write(f"__label__{int(is_relevant)} {text}\n")
        model = fasttext.train_supervised(
            str(file), epoch=_EPOCHS, lr=_RATE, wordNgrams=2, bucket=_FITTED_BUCKETS, seed=0,
            thread=1, verbose=0,
        )  # fmt: skip

    def score(pairs: Sequence[Pair]) -> NDArray[np.float32]:
        if not pairs:
            return np.empty(0, np.float32)
        labels, shares = model.predict([_one_text(query, title) for query, title in pairs])
        firsts = zip(labels, shares, strict=True)
        values = [p[0] if name[0] == "__label__1" else 1 - p[0] for name, p in firsts]
        return np.array(values, np.float32).clip(0, 1)

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
