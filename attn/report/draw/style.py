"""Style of plots: of each row, of the axes, and of the SVG that stands in a page.

Text and axes are `currentColor` and the ground is transparent, so that one plot
suits a light, a dark and a printed page. Figures are made without pyplot and leave
no state behind. Colours are those of Okabe and Ito, which the colour-blind tell
apart; dashes of lines and shapes of marks differ too.
"""

import contextlib
import dataclasses
import io
import re
from collections.abc import Iterator, Sequence
from typing import Literal

import matplotlib
import matplotlib.axes
import matplotlib.figure
import matplotlib.ticker
import numpy as np

from attn.report.analyse.table import Row

OKABE_ITO = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9")
BASELINE = "#808080"
DASHES = ((), (5, 1.6), (1.4, 1.4), (7, 1.6, 1.4, 1.6))
MARKS = ("o", "s", "^", "D")
INK = "#0a0b0c"  # stands for currentColor until the SVG is written
FONT = 8.5
SETTINGS = {
    "svg.fonttype": "none",
    "font.size": FONT,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.6,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.formatter.useoffset": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
}
# Sizes of a plot by itself and of one of several side by side, inches.
WIDE, TALL, SMALL = (4.4, 3.0), (3.7, 3.3), (2.5, 2.15)


@dataclasses.dataclass(frozen=True)
class Style:
    """Style of a row in every plot: colour, dashes of its lines, shape of its marks."""

    colour: str
    dashes: tuple[float, ...]
    mark: str

    @property
    def dasharray(self) -> str:
        """The dashes as SVG writes them."""
        return " ".join(map(str, self.dashes)) or "none"


# A row with its style; all plots of a page take the same.
Drawn = Sequence[tuple[Row, Style]]


def styles(rows: Sequence[Row]) -> list[Style]:
    """A style for each row; rows of one kind share theirs, baselines are grey.

    Where there are several baselines, each for rows of its own, colours tell what
    is compared and dashes and marks which baseline it belongs to, if there are
    enough of them.
    """
    families = list(dict.fromkeys(row.family for row in rows))
    variants = list(dict.fromkeys(row.variant for row in rows if not row.baseline))
    bases = len({row.kind for row in rows if row.baseline})
    crossed = (
        bases > 1 and len(families) <= len(DASHES) and len(variants) <= len(OKABE_ITO)
    )
    found: dict[str, Style] = {}
    grey = coloured = 0
    for row in rows:
        if row.kind in found:
            continue
        if crossed:
            turn = families.index(row.family)
            colour = (
                BASELINE if row.baseline else OKABE_ITO[variants.index(row.variant)]
            )
        elif row.baseline:
            turn, colour = grey, BASELINE
            grey += 1
        else:
            turn, place = divmod(coloured, len(OKABE_ITO))
            colour = OKABE_ITO[place]
            coloured += 1
        turn %= len(DASHES)
        found[row.kind] = Style(colour, DASHES[turn], MARKS[turn])
    return [found[row.kind] for row in rows]


def panels(drawn: Drawn) -> list[tuple[str | None, Drawn]]:
    """The rows by their column, in order; all under None if there are none."""
    found: dict[str | None, list[tuple[Row, Style]]] = {}
    for row, row_style in drawn:
        found.setdefault(row.column, []).append((row, row_style))
    return list(found.items())


@contextlib.contextmanager
def axes(width: float, height: float) -> Iterator[matplotlib.axes.Axes]:
    """Axes of a new figure, inches; at 72 dpi a pixel is a unit of the SVG."""
    with matplotlib.rc_context(SETTINGS):
        figure = matplotlib.figure.Figure((width, height), dpi=72, layout=None)
        left, bottom = 0.42, 0.44
        place = (
            left / width,
            bottom / height,
            1 - (left + 0.1) / width,
            1 - (bottom + 0.27) / height,
        )
        made = figure.add_axes(place)
        made.grid(color=INK, alpha=0.13, linewidth=0.6)
        made.set_axisbelow(True)
        made.tick_params(length=2.5, width=0.6)
        if width < WIDE[0]:  # or numbers of five digits would touch
            made.locator_params(axis="x", nbins=6)
        yield made


def head(axes: matplotlib.axes.Axes, text: str) -> None:
    """Writes what a plot shows above it, on the left."""
    axes.set_title(text, loc="left", fontsize=FONT + 0.5, parse_math=False)


