"""Ids built from separate texts against the tokenizer's pair call, for each tokenizer family.

The tokenizers are real and small: their vocabularies are trained here on a made-up shop.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import (
    DebertaTokenizer,
    DebertaV2Tokenizer,
    MPNetTokenizer,
    RobertaTokenizer,
    TokenizersBackend,
    XLMRobertaTokenizer,
)

from raydistill.demo.shop import Shop
from raydistill.teachers.transformer.pair_tokenizer import (
    PairTokenizer,
    Tokens,
    kept_longest_first,
    load_tokenizer,
    ranges,
)

ODD = (
    "", " ", "a", "sofa", "SOFA, 3-seats", 'bolt 1/2" x 3"', "façade é è", "椅子 テーブル", "🪑🛋️",
    "[SEP] sofa [CLS]", "</s><s>", "<mask>", "tab\tnew\nline", "x" * 70, "oak " * 40, "½ ² №",
    "\u200b\u00ad", "ÅÄÖ" * 9, "don't can't", "مصباح", "1234567890 " * 9,
)  # fmt: skip


def odd_pairs(shop: Shop, num: int) -> tuple[list[str], list[str]]:
    """Texts of a shop, odd texts, and both together, of very different lengths."""
    rng = np.random.default_rng(0)
    words = [*shop.transfer_pairs(0, num_rows=500)["title"].to_pylist(), *ODD, *ODD, *ODD]

    def text() -> str:
        return " ".join(rng.choice(words, rng.integers(0, 4))) if rng.random() < 0.8 else ""

    few = [text() for _ in range(num // 10)]  # texts repeat, as queries do
    return [str(rng.choice(few)) for _ in range(num)], [text() for _ in range(num)]


def own_call(tokenizer: Any, columns: Sequence[list[str]], max_length: int) -> Tokens:  # noqa: ANN401
    found = tokenizer(*columns, truncation="longest_first", max_length=max_length)
    ids = found["input_ids"]
    types = found.get("token_type_ids") or [[0] * len(row) for row in ids]
    return Tokens(
        np.array([i for row in ids for i in row], np.int32),
        np.array([i for row in types for i in row], np.int32),
        np.array([len(row) for row in ids]),
    )


def assert_same(found: Tokens, expected: Tokens) -> None:
    assert np.array_equal(found.lengths_B, expected.lengths_B)
    assert np.array_equal(found.ids_T, expected.ids_T)
    assert np.array_equal(found.types_T, expected.types_T)


def bpe(texts: list[str]) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Vocabulary and merges over bytes, with the special tokens of RoBERTa and DeBERTa."""
    import json

    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", "[CLS]", "[SEP]", "[PAD]", "[UNK]"]
    trained.train_from_iterator(texts, trainers.BpeTrainer(
        vocab_size=600, special_tokens=special, show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))  # fmt: skip
    model = json.loads(trained.to_str())["model"]
    return model["vocab"], [tuple(pair) for pair in model["merges"]]


def unigram(texts: list[str], special: list[str]) -> list[tuple[str, float]]:
    """Pieces and scores, as SentencePiece has them."""
    import json

    trained = Tokenizer(models.Unigram())
    trained.pre_tokenizer = pre_tokenizers.Metaspace()
    trained.train_from_iterator(
        texts,
        trainers.UnigramTrainer(
            vocab_size=400, special_tokens=special, unk_token=special[3], show_progress=False
        ),
    )
    return [(piece, score) for piece, score in json.loads(trained.to_str())["model"]["vocab"]]


def modern_bert(texts: list[str]) -> TokenizersBackend:
    """What ModernBERT ships: bytes and [CLS] A [SEP] B [SEP], without token types."""
    vocab, merges = bpe(texts)
    rust = Tokenizer(models.BPE(vocab, merges))
    rust.normalizer = normalizers.NFC()
    rust.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    rust.decoder = decoders.ByteLevel()
    rust.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0", pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=[("[CLS]", vocab["[CLS]"]), ("[SEP]", vocab["[SEP]"])],
    )  # fmt: skip
    return TokenizersBackend(
        tokenizer_object=rust, cls_token="[CLS]", sep_token="[SEP]", pad_token="[PAD]",
        unk_token="[UNK]", model_input_names=["input_ids", "attention_mask"],
    )  # fmt: skip


def mpnet(texts: list[str]) -> MPNetTokenizer:
    letters = sorted({letter for text in texts for letter in text.lower()})
    pieces = [*letters, *(f"##{letter}" for letter in letters), "sofa", "grey", "oak", "##a"]
    names = ["<s>", "<pad>", "</s>", "[UNK]", "<mask>", *dict.fromkeys(pieces)]
    return MPNetTokenizer(vocab={name: at for at, name in enumerate(names)})


def multilingual(texts: list[str]) -> XLMRobertaTokenizer:
    return XLMRobertaTokenizer(vocab=unigram(texts, ["<s>", "<pad>", "</s>", "<unk>"]))


