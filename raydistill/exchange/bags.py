"""The part of the graph from n-gram ids and offsets to embedding bags.

A bag is summed as `Scorer` does: row by row in the order of its ids, in float32. So inputs of int8
layers have the same bits. `Scan` takes STEP rows of every bag at a time, and `CumSum` adds them to
the sums: memory does not grow with the longest bag. ScatterND with duplicate indices would be
faster, but ONNX Runtime 1.32 loses some of the additions when it has more than one thread.

Shapes: B pairs, G bags a pair, S bags of all pairs, N ids, D columns of the table, K = STEP.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper

from raydistill.exchange.graph import LAST, Graph
from raydistill.serving.native.layout import FLOAT32, INT8

Arrays = Mapping[str, NDArray[Any]]
IDS, OFFSETS = "ids", "offsets"  # names of inputs
STEP = 16  # rows of a bag: 8 to 64 take the same time within a quarter
TABLE = "table"
_FAR = 2**40  # an index outside of every array: what reads there raises an error


def num_ids(header: Mapping[str, Any]) -> int:
    """The number of ids that the graph takes: rows of the table before any is left out."""
    return int(header["vocabulary"] or 1 << (64 - header["shift"]))


def add_bags(graph: Graph, header: Mapping[str, Any], arrays: Arrays) -> str:
    """Add the nodes to the name returned: float32, shape B, G * D."""
    bags, dim = int(header["bags"]), int(header["dim"])
    rows = _add_rows(graph, header, arrays)
    chunks = _add_chunks(graph, rows)
    sums = _add_sums(graph, header, arrays, chunks)
    one, double = graph.constant("one_float64", np.array(1.0)), TensorProto.DOUBLE
    counts = graph.add("counts", "Max", "lengths", graph.integer(1))
    roots = graph.add("roots", "Sqrt", graph.add("counts_float64", "Cast", counts, to=double))
    factors = graph.add("factors_float64", "Div", one, roots)
    factors = graph.add("factors", "Cast", factors, to=TensorProto.FLOAT)
    factors = graph.add("factors_column", "Unsqueeze", factors, graph.integers(1))
    scaled = graph.add("scaled_sums", "Mul", sums, factors)
    pairs = graph.add("num_pairs", "Div", "num_bags", graph.integers(bags))
    shape = graph.add("bags_shape", "Concat", pairs, graph.integers(bags * dim), axis=0)
    return graph.add("bags", "Reshape", scaled, shape)


def _add_rows(graph: Graph, header: Mapping[str, Any], arrays: Arrays) -> str:
    """The row of the table of each id, and at the end that of zeros, which has no id."""
    least = graph.add("ids_not_negative", "GreaterOrEqual", IDS, graph.integer(0))
    most = graph.add("ids_below", "Less", IDS, graph.integer(num_ids(header)))
    is_known = graph.add("ids_known", "And", least, most)
    rows = graph.add("ids_checked", "Where", is_known, IDS, graph.integer(_FAR))
    if len(arrays["used"]):
        rows = _add_used_rows(graph, rows, arrays)
    none = graph.integers(len(arrays["table"]))
    return graph.add("rows", "Concat", rows, none, axis=0)


def _add_used_rows(graph: Graph, ids: str, arrays: Arrays) -> str:
    """Rows of ids of which some have none: set bits before an id's bit, by byte and within it."""
    data = arrays["used"].view(np.uint8)
    bits = np.unpackbits(data, bitorder="little").reshape(-1, 8)
    before = np.concatenate([[0], np.cumsum(bits.sum(axis=1))[:-1]]).astype(np.int32)
    for name, values in (("used", data), ("used_before", before), ("used_ranks", _ranks())):
        graph.constant(name, values)
    long = {"to": TensorProto.INT64}
    eight = graph.integer(8)
    place = graph.add("used_place", "Div", ids, eight)
    bit = graph.add("used_bit", "Mod", ids, eight)
    byte = graph.add("used_byte", "Cast", graph.add("used_at", "Gather", "used", place), **long)
    entry = graph.add("rank_place", "Add", graph.add("rank_line", "Mul", byte, eight), bit)
    rank = graph.add("rank", "Cast", graph.add("rank_at", "Gather", "used_ranks", entry), **long)
    start = graph.add("start_at", "Gather", "used_before", place)
    start = graph.add("start_row", "Cast", start, **long)
    row = graph.add("used_row", "Add", start, rank)
    has_none = graph.add("has_no_row", "Less", rank, graph.integer(0))
    return graph.add("rows_of_ids", "Where", has_none, graph.integer(len(arrays["table"])), row)


def _ranks() -> NDArray[np.int8]:
    """For each byte and bit (at byte * 8 + bit) the set bits below it; -1: the bit is not set."""
    bits = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little")
    below = np.cumsum(bits, axis=1, dtype=np.int8) - bits
    return np.where(bits, below, -1).astype(np.int8).reshape(-1)


