"""The ONNX graph of a bundle beside `Scorer`: scores and time, on one thread.

    python tests/bench/onnx_graph.py --bundle BUNDLE --pairs PAIRS.parquet

Scores: the largest difference on the first 10,000 pairs, in ONNX Runtime and OpenVINO. Time: median
µs of CPU time a pair, of one pair alone (another one each call) and of 100, ways interleaved.
`graph` has its inputs ready, `inputs` makes them of texts, `scorer` goes from texts to scores.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import openvino
import pyarrow.parquet as pq

from raydistill.exchange.inputs import TextInputs
from raydistill.exchange.onnx_file import write_onnx
from raydistill.exchange.student_graph import student_graph
from raydistill.serving.scorer import Scorer

NUM_PAIRS, REPEATS = 10_000, {1: 2_000, 100: 100}
Texts = Sequence[str]


def session(file: Path, *, is_optimised: bool, num_threads: int) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = num_threads
    levels = ort.GraphOptimizationLevel
    level = levels.ORT_ENABLE_ALL if is_optimised else levels.ORT_DISABLE_ALL
    options.graph_optimization_level = level
    return ort.InferenceSession(file, options, providers=["CPUExecutionProvider"])


def differences(
    file: Path, given: dict[str, Any], expected: np.ndarray
) -> dict[str, dict[str, float]]:
    precise = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(file, "CPU", precise)
    found = {
        "openvino": compiled(given)[0],
        **{
            f"onnxruntime_{name}_{threads}_threads": session(
                file, is_optimised=name == "all", num_threads=threads
            ).run(None, given)[0]
            for name in ("all", "none")
            for threads in (1, 2)
        },
    }
    apart = {name: np.abs(scores - expected) for name, scores in found.items()}
    return {
        name: {"most": float(values.max()), "above_1e-5": int((values > 1e-5).sum())}
        for name, values in apart.items()
    }


def medians(
    scorer: Scorer, file: Path, inputs: TextInputs, queries: Texts, titles: Texts, *, rows: int
) -> dict[str, float]:
    model = session(file, is_optimised=True, num_threads=1)
    times: dict[str, list[float]] = {"graph": [], "inputs": [], "scorer": []}

    def timed(name: str, call: Callable[[], Any]) -> Any:  # noqa: ANN401
        start_s = time.process_time()
        found = call()
        times[name].append((time.process_time() - start_s) * 1e6 / rows)
        return found

    for at in range(REPEATS[rows]):
        start = at * rows % (NUM_PAIRS - rows)
        part = [queries[start]] * rows, titles[start : start + rows]
        given = timed("inputs", lambda part=part: inputs(*part))
        timed("graph", lambda given=given: model.run(None, given))
        timed("scorer", lambda part=part: scorer.score(part[0][0], part[1]))
    return {name: round(float(np.median(values)), 2) for name, values in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", required=True)
    parser.add_argument("--pairs", required=True)
    given = parser.parse_args()
    table = pq.read_table(given.pairs, columns=["query", "title"]).slice(0, NUM_PAIRS)
    queries, titles = table["query"].to_pylist(), table["title"].to_pylist()
    scorer = Scorer.load(given.bundle)
    inputs, graph = TextInputs(scorer), student_graph(scorer.settings, scorer.model)
    with tempfile.TemporaryDirectory() as folder:
        (file,) = write_onnx(graph, Path(folder) / "student.onnx")
        expected = scorer.score_pairs(queries, titles)
        figures: dict[str, Any] = {
            "pairs": len(expected),
            "file_bytes": os.path.getsize(file),
            "model_bytes": len(scorer.model),
            "most_apart": differences(file, inputs(queries, titles), expected),
        }
        for rows in REPEATS:
            found = medians(scorer, file, inputs, queries, titles, rows=rows)
            figures[f"us_a_pair_of_{rows}"] = found
    print(json.dumps({"bench": "onnx_graph", "figures": figures}, indent=1))


if __name__ == "__main__":
    main()
