"""The page in a real headless Chromium, against the real server; needs playwright and chromium."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import pytest

from raydistill.serving.scorer import Scorer
from tests.helpers.bundles import make_bundle, make_overlap_bundle
from tests.helpers.chromium import Opened, in_chromium
from tests.helpers.page_case import (
    BEST_FIRST,
    QUERY,
    SCRIPT,
    TITLES,
    link,
    sigmoid,
    titles_of,
    type_case,
)
from tests.helpers.server import served_bundle

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright (extra dev)")
pytestmark = [pytest.mark.slow, in_chromium]
playwright.expect.set_options(timeout=30_000)  # of a machine that does much else


def scores_of(page: Page) -> list[float]:
    return [float(text) for text in page.locator("tr.row .value").all_text_contents()]


def test_what_is_typed_is_scored_best_first(browser: Browser, url: str) -> None:
    opened = Opened(browser, url, width=1440)
    with opened as page:
        type_case(page)
        assert titles_of(page) == BEST_FIRST
        assert scores_of(page) == [round(sigmoid(logit), 4) for logit in (4, 2, 0)]
        verdicts = page.locator("td.verdict").all_text_contents()
        assert verdicts == ["relevant", "relevant", "not relevant"]
        assert page.locator("#summary").text_content() == "3 titles, 2 relevant (from 0.6000)"
        line = page.locator("tbody tr").filter(has_text="threshold 0.6000")
        assert line.evaluate("row => row.previousElementSibling.previousElementSibling.innerText")
        below = line.evaluate("row => row.nextElementSibling.querySelector('button').textContent")
        assert below == "oak table"
        page.get_by_label("In the order of the titles").check()
        assert titles_of(page) == TITLES and not line.is_visible()
        page.get_by_label("Titles", exact=True).press_sequentially("\ngrey sofa")
        playwright.expect(page.locator("tr.row")).to_have_count(4)
        assert titles_of(page)[-1] == "grey sofa"
    assert opened.said == []
    assert {address.partition("#")[0].startswith(url) for address in opened.asked} == {True}


@pytest.mark.usefixtures("explains")
def test_a_title_is_explained_and_adds_up(browser: Browser, tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    title = "Sofa, 3 seats, 18v &amp; für grey"
    with served_bundle(bundle) as url, Opened(browser, url, width=1440) as page:
        page.get_by_label("Query", exact=True).fill("grey sofa 2m")
        page.get_by_label("Titles", exact=True).fill(title)
        button = page.get_by_role("button", name=title)
        button.focus()
        page.keyboard.press("Enter")
        explained = page.locator(".explanation")
        explained.wait_for()
        assert button.get_attribute("aria-expanded") == "true"
        terms = explained.locator(".sum dd").all_text_contents()
        numbers = [float(text.lstrip("= ").replace("\u2212", "-")) for text in terms]
        *parts, logit, score = numbers
        assert len(parts) == 4 and abs(sum(parts) - logit) < 0.003  # rounded to 0.001 each
        assert score == round(float(Scorer.load(bundle).score("grey sofa 2m", [title])[0]), 4)
        assert abs(sigmoid(logit) - score) < 0.0005
        shown = explained.locator(".marked").evaluate_all(
            "all => all.map(one => { const copy = one.cloneNode(true); "
            "copy.querySelectorAll('rt').forEach(rt => rt.remove()); return copy.textContent; })"
        )
        assert shown == ["grey sofa 2m", title]  # as it was typed
        shared = explained.locator(".shared > span").all_text_contents()
        assert shared == ["grey", "sofa", "Sofa", "grey"]
        assert "18v is read as 18 volt" in explained.inner_text()
        assert explained.locator(".word.plus").count() and explained.locator(".word.minus").count()
        lists = explained.locator(".drivers")
        assert "order of the query words in the title" in lists.first.inner_text()
        before = lists.last.locator("li").count()
        more = explained.get_by_role("button", name=re.compile(r"^Show \d+ more, together"))
        num_more = int(re.findall(r"\d+", more.inner_text())[0])
        more.click()
        assert lists.last.locator("> li").count() == before + num_more
        summary = lists.first.locator("summary").first
        summary.click()
        assert explained.locator(".members").first.is_visible()
        button.focus()
        page.keyboard.press("Space")
        assert not explained.is_visible() and button.get_attribute("aria-expanded") == "false"
        page.locator("td.score").click()  # a row is as good as its button
        assert explained.is_visible()


@pytest.mark.usefixtures("explains")
def test_html_is_shown_and_never_run(browser: Browser, url: str) -> None:
    opened = Opened(browser, link(url, SCRIPT, [SCRIPT, "sofa"], open="0"), width=1440)
    with opened as page:
        page.locator(".explanation").wait_for()
        assert titles_of(page)[0] == SCRIPT
        assert page.locator("script").count() == 1 and page.locator("img").count() == 0
        assert page.locator(".marked").first.evaluate(
            "one => [...one.querySelectorAll('*')].every(inner => "
            "['RUBY', 'RT', 'SPAN'].includes(inner.tagName))"
        )
        page.wait_for_timeout(200)
    assert opened.said == []


def test_a_thousand_lines_are_scored_and_more_are_shown_when_asked(
    browser: Browser, url: str
) -> None:
    titles = [f"sofa number {at}" + " grey" * (at % 2) for at in range(1_200)]
    with Opened(browser, url, width=1440) as page:
        page.get_by_label("Query", exact=True).fill(QUERY)
        field = page.get_by_label("Titles", exact=True)
        field.evaluate("(field, text) => { field.value = text; }", "\n\n".join(titles) + "\n  \n")
        field.focus()
        for key in "axv":  # pasted, as people do
            page.keyboard.press(f"Control+{key}")
        rows = page.locator("tr.row")
        playwright.expect(rows).to_have_count(1_000)
        playwright.expect(page.locator("#summary")).to_contain_text("1,200 titles")
        found = scores_of(page)
        assert found == sorted(found, reverse=True)
        assert titles_of(page)[:2] == ["sofa number 1 grey", "sofa number 3 grey"]
        page.get_by_role("button", name="Show 200 more titles of 200").click()
        playwright.expect(rows).to_have_count(1_200)
        assert page.evaluate("document.activeElement.textContent") == titles_of(page)[1_000]
        assert not page.locator("#more").is_visible()


def test_errors_of_the_server_are_said_and_the_page_recovers(
    browser: Browser, overlap: Path
) -> None:
    with served_bundle(overlap, max_titles=3) as url, Opened(browser, url, width=1440) as page:
        type_case(page)
        page.get_by_label("Titles", exact=True).press_sequentially("\none more")
        alert = page.get_by_role("alert")
        playwright.expect(alert).to_contain_text("4 titles; the limit is 3.")
        assert "The scores below are of before." in alert.inner_text()
        assert len(titles_of(page)) == 3
        page.get_by_label("Titles", exact=True).fill("sofa")
        playwright.expect(page.locator("tr.row")).to_have_count(1)
        assert not alert.is_visible()
        page.context.set_offline(True)
        page.get_by_label("Titles", exact=True).fill("sofa\ngrey sofa")
        playwright.expect(alert).to_contain_text("The server does not answer.")
        page.context.set_offline(False)
        page.get_by_role("button", name="Try again").click()
        playwright.expect(page.locator("tr.row")).to_have_count(2)
        assert not alert.is_visible()


def test_a_token_is_asked_for(browser: Browser, overlap: Path) -> None:
    with served_bundle(overlap, token="secret") as url, Opened(browser, url, width=1440) as page:
        page.get_by_label("Token of this server").fill("secret")
        page.keyboard.press("Tab")
        playwright.expect(page.locator("#bundle")).to_contain_text("relevant from 0.6000")
        type_case(page)
        assert titles_of(page) == BEST_FIRST
        assert not page.get_by_label("Token of this server").is_visible()
        assert "secret" not in page.url


def test_an_answer_that_comes_too_late_is_dropped(browser: Browser, url: str) -> None:
    with Opened(browser, url, width=1440) as page:
        held = []

        def hold(route: Any) -> None:  # noqa: ANN401 - of playwright
            if "slow" in route.request.post_data:
                held.append(route)
            else:
                route.continue_()

        page.route("**/score", hold)
        page.get_by_label("Titles", exact=True).fill("\n".join(TITLES))
        page.get_by_label("Query", exact=True).fill("slow sofa")
        page.wait_for_timeout(400)
        assert len(held) == 1
        page.get_by_label("Query", exact=True).fill(QUERY)
        playwright.expect(page.locator("tr.row")).to_have_count(3)
        held[0].fulfill(json={"scores": [0.9] * 3, "relevant": [True] * 3, "threshold": 0.1,
                              "bundle": "late"})  # fmt: skip
        page.wait_for_timeout(200)
        assert titles_of(page) == BEST_FIRST and scores_of(page)[-1] == 0.5
        assert not page.get_by_role("alert").is_visible()


@pytest.mark.usefixtures("explains")
def test_a_case_is_sent_as_a_link(browser: Browser, url: str) -> None:
    with Opened(browser, url, width=1440) as page:
        type_case(page)
        page.get_by_label("In the order of the titles").check()
        page.get_by_role("button", name="sofa, red").click()
        page.wait_for_url("**open=1")
        sent = page.url
    with Opened(browser, sent, width=360) as page:
        page.locator(".explanation").wait_for()
        assert page.get_by_label("Query", exact=True).input_value() == QUERY
        assert page.get_by_label("Titles", exact=True).input_value() == "\n".join(TITLES)
        assert titles_of(page) == TITLES
        assert page.locator("button[aria-expanded=true]").all_text_contents() == ["sofa, red"]
        page.evaluate(f"location.hash = {json.dumps(urlencode({'q': 'oak', 't': 'oak'}))}")
        playwright.expect(page.locator("tr.row")).to_have_count(1)
        assert titles_of(page) == ["oak"] and page.locator(".explanation").count() == 0


def test_scores_are_copied(browser: Browser, url: str) -> None:
    with Opened(browser, url, width=1440) as page:
        page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        type_case(page)
        page.get_by_role("button", name="Copy as TSV").click()
        page.get_by_role("button", name="Copied").wait_for()
        lines = page.evaluate("navigator.clipboard.readText()").splitlines()
        assert lines[0].split("\t") == ["query", "title", "score", "relevant"]
        assert [line.split("\t")[1] for line in lines[1:]] == BEST_FIRST
        assert lines[1].startswith("grey sofa\tSofa, 3 seats, grey\t0.982")
        page.get_by_role("button", name="Copy as JSON").click()
        page.wait_for_timeout(100)
        found = json.loads(page.evaluate("navigator.clipboard.readText()"))
        assert (found["query"], found["threshold"]) == (QUERY, 0.6)
        assert [title["relevant"] for title in found["titles"]] == [True, True, False]


def test_without_a_clipboard_a_selection_is_copied(browser: Browser, url: str) -> None:
    """As on a page of plain http that is not of localhost."""
    with Opened(browser, url, width=1440) as page:
        page.evaluate("Object.defineProperty(navigator, 'clipboard', {value: undefined})")
        type_case(page)
        page.get_by_role("button", name="Copy as TSV").click()
        page.get_by_role("button", name="Copied").wait_for()
        assert page.locator("textarea").count() == 1  # nothing is left of the copy
        page.get_by_label("Titles", exact=True).fill("")
        page.keyboard.press("Control+v")
        playwright.expect(page.get_by_label("Titles", exact=True)).to_have_value(
            re.compile(r"query\ttitle.*\ngrey sofa\tSofa, 3 seats, grey\t0.982")
        )


def test_a_new_bundle_is_told(browser: Browser, tmp_path: Path) -> None:
    for name, weight in (("1" * 16, 4.0), ("2" * 16, -4.0)):
        make_overlap_bundle(tmp_path / name, weight=weight)
    pointer = tmp_path / "current.json"
    names = [
        json.loads((tmp_path / name / "bundle.json").read_text())["fingerprint"]
        for name in ("1" * 16, "2" * 16)
    ]
    for folder, name in zip(("1" * 16, "2" * 16), names, strict=True):
        (tmp_path / folder).rename(tmp_path / name)
    pointer.write_text(json.dumps({"bundle": names[0]}))
    with served_bundle(tmp_path, reload_s=0.05) as url, Opened(browser, url, width=1440) as page:
        type_case(page)
        assert (
            names[0] in page.locator("#bundle").inner_text()
            and not page.locator("#notice").is_visible()
        )
        pointer.write_text(json.dumps({"bundle": names[1]}))
        page.evaluate(
            "url => new Promise(done => { const look = async () => (await (await "
            "fetch('info')).json()).bundle === url ? done() : setTimeout(look, 50); look(); })",
            names[1],
        )
        page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
        playwright.expect(page.locator("#notice")).to_have_text(
            f"A new bundle was taken up: {names[1]}, in place of {names[0]}."
        )
        playwright.expect(page.locator("tr.row button").first).to_have_text("oak table")
        assert scores_of(page)[-1] == round(sigmoid(-4), 4)


def test_examples_are_of_the_bundle(browser: Browser, url: str) -> None:
    with Opened(browser, url, width=360) as page:
        buttons = page.locator("#example-list button")
        playwright.expect(buttons).to_have_count(1)  # `lone` has one title
        buttons.first.click()
        playwright.expect(page.locator("tr.row")).to_have_count(3)
        assert titles_of(page) == ["table of oak", "table", "sofa"]
        page.get_by_role("button", name="Clear").click()
        playwright.expect(buttons.first).to_be_visible()


@pytest.mark.usefixtures("explains")
def test_single_texts_have_no_query(browser: Browser, tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle", single_texts=True)
    with served_bundle(bundle) as url, Opened(browser, url, width=1440) as page:
        texts = page.get_by_label("Texts", exact=True)
        texts.fill("a good film\na bad one")
        playwright.expect(page.locator("tr.row")).to_have_count(2)
        assert not page.get_by_label("Query", exact=True).is_visible()
        expected = Scorer.load(bundle).score("", ["a good film", "a bad one"])
        assert scores_of(page) == sorted((round(float(one), 4) for one in expected), reverse=True)
        page.locator("tr.row button").first.click()
        page.locator(".explanation").wait_for()
        assert page.locator(".marked").count() == 1
