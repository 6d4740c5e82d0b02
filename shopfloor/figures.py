"""Figures for the book: inline SVG that takes its text and its colours from the page it stands in.

Ink (text, axes) becomes `currentColor`, a series' colour `var(--sf-series-N, #hex)` and the grid
`var(--sf-rule, ...)`, so that one drawing reads in light and dark. The same data gives the same bytes.
"""

import hashlib
import html
import io
import re
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import matplotlib as mpl
import numpy as np
from cycler import cycler
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing
from matplotlib.lines import Line2D
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

PALETTE = ("#1f6f8b", "#b5532a", "#62732a", "#7d5a99", "#8f6b1e", "#5f6b76")
"""Colours of the series, in order: 4.5:1 or more against white, 3:1 or more against near-black."""

INK = "#010203"
"""Stands for the page's text colour while matplotlib draws."""

RULE = "#040506"
"""Stands for the page's colour of thin rules while matplotlib draws."""

MAX_BYTES = 40_000
"""A page with ten figures must still load quickly."""

STYLE: Any = {  # matplotlib names the type of its keys nowhere
    "axes.axisbelow": True,
    "axes.edgecolor": INK,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.labelcolor": INK,
    "axes.labelsize": 11,
    "axes.linewidth": 0.6,
    "axes.prop_cycle": cycler(color=PALETTE),
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "figure.constrained_layout.use": True,
    "figure.facecolor": "none",
    "figure.figsize": (6.0, 3.3),  # 11 units of 432 are 9 px where the figure is 360 px wide
    "font.family": ["DejaVu Sans"],  # comes with matplotlib, so that layouts are the same everywhere
    "font.size": 11,
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "hatch.color": INK,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "lines.markersize": 5,
    "patch.linewidth": 0,
    "savefig.facecolor": "none",
    "svg.fonttype": "none",
    "svg.hashsalt": "shopfloor",
    "text.color": INK,
    "xtick.color": INK,
    "xtick.labelsize": 11,
    "xtick.major.width": 0.6,
    "ytick.color": INK,
    "ytick.labelsize": 11,
    "ytick.major.size": 0,
    "ytick.major.width": 0.6,
}


@dataclass(frozen=True, repr=False)
class Figure:
    """A finished figure, shown as inline SVG, or as its description where there is only text.

    Attributes:
        svg: the drawing.
        alt: what it shows, in words.
        caption: the line below it, or None.
    """

    svg: str
    alt: str
    caption: str | None = None

    def __repr__(self) -> str:
        return self.alt

    def _repr_html_(self) -> str:
        caption = f"<figcaption>{html.escape(self.caption)}</figcaption>" if self.caption else ""
        return f'<figure class="sf-figure" style="margin-inline:0">{self.svg}{caption}</figure>'


def style() -> AbstractContextManager[None]:
    """Matplotlib draws in the book's style within the block."""
    return mpl.rc_context(STYLE)


def use_style() -> None:
    """Matplotlib draws in the book's style from now on."""
    mpl.rcParams.update(STYLE)