def deberta_v2(texts: list[str]) -> DebertaV2Tokenizer:
    return DebertaV2Tokenizer(vocab=unigram(texts, ["[PAD]", "[CLS]", "[SEP]", "[UNK]"]))


FAMILIES: dict[str, Callable[[list[str]], Any]] = {
    "roberta": lambda texts: RobertaTokenizer(*bpe(texts)),
    "mpnet": mpnet,
    "deberta": lambda texts: DebertaTokenizer(*bpe(texts)),
    "deberta_v2": deberta_v2,
    "modern_bert": modern_bert,
    "multilingual": multilingual,
}


@pytest.fixture(scope="module")
def texts(shop: Shop) -> list[str]:
    return shop.transfer_pairs(0, num_rows=100)["title"].to_pylist()


@pytest.fixture(scope="module")
def pairs(shop: Shop) -> tuple[list[str], list[str]]:
    return odd_pairs(shop, 200)


def check(tokenizer: Any, queries: list[str], titles: list[str]) -> None:  # noqa: ANN401
    for max_length in (13, 64):
        ours = PairTokenizer(tokenizer, max_length=max_length)
        assert ours._templates[2]  # built from the ids of texts, not tokenised as pairs
        expected = own_call(tokenizer, (queries, titles), max_length)
        assert 1 < len(set(expected.lengths_B))  # some cut, some not
        assert_same(ours(queries, titles), expected)
        none = [""] * len(titles)
        assert_same(ours(none, titles), own_call(tokenizer, (titles,), max_length))


def test_bert(tiny_bert: Path, pairs: tuple[list[str], list[str]]) -> None:
    check(load_tokenizer(tiny_bert), *pairs)


@pytest.mark.parametrize(
    "family",
    [pytest.param(f, marks=[pytest.mark.slow] * (f != "roberta")) for f in FAMILIES],
)
def test_other_families(family: str, texts: list[str], pairs: tuple[list[str], list[str]]) -> None:
    check(FAMILIES[family](texts), *pairs)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["bert", *FAMILIES])
def test_many_odd_pairs(family: str, texts: list[str], shop: Shop, tiny_bert: Path) -> None:
    tokenizer = load_tokenizer(tiny_bert) if family == "bert" else FAMILIES[family](texts)
    check(tokenizer, *odd_pairs(shop, 2_000))


def test_cut_from_the_left(tiny_bert: Path, pairs: tuple[list[str], list[str]]) -> None:
    tokenizer = load_tokenizer(tiny_bert)
    tokenizer.truncation_side = "left"
    check(tokenizer, *pairs)


def test_a_template_that_is_not_understood(tiny_bert: Path) -> None:
    """A tokenizer that numbers its texts the other way round: its own call is made."""
    tokenizer = load_tokenizer(tiny_bert)
    vocab = tokenizer.get_vocab()
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $B:0 [SEP] $A:1 [SEP]:1",
        special_tokens=[(name, vocab[name]) for name in ("[CLS]", "[SEP]")],
    )  # fmt: skip
    ours = PairTokenizer(tokenizer, max_length=12)
    assert not ours._templates[2]
    queries, titles = ["sofa", "oak", ""], ["grey sofa", "blue lamp " * 9, "rug"]
    assert_same(ours(queries, titles), own_call(tokenizer, (queries, titles), 12))


@pytest.mark.parametrize("is_built", [True, False])
def test_a_text_that_the_tokenizer_refuses(tiny_bert: Path, is_built: bool) -> None:
    """Words alone and no token for the unknown ones: an error of the library for the text."""
    tokenizer = load_tokenizer(tiny_bert)
    ours = PairTokenizer(tokenizer, max_length=12)
    if not is_built:
        ours._templates = {1: None, 2: None}
    words = {"[CLS]": 0, "[SEP]": 1, "sofa": 2, "oak": 3}
    tokenizer.backend_tokenizer.model = models.WordLevel(words, unk_token="[NONE]")
    found = ours(["sofa", "zzz", "oak"], ["oak", "sofa", "oak zzz"])
    assert found.lengths_B.tolist() == [5, 0, 0]
    assert list(found.reasons) == [1, 2]
    assert all(reason.startswith("the tokenizer: ") for reason in found.reasons.values())
    assert len(found.ids_T) == 5


def test_longest_first() -> None:
    first, second = np.array([2, 9, 9, 3, 4]), np.array([3, 2, 9, 9, 4])
    kept = kept_longest_first(first, second, capacity=7)
    assert [k.tolist() for k in kept] == [[2, 5, 3, 3, 3], [3, 2, 4, 4, 4]]


def test_take() -> None:
    tokens = Tokens(np.arange(6, dtype=np.int32), np.zeros(6, np.int32), np.array([1, 0, 3, 2]))
    some = tokens.take(np.array([3, 0]))
    assert some.ids_T.tolist() == [4, 5, 0]
    assert ranges(np.array([7, 0]), np.array([2, 3])).tolist() == [7, 8, 0, 1, 2]
