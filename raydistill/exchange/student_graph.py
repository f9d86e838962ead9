"""A bundle's student as an ONNX model: its graph, inputs, output and metadata.

What the inputs mean is in the model's own doc strings, for readers without this project.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper

from raydistill.exchange.bags import IDS, OFFSETS, add_bags, num_ids
from raydistill.exchange.graph import IR_VERSION, OPSET, Graph
from raydistill.exchange.layers import DENSE, SCORES, add_dense, add_layers
from raydistill.serving.bundle_check import check_settings
from raydistill.serving.native.layout import arrays_of, describe

_TEXT = """Relevance of (query, title) pairs, by a raydistill student. Inputs are features of the
texts as the bundle's own functions make them: docs/features.md of raydistill specifies them, and
golden.json of the bundle has 200 pairs with theirs. A pair counts as relevant from the metadata's
threshold. Shapes: B pairs, {bags} bags a pair, N n-gram ids of all bags one after the other."""
_IDS = """Shape N. N-gram ids from 0 to {last}, bag after bag; with a vocabulary, places in it.
Another id is an error. Ids outside of all bags are not used: they may fill the array, with 0."""
_OFFSETS = """Shape {bags} B + 1. The ids of bag g of pair r, both from 0, begin at entry
{bags} r + g and end before the next entry. Bags: {names}. A bag may be empty."""
_DENSE = """Shape B, {dense}. Match features, not standardised, in the order of docs/features.md."""
_SCORES = "Shape B. Scores from 0 to 1: sigmoid(temperature * logit)."


class StudentGraph(NamedTuple):
    """An ONNX model without the values of its constants, and these by name."""

    model: ModelProto
    arrays: dict[str, NDArray[Any]]

    @property
    def num_bytes(self) -> int:
        """Bytes of all constants; the rest of the file has some 20,000."""
        return sum(values.nbytes for values in self.arrays.values())

    def whole(self) -> ModelProto:
        """The model with its constants.

        Raises:
            ValueError: they have more bytes than a protobuf message can have.
        """
        model = ModelProto()
        model.CopyFrom(self.model)
        for name, values in self.arrays.items():
            model.graph.initializer.append(tensor(name, values))
        return model


def tensor(name: str, values: NDArray[Any]) -> TensorProto:
    """A constant with its values."""
    return numpy_helper.from_array(np.asarray(values, order="C"), name)


def student_graph(settings: Mapping[str, Any], model: NDArray[np.uint8]) -> StudentGraph:
    """The graph of a bundle, from the settings and the model of a `Scorer`, which has checked them.

    Raises:
        UserError: `settings` are not those of a bundle.
    """
    check_settings(settings)
    header, arrays, graph = describe(model), arrays_of(model), Graph()
    x = add_bags(graph, header, arrays)
    if header["dense"]:
        x = add_dense(graph, x, arrays)
    add_layers(graph, x, header, arrays)
    words = _words(header)
    made = helper.make_graph(
        *(graph.nodes, "raydistill_student", _inputs(header, words)),
        [_value(SCORES, TensorProto.FLOAT, ["num_pairs"], _SCORES)],
        doc_string=_line(_TEXT.format(**words)),
    )
    whole = helper.make_model(
        made,
        producer_name="raydistill",
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        doc_string=_line(_TEXT.format(**words)),
    )
    helper.set_model_props(whole, _metadata(settings, header))
    return StudentGraph(whole, graph.arrays)


def _words(header: Mapping[str, Any]) -> dict[str, Any]:
    """What the doc strings say of a model."""
    names = ["n-grams"]
    names += ["words found and not found in the other text"] if header["match"] else []
    size = header["char_ngrams"]
    names += [f"runs of {size} characters of the {side}" for side in ("query", "title") if size]
    last = num_ids(header) - 1
    return {"bags": len(names), "names": ", ".join(names), "last": last, "dense": header["dense"]}


def _inputs(header: Mapping[str, Any], words: Mapping[str, Any]) -> list[Any]:
    """The inputs; a student without match features has no `dense`."""
    inputs = [
        _value(IDS, TensorProto.INT64, ["num_ids"], _IDS.format(**words)),
        _value(OFFSETS, TensorProto.INT64, ["num_offsets"], _OFFSETS.format(**words)),
    ]
    if header["dense"]:
        shape = ["num_pairs", header["dense"]]
        inputs.append(_value(DENSE, TensorProto.FLOAT, shape, _DENSE.format(**words)))
    return inputs


def _value(name: str, kind: int, shape: list[str | int], text: str) -> Any:  # noqa: ANN401
    return helper.make_tensor_value_info(name, kind, shape, doc_string=_line(text))


def _line(text: str) -> str:
    return " ".join(text.split())


def _metadata(settings: Mapping[str, Any], header: Mapping[str, Any]) -> dict[str, str]:
    """Facts of the bundle, as ONNX keeps them: texts."""
    return {
        "bundle": str(settings.get("fingerprint", "")),
        "threshold": repr(header["threshold"]),
        "temperature": repr(header["temperature"]),
        "features": str(header["features"]),
        "preset": str(settings["ngrams"]["preset"]),
        "bags": str(header["bags"]),
        "num_ids": str(num_ids(header)),
        "single_texts": str(bool(settings.get("single_texts"))).lower(),
    }
