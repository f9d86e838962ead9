"""The ONNX graph beside `Scorer`, in ONNX Runtime, in ONNX's own evaluator and in OpenVINO."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raydistill.exchange.inputs import TextInputs
from raydistill.serving.bundle import bundle_files
from raydistill.serving.native.emit.model_file import model_bytes
from raydistill.serving.native.layout import aligned
from raydistill.serving.scorer import Scorer
from raydistill.student.export.golden_pairs import ODD_TEXTS, explain_pairs
from tests.serving.native.cases import EXTREME, odd_pairs, random_bundle

onnx = pytest.importorskip("onnx", reason="needs raydistill[onnx]")
ort = pytest.importorskip("onnxruntime", reason="needs raydistill[bench]")

from onnx.reference import ReferenceEvaluator  # noqa: E402

from raydistill.exchange.onnx_file import DATA, MOST_BYTES, write_onnx  # noqa: E402
from raydistill.exchange.student_graph import StudentGraph, student_graph  # noqa: E402

pytestmark = pytest.mark.timeout(900)  # where the library is not in the cache
MOST_APART = 1e-5
SETTINGS: list[dict[str, Any]] = [
    {"units": True, "word_dim": 8},
    {"word_dim": 3, "char_ngrams": 3, "width": 7},
    {"vocabulary_rows": 500, "hidden": ()},
    {"preset": "bert2dnn", "hidden": (64, 32, 16)},
    {"preset": "bert2dnn", "vocabulary_rows": 500, "char_ngrams": 2},
]
PAIRS = [*odd_pairs(60), *EXTREME, ("", "")]
NONE = {"ids": np.zeros(0, np.int64), "offsets": np.zeros(1, np.int64)}


def make_scorer(
    ngrams: dict[str, Any], *, table: str = "float32", layers: str = "float32", drops: bool = False
) -> Scorer:
    settings, arrays = random_bundle(**ngrams)
    if drops:
        used = np.random.default_rng(2).random(len(arrays["embedding"])) < 0.5
        arrays = {**arrays, "used": used}
    return Scorer(settings, aligned(model_bytes(settings, arrays, table=table, layers=layers)))


def session(graph: StudentGraph, *, is_optimised: bool = True, num_threads: int = 0) -> Any:  # noqa: ANN401
    options = ort.SessionOptions()
    options.intra_op_num_threads = num_threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if not is_optimised:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    model = graph.whole().SerializeToString()
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def run(graph: StudentGraph, inputs: dict[str, Any], **options: Any) -> np.ndarray:  # noqa: ANN401
    return np.asarray(session(graph, **options).run(["scores"], inputs)[0])


def sides(pairs: list[tuple[str, str]]) -> tuple[list[str], list[str]]:
    return [query for query, _ in pairs], [title for _, title in pairs]


def graph_of(scorer: Scorer) -> StudentGraph:
    graph = student_graph(scorer.settings, scorer.model)
    onnx.checker.check_model(graph.whole(), full_check=True)
    return graph


@pytest.fixture(scope="module")
def small() -> Scorer:
    """Int8 everywhere, and rows for half of the ids."""
    return make_scorer(SETTINGS[0], table="int8", layers="int8", drops=True)


@pytest.mark.parametrize("ngrams", SETTINGS, ids=str)
@pytest.mark.parametrize("table", ["float32", "float16", "int8"])
@pytest.mark.parametrize("layers", ["float32", "int8"])
def test_scores_are_those_of_the_scorer(ngrams: dict[str, Any], table: str, layers: str) -> None:
    for drops in (False, True):
        scorer = make_scorer(ngrams, table=table, layers=layers, drops=drops)
        texts, graph = sides(PAIRS), graph_of(scorer)
        expected, inputs = scorer.score_pairs(*texts), TextInputs(scorer)(*texts)
        assert np.std(expected) > 0.01
        for is_optimised in (True, False):
            found = run(graph, inputs, is_optimised=is_optimised)
            assert np.abs(found - expected).max() < MOST_APART


@pytest.fixture(scope="module")
def many(small: Scorer) -> tuple[list[str], list[str], dict[str, Any]]:
    """100 queries with 100 titles each, and the inputs of these pairs."""
    queries, titles = sides(list(odd_pairs(100, seed=4)))
    queries, titles = [query for query in queries for _ in titles], titles * len(queries)
    return queries, titles, TextInputs(small)(queries, titles)


def test_ten_thousand_pairs_at_once_and_a_part_of_them(
    small: Scorer, many: tuple[list[str], list[str], dict[str, Any]]
) -> None:
    queries, titles, whole = many
    graph, inputs = graph_of(small), TextInputs(small)
    model, expected = session(graph), small.score_pairs(queries, titles)
    found = model.run(None, whole)[0]
    assert len(found) == 10_000 and np.abs(found - expected).max() < MOST_APART
    for start, stop in ((0, 1), (1, 101)):
        part = inputs(queries[start:stop], titles[start:stop])
        assert (model.run(None, part)[0] == found[start:stop]).all()
    assert model.run(None, {**NONE, "dense": whole["dense"][:0]})[0].shape == (0,)


def test_threads_do_not_change_a_bit(
    small: Scorer, many: tuple[list[str], list[str], dict[str, Any]]
) -> None:
    """What ScatterND with `reduction="add"` fails in ONNX Runtime."""
    graph, inputs = graph_of(small), TextInputs(small)(many[0][:3_000], many[1][:3_000])
    alone, model = run(graph, inputs, num_threads=1), session(graph, num_threads=2)
    assert all((model.run(None, inputs)[0] == alone).all() for _ in range(3))


def test_onnx_itself_gives_the_same(small: Scorer) -> None:
    for scorer in (small, make_scorer(SETTINGS[4])):
        texts = sides(PAIRS[:40])
        graph, inputs = graph_of(scorer), TextInputs(scorer)(*texts)
        (found,) = ReferenceEvaluator(graph.whole()).run(None, inputs)
        assert np.abs(found - scorer.score_pairs(*texts)).max() < MOST_APART


def test_openvino_takes_the_graph(tmp_path: Path) -> None:
    openvino = pytest.importorskip("openvino", reason="needs raydistill[bench]")
    scorer = make_scorer(SETTINGS[0], table="int8", drops=True)
    write_onnx(graph_of(scorer), tmp_path / "student.onnx")
    precise = {"INFERENCE_PRECISION_HINT": "f32"}
    model = openvino.Core().compile_model(tmp_path / "student.onnx", "CPU", precise)
    texts = sides(PAIRS)
    found = model(TextInputs(scorer)(*texts))[0]
    assert np.abs(found - scorer.score_pairs(*texts)).max() < MOST_APART


@pytest.mark.parametrize("layers", ["float32", "int8"])
def test_golden_pairs_without_our_code(tmp_path: Path, layers: str) -> None:
    """As a reader in another language: the files of a bundle, and ONNX Runtime."""
    settings, arrays = random_bundle(**SETTINGS[0])
    model = model_bytes(settings, arrays, table="int8", layers=layers)
    golden = explain_pairs(settings, model, ([*ODD_TEXTS, ""], [*ODD_TEXTS[::-1], ""]))
    files = bundle_files(settings, model, golden=golden, card="")[1]
    (tmp_path / "golden.json").write_bytes(files["golden.json"])
    graph = graph_of(Scorer(settings, aligned(model)))
    write_onnx(graph, tmp_path / "student.onnx")

    rows = json.loads((tmp_path / "golden.json").read_text())["pairs"]
    bags = [bag for row in rows for bag in row["bags"]]
    inputs = {
        "ids": np.array([number for bag in bags for number in bag], np.int64),
        "offsets": np.cumsum([0, *map(len, bags)], dtype=np.int64),
        "dense": np.array([row["dense"] for row in rows], np.float32),
    }
    assert [] in bags  # two texts without words
    found = ort.InferenceSession(tmp_path / "student.onnx").run(["scores"], inputs)[0]
    assert np.abs(found - [row["score"] for row in rows]).max() < MOST_APART


def test_a_bag_longer_than_any_text() -> None:
    scorer = make_scorer(SETTINGS[2], table="float16")
    graph = graph_of(scorer)
    table, num = graph.arrays["table"].astype(np.float64), 3_000
    ids = np.random.default_rng(0).integers(0, 500, num)
    dense = graph.arrays["dense_mean"][None]  # 0 when standardised
    inputs = {"ids": ids, "offsets": np.array([0, num, num]), "dense": dense}
    weights, width = graph.arrays["weight_0"][0].astype(np.float64), table.shape[1]
    bag = table[ids].sum(axis=0) / np.sqrt(num)
    logit = bag @ weights[:width] + graph.arrays["bias_0"][0]
    assert 0.01 < run(graph, inputs)[0] < 0.99
    assert abs(run(graph, inputs)[0] - 1 / (1 + np.exp(-1.3 * logit))) < MOST_APART


def test_ids_outside_of_the_bags_are_not_used(small: Scorer) -> None:
    """So that engines with tensors of a fixed size fill them up."""
    inputs, graph = TextInputs(small)(["grey sofa"], ["sofa, grey"]), graph_of(small)
    expected = run(graph, inputs)
    filled = {**inputs, "ids": np.concatenate([inputs["ids"], np.zeros(40, np.int64)])}
    assert (run(graph, filled) == expected).all()
    moved = {**filled, "ids": np.roll(filled["ids"], 7), "offsets": inputs["offsets"] + 7}
    assert (run(graph, moved) == expected).all()
    zeros = {name: np.zeros_like(values) for name, values in filled.items()}  # Vespa's first call
    assert run(graph, zeros).shape == (1,)


@pytest.mark.parametrize("drops", [False, True])
@pytest.mark.parametrize("number", [-1, -5, 1 << 12, (1 << 12) + 1, 2**31, 2**50])
def test_an_id_that_is_none_is_an_error(number: int, drops: bool) -> None:
    scorer = make_scorer(SETTINGS[0], drops=drops)
    inputs, graph = TextInputs(scorer)(["grey sofa"], ["sofa"]), graph_of(scorer)
    inputs["ids"][2] = number
    with pytest.raises(Exception, match="out of data bounds"):
        run(graph, inputs)


@pytest.mark.parametrize(
    "offsets", [[0, 3, 99], [0, 5, 3], [-1, 2, 3], [0, 2, 4], [0, 2**60, 3], [0, -(2**60), 3]]
)
def test_offsets_that_are_none_are_an_error(small: Scorer, offsets: list[int]) -> None:
    inputs = TextInputs(small)(["a"], ["b"])
    wrong = {**inputs, "ids": inputs["ids"][:3], "offsets": np.array(offsets)}
    with pytest.raises(Exception, match="out of data bounds"):
        run(graph_of(small), wrong)


def test_sizes_that_do_not_match_are_an_error(small: Scorer) -> None:
    inputs, graph = TextInputs(small)(["a", "b"], ["b", "c"]), graph_of(small)
    for name in ("offsets", "dense"):
        with pytest.raises(Exception, match=r"(?i)shape|dimension"):
            run(graph, {**inputs, name: inputs[name][:-1]})


def test_the_model_says_what_it_is(small: Scorer) -> None:
    settings = {**small.settings, "fingerprint": "0123456789abcdef"}
    model = student_graph(settings, small.model).model
    facts = {prop.key: prop.value for prop in model.metadata_props}
    assert facts["bundle"] == settings["fingerprint"] and facts["num_ids"] == "4096"
    assert float(facts["threshold"]) == 0.5 and float(facts["temperature"]) == 1.3
    assert model.producer_name == "raydistill" and model.opset_import[0].version == 13
    texts = [value.doc_string for value in (*model.graph.input, *model.graph.output)]
    assert "from 0 to 4095" in texts[0] and "entry 2 r + g" in texts[1] and len(texts) == 4


def test_a_table_in_int8_stays_one(small: Scorer) -> None:
    graph = graph_of(small)
    assert graph.arrays["table"].dtype == graph.arrays["weight_0"].dtype == np.int8
    assert len(graph.whole().SerializeToString()) < graph.num_bytes + 30_000


def test_a_large_table_goes_to_a_file_beside_the_model(small: Scorer, tmp_path: Path) -> None:
    # A message of protobuf has at most 2^31 - 1 bytes: a table of 2^24 x 64 float32 has 4 GiB.
    assert (2**31 - 1) - 2**20 == MOST_BYTES < 2**24 * 64 * 4
    graph, path = graph_of(small), tmp_path / "student.onnx"
    files = write_onnx(graph, path, most_bytes=graph.num_bytes - 1)
    assert files == [path, tmp_path / f"student.onnx{DATA}"]
    assert files[1].stat().st_size == graph.arrays["table"].nbytes
    texts = sides(PAIRS)
    found = ort.InferenceSession(path).run(None, TextInputs(small)(*texts))[0]
    assert np.abs(found - small.score_pairs(*texts)).max() < MOST_APART
    assert write_onnx(graph, path, most_bytes=graph.num_bytes) == [path]
    assert ort.InferenceSession(path).get_modelmeta().producer_name == "raydistill"
