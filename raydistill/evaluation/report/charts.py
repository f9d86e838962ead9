"""Charts as inline SVG, in one look: sizes, markers, and colours that the page's style sheet sets.

matplotlib draws with placeholder colours, which become CSS variables: light and dark are the page's
matter. Legends are the page's too, so users' texts never pass through matplotlib's text layout.
Equal numbers give equal bytes.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from raydistill.evaluation.markup import drawn, to_svg
from raydistill.evaluation.report.sections.blocks import Chart, Histogram, Series

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p")
_DASHES = ("-", "--", "-.", ":", "-", "--", "-.", ":", "-", "--")
_NUM_COLORS = 7  # --series-0 to --series-6 of page.css
_FRAME = {"left": 0.15, "right": 0.97, "bottom": 0.175, "top": 0.9}
_SIZE = (4.0, 2.75)  # inches; a screen of 390 px shows it at full width
# Placeholders: no other colour of a figure begins so.
_TEXT, _GRID = "#fe0001", "#fe0002"
_SERIES = tuple(f"#fe01{number:02x}" for number in range(_NUM_COLORS))
_VARIABLES = {
    _TEXT: "var(--muted)",
    _GRID: "var(--line)",
    **{color: f"var(--series-{number})" for number, color in enumerate(_SERIES)},
}
_STYLE: Any = {
    "font.size": 9.5, "axes.labelsize": 9.5, "axes.titlesize": 9.5, "xtick.labelsize": 9,
    "ytick.labelsize": 9, "text.color": _TEXT, "axes.titlecolor": _TEXT,
    "axes.labelcolor": _TEXT, "axes.edgecolor": _GRID,
    "xtick.color": _GRID, "ytick.color": _GRID, "xtick.labelcolor": _TEXT,
    "ytick.labelcolor": _TEXT, "grid.color": _GRID, "axes.grid": True, "grid.linewidth": 0.5,
    "axes.spines.top": False, "axes.spines.right": False, "axes.axisbelow": True,
    "lines.linewidth": 1.6, "lines.markersize": 5, "figure.facecolor": "none",
    "axes.facecolor": "none", "axes.formatter.useoffset": False, "axes.unicode_minus": True,
    "savefig.facecolor": "none", "xtick.minor.size": 0, "ytick.minor.size": 0,
}  # fmt: skip


def color_number(look: int) -> int:
    """The number of the CSS variable of a look's colour."""
    return look % _NUM_COLORS


def draw(chart: Chart | Histogram, *, key: str) -> str:
    """The chart as an `<svg>` element; `key` makes its ids unique on a page."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(_STYLE):
        figure = Figure(figsize=_SIZE)
        axes = figure.subplots(gridspec_kw=_FRAME)  # the same in all charts, so they line up
        if isinstance(chart, Chart):
            _draw_series(axes, chart)
        else:
            _draw_histogram(axes, chart)
        return _inline(figure, key=key)


def _draw_series(axes: Axes, chart: Chart) -> None:
    from matplotlib.ticker import MaxNLocator

    if chart.has_log_x:
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(_tick)
    if chart.level is not None:
        axes.axhline(chart.level, color=_TEXT, linewidth=1, linestyle=(0, (2, 2)))
    for series in chart.series:
        _draw_one(axes, series)
    if chart.has_diagonal:
        axes.set(xlim=(0, 1), ylim=(0, 1))
        axes.plot([0, 1], [0, 1], color=_TEXT, linewidth=1, linestyle=(0, (2, 2)))
    else:
        axes.margins(0.08, 0.12)
    if chart.x_label == "epoch":
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _name_axes(axes, x=chart.x_label, y=chart.y_label)


def _name_axes(axes: Axes, *, x: str, y: str) -> None:
    """The name of the y axis stands above it, where a reader need not turn the head."""
    axes.set_xlabel(drawn(x))
    axes.set_title(drawn(y), loc="left", pad=7, x=-0.13)


def _tick(value: float, _: float) -> str:
    """A power of ten: 0.1, 1, 1,000, 100k, 10M."""
    for unit, name in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if value >= unit:
            return f"{value / (1e3 if name == 'k' else unit):,.0f}{name}"
    return f"{value:,.0f}" if value >= 1 else f"{value:g}"


def _draw_one(axes: Axes, series: Series) -> None:
    color = _SERIES[color_number(series.look)]
    xs, ys = zip(*series.points, strict=True)
    if series.spans and series.is_band:
        lows, highs = zip(*series.spans, strict=True)
        axes.fill_between(xs, lows, highs, color=color, alpha=0.2, linewidth=0)
    elif series.spans:
        # Drawn as lines: an interval need not be about its value.
        for x, (low, high) in zip(xs, series.spans, strict=True):
            axes.plot([x, x], [low, high], color=color, linewidth=1.2)
    line = _DASHES[series.look % len(_DASHES)] if series.has_line else "none"
    marker = MARKERS[series.look % len(MARKERS)] if series.has_markers else "none"
    axes.plot(xs, ys, color=color, linestyle=line, marker=marker)


def _draw_histogram(axes: Axes, histogram: Histogram) -> None:
    for at, (_, counts) in enumerate(histogram.groups):
        shares = [100 * num / max(sum(counts), 1) for num in counts]
        color, style = _SERIES[at], ("-", "--")[at % 2]
        axes.stairs(shares, histogram.edges, fill=True, color=color, alpha=0.22)
        axes.stairs(shares, histogram.edges, color=color, linewidth=1.6, linestyle=style)
    _name_axes(axes, x=histogram.x_label, y="share of the group, %")
    axes.set_ylim(0, None)
    axes.set_xlim(histogram.edges[0], histogram.edges[-1])


def _inline(figure: Figure, *, key: str) -> str:
    """Matplotlib's file as an element of a page: no prolog, no size, unique ids, variables."""
    text = to_svg(figure).decode()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    used = set(re.findall(r"(?:href=\"|url\()#([^\")]+)", text))
    text = re.sub(
        r' id="([^"]+)"', lambda found: f' id="{key}-{found[1]}"' * (found[1] in used), text
    )
    text = re.sub(r"(href=\"|url\()#", rf"\1#{key}-", text)
    for color, variable in _VARIABLES.items():
        text = text.replace(color, variable)
    box = re.search(r'viewBox="([^"]+)"', text)
    if box is None:
        raise ValueError(f"matplotlib wrote an SVG without viewBox: {text[:200]}")
    start = f'<svg viewBox="{box[1]}" role="img" aria-labelledby="{key}-title" focusable="false"'
    return re.sub(r"^<svg[^>]*", start, text, count=1).strip()


