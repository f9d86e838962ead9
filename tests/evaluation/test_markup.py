"""User texts in Markdown, plots and terminal output, read back by a real parser of each."""

import json
import random
import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest
from markdown_it import MarkdownIt

from raydistill.cli.main import main
from raydistill.evaluation.dataset_stats import inspect_files, to_json
from raydistill.evaluation.learning_curve import curve_markdown, curve_svg
from raydistill.evaluation.markup import escaped, markdown_table, plain, plain_lines, text_table
from raydistill.evaluation.report.markdown import tune_markdown
from raydistill.evaluation.tables import data_markdown, data_text
from raydistill.search.plots import draw
from raydistill.search.results import FINISHED, US_PER_PAIR, Trial
from tests.helpers.curve import FOUND

# HTML in Markdown is left in, as viewers do that trust a file.
MARKDOWN = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
HOSTILE = [
    "<script>alert(1)</script>", "<b>bold</b>", "<!-- gone -->", "</td></table>", "<img src=x>",
    "a | b", "a || b \\| c", "\\", "\\\\|", "a\\", "`code`", "``", "*em* **strong**",
    "_em_ __x__", "~~gone~~", "[link](http://x.y)", "![image](x)", "[a]: http://x", "&amp;",
    "&lt;b&gt;", "&#60;", "AT&T", "# heading", "- item", "+ item", "1. item", "1) item",
    "12 in.", "> quote", "---", "===", "***", "```", "    code", "<http://auto.link>",
    "http://a.b", "www.a.b", "a@b.c", "$x$", ":cat:", "3/4\" x 1-1/2\" (2 pack)", "100% off!",
    "größe 沙发", "a^b^", "{{ liquid }}", "\\*", "&nosuch;", "x  y", "-3.5", "+0.01 gain", "- -",
    "2. b",
]  # fmt: skip
CONTROL = "red\x1b[31m\x9b2J\x07 \u202eevil\x00 \u061c\u2067"
CONTROLS = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u061c\u2066-\u2069]")


class Page(HTMLParser):
    """The tags of a page, and the text of its cells, items and paragraphs."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.texts: list[str] = []
        self.feed(MARKDOWN.render(text))

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.add(tag)
        if tag in ("td", "th", "li", "p", "h1", "h2", "h3"):
            self.texts.append("")

    def handle_data(self, data: str) -> None:
        if self.texts and data.strip("\n"):
            self.texts[-1] += data


def _random_texts(num: int) -> list[str]:
    chance = random.Random(0)
    pieces = [*HOSTILE, *r"""\`*_{}[]()<>#+-.!|~&:;"'=$@^%/?, 1a""", "é", "\n", "\t"]
    return ["".join(chance.choices(pieces, k=chance.randrange(1, 6))) for _ in range(num)]


@pytest.mark.slow
def test_a_cell_shows_what_went_in() -> None:
    texts = HOSTILE + _random_texts(3_000)
    page = Page(markdown_table([("head | <i>", "*b*"), *((text, text) for text in texts)]))
    expected = [plain(text).strip() for text in texts for _ in range(2)]
    assert page.texts == ["head | <i>", "*b*", *expected]
    assert page.tags == {"table", "thead", "tbody", "tr", "th", "td"}


@pytest.mark.slow
def test_an_item_and_a_paragraph_show_what_went_in() -> None:
    for text in [text for text in HOSTILE + _random_texts(1_500) if text.strip()]:
        page = Page(f"- {escaped(text)}\n\n{escaped(text)}\n")
        assert "".join(page.texts[:1]) == page.texts[-1] == plain(text).strip(), text
        assert page.tags == {"ul", "li", "p"}, text


def test_addresses_do_not_become_links() -> None:
    # GitHub links these; CommonMark and this renderer do not.
    assert escaped("http://a.b www.a.b a@b.c") == r"http\://a.b www\.a.b a\@b.c"
    assert escaped("0.7312") == "0.7312" and escaped("-2.5 - 3 +1") == "-2.5 - 3 +1"


def test_no_control_character_is_left() -> None:
    for make in (escaped, plain, plain_lines, lambda text: text_table([("a",), (text,)])):
        assert not CONTROLS.search(make(CONTROL)) and "\ufffd" in make(CONTROL)
    assert plain("a\r\nb\tc\u2028d\x85e") == "a b c d e" and plain_lines("a\nb\r") == "a\nb "
    plain("\ud800").encode()  # half of a surrogate pair ends no output


@pytest.fixture
def hostile_file(tmp_path: Path) -> Path:
    rows = [{"query": text, "title": f"{text} {CONTROL}"} for text in HOSTILE]
    rows += [{"query": "", "title": "<script> | `" + CONTROL}, {"query": None, "title": "x | y"}]
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"<script>|": \n')
    return path


def test_the_data_in_a_report_and_on_the_console(
    hostile_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = inspect_files(str(hostile_file), query="query", title="title")
    found["rejects"]["pairs"].append(
        {"reason": "<b>no</b> | *yes*", "rows": 1, "query": "<i>", "title": "`"}
    )
    page = Page(data_markdown(found))
    assert page.tags <= {"h2", "h3", "table", "thead", "tbody", "tr", "th", "td", "p"}
    assert {"<b>no</b> | *yes*", "<i>", "`"} <= set(page.texts)
    shown = [row["query"] for row in found["datasets"]["pairs"]["sample"]]
    assert len(shown) == 8 and {" ".join(text.split()) for text in shown} <= set(page.texts)
    assert not CONTROLS.search(data_text(found)) and not CONTROLS.search(data_markdown(found))
    assert json.loads(to_json(found)) == json.loads(json.dumps(found))
    for more in ([], ["--json"]):
        assert main(["inspect", str(hostile_file), *more]) == 0
        output = capsys.readouterr()
        assert not CONTROLS.search(output.out) and not CONTROLS.search(output.err)
    assert main(["inspect", f"no \x1b[31m{CONTROL}.csv".replace("\x00", "")]) == 2
    assert not CONTROLS.search(capsys.readouterr().err)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["<b>a</b> | $x_1$", "$5 *sofa*", "cost in $ & \x1b[31m"])
def test_a_curve(name: str) -> None:
    other = FOUND["others"]["no model"]  # type: ignore[index]
    found = {**FOUND, "teacher": name, "others": {name: other}}
    page = Page(curve_markdown(found, plot="curve.svg"))
    assert page.tags == {"h1", "p", "em", "img", "table", "thead", "tbody", "tr", "th", "td"}
    assert plain(name) in page.texts
    assert any(plain(name) in text for text in page.texts if "Retained" in text)
    picture = ElementTree.fromstring(curve_svg(found))
    assert plain(name) in ["".join(node.itertext()).strip() for node in picture.iter()]


@pytest.mark.slow
def test_a_search() -> None:
    names = ["<script>", "$a$ | b", "\x1b[31m*"]
    trials = [
        Trial(str(at), FINISHED, {"ngrams.word_encoder": name, "x.y": 0.1 + at},
              {"auc": 0.5 + at / 10, US_PER_PAIR: 10.0})
        for at, name in enumerate(names)
    ]  # fmt: skip
    for svg in draw(trials, metric="auc").values():
        ElementTree.fromstring(svg)  # a control character is an error
    picture = ElementTree.fromstring(draw(trials, metric="auc")["settings.svg"])
    assert {plain(name) for name in names} <= {"".join(n.itertext()) for n in picture.iter()}
    row = {"name": "b", "state": FINISHED, "auc": 0.8, "settings": {"a_b.c_d": "<i>|"}}
    page = Page(
        tune_markdown(
            {
                "metric": "auc", "verdict": "*No* <gain>.", "num_sample": 9, "chosen": "a_b_",
                "states": {}, "finals": [], "best_trials": [row], "front": [], "plots": [],
                "errors": [{"name": "c", "error": "<b>[x](y)</b>\n# head"}],
            }
        )
    )  # fmt: skip
    assert page.tags <= {"p", "strong", "code", "h3", "ul", "li", "table", "thead", "tbody", "tr",
                         "th", "td"}  # fmt: skip
    assert "*No* <gain>." in page.texts and "a_b.c_d = <i>|" in page.texts
    assert "c: <b>[x](y)</b> # head" in page.texts
