"""The report as one page: no script, no request, light and dark.

`page.html` and `page.css` beside this file are its template and its looks.
"""

from __future__ import annotations

from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

from raydistill.evaluation.markup import plain
from raydistill.evaluation.report.charts import draw, legend_key, span_picture
from raydistill.evaluation.report.sections.blocks import Case, Cell, Chart, Histogram, Table
from raydistill.evaluation.report.sections.numbers import Found, number
from raydistill.evaluation.report.sections.outline import sections
from raydistill.evaluation.report.sections.verdict import verdict


def html(found: Found) -> str:
    """The whole page."""
    return _template().render(verdict=verdict(found), sections=sections(found)).strip() + "\n"


@cache
def _template() -> Template:
    """The page's template; every text of it is escaped and free of control characters."""
    environment = Environment(
        loader=PackageLoader("raydistill.evaluation.report", "."),
        autoescape=True,
        finalize=_shown,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {
        "figure": _figure,
        "legend": _legend,
        "span": _span,
        "bar": _bar,
        "signed": _signed,
        "kind": lambda block: type(block).__name__.lower(),
        "style": _style(environment),
    }
    return environment.get_template("page.html")


def _style(environment: Environment) -> Markup:
    loader = environment.loader
    if loader is None:
        raise ValueError("the templates have no loader")
    return Markup(loader.get_source(environment, "page.css")[0])


def _shown(value: object) -> object:
    """A text without control characters; our own markup as it is."""
    return plain(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _figure(chart: Chart | Histogram, key: str) -> Markup:
    return Markup(draw(chart, key=key))


def _legend(chart: Chart | Histogram) -> list[tuple[Markup, str]]:
    """Pictures and names of the series."""
    if isinstance(chart, Histogram):
        return [
            (Markup(legend_key(at, is_group=True)), f"{name} pairs")
            for at, (name, _) in enumerate(chart.groups)
        ]
    return [
        (Markup(legend_key(one.look, has_line=one.has_line)), one.name)
        for one in chart.series
        if one.name
    ]


def _span(cell: Cell, table: Table) -> Markup | None:
    if cell.span is None or table.axis is None:
        return None
    one = cell.span
    return Markup(span_picture(one.low, one.value, one.high, table.axis))


def _bar(value: float, case: Case) -> tuple[str, str]:
    """The side and the width in percent of a driver's bar; the longest fills its half."""
    longest = max(abs(driver.value) for driver in case.drivers) or 1.0
    return ("plus" if value > 0 else "minus"), f"{50 * abs(value) / longest:.1f}"


def _signed(value: float) -> str:
    return number(value, 2, sign=True)