def legend_key(look: int, *, is_group: bool = False, has_line: bool = True) -> str:
    """A small picture of a series' line and marker; of a histogram's group a box."""
    color = f"var(--series-{color_number(look)})"
    if is_group:
        dash = ' stroke-dasharray="4 2"' * (look % 2)
        shape = (
            f'<path d="M2 2H22V10H2Z" fill="{color}" fill-opacity="0.22" stroke="{color}" '
            f'stroke-width="1.6"{dash}/>'
        )
        return f'<svg viewBox="0 0 24 12" class="key" aria-hidden="true">{shape}</svg>'
    dash = ("", "4 2", "5 2 1 2", "1.5 2")[look % 4]
    dashes = f' stroke-dasharray="{dash}"' if dash else ""
    line = f'<path d="M0 6H24" fill="none" stroke="{color}" stroke-width="1.6"{dashes}/>'
    shape = f'<path d="{_SHAPES[MARKERS[look % len(MARKERS)]]}" fill="{color}"/>'
    line = line if has_line else ""
    return f'<svg viewBox="0 0 24 12" class="key" aria-hidden="true">{line}{shape}</svg>'


_SHAPES = {
    "o": "M12 2.5A3.5 3.5 0 1 1 12 9.5A3.5 3.5 0 1 1 12 2.5Z",
    "s": "M9 3H15V9H9Z",
    "^": "M12 2L15.6 9H8.4Z",
    "D": "M12 1.8L16.2 6L12 10.2L7.8 6Z",
    "v": "M12 10L15.6 3H8.4Z",
    "P": "M10.6 2H13.4V4.6H16V7.4H13.4V10H10.6V7.4H8V4.6H10.6Z",
    "X": "M9.2 2.2L12 5L14.8 2.2L16 3.4L13.4 6L16 8.6L15 10L12 7L9.2 9.8L8 8.6L10.6 6L8 3.4Z",
    "<": "M8 6L15 2.4V9.6Z",
    ">": "M16 6L9 2.4V9.6Z",
    "p": "M12 2L16 5L14.5 9.8H9.5L8 5Z",
}


def span_picture(low: float, value: float, high: float, axis: tuple[float, float, float]) -> str:
    """An interval with its value on an axis (low, high, line), 120 wide."""
    start, end, line = axis
    x = [round(120 * (min(max(one, start), end) - start) / (end - start), 1)
         for one in (low, value, high, line)]  # fmt: skip
    return (
        '<svg viewBox="0 0 120 14" class="span" aria-hidden="true">'
        f'<path d="M{x[3]} 0V14" class="span-line"/>'
        f'<path d="M{x[0]} 7H{x[2]}M{x[0]} 4V10M{x[2]} 4V10" class="span-ends"/>'
        f'<path d="{_dot(x[1])}" class="span-value"/></svg>'
    )


def _dot(x: float) -> str:
    return f"M{x - 3:.1f} 7A3 3 0 1 1 {x + 3:.1f} 7A3 3 0 1 1 {x - 3:.1f} 7Z"
