"""A model folder with its own modelling code, of a type that transformers does not have."""

import json
from pathlib import Path

from transformers import AutoTokenizer

CODE = """
import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput


class OwnConfig(PretrainedConfig):
    model_type = "raydistill_own"

    def __init__(self, vocab_size=9, kind="sound", **kwargs):
        super().__init__(**kwargs)
        self.vocab_size, self.kind = vocab_size, kind


class OwnForSequenceClassification(PreTrainedModel):
    config_class = OwnConfig
    base_model_prefix = "body"

    def __init__(self, config):
        super().__init__(config)
        self.body = nn.Embedding(config.vocab_size, 8)
        self.norm = nn.BatchNorm1d(8, track_running_stats=False)
        self.classifier = nn.Linear(8, config.num_labels)
        self.post_init()

    def _init_weights(self, module):
        if hasattr(module, "weight") and module.weight is not None:
            nn.init.normal_(module.weight)

    def get_input_embeddings(self):
        return self.body

    def forward(self, input_ids=None, attention_mask=None, **kwargs):
        kind = self.config.kind
        x = self.body(input_ids) * attention_mask.unsqueeze(2)
        if kind == "last":
            x = x[:, -1]
        elif kind == "mean_of_all":
            x = x.mean(1)
        else:
            x = x.sum(1) / attention_mask.sum(1, keepdim=True)
        if kind == "batch":
            x = (x - x.mean(0)) if len(x) > 1 else x
        if kind == "dropout":
            x = nn.functional.dropout(x, 0.5, training=True)
        if kind == "fails":
            raise RuntimeError("no such kernel\\nin this place")
        return SequenceClassifierOutput(logits=self.classifier(x))
"""


def make_own(folder: Path, tokenizer: Path, *, kind: str = "sound") -> Path:
    """A model that needs its own code: the mean of its embeddings, or a faulty variant `kind`."""
    import torch
    from safetensors.torch import save_file

    folder.mkdir(parents=True)
    (folder / "own.py").write_text(CODE)
    loaded = AutoTokenizer.from_pretrained(tokenizer)
    loaded.save_pretrained(folder)
    config = {
        "model_type": "raydistill_own",
        "architectures": ["OwnForSequenceClassification"],
        "auto_map": {
            "AutoConfig": "own.OwnConfig",
            "AutoModelForSequenceClassification": "own.OwnForSequenceClassification",
        },
        "vocab_size": len(loaded),
        "kind": kind,
        "num_labels": 1,
        "pad_token_id": 0,
    }
    (folder / "config.json").write_text(json.dumps(config))
    torch.manual_seed(0)
    weights = {
        "body.weight": torch.randn(len(loaded), 8),
        "norm.weight": torch.ones(8),
        "norm.bias": torch.zeros(8),
        "classifier.weight": torch.randn(1, 8),
        "classifier.bias": torch.zeros(1),
    }
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder
