"""How relevance goes through a network of tokens: its attentions, from the end back.

A route is what attention rollout needs to know of a model: which tokens are classified,
and through which attentions, and which joins of tokens, they came about. It is read
from the end, so that a row of relevance [B, T] is all that is kept, never a matrix of
all tokens of one place by all of another.

    ViT, DeiT   the class token (both tokens of DeiT, or the mean token), the slot
                "pool", then the blocks
    CaiT        the class layers, in which the class token alone reads; then the blocks
                of patches
    XCiT        the class layers; its blocks mix channels by a matrix that is the same
                at every place, and so move nothing from place to place. What does is
                the local patch interaction, two convolutions of 3x3, which is taken
                for standing still
    Swin        the mean token, the stages, and between them the merges, in which each
                token is shared evenly by the four from which it was made

Attentions on maps in a slot count where they move something: non-local blocks by their
matrix, spatial transformers by their bilinear weights. Gates move nothing. To add a
model: a function here and a line in ROUTES.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn

from attn import models

Grid = tuple[int, int]


class Read(NamedTuple):
    """An attention, passed where the model has none there, or one that moves nothing.

    Attributes:
        path: of the module.
        grid: on which its tokens lie, after those that lie on none.
        residual: whether tokens are added to what they read.
    """

    path: str
    grid: Grid
    residual: bool


class Pool(NamedTuple):
    """Where what is classified is read from the tokens, if an attention does it."""

    path: str
    grid: Grid


class Enter(NamedTuple):
    """The place where class tokens join those of the patches, with nothing of them."""

    tokens: int


class Merge(NamedTuple):
    """The place where 2x2 tokens of `grid` become one; odd rows and columns alone."""

    grid: Grid


Step = Read | Pool | Enter | Merge


class Route(NamedTuple):
    """The way back through a network.

    Attributes:
        length: number of tokens at the end.
        classified: of how many of them, the first, the mean is classified.
        steps: from the end to the patches.
        grid: on which the patches lie.
        prefix: number of tokens before them, at the first block.
    """

    length: int
    classified: int
    steps: tuple[Step, ...]
    grid: Grid
    prefix: int


def find(model: nn.Module, variables: Any, size: tuple[int, int]) -> Route:
    """The route of a model on images of `size`, (H, W).

    Raises:
        ValueError: a model that has none, with those that have.
    """
    for kind, route in ROUTES.items():
        if isinstance(model, kind):
            patch = model.patch_size
            grid = (size[0] // patch, size[1] // patch)
            return route(variables["params"], grid)
    known = ", ".join(sorted(kind.__name__ for kind in ROUTES))
    raise ValueError(
        f"attention rollout needs to know how tokens go through a network, and knows"
        f" {known}, not {type(model).__name__}; take attention_maps or saliency"
    )


def _vit(params: Mapping[str, Any], grid: Grid) -> Route:
    prefix = sum(name in params for name in ("class_token", "distillation_token"))
    length = prefix + grid[0] * grid[1]
    steps = (Pool("pool", grid), *_blocks(params, grid))
    return Route(length, prefix or length, steps, grid, prefix)


def _class_layers(params: Mapping[str, Any], grid: Grid) -> Route:
    layers = [
        Read(f"class{index}/mixer", grid, residual=True)
        for index in reversed(range(_count(params, "class")))
    ]
    steps = (*layers, Enter(1), *_blocks(params, grid))
    return Route(1 + grid[0] * grid[1], 1, steps, grid, 0)


def _swin(params: Mapping[str, Any], grid: Grid) -> Route:
    here, steps = grid, []
    for number in range(1, 1 + _count(params, "stage")):
        inside = params[f"stage{number}"]
        end = Read(f"stage{number}/end", here, residual=False)
        steps = [end, *_blocks(inside, here, f"stage{number}/"), *steps]
        if f"merge{number}" in params:
            steps = [Merge(here), *steps]
            here = ((here[0] + 1) // 2, (here[1] + 1) // 2)
    length = here[0] * here[1]
    return Route(length, length, (Pool("pool", here), *steps), grid, 0)


def _blocks(params: Mapping[str, Any], grid: Grid, scope: str = "") -> list[Step]:
    """The steps of blocks, from the last to the first."""
    steps: list[Step] = []
    for index in reversed(range(_count(params, "block"))):
        path = f"{scope}block{index}"
        steps.append(Read(f"{path}/post", grid, residual=False))
        steps.append(Read(f"{path}/mixer", grid, residual=True))
        steps.append(Read(f"{path}/pre", grid, residual=False))
    return steps


def _count(params: Mapping[str, Any], name: str) -> int:
    return sum(re.fullmatch(rf"{name}\d+", key) is not None for key in params)


ROUTES: dict[type[nn.Module], Callable[[Mapping[str, Any], Grid], Route]] = {
    models.find("cait"): _class_layers,
    models.find("deit"): _vit,
    models.find("swin"): _swin,
    models.find("vit"): _vit,
    models.find("xcit"): _class_layers,
}
