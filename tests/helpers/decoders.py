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


def make_tokenizer(folder: Path, *, pad: str | None = "<|endoftext|>", more: str = "") -> None:
    """Write a byte-level BPE tokenizer, as in GPT-2 and Qwen; `more`: words that it must know."""
    rust = Tokenizer(models.BPE())
    rust.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    rust.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=special, show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    texts = [" ".join(WORDS), "<Query>: sofa\n<Document>: lamp.\n", *([more] if more else [])]
    rust.train_from_iterator(texts * 50, trainer)
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=rust, eos_token="<|endoftext|>", pad_token=pad
    ).save_pretrained(folder)


# The prompt of the model card of Qwen3-Reranker, shorter.
CAUSAL_PROMPT = (
    "<|im_start|>system\nJudge.<|im_end|>\n<|im_start|>user\n<Instruct>: {instruction}\n"
    "<Query>: {query}\n<Document>: {title}<|im_end|>\n<|im_start|>assistant\n<think>\n\n"
    "</think>\n\n"
)
# As Qwen3-Reranker's own: roles by name, an instruction in the role system, what begins the answer.
RERANKER_CHAT = (
    '{%- set instruction = messages | selectattr("role", "eq", "system") '
    '| map(attribute="content") | first | default("Match") -%}\n'
    "<|im_start|>system\nJudge.<|im_end|>\n<|im_start|>user\n<Instruct>: {{ instruction }}\n"
    '<Query>: {{ messages | selectattr("role", "eq", "query") | map(attribute="content") '
    "| first }}\n"
    '<Document>: {{ messages | selectattr("role", "eq", "document") | map(attribute="content") '
    "| first }}<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n\n"
)
_LAYERS = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1,
    "head_dim": 16, "intermediate_size": 64, "max_position_embeddings": 256,
}  # fmt: skip
CAUSAL_KINDS: dict[str, dict[str, Any]] = {
    "Qwen3": {**_LAYERS, "tie_word_embeddings": True},
    "Llama": {**_LAYERS, "tie_word_embeddings": False},
    "Gemma2": {**_LAYERS, "final_logit_softcapping": 3.0, "sliding_window": 8},
    "Phi": {**_LAYERS, "tie_word_embeddings": False},  # its output matrix has a bias
    "GPT2": {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 256},
    "Mamba": {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 4},
}


def make_causal(
    folder: Path, *, kind: str = "Qwen3", pad: str | None = None, **settings: object
) -> Path:
    """A causal language model of 2 layers with random weights; `yes` and `no` are tokens."""
    folder.mkdir(parents=True)
    make_tokenizer(folder, pad=pad, more="yes no")
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(
        vocab_size=400, initializer_range=0.3, bos_token_id=0, eos_token_id=0, pad_token_id=None,
        **{**CAUSAL_KINDS[kind], **settings},
    )  # fmt: skip
    name = "GPT2LMHeadModel" if kind == "GPT2" else f"{kind}ForCausalLM"
    model = getattr(transformers, name)(config)
    matrix = model.get_output_embeddings()
    if matrix.bias is not None:
        torch.nn.init.normal_(matrix.bias)
    model.save_pretrained(folder)
    return folder


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
