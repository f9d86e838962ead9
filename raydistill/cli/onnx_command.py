"""The command `onnx`: a bundle to an ONNX file for runtimes and engines that take tensors."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from raydistill.errors import UserError


def add_onnx(parser: argparse.ArgumentParser) -> None:
    """The options of `onnx`."""
    parser.add_argument("--bundle", required=True, help="a folder, s3://, or a hub's name")
    parser.add_argument("--output", required=True, metavar="FILE.onnx", help="a local file")
    parser.set_defaults(command=_run_onnx)


def _run_onnx(arguments: argparse.Namespace) -> int:
    path = _output(arguments.output)
    try:
        from raydistill.exchange.onnx_file import write_onnx
        from raydistill.exchange.student_graph import student_graph
    except ImportError as error:
        raise UserError(f"{error}: pip install 'raydistill[onnx]'") from error
    from raydistill.serving.scorer import Scorer

    scorer = Scorer.load(arguments.bundle)
    graph = student_graph(scorer.settings, scorer.model)
    files = write_onnx(graph, path)
    found = {
        "output": [str(file) for file in files],
        "bytes": sum(file.stat().st_size for file in files),
        "opset": graph.model.opset_import[0].version,
        "inputs": [value.name for value in graph.model.graph.input],
        "bundle": scorer.settings.get("fingerprint"),
    }
    print(json.dumps(found))  # noqa: T201
    return 0


def _output(given: str) -> Path:
    path = Path(given).expanduser()
    if "://" in given or path.suffix != ".onnx" or path.is_dir():
        raise UserError(f"cannot write {given!r}; give a local file that ends in .onnx")
    return path
