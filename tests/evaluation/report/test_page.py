"""The page of the report in a real headless Chromium; needs playwright and Debian's chromium."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from raydistill.evaluation.report.html import html
from raydistill.evaluation.report.markdown import markdown
from tests.helpers import chromium, figures
from tests.helpers.chromium import CONTRAST, CUT, Opened, in_chromium

if TYPE_CHECKING:
    from playwright.sync_api import Browser

playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright (extra dev)")
VIEWS = ((390, "light"), (1440, "dark"), (390, "dark"), (1440, "light"))
MOST_BYTES = 3_000_000
A4_PX = 695  # between the margins, at 96 dpi
pytestmark = pytest.mark.slow


class Pages(dict[str, Path]):
    """The page of each variant, made when it is first asked for."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def __missing__(self, name: str) -> Path:
        self[name] = self.folder / f"{name}.html"
        self[name].write_text(html(figures.VARIANTS[name]()), encoding="utf-8")
        return self[name]


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return Pages(tmp_path_factory.mktemp("pages"))


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    yield from chromium.browsers()


# What hides a part of itself, or is a table that cannot scroll.
LAYOUT = """() => {
  const wrong = [];
  for (const element of document.querySelectorAll("body *")) {
    const style = getComputedStyle(element);
    if (style.overflowX === "visible" || element.closest("svg") || !element.checkVisibility())
      continue;
    if (element.scrollWidth > element.clientWidth + 1 && !element.matches(".scroll"))
      wrong.push(`${element.tagName} hides what it holds`);
  }
  for (const table of document.querySelectorAll("table"))
    if (table.checkVisibility() && !table.closest(".scroll")) wrong.push("a table cannot scroll");
  return wrong;
}"""
PICTURES = """() => {
  const shown = [...document.querySelectorAll("svg")].filter(one => one.checkVisibility());
  return shown.map(one => {
  const box = one.getBoundingClientRect();
  const outside = [...one.querySelectorAll("text")].filter(text => {
    const inner = text.getBoundingClientRect();
    return inner.left < box.left - 3 || inner.right > box.right + 3 ||
      inner.top < box.top - 3 || inner.bottom > box.bottom + 3;
  }).map(text => text.textContent);
  const drawn = [...one.querySelectorAll("path, use")].filter(path => {
    const inner = path.getBoundingClientRect();
    return inner.width > 0 || inner.height > 0;
  }).length;
  const name = document.getElementById(one.getAttribute("aria-labelledby"))?.textContent;
  return {width: box.width, height: box.height, drawn, outside, name,
          hidden: one.getAttribute("aria-hidden") === "true"};
  });
}"""


@in_chromium
@pytest.mark.parametrize(
    ("name", "width", "scheme"),
    [
        *((name, width, scheme) for name in figures.VARIANTS for width, scheme in VIEWS[:2]),
        *(("full", width, scheme) for width, scheme in VIEWS[2:]),
    ],
)
def test_a_page_opens_from_disk(
    pages: dict[str, Path], browser: Browser, name: str, width: int, scheme: str
) -> None:
    opened = Opened(browser, pages[name].as_uri(), width=width, scheme=scheme)
    with opened as page:
        assert page.evaluate(CUT, ".scroll") + page.evaluate(LAYOUT) == []
        assert page.evaluate(CONTRAST) == []
        page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
        assert page.evaluate(CUT, ".scroll") + page.evaluate(LAYOUT) == []
        pictures = page.evaluate(PICTURES)
        assert len(pictures) > 5
        for picture in pictures:
            assert picture["width"] > 10 and picture["height"] > 10, picture
            assert picture["drawn"] and not picture["outside"], picture
            assert picture["hidden"] or picture["name"], picture
    assert opened.said == [] and opened.asked == [pages[name].as_uri()]


@in_chromium
def test_texts_of_users_stay_texts(pages: dict[str, Path], browser: Browser) -> None:
    opened = Opened(browser, pages["hostile"].as_uri(), width=1440, scheme="light")
    with opened as page:
        page.wait_for_timeout(100)
        assert page.evaluate("document.scripts.length") == 0
        shown = page.evaluate("document.body.textContent")
        # Of a teacher, cases and drivers, neighbours, slices, data, tune, curve, stack, cost.
        assert shown.count(figures.SCRIPT) > 20
        assert not re.search("[\x00-\x08\x0e-\x1f\x7f\u202a-\u202e]", shown)
        cells = page.locator("tbody th").all_text_contents()
        assert f"teacher {figures.SCRIPT}" in cells and figures.SCRIPT in cells
    assert opened.said == []


