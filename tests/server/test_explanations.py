"""The answer of /explain: its sums, its spans, and what is refused."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raydistill.server.bundles import Loaded, load
from raydistill.server.explanations import queue
from raydistill.server.explanations.queue import Explanations, NotExplained
from raydistill.serving.explanation.attribution import Explainer
from raydistill.serving.explanation.ngram_texts import QUERY, TITLE
from raydistill.serving.scorer import Scorer
from raydistill.student.export.golden_pairs import ODD_TEXTS
from tests.helpers.bundles import make_bundle
from tests.helpers.server import served_bundle

EXACT = 1e-12  # float64 sums in another order


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("bundles") / "bundle", ngrams=["grey sofa"])


@pytest.fixture(scope="module")
def url(bundle: Path) -> Iterator[str]:
    with served_bundle(bundle) as found:
        yield found


def post(url: str, body: object) -> tuple[int, dict[str, Any]]:
    """The status and the JSON of an answer of /explain."""
    from urllib.error import HTTPError
    from urllib.request import Request, urlopen

    request = Request(f"{url}explain", json.dumps(body).encode(), method="POST")
    try:
        with urlopen(request, timeout=60) as answer:
            return answer.status, json.load(answer)
    except HTTPError as error:
        return error.code, json.load(error)


PAIRS = [
    ("grey sofa 2m", "Sofa, grey, 2 m, with cover for grey sofa"),
    *zip(ODD_TEXTS[1:], ODD_TEXTS, strict=False),
]


def test_the_parts_add_up_to_the_logit_less_the_base(url: str, bundle: Path) -> None:
    scorer = Scorer.load(bundle)
    for query, title in PAIRS:
        status, found = post(url, {"query": query, "title": title})
        assert status == 200
        total = sum(part["logit"] for part in found["parts"])
        assert abs(total - (found["total"] - found["base"])) < EXACT
        assert found["total"] == found["logit"]  # no int8 layers
        assert found["score"] == scorer.score(query, [title])[0]
        score = 1 / (1 + np.exp(-found["temperature"] * found["logit"]))
        assert abs(score - found["score"]) < 1e-5
        assert found["relevant"] == (found["score"] >= found["threshold"])


def test_features_add_up_to_their_part_and_words_to_their_n_grams(url: str) -> None:
    for query, title in PAIRS:
        _, found = post(url, {"query": query, "title": title})
        for part in found["parts"]:
            if part["features"]:
                total = sum(feature["logit"] for feature in part["features"])
                assert abs(total - part["logit"]) < EXACT
        for side, kind in (("query", QUERY), ("title", TITLE)):
            words = sum(word["logit"] for word in found[side]["words"])
            ngrams = [part for part in found["parts"] if part["kind"] == kind]
            whole = sum(part["logit"] for part in ngrams if part["spans"])
            assert abs(words - whole) < EXACT
            if found[side]["words"]:
                assert all(part["spans"] for part in ngrams)


def test_spans_are_of_the_text_as_it_was_typed(url: str) -> None:
    _, found = post(url, {"query": "GREY sofa 2m", "title": "\U0001f6cb Sofa &amp; grey cover"})
    assert found["title"]["text"] == "\U0001f6cb Sofa &amp; grey cover"
    words = {
        found[side]["text"][word["start"] : word["end"]]: (word["read"], word["on_other_side"])
        for side in ("query", "title")
        for word in found[side]["words"]
    }
    assert words["GREY"] == (["grey"], True) and words["2m"] == (["2", "m"], False)
    assert words["cover"] == (["cover"], False) and words["Sofa"] == (["sofa"], True)
    (part,) = (part for part in found["parts"] if part["name"] == "sofa grey")
    start, end = part["spans"][0]
    assert part["kind"] == TITLE and found["title"]["text"][start:end] == "Sofa &amp; grey"


def test_it_says_what_the_command_says(url: str, bundle: Path) -> None:
    _, found = post(url, {"query": "grey sofa", "title": "sofa cover"})
    expected = Explainer(Scorer.load(bundle)).explain("grey sofa", "sofa cover")
    drivers = [(one.text, one.kind, one.value) for one in expected.in_families()]
    assert [(part["name"], part["kind"], part["logit"]) for part in found["parts"]] == drivers
    assert (found["base"], found["total"]) == (expected.baseline_logit, expected.explained_logit)


def test_what_is_refused_says_why(url: str) -> None:
    status, found = post(url, {"query": "sofa"})
    assert status == 422 and "title" in found["error"]
    status, found = post(url, {"title": "sofa"})
    assert status == 422 and "query" in found["error"]
    status, found = post(url, {"query": "sofa", "title": "x" * 20_001})
    assert status == 413 and "20,001" in found["error"] and found["hint"]
    assert post(url, {"query": "sofa", "title": "x" * 20_000})[0] == 200


def test_single_texts_need_no_query(tmp_path: Path) -> None:
    loaded = load(str(make_bundle(tmp_path / "bundle", single_texts=True)))
    found = asyncio.run(Explanations().explain(loaded, query="sofa", title="grey sofa"))
    assert found.query.text == "" and found.query.words == []
    assert found.score == loaded.scorer.score("", ["grey sofa"])[0]


def test_without_numba_it_is_said(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "raydistill.server.explanations.pair", None)
    with pytest.raises(NotExplained, match="cannot explain") as caught:
        asyncio.run(Explanations().explain(load(str(bundle)), query="a", title="b"))
    assert caught.value.status == 501 and "raydistill[numba]" in caught.value.hint


def test_too_many_are_refused_and_the_others_answered(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue, "MAX_WAITING", 2)
    loaded = load(str(bundle))

    async def ask() -> list[object]:
        explanations = Explanations()
        tasks = (explanations.explain(loaded, query="a", title=f"b {at}") for at in range(4))
        return await asyncio.gather(*tasks, return_exceptions=True)

    found = asyncio.run(ask())
    refused = [one for one in found if isinstance(one, NotExplained)]
    assert len(refused) == 2 and {one.status for one in refused} == {429}
    assert len(found) - len(refused) == 2


def test_another_bundle_is_explained_after_a_change(tmp_path: Path) -> None:
    explanations = Explanations()

    def base_of(bundle: Loaded) -> str:
        return asyncio.run(explanations.explain(bundle, query="a", title="a b")).bundle

    first = load(str(make_bundle(tmp_path / "first")))
    second = load(str(make_bundle(tmp_path / "second", temperature=2.0)))
    assert base_of(first) == first.name != base_of(second) == second.name


def test_lost_names_of_n_grams_do_not_stop_an_explanation(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "bundle", ngrams=["grey sofa"])
    loaded = load(str(folder))
    (folder / "ngrams.json").write_text("{")
    assert asyncio.run(Explanations().explain(loaded, query="a", title="b")).parts
