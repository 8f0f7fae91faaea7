"""Sections of a page, one for each kind of artefact that points may hold.

A section is a module of this package with

    FILE       the artefact of a point that it reads
    TEMPLATE   the template beside it, which is given what `section` returns as `found`
    BYTES      of pictures that it may take on a page
    section    (rows with styles, budget) -> what is shown, None where no point of the
               rows has the artefact

To add one: the module, its template, and its line in SECTIONS, which are shown in this
order.
"""

from typing import Any, Protocol

from attn.report.draw.style import Drawn
from attn.report.sections import (
    attention,
    class_gates,
    examples,
    measures,
    query_areas,
    snapshots,
    token_attention,
)
from attn.report.sections.budget import Budget


class Section(Protocol):
    """A module of this package."""

    FILE: str
    TEMPLATE: str
    BYTES: int

    def section(self, drawn: Drawn, budget: Budget) -> Any:
        """Content of the template for some rows, or None."""


SECTIONS: tuple[Section, ...] = (
    examples,
    query_areas,
    token_attention,
    measures,
    snapshots,
    class_gates,
    attention,
)


def made(drawn: Drawn, sharers: int) -> list[tuple[str, Any]]:
    """Template and content of the sections of one of so many sweeps on a page."""
    found = (
        (one.TEMPLATE, one.section(drawn, Budget(one.BYTES // sharers)))
        for one in SECTIONS
    )
    return [(template, content) for template, content in found if content is not None]
