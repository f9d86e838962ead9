"""A cross-encoder in each runtime that is installed, on one thread of a CPU: texts in, logits out.

Input: a model and its tokenizer's folder. Output: a function a runtime, or the reason why there is
none. For measurements of latency; `label` runs `cross_encoder.py`. No Ray.
"""

from __future__ import annotations

import copy
import inspect
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from transformers import (  # type: ignore[attr-defined]  # of BertTokenizerFast
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    BertTokenizerFast,
    PreTrainedTokenizerFast,
)

from raydistill.errors import UserError
from raydistill.teachers.transformer.model_loading import load_classifier, quiet_transformers
from raydistill.teachers.transformer.packed_encoder import PackedEncoder, can_pack
from raydistill.teachers.transformer.pair_tokenizer import one_line
from raydistill.teachers.transformer.prompt_tokenizer import make_tokenizer

Score = Callable[[str, Sequence[str]], NDArray[np.float32]]
_Arrays = dict[str, NDArray[np.int64]]  # the inputs of a model, by name: B x wordpieces
_Run = Callable[[_Arrays], NDArray[np.float32]]

MAX_LENGTH = 128  # wordpieces of a pair
_ROWS = 32  # a batch of more pairs was no faster, and pads more
_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


class Shape(NamedTuple):
    """The size of a BERT."""

    hidden: int
    layers: int
    heads: int
    intermediate: int
    vocabulary: int = 30_522


BERT_BASE = Shape(768, 12, 12, 3_072)
TINYBERT = Shape(312, 4, 12, 1_200)  # TinyBERT-4L-312


class CrossEncoder(NamedTuple):
    """A model on the CPU, and the folder of its tokenizer."""

    model: Any
    folder: Path
    max_length: int = MAX_LENGTH


class Runtime(NamedTuple):
    """A runtime's name, and its function or why it has none."""

    name: str
    score: Score | None
    reason: str = ""


def random_bert(folder: Path, shape: Shape, *, words: Sequence[str]) -> CrossEncoder:
    """A BERT with random weights; `words` of the texts are one wordpiece each.

    A vocabulary made from other texts would split some of the words, so that a pair would have more
    wordpieces and take longer.
    """
    quiet_transformers()
    letters = sorted({letter for word in words for letter in word})
    vocabulary = [*_SPECIAL, *words, *letters, *(f"##{letter}" for letter in letters)]
    vocabulary = list(dict.fromkeys(vocabulary))[: shape.vocabulary]
    ids = {piece: at for at, piece in enumerate(vocabulary)}
    BertTokenizerFast(vocab=ids).save_pretrained(folder)
    config = BertConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        intermediate_size=shape.intermediate,
        num_labels=1,  # type: ignore[call-arg]
    )
    model: Any = BertForSequenceClassification(config)
    return CrossEncoder(model.eval(), folder)


def load_cross_encoder(folder: Path, *, max_length: int = MAX_LENGTH) -> CrossEncoder:
    """The cross-encoder in a Hugging Face folder.

    Raises:
        UserError: the folder has none.
    """
    quiet_transformers()
    return CrossEncoder(load_classifier(folder, dtype=torch.float32).eval(), folder, max_length)


def runtimes(encoder: CrossEncoder, names: Sequence[str] | None = None) -> Iterator[Runtime]:
    """The model in each runtime, made one after another; `names`: in these alone."""
    torch.set_num_threads(1)
    for name, make in _MAKERS.items():
        if names is None or name in names:
            yield _made(name, make, encoder)


def _made(name: str, make: Callable[[CrossEncoder], Score], encoder: CrossEncoder) -> Runtime:
    try:
        with _quiet():
            score = make(encoder)
            score("grey sofa", ["sofa", "grey sofa with 3 seats"])  # compiles, and may fail
            score("grey sofa", ["sofa"])
    except ImportError as error:
        return Runtime(name, None, f"{error.name or error} is not installed")
    except Exception as error:  # a runtime raises any class for a model that it cannot run
        return Runtime(name, None, one_line(error))
    return Runtime(name, score)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the warnings of tracing and quantising, which ask for no action by the user."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        logging.disable(logging.NOTSET)


