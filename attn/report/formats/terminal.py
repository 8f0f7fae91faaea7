"""Text and tables in the form that all commands share, for any terminal."""

import rich.box
import rich.console
import rich.table
import rich.text

from attn.report.analyse import numbers

ASCII = str.maketrans(
    {
        numbers.MINUS: "-",
        numbers.PLUS_MINUS: "+-",
        numbers.DASH: "-",
        numbers.DAGGER: "*",
        numbers.FIGURE_SPACE: " ",
        "\N{MIDDLE DOT}": "/",
        "\N{RIGHTWARDS ARROW}": "->",
        "\N{HORIZONTAL ELLIPSIS}": "...",
    }
)


def empty(title: str, console: rich.console.Console) -> rich.table.Table:
    """A table without columns, in the common form."""
    return rich.table.Table(
        title=rich.text.Text(plain(title, console)),
        title_justify="left",
        title_style="bold",
        box=rich.box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        collapse_padding=True,
    )


def plain(text: str, console: rich.console.Console) -> str:
    """The text without what the console's encoding cannot show."""
    encoding = (console.encoding or "utf-8").lower()
    if encoding.startswith("utf"):
        return text
    return text.translate(ASCII).encode(encoding, "replace").decode(encoding)
