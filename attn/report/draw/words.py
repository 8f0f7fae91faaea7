"""What words read of each other: matrices with words on the axes, and entropies."""

from collections.abc import Mapping, Sequence

import matplotlib
import matplotlib.colors
import matplotlib.figure
import numpy as np

from attn.report.draw import style

CELL = 0.19  # of a matrix, inches
LETTER = 0.073  # its width at the size of words, inches
LONGEST = 14  # letters of a word that are shown
COLOUR = style.OKABE_ITO[0]


def alignment(
    matrix: np.ndarray, asks: Sequence[str], reads: Sequence[str], title: str
) -> str:
    """A matrix [T, S] with the words that ask beside it, and those read above it.

    The darker, the more is read; the darkest is the highest value of the matrix.
    """
    asks, reads = ([_short(word) for word in words] for words in (asks, reads))
    left, top = (LETTER * max(map(len, words)) + 0.16 for words in (asks, reads))
    rows, columns = matrix.shape
    width, height = left + CELL * columns + 0.1, top + CELL * rows + 0.1
    with matplotlib.rc_context(style.SETTINGS | {"axes.spines.top": True}):
        figure = matplotlib.figure.Figure((width, height), dpi=72, layout=None)
        axes = figure.add_axes(
            (
                left / width,
                0.1 / height,
                CELL * columns / width,
                CELL * rows / height,
            )
        )
        colours = np.empty((rows, columns, 4))
        colours[:] = matplotlib.colors.to_rgba(COLOUR)
        colours[..., 3] = np.clip(matrix / max(matrix.max(), 1e-9), 0, 1)
        axes.imshow(colours, interpolation="none", aspect="auto")
        axes.set_xticks(range(columns), reads, rotation=90, parse_math=False)
        axes.set_yticks(range(rows), asks, parse_math=False)
        axes.tick_params(length=0, top=True, labeltop=True, labelbottom=False)
        # as large as its cells need, and no wider
        size = f'<svg width="{72 * width:.0f}"'
        return style.svg(axes, title).replace("<svg", size, 1)


def entropies(groups: Mapping[str, Sequence[Sequence[float]]], title: str) -> str:
    """Entropies by layer, of each group a mark a head, and a line through the means.

    Args:
        groups: of attentions by name, a list of layers, each of heads.
        title: of the plot.
    """
    with style.axes(*style.WIDE) as axes:
        for number, (name, layers) in enumerate(groups.items()):
            colour = style.OKABE_ITO[number % len(style.OKABE_ITO)]
            mark = style.MARKS[number % len(style.MARKS)]
            places = np.arange(1, len(layers) + 1)
            for place, heads in zip(places, layers, strict=True):
                axes.plot(
                    [place] * len(heads),
                    heads,
                    linestyle="none",
                    marker=mark,
                    markersize=4,
                    color=colour,
                    alpha=0.55,
                )
            means = [float(np.mean(heads)) for heads in layers]
            axes.plot(places, means, color=colour, linewidth=1.4, label=name)
        style.from_zero(axes)
        style.whole_numbers(axes, max(map(len, groups.values())))
        axes.set_xlabel("layer")
        style.head(axes, "entropy of each head, nats")
        axes.legend(frameon=False, fontsize=style.FONT)
        return style.svg(axes, title)


def _short(word: str) -> str:
    return (
        word
        if len(word) <= LONGEST
        else word[: LONGEST - 1] + "\N{HORIZONTAL ELLIPSIS}"
    )
