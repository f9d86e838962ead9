"""How the page looks and what it may load, in a real headless Chromium; needs playwright."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.helpers.chromium import CONTRAST, CUT, Opened, in_chromium
from tests.helpers.page_case import BEST_FIRST, QUERY, SCRIPT, TITLES, link, type_case

if TYPE_CHECKING:
    from playwright.sync_api import Browser

playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright (extra dev)")
pytestmark = [pytest.mark.slow, in_chromium]
playwright.expect.set_options(timeout=30_000)  # of a machine that does much else
ROOT = Path(__file__).parents[2]
VIEWS = ((360, "light"), (360, "dark"), (1440, "light"), (1440, "dark"))
# What is too small for a finger.
SMALL = """() => {
  const wrong = [];
  for (const target of document.querySelectorAll("button, input, summary, textarea")) {
    const box = target.getBoundingClientRect();
    if (target.checkVisibility() && box.height < 24 && target.type !== "checkbox")
      wrong.push(`${box.height} px high: ${target.textContent}`);
  }
  return wrong;
}"""


@pytest.mark.parametrize(("width", "scheme"), VIEWS)
@pytest.mark.usefixtures("explains")
def test_every_view_is_whole_and_readable(
    browser: Browser, url: str, width: int, scheme: str
) -> None:
    long = ["x" * 300, f"{SCRIPT} " * 6, "Donaudampfschifffahrtsgesellschaft " * 5]
    address = link(url, f"{QUERY} {'y' * 90}", [*TITLES, *long], open="0,2,3,4")
    opened = Opened(browser, address, width=width, scheme=scheme)
    with opened as page:
        playwright.expect(page.locator(".explanation")).to_have_count(4)
        page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
        assert page.evaluate(CUT, ".hidden, thead") + page.evaluate(SMALL) == []
        assert page.evaluate(CONTRAST) == []
        page.get_by_role("button", name="Clear").click()
        playwright.expect(page.locator("#empty")).to_be_visible()
        assert page.evaluate(CUT, ".hidden, thead") + page.evaluate(SMALL) == []
        assert page.evaluate(CONTRAST) == []
        background = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (background == "rgb(255, 255, 255)") == (scheme == "light")
    assert opened.said == []


def test_names_and_focus_order(browser: Browser, url: str) -> None:
    with Opened(browser, url, width=1440) as page:
        type_case(page)
        page.get_by_label("Query", exact=True).focus()
        found = []
        for _ in range(10):
            found.append(
                page.evaluate(
                    "document.activeElement.id || document.activeElement.textContent.trim()"
                )
            )
            page.keyboard.press("Tab")
        controls = ["query", "titles", "clear", "copy-link", "as-typed", "copy-tsv", "copy-json"]
        assert found == [*controls, *BEST_FIRST]
        tree = page.locator("body").aria_snapshot()
        for line in (
            *('- textbox "Query"', '- textbox "Titles"', '- heading "Scores" [level=2]'),
            *('- table "Scores of the titles"', '- columnheader "Score"'),
            "- status: 3 titles, 2 relevant (from 0.6000)",
            '- rowheader "Sofa, 3 seats, grey"',
        ):
            assert line in tree, tree


def test_the_browser_is_told_to_load_nothing_else(browser: Browser, url: str) -> None:
    with Opened(browser, url, width=1440) as page:
        answer = page.request.get(url)
        assert answer.headers["content-security-policy"].startswith("default-src 'self';")
        assert answer.headers["x-content-type-options"] == "nosniff"
        again = page.request.get(url, headers={"if-none-match": answer.headers["etag"]})
        assert again.status == 304 and page.request.get(f"{url}page/x.js").status == 404
        blocked = page.evaluate(
            "new Promise(done => { const script = document.createElement('script'); "
            "script.textContent = 'window.ran = true'; document.body.append(script); "
            "setTimeout(() => done(window.ran !== true), 50); })"
        )
        assert blocked
        failed = page.evaluate("fetch('http://127.0.0.2:9/').then(() => false, () => true)")
        assert failed


def test_the_page_has_the_colours_of_the_report() -> None:
    report, page = (
        (ROOT / "raydistill" / name / "page.css").read_text()
        for name in ("evaluation/report", "server/page")
    )
    tokens = report[: report.index("* { box-sizing")]
    assert "--accent" in tokens and page.startswith(tokens)


def test_the_page_names_no_other_host() -> None:
    for file in (ROOT / "raydistill/server/page").iterdir():
        found = re.findall(r"(?:https?:)?//[\w.]+", file.read_text())
        assert [one for one in found if "www.w3.org" not in one and ":" in one] == [], file
        assert "innerHTML" not in file.read_text()
