"""Ways to sum embedding bags in ONNX Runtime: time on one thread, and wrong sums on two.

    python tests/bench/onnx_sums.py --columns 16 64

Pairs of two bags of about 20 random ids; median µs of CPU time a pair, ways interleaved. The way
that `raydistill.exchange.bags` took is `scan_16`. `wrong`: calls of 20 that do not give the sums in
the order of the ids, of 1,000 pairs on two threads.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from raydistill.exchange.bags import _add_chunks, _step
from raydistill.exchange.graph import Graph
from raydistill.serving.native.layout import FLOAT32

NUM_IDS, REPEATS = 1 << 18, {1: 300, 100: 30, 1_000: 6}


def padded(graph: Graph) -> str:
    """Rows of all bags, filled with rows of zeros: shape bags, longest, columns."""
    steps = graph.add("bag_major", "Transpose", _add_chunks(graph, "rows"), perm=[1, 0, 2])
    shape = graph.add("flat_shape", "Concat", "num_bags", graph.integers(-1), axis=0)
    return graph.add("padded", "Gather", "table", graph.add("flat", "Reshape", steps, shape))


def padded_cumsum(graph: Graph, columns: int) -> str:
    running = graph.add("running", "CumSum", padded(graph), graph.integer(1))
    return graph.add("sums", "Gather", running, graph.integer(-1), axis=1)


def padded_reduce(graph: Graph, columns: int) -> str:
    return graph.add("sums", "ReduceSum", padded(graph), graph.integers(1), keepdims=0)


def scan_16(graph: Graph, columns: int) -> str:
    chunks = _add_chunks(graph, "rows")
    body = _step(graph, {"dim": columns, "table_type": FLOAT32})
    shape = graph.add("sums_shape", "Concat", "num_bags", graph.integers(1, columns), axis=0)
    zeros = graph.zeros("zeros", shape)
    total = graph.add("total", "Scan", zeros, chunks, body=body, num_scan_inputs=1)
    return graph.add("sums", "Squeeze", total, graph.integers(1))


def float64_cumsum(graph: Graph, columns: int) -> str:
    found = graph.add("found", "Gather", "table", "ids")
    wide = graph.add("wide", "Cast", found, to=TensorProto.DOUBLE)
    running = graph.add("running", "CumSum", wide, graph.integer(0))
    first = graph.constant("first", np.zeros((1, columns)))
    running = graph.add("running_0", "Concat", first, running, axis=0)
    _add_chunks(graph, "rows")
    ends = [graph.add(f"at_{name}", "Gather", running, name) for name in ("stops", "starts")]
    return graph.add("sums", "Cast", graph.add("apart", "Sub", *ends), to=TensorProto.FLOAT)


def scatter(graph: Graph, columns: int, *, by_element: bool) -> str:
    _add_chunks(graph, "rows")
    ones = helper.make_tensor("value", TensorProto.INT64, [1], [1])
    zero = helper.make_tensor("value", TensorProto.INT64, [1], [0])
    size = graph.add("size", "Add", "num_ids", graph.integers(1))
    marks = graph.add("no_marks", "ConstantOfShape", size, value=zero)
    one = graph.add("ones", "ConstantOfShape", "num_bags", value=ones)
    marks = graph.add("marks", "ScatterElements", marks, "stops", one, axis=0, reduction="add")
    bags = graph.add("running", "CumSum", marks, graph.integer(0))
    bags = graph.add("bag", "Slice", bags, graph.integers(0), graph.integers(-1))
    index = graph.add("bag_column", "Unsqueeze", bags, graph.integers(1))
    found = graph.add("found", "Gather", "table", "ids")
    shape = graph.add("sums_shape", "Concat", "num_bags", graph.integers(columns), axis=0)
    zeros = graph.zeros("zeros", shape)
    if not by_element:
        return graph.add("sums", "ScatterND", zeros, index, found, reduction="add")
    wide = graph.add("wide", "Expand", index, graph.add("wide_shape", "Shape", found))
    return graph.add("sums", "ScatterElements", zeros, wide, found, axis=0, reduction="add")


WAYS: dict[str, Callable[[Graph, int], str]] = {
    **{"scan_16": scan_16, "padded_cumsum": padded_cumsum, "padded_reduce": padded_reduce},
    **{"float64_cumsum": float64_cumsum},
    "scatter_nd": lambda graph, columns: scatter(graph, columns, by_element=False),
    "scatter_elements": lambda graph, columns: scatter(graph, columns, by_element=True),
}


def session(way: str, table: np.ndarray, *, num_threads: int) -> ort.InferenceSession:
    graph, columns = Graph(), table.shape[1]
    graph.constant("table", table)
    graph.add("rows", "Concat", "ids", graph.integers(NUM_IDS), axis=0)
    sums = WAYS[way](graph, columns)
    info = helper.make_tensor_value_info
    inputs = [info(name, TensorProto.INT64, [f"num_{name}"]) for name in ("ids", "offsets")]
    outputs = [info(sums, TensorProto.FLOAT, ["bags", columns])]
    arrays = [numpy_helper.from_array(values, name) for name, values in graph.arrays.items()]
    made = helper.make_graph(graph.nodes, way, inputs, outputs, arrays)
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 16)], ir_version=8)
    options = ort.SessionOptions()
    options.intra_op_num_threads = num_threads
    return ort.InferenceSession(model.SerializeToString(), options)


def measure(columns: int) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    table = rng.normal(size=(NUM_IDS + 1, columns)).astype(np.float32)
    table[-1] = 0
    offsets = np.cumsum([0, *rng.poisson(20, 2_000)], dtype=np.int64)
    ids = rng.integers(0, NUM_IDS, offsets[-1])
    expected = np.zeros((2_000, columns), np.float32)
    np.add.at(expected, np.repeat(np.arange(2_000), np.diff(offsets)), table[ids])
    models = {way: session(way, table, num_threads=1) for way in WAYS}
    found: dict[str, Any] = {way: {} for way in WAYS}
    for pairs, repeats in REPEATS.items():
        times: dict[str, list[float]] = {way: [] for way in WAYS}
        part = {"ids": ids[: offsets[2 * pairs]], "offsets": offsets[: 2 * pairs + 1]}
        for _ in range(repeats):
            for way, model in models.items():
                start_s = time.process_time()
                model.run(None, part)
                times[way].append((time.process_time() - start_s) * 1e6 / pairs)
        for way, values in times.items():
            found[way][f"us_a_pair_of_{pairs}"] = round(float(np.median(values)), 1)
    for way in WAYS:
        model = session(way, table, num_threads=2)
        calls = [model.run(None, {"ids": ids, "offsets": offsets})[0] for _ in range(20)]
        found[way]["wrong"] = sum(not np.array_equal(call, expected) for call in calls)
        found[way]["most_apart"] = max(float(np.abs(call - expected).max()) for call in calls)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--columns", type=int, nargs="+", default=[16, 64])
    figures = {str(number): measure(number) for number in parser.parse_args().columns}
    for columns, ways in figures.items():
        for way, found in ways.items():
            print(columns, way, found)
    print(json.dumps({"bench": "onnx_sums", "figures": figures}))


if __name__ == "__main__":
    main()
