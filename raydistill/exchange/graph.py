"""An ONNX graph while it is made: nodes and constants by their names. Imports numpy and onnx."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper

# Of the operators used here the newest is of 13: a runtime of 2021 reads the graph.
OPSET, IR_VERSION = 13, 7
LAST = np.iinfo(np.int64).max  # as the end of a slice: to the last one


class Graph:
    """Nodes in the order of their computation, and constants by their names."""

    def __init__(self) -> None:
        """An empty graph."""
        self.nodes: list[NodeProto] = []
        self.arrays: dict[str, NDArray[Any]] = {}

    def add(self, name: str, operator: str, *inputs: str, **attributes: Any) -> str:  # noqa: ANN401
        """Add the node that computes `name` from other names; returns `name`."""
        self.nodes.append(helper.make_node(operator, inputs, [name], name=name, **attributes))
        return name

    def constant(self, name: str, values: NDArray[Any]) -> str:
        """Add a constant array; returns `name`."""
        self.arrays[name] = values
        return name

    def integers(self, *values: int) -> str:
        """A constant of int64 in one dimension; returns its name."""
        return self.constant("_".join(map(str, ("integers", *values))), np.array(values, np.int64))

    def integer(self, value: int) -> str:
        """A constant int64 without a dimension; returns its name."""
        return self.constant(f"integer_{value}", np.array(value, np.int64))

    def float32(self, value: float) -> str:
        """A constant float32 without a dimension; returns its name."""
        return self.constant(f"float32_{value}", np.array(value, np.float32))

    def zeros(self, name: str, shape: str) -> str:
        """Add a node that gives zeros of float32, of a computed shape; returns `name`."""
        zero = helper.make_tensor("value", TensorProto.FLOAT, [1], [0.0])
        return self.add(name, "ConstantOfShape", shape, value=zero)
