"""Shifted window attention: window attention whose windows straddle the others.

Liu et al., "Swin Transformer: Hierarchical Vision Transformer using Shifted Windows",
ICCV 2021, https://arxiv.org/abs/2103.14030, section 3.2, equation 4 and figure 4: the
grid is shifted cyclically, and what comes together around its border is kept apart by
a mask.
"""

import dataclasses
from typing import ClassVar

from attn import settings
from attn.modules.card import Card
from attn.modules.token._grid import pair
from attn.modules.token.window import Window


class ShiftedWindow(Window):
    """Window attention, windows moved: q [B, T, C] with grid=(H, W) -> [B, T, C].

    Attributes:
        window: side of a window, or its (rows, columns), in tokens; at most the grid.
        relative_bias: whether there is a bias for each difference of place.
        padding: "masked" or "attended", see `Window`.
        attention_dropout: rate at which single weights are dropped in training.
        output_dropout: rate at which outputs are dropped in training.
        num_heads, head_dim, qkv_bias, out_bias, kernel_init, dtype, param_dtype: as in
            `Heads`.
        shift: by how many tokens the windows are moved down and to the right, one
            number or (y, x), below the window. None is half a window, rounded down.
            Along an axis with a single window they are not moved.
    """

    shift: int | tuple[int, int] | None = None

    card: ClassVar[Card]

    def __post_init__(self):
        if self.shift is not None:
            for size, shift in zip(pair(self.window), pair(self.shift), strict=True):
                if not 0 <= shift < size:
                    raise settings.Invalid(
                        f"shift={shift} must be at least 0 and below window={size}"
                    )
        super().__post_init__()

    def _shift(self, grid: tuple[int, int]) -> tuple[int, int]:
        window = pair(self.window)
        half = tuple(size // 2 for size in window)
        shift = half if self.shift is None else pair(self.shift)
        return tuple(
            by if side > size else 0
            for by, side, size in zip(shift, grid, window, strict=True)
        )


ShiftedWindow.card = dataclasses.replace(
    Window.card,
    formula="window attention, windows moved by (M_h // 2, M_w // 2), wraps masked",
    note=(
        f"{Window.card.note} Windows are not shifted along an axis with a single"
        " window, as in the released code."
    ),
)
