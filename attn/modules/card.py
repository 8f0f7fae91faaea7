"""What a mechanism says of itself, as code: the table of modules is made from it."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Literal

FAMILIES = (
    "channel",
    "spatial",
    "pixel",
    "mixed",
    "branch",
    "non_local",
    "token",
    "order",
    "glimpse",
)
FEATURES = (
    "any resolution",
    "grid",
    "cross",
    "mask",
    "kv_mask",
    "causal",
    "decode",
)


@dataclasses.dataclass(frozen=True)
class Paper:
    """Where a mechanism comes from.

    Attributes:
        arxiv: its identifier, such as "1709.01507".
        doi: such as "10.1109/CVPR.2019.01132", of a paper that is not on arXiv.
        url: the publisher's page, of a paper that has neither.
    """

    title: str
    authors: str
    year: int
    arxiv: str = ""
    doi: str = ""
    url: str = ""

    @property
    def link(self) -> str:
        """The address of the paper."""
        if self.arxiv:
            return f"https://arxiv.org/abs/{self.arxiv}"
        return f"https://doi.org/{self.doi}" if self.doi else self.url


@dataclasses.dataclass(frozen=True)
class Card:
    """The facts about one mechanism.

    Attributes:
        family: one of FAMILIES, which is also the folder of its file.
        contract: "map" for `module(x [B, H, W, C], *, train)`, "token" for
            `module(q [B, T, C], kv [B, S, C] | None, ..., train)`, with the options in
            `attn.modules.token`.
        paper: the source.
        formula: what is computed, on one line, in the letters of the paper.
        complexity: multiply-adds of one example, in H, W, C (T, S for tokens).
        parameters: exact number of parameters, given the module (for its settings)
            and the shape of one example, (H, W, C) or (T, C).
        maps: the kinds of attention map it records, see `attn.modules.capture`.
        supports: of FEATURES: "any resolution" (one set of weights serves every H, W
            or T), "grid" (needs the grid on which its tokens lie), "cross" (keys and
            values from elsewhere, in any number), and the options of
            `attn.modules.token`: "mask", "kv_mask", "causal" and "decode".
        variants: settings by which paper and released code (or well-known ports)
            differ, name -> settings that select it; the first is the default.
        note: which variant is the default and why, and what differs from the paper.
    """

    family: str
    contract: Literal["map", "token"]
    paper: Paper
    formula: str
    complexity: str
    parameters: Callable[[Any, tuple[int, ...]], int]
    maps: tuple[str, ...]
    supports: frozenset[str] = frozenset({"any resolution"})
    variants: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    note: str = ""

    def __post_init__(self):
        strange = sorted(set(self.supports) - set(FEATURES))
        if strange:
            raise ValueError(
                f"a card supports some of {', '.join(FEATURES)}, got {strange}"
            )
