"""Tiny sentence encoders with random weights, in the folders that sentence-transformers writes."""

import json
from pathlib import Path

from tests.helpers.models import TINY
from tests.helpers.words import VOCABULARY


def make_sentence_encoder(
    folder: Path, *, pooling: dict[str, object] | None = None, family: str = "bert", **extra: object
) -> Path:
    """An encoder of 1 layer, 32 wide; with `pooling`, modules.json and 1_Pooling/config.json.

    `extra`: `prompts`, `max_seq_length`.
    """
    import torch
    import transformers

    folder.mkdir(parents=True)
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    vocab = [*special, *VOCABULARY, ":"]
    (folder / "vocab.txt").write_text("\n".join(vocab))
    transformers.BertTokenizerFast(vocab=str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(0)
    model: torch.nn.Module
    if family == "bert":
        config = transformers.BertConfig(vocab_size=len(vocab), **TINY, initializer_range=0.5)
        model = transformers.BertModel(config)
    else:  # a family that is not packed
        sizes = {"dim": 32, "n_layers": 1, "n_heads": 2, "hidden_dim": 64}
        distil = transformers.DistilBertConfig(
            vocab_size=len(vocab), **sizes, max_position_embeddings=64, initializer_range=0.5
        )
        model = transformers.DistilBertModel(distil)
    model.save_pretrained(folder)
    if pooling is not None:
        write_modules(folder, [("Pooling", "1_Pooling"), ("Normalize", "2_Normalize")])
        write_json(folder / "1_Pooling" / "config.json", {"embedding_dimension": 32, **pooling})
    if "prompts" in extra:
        write_json(
            folder / "config_sentence_transformers.json",
            {"prompts": extra["prompts"], "default_prompt_name": None},
        )
    if "max_seq_length" in extra:
        length = {"max_seq_length": extra["max_seq_length"], "do_lower_case": False}
        write_json(folder / "sentence_bert_config.json", length)
    return folder


def write_modules(folder: Path, modules: list[tuple[str, str]], *, root: str = "") -> None:
    """modules.json: the Transformer in the subfolder `root` and what follows it."""
    entries = [("Transformer", root), *modules]
    found = [
        {"idx": at, "name": str(at), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for at, (kind, path) in enumerate(entries)
    ]
    write_json(folder / "modules.json", found)


def write_json(file: Path, content: object) -> None:
    """A JSON file; its folder is made."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content))
