"""Answers to lines of text, in groups of few shapes, and findings in pictures."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from attn import settings

SHORTEST = 8  # to which lines are padded


class Answer(NamedTuple):
    """What a task answers to a line.

    Attributes:
        text: one line.
        note: what there is to say about it, "" most often.
    """

    text: str
    note: str = ""


class Finding(NamedTuple):
    """What a task finds in a picture.

    Attributes:
        name: of a class, most often.
        probability: that it is right, 0 to 1.
        box: (x0, y0, x1, y1) in pixels of the image of the batch, if it has a place.
    """

    name: str
    probability: float
    box: tuple[float, float, float, float] | None = None


EMPTY = Answer("")
Of = Callable[[list[str]], list[Answer]]


def by_group(lines: Iterable[str], most: int, of: Of) -> Iterator[Answer]:
    """The answers to lines, in their order; empty lines are answered by empty ones.

    Args:
        lines: read as far as they are needed.
        most: lines that are answered together.
        of: the answers to exactly so many lines, none of which is empty.
    """
    lines = iter(lines)
    while group := list(itertools.islice(lines, most)):
        asked = [line for line in group if line.strip()]
        answers = iter(())
        if asked:
            # the last one again, as often as a program of one shape needs it
            answers = iter(of(asked + asked[-1:] * (most - len(asked))))
        yield from (next(answers) if line.strip() else EMPTY for line in group)


def one_line(text: str) -> str:
    """A text without ends of lines."""
    return " ".join(text.splitlines())


def broken() -> settings.Invalid:
    """The error for a model whose scores are NaN."""
    return settings.Invalid(
        "the scores of the model are NaN; an earlier checkpoint may be sound"
    )


def cut(tokens: Sequence[int], most: int) -> tuple[list[int], str]:
    """At most so many tokens, and what to say where some are left out."""
    said = f"cut to {most} of its {len(tokens)} tokens" if len(tokens) > most else ""
    return list(tokens[:most]), said


def padded(
    rows: Sequence[Sequence[int]], most: int, pad: int
) -> tuple[np.ndarray, np.ndarray]:
    """Rows as int32 [n, L] and their mask, where L is a power of two or `most`."""
    longest, length = max(map(len, rows)), SHORTEST
    while length < longest:
        length *= 2
    length = max(longest, min(length, most))
    values = np.full((len(rows), length), pad, np.int32)
    mask = np.zeros(values.shape, bool)
    for row, value, real in zip(rows, values, mask, strict=True):
        value[: len(row)] = row
        real[: len(row)] = True
    return values, mask


def tokenizer(facts: Any) -> Any:
    """The tokenizer of a data set.

    Raises:
        settings.Invalid: it has none.
    """
    found = facts.get("tokenizer")
    if found is None:
        raise settings.Invalid(
            "answers to text need a data set with a tokenizer, and this one has none"
        )
    return found
