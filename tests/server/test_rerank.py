"""Requests as search engines and frameworks send them, and answers that their parsers take.

The bodies have the fields, in the order, that the clients' own sources and documentation have.
"""

import uuid
from typing import Any

import numpy as np
import pytest

from raydistill.serving.scorer import Scorer
from tests.helpers.server import Client

QUERY = "grey sofa"
TITLES = ["Cable, 2 m", "Sofa, 3 seats, grey", "Sofa cover, grey", "Cable, 2 m"]


def _ranked(scorer: Scorer, titles: list[str] = TITLES) -> list[tuple[int, np.float32]]:
    scores = scorer.score(QUERY, titles)
    return [(int(i), scores[i]) for i in np.argsort(-scores, kind="stable")]


# --- texts: a list of {"index", "score", "text"?}

TEI = [
    # curl of the documentation of Text Embeddings Inference
    {"query": QUERY, "texts": TITLES},
    {"query": QUERY, "texts": TITLES, "raw_scores": False, "return_text": False, "truncate": True,
     "truncation_direction": "Right"},
    # LlamaIndex, TextEmbeddingsInference postprocessor
    {"query": QUERY, "texts": TITLES, "truncate": True},
    # Elasticsearch, service hugging_face, without task settings
    {"texts": TITLES, "query": QUERY},
]  # fmt: skip


@pytest.mark.parametrize("body", TEI)
def test_texts_are_ranked_as_by_tei(client: Client, scorer: Scorer, body: dict[str, Any]) -> None:
    found = client.post("/rerank", body)
    assert found.status == 200
    assert [(one["index"], np.float32(one["score"])) for one in found.json] == _ranked(scorer)
    assert all(set(one) == {"index", "score"} for one in found.json)  # others are refused there
    assert found.headers["x-raydistill-bundle"] == scorer.settings["fingerprint"]


def test_elasticsearch_asks_for_texts_and_a_number(client: Client, scorer: Scorer) -> None:
    body = {"texts": TITLES, "query": QUERY, "return_text": True, "top_n": 2}
    found = client.post("/rerank", body, authorization="Bearer any").json
    assert [one["index"] for one in found] == [i for i, _ in _ranked(scorer)][:2]
    assert [one["text"] for one in found] == [TITLES[one["index"]] for one in found]


def test_raw_scores_are_logits(client: Client, scorer: Scorer) -> None:
    raw = client.post("/rerank", {"query": QUERY, "texts": TITLES, "raw_scores": True}).json
    logits = np.array([one["score"] for one in raw])
    wanted = np.float64([score for _, score in _ranked(scorer)])
    np.testing.assert_allclose(1 / (1 + np.exp(-logits)), wanted, atol=1e-6)


# --- documents: {"id", "results": [{"index", "relevance_score", "document"?}], "meta"}

COHERE = [
    # Cohere's v2, and its Python client
    ("/v2/rerank", {"model": "rerank-v3.5", "query": QUERY, "documents": TITLES, "top_n": 3,
                    "max_tokens_per_doc": 4096}),
    # Elasticsearch, service cohere
    ("/v2/rerank", {"model": "any", "query": QUERY, "documents": TITLES, "return_documents": False,
                    "top_n": 10}),
    # OpenSearch, connector with connector.pre_process.cohere.rerank
    ("/v1/rerank", {"documents": TITLES, "query": QUERY, "model": "rerank-english-v2.0",
                    "top_n": 4}),
    # Jina and LangChain's JinaRerank
    ("/v1/rerank", {"model": "jina-reranker-v2-base-multilingual", "query": QUERY,
                    "documents": TITLES, "top_n": 3}),
    # vLLM's clients
    ("/rerank", {"model": "any", "query": QUERY, "documents": TITLES}),
]  # fmt: skip


@pytest.mark.parametrize(("path", "body"), COHERE)
def test_documents_are_ranked_as_by_cohere(
    client: Client, scorer: Scorer, path: str, body: dict[str, Any]
) -> None:
    found = client.post(path, body)
    assert found.status == 200
    results = [(one["index"], np.float32(one["relevance_score"])) for one in found.json["results"]]
    assert results == _ranked(scorer)[: body.get("top_n")]
    assert all(set(one) == {"index", "relevance_score"} for one in found.json["results"])
    assert uuid.UUID(found.json["id"])
    version = "1" if path.startswith("/v1") else "2"
    name = scorer.settings["fingerprint"]
    assert found.json["meta"] == {"api_version": {"version": version}, "bundle": name}


def test_documents_may_be_objects_and_are_returned(client: Client, scorer: Scorer) -> None:
    documents: list[object] = [TITLES[0], {"text": TITLES[1], "id": 7}]
    body = {"query": QUERY, "documents": documents, "return_documents": True}
    found = client.post("/v1/rerank", body).json["results"]
    assert [one["index"] for one in found] == [i for i, _ in _ranked(scorer, TITLES[:2])]
    shown = {one["index"]: one["document"] for one in found}
    assert shown == {0: {"text": TITLES[0]}, 1: documents[1]}


def test_a_document_may_have_a_number_of_any_size(client: Client) -> None:
    documents = [{"text": TITLES[0], "id": 2**70, "price": 1.5}]
    body = {"query": QUERY, "documents": documents, "return_documents": True}
    found = client.post("/v2/rerank", body)
    assert found.status == 200
    assert found.json["results"][0]["document"] == documents[0]


def test_rank_fields_are_read_in_order(client: Client, scorer: Scorer) -> None:
    documents = [{"brand": "Grey", "name": "Sofa", "price": 7}, {"name": "Cable"}]
    body = {"query": QUERY, "documents": documents, "rank_fields": ["name", "brand"]}
    found = client.post("/v1/rerank", body).json["results"]
    scores = {one["index"]: np.float32(one["relevance_score"]) for one in found}
    assert scores == dict(enumerate(scorer.score(QUERY, ["Sofa Grey", "Cable"])))


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ({"query": QUERY}, "no texts"),
        ({"query": QUERY, "texts": [], "documents": []}, "both texts and documents"),
        ({"texts": ["a"]}, "query: Field required"),
        ({"query": QUERY, "documents": [{"title": "a"}]}, "documents.0 has no string text"),
        ({"query": QUERY, "documents": ["a", 7]}, "documents.1.str: "),
        ({"query": QUERY, "texts": ["a"], "top_n": 0}, "top_n: .* greater than or equal to 1"),
    ],
)
def test_a_wrong_request_is_refused(client: Client, body: dict[str, Any], error: str) -> None:
    import re

    found = client.post("/rerank", body)
    assert found.status == 422
    assert re.search(error, found.json["error"]), found.json


def test_nothing_to_rank_is_no_error(client: Client) -> None:
    assert client.post("/rerank", {"query": QUERY, "texts": []}).json == []
    found = client.post("/rerank", {"query": QUERY, "documents": []}).json
    assert found["results"] == []
