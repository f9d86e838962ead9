"""The part of the graph from the network's input to scores; layers in float32 or in int8.

The int8 layers are those of `serving/native/int8_layers.py`, with the same integers.

Shapes: B pairs, I inputs and O outputs of a layer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray
from onnx import TensorProto

from raydistill.exchange.graph import Graph
from raydistill.serving.native.int8_layers import LEAST, MOST, ZERO
from raydistill.serving.native.layout import INT8

DENSE, SCORES = "dense", "scores"  # names of an input and of the output


def add_dense(graph: Graph, bags: str, arrays: Mapping[str, NDArray[Any]]) -> str:
    """Add the nodes to the network's input: bags, then standardised dense features."""
    mean = graph.constant("dense_mean", arrays["dense_mean"])
    deviation = graph.constant("dense_std", arrays["dense_std"])
    centred = graph.add("dense_centred", "Sub", DENSE, mean)
    dense = graph.add("dense_standard", "Div", centred, deviation)
    return graph.add("input", "Concat", bags, dense, axis=1)


def add_layers(
    graph: Graph, x: str, header: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]
) -> str:
    """Add the nodes from the network's input `x` to the name returned: float32, shape B."""
    is_int8, num_hidden = header["layer_type"] == INT8, int(header["layers"]) - 1
    for at in range(num_hidden):
        add = _add_int8_layer if is_int8 else _add_layer
        x = graph.add(f"hidden_{at}", "Relu", add(graph, x, at, arrays))
    logits = _add_layer(graph, x, num_hidden, arrays)
    scaled = graph.add("logits_scaled", "Mul", logits, graph.float32(header["temperature"]))
    column = graph.add("scores_column", "Sigmoid", scaled)
    return graph.add(SCORES, "Squeeze", column, graph.integers(1))


def _add_layer(graph: Graph, x: str, at: int, arrays: Mapping[str, NDArray[Any]]) -> str:
    weights = graph.constant(f"weight_{at}", arrays[f"weight_{at}"])
    biases = graph.constant(f"bias_{at}", arrays[f"bias_{at}"])
    return graph.add(f"layer_{at}", "Gemm", x, weights, biases, transB=1)


def _add_int8_layer(graph: Graph, x: str, at: int, arrays: Mapping[str, NDArray[Any]]) -> str:
    quants, steps = _add_quantised(graph, x, at, arrays)
    weights = graph.constant(f"weight_{at}", arrays[f"weight_{at}"].T)
    starts = graph.constant(f"starts_{at}", arrays[f"starts_{at}"])
    scales = graph.constant(f"scales_{at}", arrays[f"scales_{at}"])
    biases = graph.constant(f"bias_{at}", arrays[f"bias_{at}"])
    products = graph.add(f"products_{at}", "MatMulInteger", quants, weights)
    sums = graph.add(f"sums_int32_{at}", "Add", products, starts)
    sums = graph.add(f"sums_{at}", "Cast", sums, to=TensorProto.FLOAT)
    steps = graph.add(f"scaled_steps_{at}", "Mul", steps, scales)
    return graph.add(f"layer_{at}", "Add", graph.add(f"scaled_{at}", "Mul", sums, steps), biases)


def _add_quantised(
    graph: Graph, x: str, at: int, arrays: Mapping[str, NDArray[Any]]
) -> tuple[str, str]:
    """A layer's inputs as uint8, shape B, I, and the step of each row, shape B, 1."""
    levels, zero = (MOST - ZERO, ZERO) if at == 0 else (MOST, 0)
    if at == 0:
        factors = graph.constant("input_factors", arrays["input_factors"])
        x = graph.add("input_balanced", "Mul", x, factors)
    sizes = graph.add(f"sizes_{at}", "Abs", x)
    most = graph.add(f"most_{at}", "ReduceMax", sizes, axes=[1], keepdims=1)
    is_above = graph.add(f"is_above_{at}", "Greater", most, graph.float32(float(LEAST)))
    above = graph.add(f"most_or_1_{at}", "Where", is_above, most, graph.float32(1))
    inverse = graph.add(f"inverse_or_1_{at}", "Div", graph.float32(levels), above)
    inverse = graph.add(f"inverse_{at}", "Where", is_above, inverse, graph.float32(0))
    moved = graph.add(f"multiples_{at}", "Mul", x, inverse)
    moved = graph.add(f"moved_{at}", "Add", moved, graph.float32(zero + 0.5))
    whole = graph.add(f"whole_{at}", "Floor", moved)
    quants = graph.add(f"quants_{at}", "Cast", whole, to=TensorProto.UINT8)
    return quants, graph.add(f"steps_{at}", "Div", most, graph.float32(levels))
