"""Numbers, units, durations, settings and lists of names as text."""

import json
import math
from collections.abc import Iterable, Sequence
from typing import Any

from attn.report.analyse.statistics import Interval

FIGURE_SPACE = "\N{FIGURE SPACE}"
MINUS = "\N{MINUS SIGN}"
PLUS_MINUS = "\N{PLUS-MINUS SIGN}"
DASH = "\N{EN DASH}"
DAGGER = "\N{DAGGER}"
MOST_NAMES = 8


def text(value: Any) -> str:
    """A setting as it is shown: strings bare, the rest as JSON."""
    return value if isinstance(value, str) else json.dumps(value, default=str)


def listed(names: Sequence[str]) -> str:
    """Names in a row, the first ones only if they are many."""
    rest = len(names) - MOST_NAMES
    more = f" and {rest} more" if rest > 0 else ""
    return joined(names[:MOST_NAMES]) + more


def joined(names: Iterable[str]) -> str:
    """All names in a row, with semicolons between them if there are commas in them."""
    names = list(names)
    between = "; " if any("," in name for name in names) else ", "
    return between.join(names)


def number(value: float, digits: int, *, sign: bool = False) -> str:
    """A number with a true minus sign, and a plus too if `sign`."""
    shown = f"{value:{'+' if sign else ''},.{digits}f}"
    if float(shown.replace(",", "")) == 0:
        shown = shown.lstrip("+-")
    return shown.replace("-", MINUS)


def with_unit(shown: str, unit: str) -> str:
    """A number as text with its unit, if it has one."""
    return f"{shown} {unit}" if unit else shown


def integer(value: int | None) -> str:
    """A whole number with its thousands set apart, a dash for none."""
    return DASH if value is None else f"{value:,}"


def scaled(value: float | None, factor: float) -> str:
    """A number in units of `factor`, a dash for none."""
    return DASH if value is None else number(value / factor, 2 if factor > 1 else 0)


def plus_minus(interval: Interval | None, digits: int, *, sign: bool = False) -> str:
    """ "3.20 +- 0.41", the mean alone where there is one value, a dash for none."""
    if interval is None:
        return DASH
    mean = number(interval.mean, digits, sign=sign)
    if interval.half is None:
        return mean
    return f"{mean} {PLUS_MINUS} {number(interval.half, digits)}"


def aligned(cells: Iterable[str]) -> list[str]:
    """Pads the part after the plus-minus sign, so that the signs stand in a line."""
    parts = [cell.partition(f" {PLUS_MINUS} ") for cell in cells]
    widest = max((len(sign + half) for _, sign, half in parts), default=0)
    return [
        mean + sign + FIGURE_SPACE * (widest - len(sign + half)) + half
        for mean, sign, half in parts
    ]


def unit(values: Iterable[float | None]) -> tuple[float, str]:
    """The factor and prefix in which the largest value has one to three digits."""
    largest = max((value for value in values if value is not None), default=0)
    for factor, prefix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if largest >= factor:
            return factor, prefix
    return 1.0, ""


def span(low: float, high: float) -> tuple[str, str]:
    """Two ends of a scale as text, with three figures of what lies between them."""
    between = high - low or abs(high) or 1.0
    digits = max(0, 2 - math.floor(math.log10(between)))
    return number(low, digits), number(high, digits)


def decimals(value: float) -> int:
    """Decimals of a number as it was written."""
    return len(f"{value:.10g}".partition(".")[2])


def duration(seconds: float) -> str:
    """A time such as "42 s", "3 min 05 s" or "2 h 07 min"."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02d} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"