class _Reader:
    """Pairs of raw texts to the inputs of a model, by the tokenizer's compiled code."""

    def __init__(self, encoder: CrossEncoder) -> None:
        tokenizer = AutoTokenizer.from_pretrained(str(encoder.folder))
        if not isinstance(tokenizer, PreTrainedTokenizerFast):
            raise UserError(f"{type(tokenizer).__name__} is not a fast tokenizer")
        self._tokenizer = tokenizer.backend_tokenizer
        self._tokenizer.enable_truncation(encoder.max_length)
        self._tokenizer.no_padding()
        self._padding = tokenizer.pad_token_id or 0
        takes = inspect.signature(encoder.model.forward).parameters
        names = [*tokenizer.model_input_names, "attention_mask"]
        self.names = tuple(name for name in dict.fromkeys(names) if name in takes)

    def __call__(self, query: str, titles: Sequence[str]) -> Iterator[tuple[list[int], _Arrays]]:
        """Rows of pairs of similar length, and their inputs."""
        read = self._tokenizer.encode_batch([(query, title) for title in titles])
        order = sorted(range(len(read)), key=lambda row: len(read[row]))
        for start in range(0, len(order), _ROWS):
            rows = order[start : start + _ROWS]
            yield rows, self._inputs([read[row] for row in rows])

    def _inputs(self, read: list[Any]) -> _Arrays:
        shape = len(read), max(len(one) for one in read)
        inputs = {name: np.zeros(shape, np.int64) for name in self.names}
        inputs["input_ids"][:] = self._padding
        for row, one in enumerate(read):
            values = {"input_ids": one.ids, "token_type_ids": one.type_ids}
            for name in self.names:
                inputs[name][row, : len(one)] = values.get(name, 1)
        return inputs


def _scorer(encoder: CrossEncoder, make: Callable[[CrossEncoder, _Reader], _Run]) -> Score:
    """The function of a runtime that takes arrays."""
    read = _Reader(encoder)
    run = make(encoder, read)

    def score(query: str, titles: Sequence[str]) -> NDArray[np.float32]:
        out = np.empty(len(titles), np.float32)
        for rows, inputs in read(query, titles):
            out[rows] = _margins(run(inputs))
        return out

    return score


class _Forward(nn.Module):
    """A model whose inputs have an order, for runtimes that trace it."""

    def __init__(self, model: nn.Module, names: Sequence[str]) -> None:
        super().__init__()
        self.model, self.names = model, names

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        found = self.model(**dict(zip(self.names, inputs, strict=True)), return_dict=False)
        return found[0]  # type: ignore[no-any-return]


def _examples(names: Sequence[str]) -> tuple[torch.Tensor, ...]:
    """Inputs to trace with: 3 pairs of 8 wordpieces."""
    values = {"input_ids": 5, "token_type_ids": 0}
    return tuple(torch.full((3, 8), values.get(name, 1)) for name in names)


def _packed(encoder: CrossEncoder, dtype: torch.dtype) -> Score:
    """As `label` runs it: pairs end to end, without padding."""
    model = copy.deepcopy(encoder.model).to(dtype)  # packing takes the model apart
    if not can_pack(model):
        raise UserError(f"{type(model).__name__} is not packed")
    read = make_tokenizer(
        encoder.folder, config=model.config, max_length=encoder.max_length, prompt=None
    )
    run = PackedEncoder(model)

    @torch.inference_mode()
    def score(query: str, titles: Sequence[str]) -> NDArray[np.float32]:
        tokens = read([query] * len(titles), titles)
        rows = np.argsort(-tokens.lengths_B, kind="stable")
        out = np.empty(len(titles), np.float32)
        out[rows] = _margins(run(tokens.take(rows)).float().numpy())
        return out

    return score


