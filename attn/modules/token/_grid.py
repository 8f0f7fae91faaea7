"""Windows on the grid of tokens, for the modules that have some."""

from attn import settings
from attn.settings import Positive

Side = Positive | tuple[Positive, Positive]


def pair(size: int | tuple[int, int]) -> tuple[int, int]:
    """(rows, columns) of a size that may be one number for both."""
    return (size, size) if isinstance(size, int) else tuple(size)


def check_grid(
    name: str, grid: tuple[int, int] | None, tokens: int, sources: int
) -> tuple[int, int]:
    """The grid on which tokens and their sources lie.

    Raises:
        Invalid: there is none, or it has another number of places.
    """
    if grid is None:
        raise settings.Invalid(
            f"{name} needs grid=(rows, columns) of its {tokens} tokens; a class token"
            " does not lie on one, a model with pool='mean' has none"
        )
    places = grid[0] * grid[1]
    if places != tokens or places != sources:
        count = tokens if places != tokens else sources
        raise settings.Invalid(
            f"a grid of {grid[0]} x {grid[1]} has {places} places, but there are"
            f" {count} tokens"
        )
    return tuple(grid)
