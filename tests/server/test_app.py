"""What the routes answer, right and wrong requests."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from raydistill.server.app import create_app
from raydistill.server.limits import Settings
from raydistill.server.service import SLICE_TITLES
from raydistill.serving.scorer import Scorer
from tests.helpers.bundles import make_bundle
from tests.helpers.server import Client, golden_bundle, served

ODD = ["", " ", "nul \0 inside", "ünï ½ 𝄞", "\ufdfa" * 50, "x" * 5_000, "tab\t line\n", '"\\']


def test_scores_are_those_of_the_scorer_in_given_order(client: Client, scorer: Scorer) -> None:
    titles = [*ODD, *(f"Sofa {n} seats" for n in range(2 * SLICE_TITLES + 7))]
    found = client.post("/score", {"query": "grey sofa", "titles": titles})
    wanted = scorer.score("grey sofa", titles)
    assert found.status == 200
    np.testing.assert_array_equal(np.float32(found.json["scores"]), wanted)
    assert found.json["relevant"] == (wanted >= scorer.threshold).tolist()
    assert found.json["threshold"] == scorer.threshold
    name = scorer.settings["fingerprint"]
    assert found.json["bundle"] == found.headers["x-raydistill-bundle"] == name


def test_pairs_have_a_query_each(client: Client, scorer: Scorer) -> None:
    queries = [f"sofa {n}" for n in range(SLICE_TITLES + 1)]
    titles = [f"Sofa {n} seats" for n in range(SLICE_TITLES, -1, -1)]
    found = client.post("/score_pairs", {"queries": queries, "titles": titles}).json
    np.testing.assert_array_equal(np.float32(found["scores"]), scorer.score_pairs(queries, titles))


def test_nothing_to_score_is_no_error(client: Client) -> None:
    assert client.post("/score", {"query": "a", "titles": []}).json["scores"] == []
    assert client.post("/score_pairs", {"queries": [], "titles": []}).json["relevant"] == []


@pytest.mark.parametrize(
    ("path", "content", "status", "error"),
    [
        ("/score", b"abc", 400, "the body is not JSON: expected value at line 1 column 1"),
        ("/score", b"", 400, "not JSON: EOF"),
        ("/score", b'{"query": "a", "titles": ["\\ud800"]}', 400, "not JSON: .* end of hex"),
        ("/score", b'{"query": "a", "titles": ["\xff"]}', 400, "not JSON: invalid unicode"),
        ("/score", b'{"query": "a\0", "titles": []}', 400, "not JSON: control character"),
        ("/score", b"[" * 100_000, 400, "not JSON: recursion limit"),
        ("/score", [1, 2], 422, r"the body: Input should be an object, got \[1, 2\]"),
        ("/score", {"query": "a"}, 422, "titles: Field required"),
        ("/score", {"titles": ["a"]}, 422, "query: Field required"),
        ("/score", {"query": "a", "titels": []}, 422, "titels: Extra inputs are not permitted"),
        ("/score", {"query": "a", "titles": ["b", 7]}, 422, "titles.1: .* valid string, got 7"),
        ("/score", {"query": "a", "titles": "b"}, 422, "titles: .* valid array, got 'b'"),
        ("/score", {"query": None, "titles": None}, 422, "titles: .* valid array, got None"),
        ("/score", b'{"query": NaN, "titles": []}', 422, "query: .* valid string, got nan"),
        ("/score", {"query": "a", "titles": [0] * 300_000}, 422, "titles.0: .* string, got 0$"),
        ("/score", {"query": "a", "titles": {"a": "0" * 900_000}}, 422, r"array, got {'a': '0+\."),
        ("/rerank", {"query": "a", "documents": [0] * 300_000}, 422, "documents.0.str: "),
        ("/score", {"query": "a", "titles": ["b"] * 1_001}, 413, "1,001 titles; .* is 1,000"),
        ("/score", {"query": "a", "titles": ["b" * (1 << 20)]}, 413, "1,048,576 bytes"),
        ("/score_pairs", {"queries": ["a"], "titles": []}, 422, "1 queries for 0 titles"),
        ("/scores", {}, 404, "no such route: POST /scores"),
        ("/info", {}, 405, "no such method: POST /info"),
    ],
    ids=lambda value: "body" if isinstance(value, bytes) else None,
)  # fmt: skip
def test_a_wrong_request_is_told_what_is_wrong(
    client: Client, path: str, content: object, status: int, error: str
) -> None:
    found = client.post(path, content)
    assert found.status == status, found.body
    assert re.search(error, found.json["error"]), found.json
    assert set(found.json) <= {"error", "hint"}
    assert found.headers["content-type"] == "application/json"


def test_a_body_without_a_length_has_a_limit_too(client: Client) -> None:
    parts = (b"x" * 65_536 for _ in range(100))
    found = client.request("POST", "/score", parts, {}, encode_chunked=True)
    assert (found.status, found.headers.get("connection")) == (413, None)
    assert client.post("/score", {"query": "a", "titles": ["b"]}).status == 200
    found = client.request("POST", "/score", b"x", {"content-length": str(1 << 30)})
    assert (found.status, found.headers["connection"]) == (413, "close")
    assert client.post("/score", {"query": "a", "titles": ["b"]}).status == 200


def test_a_bundle_of_single_texts_needs_no_query(tmp_path: Path) -> None:
    bundle = golden_bundle(tmp_path / "one", single_texts=True)
    titles = ["good film", "bad film"]
    wanted = Scorer.load(bundle).score_pairs(["", ""], titles)
    with served(create_app(bundle)) as address:
        client = Client(address)
        assert client.get("/info").json["single_texts"] is True
        for path, content in [
            ("/score", {"titles": titles}),
            ("/score", {"query": "ignored", "titles": titles}),
            ("/score_pairs", {"queries": ["ignored", ""], "titles": titles}),
        ]:
            found = client.post(path, content).json
            np.testing.assert_array_equal(np.float32(found["scores"]), wanted)
        ranked = client.post("/rerank", {"texts": titles}).json
        assert {one["index"]: np.float32(one["score"]) for one in ranked} == dict(enumerate(wanted))
        client.close()


def test_info_names_the_bundle_and_its_settings(client: Client, scorer: Scorer) -> None:
    found = client.get("/info").json
    assert found["bundle"] == scorer.settings["fingerprint"]
    assert found["settings"] == scorer.settings
    assert (found["golden_pairs"], found["failure"]) == (3, None)
    assert (found["max_titles"], found["title_columns"]) == (1_000, ["title"])


def test_metrics_count_answers_and_titles(tmp_path: Path) -> None:
    with served(create_app(make_bundle(tmp_path / "one"))) as address:
        client = Client(address)
        client.post("/score", {"query": "a", "titles": ["b", "c"]})
        client.post("/score", b"?")
        client.get("/any/path")
        lines = client.get("/metrics").body.decode().splitlines()
        client.close()
    for line in (
        'raydistill_requests_total{route="/score",status="200"} 1.0',
        'raydistill_requests_total{route="/score",status="400"} 1.0',
        'raydistill_requests_total{route="other",status="404"} 1.0',
        'raydistill_request_seconds_count{route="/score"} 2.0',
        "raydistill_titles_total 2.0",
        "raydistill_requests_in_flight 1.0",
        "raydistill_reload_failures_total 0.0",
    ):
        assert line in lines
    (memory,) = [line for line in lines if line.startswith("process_resident_memory_bytes ")]
    assert 2e7 < float(memory.split()[1]) < 1e11


def test_a_token_is_asked_for_where_scores_are(bundle: Path) -> None:
    # Files of secrets end with a line feed.
    with served(create_app(bundle, settings=Settings(token="sesame\n"))) as address:
        client = Client(address)
        content = {"query": "a", "titles": ["b"]}
        found = client.post("/score", content)
        assert (found.status, found.headers["www-authenticate"]) == (401, "Bearer")
        assert found.json["error"] == "the request has no token"
        for wrong in ("Bearer sesam", "Basic sesame", "sesame", "Bearer ", "Bearer \xe9"):
            assert client.post("/score", content, authorization=wrong).status == 401
        for right in ("Bearer sesame", "BEARER sesame", "bearer  sesame "):
            assert client.post("/score", content, authorization=right).status == 200
        assert client.get("/info").status == 401
        assert "sesame" not in client.get("/info", authorization="Bearer sesame").body.decode()
        assert {client.get(path).status for path in ("/health", "/ready", "/metrics")} == {200}
        client.close()


def test_openapi_has_every_route_and_valid_examples(client: Client) -> None:
    from openapi_spec_validator import validate

    found = client.get("/openapi.json").json
    validate(found)
    posts = {path for path, kinds in found["paths"].items() if "post" in kinds}
    assert posts >= {"/score", "/score_pairs", "/rerank", "/v1/rerank", "/v2/rerank"}
    for path in found["paths"].keys() - posts:
        assert client.get(path).status == 200
    for schema in ("ScoreRequest", "ScorePairsRequest"):
        fields = found["components"]["schemas"][schema]["properties"]
        example = {name: field["examples"][0] for name, field in fields.items()}
        path = "/score" if schema == "ScoreRequest" else "/score_pairs"
        assert client.post(path, example).status == 200, json.dumps(example)