def _margins(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    return logits[:, 1] - logits[:, 0] if logits.shape[1] == 2 else logits[:, 0]


def _torch_run(model: nn.Module) -> _Run:
    @torch.inference_mode()
    def run(inputs: _Arrays) -> NDArray[np.float32]:
        tensors = {name: torch.from_numpy(values) for name, values in inputs.items()}
        return model(**tensors).logits.float().numpy()  # type: ignore[no-any-return]

    return run


def _eager(dtype: torch.dtype) -> Callable[[CrossEncoder, _Reader], _Run]:
    def make(encoder: CrossEncoder, _: _Reader) -> _Run:
        if dtype == torch.float32:
            return _torch_run(encoder.model)
        return _torch_run(copy.deepcopy(encoder.model).to(dtype))

    return make


def _compiled(encoder: CrossEncoder, _: _Reader) -> _Run:
    """With the repeated layers compiled, if there are such: they are compiled once."""
    model = copy.deepcopy(encoder.model)
    lists = [module for module in model.modules() if isinstance(module, nn.ModuleList)]
    layers = max(lists, key=len, default=None)
    for module in layers or [model]:
        module.compile(dynamic=True)
    return _torch_run(model)


def _onnx_run(encoder: CrossEncoder, read: _Reader, *, is_int8: bool) -> _Run:
    import onnxruntime  # imported here, as below: these packages are optional

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.onnx"
        torch.onnx.export(
            _Forward(encoder.model, read.names).eval(),
            _examples(read.names),
            str(file),
            input_names=list(read.names),
            output_names=["logits"],
            dynamic_axes={name: {0: "rows", 1: "wordpieces"} for name in read.names},
            dynamo=False,
        )
        if is_int8:
            from onnxruntime.quantization import quantize_dynamic

            whole, file = file, Path(folder) / "int8.onnx"
            quantize_dynamic(whole, file)
        session = onnxruntime.InferenceSession(
            str(file), options, providers=["CPUExecutionProvider"]
        )
    return lambda inputs: session.run(None, inputs)[0]


def _onnx_float32(encoder: CrossEncoder, read: _Reader) -> _Run:
    return _onnx_run(encoder, read, is_int8=False)


def _onnx_int8(encoder: CrossEncoder, read: _Reader) -> _Run:
    return _onnx_run(encoder, read, is_int8=True)


def _openvino(precision: str) -> Callable[[CrossEncoder, _Reader], _Run]:
    def make(encoder: CrossEncoder, read: _Reader) -> _Run:
        import openvino

        model = openvino.convert_model(
            _Forward(encoder.model, read.names).eval(), example_input=_examples(read.names)
        )
        settings = {
            "INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1, "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": precision, "ENABLE_CPU_PINNING": False,
        }  # fmt: skip
        request = openvino.Core().compile_model(model, "CPU", settings).create_infer_request()
        return lambda inputs: request.infer(list(inputs.values()))[0]

    return make


_MAKERS: dict[str, Callable[[CrossEncoder], Score]] = {
    "torch float32": lambda encoder: _scorer(encoder, _eager(torch.float32)),
    "torch bfloat16": lambda encoder: _scorer(encoder, _eager(torch.bfloat16)),
    "torch compiled": lambda encoder: _scorer(encoder, _compiled),
    "packed float32": lambda encoder: _packed(encoder, torch.float32),
    "packed bfloat16": lambda encoder: _packed(encoder, torch.bfloat16),
    "onnxruntime float32": lambda encoder: _scorer(encoder, _onnx_float32),
    "onnxruntime int8": lambda encoder: _scorer(encoder, _onnx_int8),
    "openvino float32": lambda encoder: _scorer(encoder, _openvino("f32")),
    "openvino bfloat16": lambda encoder: _scorer(encoder, _openvino("bf16")),
}
RUNTIMES = tuple(_MAKERS)
