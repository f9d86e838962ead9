"""Tiny real models with random weights, as Hugging Face model folders."""

from pathlib import Path

from tests.helpers.words import VOCABULARY

TINY = {
    "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64,
    "max_position_embeddings": 64,
}  # fmt: skip


def make_bert(folder: Path, *, num_labels: int, seed: int = 0, **sizes: int) -> Path:
    """A real BERT cross-encoder with random weights: 1 layer, 32 wide, about 200 words.

    `sizes` are other sizes than those of `TINY`.
    """
    import torch
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast

    folder.mkdir(parents=True)
    vocab = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *VOCABULARY]
    (folder / "vocab.txt").write_text("\n".join(vocab))
    BertTokenizerFast(vocab=str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(vocab),
        **{**TINY, **sizes},
        num_labels=num_labels,
        initializer_range=0.5,  # large: a wrong order or a missing word changes the logit clearly
    )
    BertForSequenceClassification(config).save_pretrained(folder)
    return folder


def make_mpnet(folder: Path) -> Path:
    """An encoder of another family: other special tokens, no token types, positions from 2."""
    import torch
    from transformers import MPNetConfig, MPNetModel, MPNetTokenizerFast

    folder.mkdir(parents=True)
    vocab = ["<s>", "<pad>", "</s>", "[UNK]", *VOCABULARY, "<mask>"]
    (folder / "vocab.txt").write_text("\n".join(vocab))
    MPNetTokenizerFast(vocab=str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(0)
    config = MPNetConfig(
        vocab_size=len(vocab),
        **TINY,
        initializer_range=0.5,  # at the default, so narrow a model has equal logits for all pairs
    )
    MPNetModel(config).save_pretrained(folder)
    return folder


def make_roberta(folder: Path, source: Path) -> Path:
    """A RoBERTa cross-encoder; of its 64 positions the first two are for padding."""
    import transformers

    config = transformers.RobertaConfig(
        vocab_size=5 + len(VOCABULARY), hidden_size=32, num_hidden_layers=1, num_labels=1,
        num_attention_heads=2, intermediate_size=64, max_position_embeddings=64,
        type_vocab_size=2, pad_token_id=1,
    )  # fmt: skip
    transformers.RobertaForSequenceClassification(config).save_pretrained(folder)
    transformers.AutoTokenizer.from_pretrained(source).save_pretrained(folder)
    return folder