def log_if_wide(
    axes: matplotlib.axes.Axes, side: Literal["x", "y"], values: np.ndarray
) -> None:
    """A logarithmic axis where the values are positive and span a factor of 4."""
    values = values[np.isfinite(values)]
    if not len(values) or values.min() <= 0 or values.max() < 4 * values.min():
        return
    axes.set(**{f"{side}scale": "log"})
    axis = getattr(axes, f"{side}axis")
    reach = values.max() / values.min()
    if axes.figure.get_figwidth() <= SMALL[0]:
        reach *= 3  # it has less room for numbers
    subs = (1, 2, 3, 5, 7) if reach <= 30 else (1, 2, 5) if reach <= 300 else (1, 3)
    axis.set_major_locator(matplotlib.ticker.LogLocator(subs=subs, numticks=12))
    axis.set_major_formatter(matplotlib.ticker.FuncFormatter(lambda v, _: short(v)))
    axis.set_minor_locator(matplotlib.ticker.NullLocator())


def whole_numbers(axes: matplotlib.axes.Axes, last: int | None = None) -> None:
    """Marks whole numbers alone on the horizontal axis, which may be of 1 to `last`."""
    locator = matplotlib.ticker.MaxNLocator(
        "auto", integer=True, min_n_ticks=1, steps=(1, 2, 5, 10)
    )
    axes.xaxis.set_major_locator(locator)
    if last is not None:
        axes.set_xlim(0.5, last + 0.5)


def make_room(axes: matplotlib.axes.Axes) -> None:
    """Moves the sides of the axes inwards where numbers would be cut off."""
    box, place = axes.get_tightbbox(), axes.get_position()
    width = axes.figure.bbox.width
    left = max(0.0, 1 - box.x0) / width
    right = max(0.0, box.x1 + 1 - width) / width
    axes.set_position(
        (place.x0 + left, place.y0, place.width - left - right, place.height)
    )


def short(value: float) -> str:
    """A round number in at most five signs, for which an axis has room: 3e-4."""
    text = f"{value:g}"
    if len(text) <= 5 and "e" not in text:
        return text
    digits, _, exponent = f"{value:.0e}".partition("e")
    return f"{digits}e{int(exponent)}"


def widened(
    reach: tuple[float, float], scale: str, share: float = 0.05
) -> tuple[float, float]:
    """Limits of an axis a little wider than a range."""
    low, high = reach
    if scale == "log":
        factor = (high / low) ** share
        return low / factor, high * factor
    room = share * (high - low) or 0.1 * abs(high) or 1.0
    return low - room, high + room


def from_zero(axes: matplotlib.axes.Axes) -> None:
    """A vertical axis that begins at zero, with room above the highest value.

    The room of Matplotlib is a share of the distance between the lowest and the
    highest, and cuts marks off where these lie close together far above zero.
    """
    axes.set_ylim(0.0, 1.05 * axes.dataLim.y1 if axes.dataLim.y1 > 0 else 1.0)


def finite_range(parts: Sequence[np.ndarray]) -> tuple[float, float] | None:
    """The lowest and the highest finite value, None if there is none."""
    values = np.concatenate([np.ravel(part) for part in parts]) if parts else []
    values = np.asarray(values, np.float64)
    values = values[np.isfinite(values)]
    return (float(values.min()), float(values.max())) if len(values) else None


def svg(axes: matplotlib.axes.Axes, title: str) -> str:
    """The figure as an SVG element that takes its colour and font from the page."""
    make_room(axes)
    buffer = io.StringIO()
    # Ids within one page must differ, and the same input must give the same page.
    with matplotlib.rc_context({"svg.hashsalt": title}):
        axes.figure.savefig(
            buffer, format="svg", transparent=True, metadata={"Date": None}
        )
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"<style.*?</style>", "", text, flags=re.DOTALL)
    text = re.sub(r'<g id="[^"]*"', "<g", text)
    text = re.sub(r"font-family: [^;\"]*; ", "", text)
    text = re.sub(
        r' width="[\d.]+pt"| height="[\d.]+pt"| xmlns(:xlink)?="[^"]*"', "", text
    )
    # a hundredth of a pixel is enough
    text = re.sub(
        r' (?:d|x|y|points)="[^"]*"',
        lambda found: re.sub(r"(\.\d\d)\d+", r"\1", found[0]),
        text,
    )
    text = text.replace("xlink:href", "href").replace("\n", " ")
    text = text.replace(INK, "currentColor")
    named = title.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
    return text.replace("<svg", f'<svg role="img" aria-label="{named}"', 1)
