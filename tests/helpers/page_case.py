"""The case that tests of the server's page type, and what the page then has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import numpy as np

if TYPE_CHECKING:
    from playwright.sync_api import Page

QUERY = "grey sofa"
# Scores of the overlap bundle: all words, half of them, none.
TITLES = ["oak table", "sofa, red", "Sofa, 3 seats, grey"]
BEST_FIRST = ["Sofa, 3 seats, grey", "sofa, red", "oak table"]
SCRIPT = "<script>alert(1)</script><img src=x onerror=alert(2)> grey &amp; sofa"


def golden(query: str, title: str, score: float) -> dict[str, Any]:
    return {"query": query, "title": title, "score": score}


def sigmoid(logit: float) -> float:
    return float(1 / (1 + np.exp(-logit)))


def link(url: str, query: str, titles: list[str], **more: str) -> str:
    return f"{url}#{urlencode([('q', query), *(('t', title) for title in titles), *more.items()])}"


def titles_of(page: Page) -> list[str]:
    return page.locator("tr.row th button").all_text_contents()


def type_case(page: Page) -> None:
    page.get_by_label("Query", exact=True).fill(QUERY)
    page.get_by_label("Titles", exact=True).fill("\n".join(TITLES))
    from playwright.sync_api import expect

    expect(page.locator("tr.row")).to_have_count(len(TITLES))