def figure(fig: Drawing, alt: str, caption: str | None = None) -> Figure:
    """Turn a matplotlib figure, drawn in `style()`, into one for the book, and close it.

    Args:
        fig: what was drawn.
        alt: what it shows, for those who do not see it: the finding with its figures, not "a chart".
        caption: a line to stand below it.

    Raises:
        ValueError: there is no alt text, or the drawing is larger than `MAX_BYTES`.
    """
    if not alt.strip():
        raise ValueError("A figure needs alt text: say in words what it shows.")
    output = io.StringIO()
    with style():
        fig.savefig(output, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    plt.close(fig)
    svg = _inline(output.getvalue(), alt)
    if len(svg.encode()) > MAX_BYTES:
        raise ValueError(
            f"The figure has {len(svg.encode()):,} bytes, more than {MAX_BYTES:,}: draw fewer points, "
            "or let matplotlib rasterise the dense layer."
        )
    return Figure(svg, alt, caption)


def label_lines(axes: Axes, labels: Sequence[str] | None = None) -> None:
    """Write each line's name at its right end, in its colour, instead of a legend.

    Args:
        axes: whose lines; draw all of them first.
        labels: names in the order in which the lines were drawn; None for the labels that they were drawn with,
            where lines without one stay so.
    """
    drawing = axes.get_figure(root=True)
    assert drawing
    drawing.draw_without_rendering()  # limits and sizes are settled only now
    lines = [line for line in axes.get_lines() if labels or not str(line.get_label()).startswith("_")]
    names = [str(line.get_label()) for line in lines] if labels is None else list(labels)
    ends = [_last_point(line) for line in lines]
    for line, name, end, height in zip(lines, names, ends, _apart(axes, ends, drawing.dpi), strict=True):
        axes.annotate(
            name,
            xy=(end[0], height),
            xycoords=("data", "axes fraction"),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            color=line.get_color(),
            annotation_clip=False,
        )


def _last_point(line: Line2D) -> FloatArray:
    points = np.asarray(line.get_xydata(), dtype=float)
    point: FloatArray = points[~np.isnan(points).any(axis=1)][-1]
    return point


def _apart(axes: Axes, ends: Sequence[FloatArray], dpi: float) -> list[float]:
    """The points' heights as fractions of the axes' height, moved apart until text fits between them."""
    to_fraction = axes.transData + axes.transAxes.inverted()
    heights = np.asarray([to_fraction.transform(end)[1] for end in ends])
    gap = 1.3 * float(mpl.rcParams["font.size"]) / 72 * dpi / axes.get_window_extent().height
    order = np.argsort(heights, kind="stable")
    for lower, upper in pairwise(order):
        heights[upper] = max(heights[upper], heights[lower] + gap)
    return [float(height) for height in heights]


def _inline(svg: str, alt: str) -> str:
    """Make matplotlib's file a fragment of a page."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", svg, flags=re.DOTALL)
    # Matplotlib's rule for every element (*) would hold for the whole page.
    svg = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<[^>]+>", lambda tag: _terse(tag[0]), svg)
    svg = re.sub(r">\s+<", "><", svg).strip()
    return _opening_tag(_own_ids(_page_colours(svg)), alt)


def _terse(tag: str) -> str:
    """A tag with coordinates to a hundredth of a point, and the page's font."""
    tag = re.sub(r"\d+\.\d{3,}", lambda number: f"{float(number[0]):.2f}".rstrip("0").rstrip("."), tag)
    tag = re.sub(r' transform="rotate\(-0 [^"]*"', "", tag)
    tag = tag.replace("xlink:href", "href").replace("'DejaVu Sans'", "inherit")
    return re.sub(r"\s+", " ", tag)


def _opening_tag(svg: str, alt: str) -> str:
    """The drawing scales with the column, up to where its text would outgrow the page's."""
    opening, rest = svg.split(">", 1)
    box = re.search(r'viewBox="[^"]+"', opening)
    assert box
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {box[0]} role="img" aria-label="{html.escape(alt)}" '
        f'style="width:100%;height:auto;max-width:38rem;stroke-linejoin:round">{rest}'
    )


def _page_colours(svg: str) -> str:
    svg = svg.replace(INK, "currentColor").replace(RULE, "var(--sf-rule, #8885)")
    for number, colour in enumerate(PALETTE, start=1):
        svg = svg.replace(colour, f"var(--sf-series-{number}, {colour})")
    return svg


def _own_ids(svg: str) -> str:
    """Keep the ids that are referred to, under names that no other figure of the page has."""
    used = dict.fromkeys(re.findall(r'(?:url\(#|href="#)([^")]+)', svg))
    digest = hashlib.sha256(svg.encode()).hexdigest()[:8]
    names = {old: f"sf{digest}-{number}" for number, old in enumerate(used)}
    svg = re.sub(r' id="([^"]+)"', lambda found: f' id="{names[found[1]]}"' if found[1] in names else "", svg)
    return re.sub(r'(url\(#|href="#)([^")]+)', lambda found: found[1] + names[found[2]], svg)
