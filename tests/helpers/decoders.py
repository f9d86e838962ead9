"""Tiny decoders with a classification head, their tokenizer and a prompt."""

from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from tests.helpers.words import WORDS

PROMPT = (
    "<|im_start|>system\nJudge the Document.<|im_end|>\n<|im_start|>user\n<Query>: {query}\n"
    "<Document>: {title}<|im_end|>\n<|im_start|>assistant\n"
)


def make_tokenizer(folder: Path, *, pad: str | None = "<|endoftext|>") -> None:
    """Write a byte-level BPE tokenizer, as in GPT-2 and Qwen."""
    rust = Tokenizer(models.BPE())
    rust.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    rust.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=special, show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    rust.train_from_iterator([" ".join(WORDS), "<Query>: sofa\n<Document>: lamp.\n"] * 50, trainer)
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=rust, eos_token="<|endoftext|>", pad_token=pad
    ).save_pretrained(folder)


def make_decoder(folder: Path, *, kind: str = "Qwen3") -> Path:
    folder.mkdir(parents=True)
    make_tokenizer(folder, pad=None if kind == "GPT2" else "<|endoftext|>")
    torch.manual_seed(0)
    sizes: dict[str, Any] = {
        "Qwen3": {
            "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
            "num_key_value_heads": 1, "head_dim": 16, "intermediate_size": 64, "pad_token_id": 0,
            "max_position_embeddings": 256,
        },
        "GPT2": {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 256},
    }[kind]  # fmt: skip
    config = getattr(transformers, f"{kind}Config")(
        vocab_size=400, num_labels=1, initializer_range=0.3, bos_token_id=0, eos_token_id=0, **sizes
    )
    getattr(transformers, f"{kind}ForSequenceClassification")(config).save_pretrained(folder)
    return folder
