"""A detector of a few lines: one dense layer for the boxes of all queries."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax


class Detector(nn.Module):
    """Images [B, H, W, 3] -> logits [B, L, Q, K + 1] and boxes [B, L, Q, 4]."""

    num_classes: int
    num_queries: int = 6
    layers: int = 2
    fill: Mapping[str, Any] | None = None

    @nn.compact
    def __call__(self, image, *, train):
        batch, height, width, _ = image.shape
        x = nn.avg_pool(image, (height // 2, width // 2), (height // 2, width // 2))
        x = x.reshape(batch, -1)
        each = self.num_classes + 5
        x = nn.Dense(self.layers * self.num_queries * each)(x)
        x = x.reshape(batch, self.layers, self.num_queries, each)
        return {"logits": x[..., 4:], "boxes": jax.nn.sigmoid(x[..., :4])}
