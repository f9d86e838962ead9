"""Write a student's graph to a file; a table that is too large for it goes to one beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, external_data_helper, helper

from raydistill.exchange.bags import TABLE
from raydistill.exchange.student_graph import StudentGraph, tensor
from raydistill.files.durable import write_whole

# A protobuf message has at most 2^31 - 1 bytes: those of the constants, and 1 MiB for the rest.
MOST_BYTES = 2**31 - 1 - 2**20
DATA = ".data"  # after the name of the model: the file with the table


def write_onnx(graph: StudentGraph, path: Path, *, most_bytes: int = MOST_BYTES) -> list[Path]:
    """Write the model to `path`, checked by ONNX; returns the files written.

    With more than `most_bytes` of constants the table is written to `path` + ".data" first, which
    runtimes read from the folder of the model.
    """
    if graph.num_bytes <= most_bytes:
        model = graph.whole()
        onnx.checker.check_model(model, full_check=True)
        write_whole(path, model.SerializeToString())
        return [path]
    data = path.with_name(path.name + DATA)
    table = np.ascontiguousarray(graph.arrays[TABLE])
    write_whole(data, table.view(np.uint8).reshape(-1).data)
    write_whole(path, _with_data_beside(graph, table, data.name).SerializeToString())
    onnx.checker.check_model(str(path), full_check=True)
    return [path, data]


def _with_data_beside(graph: StudentGraph, table: NDArray[Any], name: str) -> ModelProto:
    """The model whose table is the content of the file `name` in its folder."""
    model = ModelProto()
    model.CopyFrom(graph.model)
    kind = helper.np_dtype_to_tensor_dtype(table.dtype)
    proto = TensorProto(name=TABLE, data_type=kind, dims=table.shape, raw_data=b"")
    external_data_helper.set_external_data(proto, location=name, offset=0, length=table.nbytes)
    proto.ClearField("raw_data")
    model.graph.initializer.append(proto)
    for other, values in graph.arrays.items():
        if other != TABLE:
            model.graph.initializer.append(tensor(other, values))
    return model
