"""The decoder of a Transformer by itself, which reads the tokens of a map.

Vaswani et al., "Attention Is All You Need", 2017, https://arxiv.org/abs/1706.03762,
section 3. Letters: B batch, T words, V vocabulary, C channels, S places of the map.
"""

import math
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
from flax.core import FrozenDict

from attn.models.base import Slotted
from attn.models.layers import text
from attn.models.layers.dense import XAVIER, drop
from attn.models.layers.lstm import Step, as_tokens, attended
from attn.models.layers.transformer import DecoderBlock
from attn.modules import choices
from attn.modules import position as positions
from attn.modules.capture import listening


class TextDecoder(Slotted):
    """Words [B, T] and a map [B, h, w, D] -> logits [B, T, V], and what was read.

    Words are embedded with sinusoids of their places, and go through layers that are
    normalised after each sum; the embedding is the matrix before the softmax too.

    Attributes:
        vocab_size: V.
        width: C.
        depth: layers.
        mlp_dim: hidden width of their MLPs.
        dropout: rate.
        given: settings for attentions that have them.
        other attributes: see `Slotted`.
    """

    vocab_size: int
    width: int
    depth: int
    mlp_dim: int
    dropout: float
    given: Mapping[str, Any] = FrozenDict()

    @nn.compact
    def __call__(
        self,
        words: jax.Array,
        grid_map: jax.Array | None = None,
        *,
        decode: bool = False,
        train: bool = False,
    ) -> tuple[jax.Array, Step]:
        """The logits of the next words, float32; of the steps attention and choice.

        Args:
            words, grid_map, decode, train: as of `LSTMDecoder`.
        """
        table = nn.Embed(
            self.vocab_size,
            self.width,
            embedding_init=nn.initializers.normal(self.width**-0.5),
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            name="embedding",
        )
        placed = text.Placed(
            positions.check("sinusoidal"), param_dtype=self.param_dtype, name="position"
        )
        x = placed(table(words) * math.sqrt(self.width), decode=decode)
        x = drop(self, x, train)
        tokens = None if grid_map is None else as_tokens(grid_map)
        blocks = [self._block(f"decoder{k}", x) for k in range(self.depth)]
        for block in blocks:
            with listening() as heard:  # of the last one it counts
                x = block(x, tokens, decode=decode, train=train)
        choice = choices.of(*blocks) if train else None
        return text.word_logits(table, x), Step(None, None, attended(heard), choice)

    def _block(self, name: str, x: jax.Array) -> DecoderBlock:
        return DecoderBlock(
            given=self.given,
            mlp_dim=self.mlp_dim,
            activation="relu",
            norm_first=False,
            dropout=self.dropout,
            hidden_dropout=0.0,
            mlp_init=XAVIER,
            **self.within(name, x.dtype),
        )