@in_chromium
@pytest.mark.parametrize("name", ["full", "hostile"])
def test_a_printed_page_cuts_no_table(pages: dict[str, Path], browser: Browser, name: str) -> None:
    with Opened(browser, pages[name].as_uri(), width=A4_PX, scheme="dark") as page:
        page.emulate_media(media="print", color_scheme="dark")
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == (
            "rgb(255, 255, 255)"
        )
        wide = page.evaluate(
            "() => [...document.querySelectorAll('table')].filter(one => one.checkVisibility())"
            ".map(one => [one.caption?.textContent, one.getBoundingClientRect().right])"
            ".filter(([, right]) => right > innerWidth + 1)"
        )
        assert wide == [] and page.evaluate(CONTRAST) == []
        assert not page.locator("nav").is_visible()
        assert page.pdf()[:5] == b"%PDF-"


@in_chromium
def test_a_dozen_teachers_fit_the_paper(tmp_path: Path, browser: Browser) -> None:
    found = figures.full()
    minilm, difference = found["scorers"]["teacher minilm"], found["differences"][2]
    for at in range(10):
        name = f"teacher housecrossencoder{at}"
        found["scorers"][name] = minilm
        found["differences"].append({**difference, "other": name})
    path = tmp_path / "many.html"
    path.write_text(html(found), encoding="utf-8")
    with Opened(browser, path.as_uri(), width=A4_PX, scheme="light") as page:
        page.emulate_media(media="print")
        rights = page.evaluate(
            "() => [...document.querySelectorAll('table')].filter(one => one.checkVisibility())"
            ".map(one => one.getBoundingClientRect().right)"
        )
        assert len(rights) > 5 and max(rights) <= A4_PX + 1


@in_chromium
def test_no_script_is_needed_and_links_lead_somewhere(
    pages: dict[str, Path], browser: Browser
) -> None:
    with Opened(browser, pages["full"].as_uri(), width=1440, scheme="light") as page:
        links = page.locator("nav a").evaluate_all("all => all.map(one => one.hash.slice(1))")
        assert links[0] == "verdict" and len(links) == 17
        for target in links:
            assert page.locator(f"[id='{target}']").count() == 1
        page.locator("nav a", has_text="Slices").click()
        assert page.evaluate("location.hash") == "#slices"
        playwright.expect(page.locator("#slices-heading")).to_be_in_viewport()


class Outline(HTMLParser):
    """Headings, ids and references of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.levels: list[int] = []
        self.ids: list[str] = []
        self.used: set[str] = set()
        self.tags: set[str] = set()
        self.lone_cells: list[dict[str, str | None]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags.add(tag)
        if re.fullmatch("h[1-6]", tag):
            self.levels.append(int(tag[1]))
        if tag == "th" and "scope" not in given:
            self.lone_cells.append(given)
        self.ids += [given["id"] or ""] if "id" in given else []
        for name in ("aria-labelledby", "xlink:href", "href"):
            value = given.get(name)
            if value:
                self.used.add(value.removeprefix("#"))
        self.used |= set(re.findall(r"url\(#([^)]+)\)", " ".join(v or "" for v in given.values())))


@pytest.mark.parametrize("name", figures.VARIANTS)
def test_the_page_is_sound(pages: dict[str, Path], name: str) -> None:
    text = pages[name].read_text(encoding="utf-8")
    outline = Outline(text)
    assert len(text.encode()) < MOST_BYTES and text.startswith("<!DOCTYPE html>")
    assert outline.levels.count(1) == 1 and not outline.lone_cells
    steps = zip(outline.levels, outline.levels[1:], strict=False)
    # The contents stand before the title; a level below is never left out.
    assert all(after <= before + 1 for before, after in steps)
    assert len(outline.ids) == len(set(outline.ids))
    assert outline.used <= set(outline.ids)
    assert not outline.tags & {"script", "link", "img", "iframe", "object", "base", "image"}
    assert "#fe0" not in text  # no placeholder of a colour is left


def test_the_page_and_markdown_say_the_same(pages: dict[str, Path]) -> None:
    page, text = pages["full"].read_text(encoding="utf-8"), markdown(figures.full())
    assert page == html(figures.full())  # equal numbers give equal bytes
    sections = re.findall('<h2 id="[^"]+-heading">([^<]+)</h2>', page)
    assert re.findall("(?m)^## (.+)$", text) == sections
    captions = re.findall("<caption><span>([^<]+)</span></caption>", page)
    assert len(captions) > 20
    words = re.sub("<svg.*?</svg>|<style.*?</style>", "", page, flags=re.DOTALL)
    numbers = set(re.findall(r"[0-9]\.[0-9]{3,4}", words))
    assert len(numbers) > 100 and all(number in text for number in numbers)
