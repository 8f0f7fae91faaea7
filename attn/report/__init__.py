"""Work directories -> a table on the terminal, and a page with plots and pictures.

attn.report.show(["runs/sweep"])                    # the table
attn.report.write(["runs/sweep"], "report.html")    # the page

Work directories are read and nothing else, so that a report can be made while
training goes on, later, or on another machine.
"""

import pathlib
from collections.abc import Sequence

# The functions import what they need when they run: the launcher imports this
# package before training, and matplotlib alone would cost half a second there.


def write(
    sweep_directories: Sequence[str | pathlib.Path], output: str | pathlib.Path
) -> pathlib.Path:
    """Writes one self-contained page about some sweeps.

    Args:
        sweep_directories: directories with an `experiment.json`, done or not.
        output: the file to write; in a directory that exists it is `report.html`.

    Returns:
        The path of the page.

    Raises:
        ValueError: a directory is no sweep.
    """
    from attn.report import page, results

    output = pathlib.Path(output)
    if output.is_dir():
        output = output / "report.html"
    return page.write([results.read(path) for path in sweep_directories], output)


def show(sweep_directories: Sequence[str | pathlib.Path]) -> None:
    """Prints the table of each sweep, and what is not finished, on the terminal.

    Raises:
        ValueError: a directory is no sweep.
    """
    from attn.report import results, terminal

    terminal.show([results.read(path) for path in sweep_directories])