def _add_chunks(graph: Graph, rows: str) -> str:
    """The rows of all bags, each filled with rows of zeros to whole steps: shape steps, S, K.

    Also computes `lengths`, the ids of each bag, and `num_bags`. Offsets that fall, or lie outside
    of the ids, lead to an index far outside.
    """
    starts = graph.add("starts", "Slice", OFFSETS, graph.integers(0), graph.integers(-1))
    stops = graph.add("stops_given", "Slice", OFFSETS, graph.integers(1), graph.integers(LAST))
    size = graph.add("num_ids", "Shape", IDS)
    before = graph.add("starts_before", "Less", starts, graph.integer(0))
    fall = graph.add("stops_fall", "Less", stops, starts)
    behind = graph.add("stops_behind", "Greater", stops, size)
    wrong = graph.add("is_wrong", "Or", graph.add("is_wrong_start", "Or", before, fall), behind)
    stops = graph.add("stops", "Where", wrong, starts, stops)
    fill = graph.add("fill", "Where", wrong, graph.integer(_FAR), size)
    graph.add("lengths", "Sub", stops, starts)
    graph.add("num_bags", "Shape", "lengths")
    num_steps = _add_num_steps(graph)
    most = graph.add("num_places", "Mul", num_steps, graph.integer(STEP))
    places = graph.add("places", "Range", graph.integer(0), most, graph.integer(1))
    axis = graph.integers(1)
    column = graph.add("starts_column", "Unsqueeze", starts, axis)
    place = graph.add("bag_places", "Add", column, places)
    is_inside = graph.add(
        "is_inside", "Less", place, graph.add("stops_1", "Unsqueeze", stops, axis)
    )
    index = graph.add(
        "index", "Where", is_inside, place, graph.add("fill_1", "Unsqueeze", fill, axis)
    )
    steps = graph.add("num_steps_1", "Unsqueeze", num_steps, graph.integers(0))
    shape = graph.add("steps_shape", "Concat", "num_bags", steps, graph.integers(STEP), axis=0)
    found = graph.add("bag_rows", "Reshape", graph.add("bag_row", "Gather", rows, index), shape)
    return graph.add("chunks", "Transpose", found, perm=[1, 0, 2])


def _add_num_steps(graph: Graph) -> str:
    """Steps to the end of the longest bag, 1 at least; without a dimension."""
    lengths = graph.add("lengths_and_1", "Concat", "lengths", graph.integers(1), axis=0)
    longest = graph.add("longest", "ReduceMax", lengths, keepdims=0)
    filled = graph.add("longest_filled", "Add", longest, graph.integer(STEP - 1))
    return graph.add("num_steps", "Div", filled, graph.integer(STEP))


def _add_sums(graph: Graph, header: Mapping[str, Any], arrays: Arrays, chunks: str) -> str:
    """The sum of the rows of each bag: shape S, D."""
    dim = int(header["dim"])
    table = arrays["table"]
    graph.constant(TABLE, np.concatenate([table, np.zeros((1, dim), table.dtype)]))
    if header["table_type"] == INT8:
        scales = np.append(arrays["table_scales"], np.float32(0))[:, None]
        graph.constant("table_scales", np.asarray(scales, np.float32))
    shape = graph.add("sums_shape", "Concat", "num_bags", graph.integers(1, dim), axis=0)
    body = _step(graph, header)
    zeros = graph.zeros("zero_sums", shape)
    total = graph.add("total", "Scan", zeros, chunks, body=body, num_scan_inputs=1)
    return graph.add("sums", "Squeeze", total, graph.integers(1))


def _step(outer: Graph, header: Mapping[str, Any]) -> Any:  # noqa: ANN401 - onnx.GraphProto
    """The body of `Scan`: sums (S, 1, D) and K rows a bag (S, K) to the sums with these added.

    It reads constants of the graph around it.
    """
    body, dim = Graph(), int(header["dim"])
    values = body.add("values_stored", "Gather", TABLE, "chunk")
    if header["table_type"] != FLOAT32:
        values = body.add("values_float32", "Cast", values, to=TensorProto.FLOAT)
    if header["table_type"] == INT8:
        scales = body.add("scales_of_rows", "Gather", "table_scales", "chunk")
        values = body.add("values_scaled", "Mul", values, scales)
    # A constant of a body would be copied by some runtimes each time.
    joined = body.add("sum_and_values", "Concat", "sum_before", values, axis=1)
    running = body.add("running_sums", "CumSum", joined, outer.integer(1))
    last = (outer.integers(-1), outer.integers(LAST), outer.integers(1))
    body.add("sum_after", "Slice", running, *last)
    sums: list[str | int | None] = ["num_bags", 1, dim]
    chunk: list[str | int | None] = ["num_bags", STEP]
    info = helper.make_tensor_value_info
    return helper.make_graph(
        body.nodes,
        "add_rows",
        [info("sum_before", TensorProto.FLOAT, sums), info("chunk", TensorProto.INT64, chunk)],
        [info("sum_after", TensorProto.FLOAT, sums)],
    )
