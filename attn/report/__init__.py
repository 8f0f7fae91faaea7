"""Work directories -> a table on the terminal, and a page with plots and pictures.

attn.report.show(["runs/sweep"])                    # the table
attn.report.write(["runs/sweep"], "report.html")    # the page
attn.report.save("runs/sweep", "sweep.json")        # the results in one small file

Work directories are read and nothing else, so that a report can be made while
training goes on, later, or on another machine.
"""

import pathlib
from collections.abc import Sequence

from attn.workdir import files

# The functions import what they need when they run: the launcher imports this
# package before training, and matplotlib alone would cost half a second there.
Path = str | pathlib.Path


def write(
    sweep_directories: Sequence[Path], output: Path, against: Path | None = None
) -> pathlib.Path:
    """Writes one self-contained page about some sweeps.

    Args:
        sweep_directories: directories with an `experiment.json`, done or not.
        output: the file to write; in a directory that exists it is `report.html`.
        against: a file that `save` wrote earlier, which they are held against.

    Returns:
        The path of the page.

    Raises:
        Invalid: a directory is not a sweep, the file not a results file, or the page
            cannot be written.
    """
    from attn.report.formats import page
    from attn.report.read import results, saved

    output = files.path(output)
    then = None if against is None else saved.read(against)
    return page.write([results.read(path) for path in sweep_directories], output, then)


def write_recognised(output: Path) -> pathlib.Path:
    """Writes the page of what a model found in pictures, and returns its path.

    Args:
        output: the page, beside the files that `attn.train.recognition` wrote.
    """
    from attn.report.formats import recognised

    return recognised.write(files.path(output))


def show(sweep_directories: Sequence[Path], against: Path | None = None) -> None:
    """Prints the table of each sweep, and what is not finished, on the terminal.

    Args:
        sweep_directories: directories with an `experiment.json`, done or not.
        against: a file that `save` wrote earlier, which they are held against.

    Raises:
        Invalid: a directory is not a sweep, or the file not a results file.
    """
    from attn.report.formats import console
    from attn.report.read import results, saved

    then = None if against is None else saved.read(against)
    console.show([results.read(path) for path in sweep_directories], then=then)


def save(sweep_directory: Path, output: Path) -> pathlib.Path:
    """Writes the results of a sweep into one small file, to be checked in.

    Returns:
        The path of the file.

    Raises:
        Invalid: the directory is not a sweep, or none of its points is finished.
    """
    from attn.report.read import results, saved

    return saved.save(results.read(sweep_directory), output)


def show_saved(path: Path, *, markdown: bool = False) -> None:
    """Prints the table of a file that `save` wrote, as Markdown for a README if asked.

    Raises:
        Invalid: the file is not a results file.
    """
    from attn.report.formats import console
    from attn.report.formats import markdown as writer
    from attn.report.read import saved

    sweep = saved.read(path)
    if markdown:
        print(writer.text(sweep))
    else:
        console.show([sweep])
