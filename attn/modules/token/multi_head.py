"""Multi-head attention over tokens: a softmax in each of N slices of the channels.

Vaswani et al., "Attention Is All You Need", NeurIPS 2017,
https://arxiv.org/abs/1706.03762, section 3.2.2. The norm of queries and keys: Dehghani
et al., "Scaling Vision Transformers to 22 Billion Parameters", 2023,
https://arxiv.org/abs/2302.05442, equation 1. Fewer heads of keys and values: Ainslie et
al., "GQA: Training Generalized Multi-Query Transformer Models", EMNLP 2023,
https://arxiv.org/abs/2305.13245. The gate: Qiu et al., "Gated Attention for Large
Language Models", NeurIPS 2025, https://arxiv.org/abs/2505.06708, at its place G1.

Letters used in shapes:
    B batch, T targets, S sources, C channels, N heads, K heads of keys and values,
    D channels of one head.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import flax.linen as nn
import jax

from attn import settings
from attn.modules import position as positions
from attn.modules.capture import sow
from attn.modules.card import Card, Paper
from attn.modules.token.base import Call, Heads
from attn.ops import dot_product


class MultiHead(Heads):
    """Token attention: q [B, T, C], kv [B, S, C] or None -> [B, T, C].

    Softmax(Q K^T / sqrt(D)) V in N heads, between linear maps. Without `kv` the
    tokens attend to each other. There is no residual inside, and no position unless
    it is asked for: it commutes with permutations of the tokens. `card` tells the
    count of parameters.

    Attributes:
        num_heads, head_dim, qkv_bias, out_bias, kernel_init, dtype, param_dtype: as in
            `Heads`.
        key_dim: channels of a head of queries and keys, where they differ from the D
            of values; None is D. Table 3 B of the paper varies it.
        num_kv_heads: K, which must divide N: each head of keys and values serves
            N / K heads of queries in a row. None is N, 1 is multi-query attention.
        qk_norm: whether queries and keys pass through a layer norm (without bias)
            in each head, which bounds the logits; ViT-22B does.
        gate: factors in (0, 1) on what the heads read, the sigmoid of a linear map of
            the targets (with a bias where `qkv_bias`): "elementwise" N D of them,
            "headwise" one a head. None has no gate.
        position: name of an encoding in `attn.modules.position`, or a mapping with
            "name" and its settings; None is "none". One that adds to tokens adds to
            those of which queries and keys are made, not to values, as in DETR.
        prefix: number of tokens, such as a class token, before those of the grid.
        normalize: how logits become weights, see `attn.ops.dot_product_attention`.
        implementation: which program computes it, see there too; None is the fastest.
        attention_dropout: rate at which single weights are dropped in training.
        output_dropout: rate at which outputs are dropped in training.
    """

    key_dim: settings.Positive | None = None
    num_kv_heads: int | None = None
    qk_norm: bool = False
    gate: Literal["elementwise", "headwise"] | None = None
    position: str | Mapping[str, Any] | None = None
    prefix: settings.Count = 0
    normalize: Literal["softmax", "sigmoid", "sparsemax", "entmax15"] = "softmax"
    implementation: str | None = None
    attention_dropout: settings.Decay = 0.0
    output_dropout: settings.Decay = 0.0

    card: ClassVar[Card]

    def __post_init__(self):
        self.position = positions.check(self.position)
        known, name = dot_product.IMPLEMENTATIONS, self.implementation
        if name is not None and name not in known:
            raise settings.unknown("implementation", name, known)
        super().__post_init__()

    def attend(self, call: Call) -> jax.Array:
        encoding = positions.build(
            self.position,
            prefix=self.prefix,
            param_dtype=self.param_dtype,
            called="position",
        )
        _check_order(call, self.position, encoding)
        placed = encoding.at(call.start, call.length)
        query, made = self._project(call, placed)
        arrays, visible = self.sources(call, made)
        options = visible._asdict() | {"normalize": self.normalize}
        options["bias"] = placed.bias(query, arrays["key"], call.grid)
        y = self._read(call, query, arrays, options)
        if self.gate is not None:
            y = y * self._gate(call.q, y)
        y = self.merge(y, call.q.shape[-1])
        return nn.Dropout(self.output_dropout, deterministic=not call.train)(y)

    def _project(self, call, placed):
        """Queries [B, T, N, D]; keys and values [B, S, K, D], or None if cached."""
        heads, dim = self.head_shape(call.q.shape[-1])
        own, shared = self.key_dim or dim, shared_heads(heads, self.num_kv_heads)
        tokens = placed.tokens(call.queries, call.grid)
        query = self._normed("query_ln", self.linear("query", tokens, (heads, own)))
        if call.kv is None:
            return query, None
        if call.cross or call.k_position is not call.q_position:
            tokens = placed.tokens(call.keys, call.grid)
        key = self.linear("key", tokens, (shared, own), like=call.q)
        key = self._normed("key_ln", key)
        value = self.linear("value", call.kv, (shared, dim), like=call.q)
        query, key = placed.rotate(query, key, call.grid)
        return query, {"key": key, "value": value}

    def _normed(self, name: str, x: jax.Array) -> jax.Array:
        if not self.qk_norm:
            return x
        # The mean of squares minus the squared mean is inexact for few channels.
        return nn.LayerNorm(
            use_bias=False, use_fast_variance=False, name=name, **self.dtypes(x)
        )(x)

    def _read(self, call, query, arrays, options):
        """Values that the heads read, [B, T, N, D]."""
        key, value = arrays["key"], arrays["value"]

        def weights():
            return dot_product.attention_weights(query, key, **options)

        grid = None if self.prefix else call.grid
        sow(self, "token_matrix", weights, grid=grid)
        dropped = {}
        if call.train and self.attention_dropout > 0:
            dropped["dropout_rate"] = self.attention_dropout
            dropped["dropout_rng"] = self.make_rng("dropout")
        return dot_product.dot_product_attention(
            query, key, value, implementation=self.implementation, **options, **dropped
        )

    def _gate(self, q, y):
        """Factors of what the heads read, [B, T, N, D] or [B, T, N, 1]."""
        heads, dim = y.shape[-2:]
        logits = nn.DenseGeneral(
            (heads, dim if self.gate == "elementwise" else 1),
            use_bias=self.qkv_bias,
            name="gate",
            **self.dtypes(q),
        )(q)
        return nn.sigmoid(logits)


def _check_order(call: Call, position: Mapping, encoding: positions.Position) -> None:
    """Raises Invalid where the encoding does not fit causal or cached tokens."""
    if call.causal and not encoding.causal:
        raise settings.Invalid(
            f"position {position['name']!r} tells tokens of later ones, so that it"
            " cannot be causal"
        )
    if call.decode and call.cross and encoding.acts:
        raise settings.Invalid(
            "cross-attention that decodes does not know the places of its targets, so"
            f" that it has no position, got {position['name']!r}"
        )


def shared_heads(num_heads: int, num_kv_heads: int | None) -> int:
    """Number of heads of keys and values K; None is N.

    Raises:
        Invalid: K does not divide N.
    """
    if num_kv_heads is None:
        return num_heads
    fit = [n for n in range(1, num_heads + 1) if num_heads % n == 0]
    if num_kv_heads not in fit:
        raise settings.Invalid(
            f"num_kv_heads={num_kv_heads} must divide num_heads={num_heads}, as"
            f" {', '.join(map(str, fit))} do"
        )
    return num_kv_heads


def _parameters(module: MultiHead, shape: tuple[int, ...]) -> int:
    """Of tokens (T, C), or (H, W, C) on a grid, after the prefix, if positions ask."""
    *places, channels = shape
    heads, dim = module.head_shape(channels)
    own, inner = module.key_dim or dim, heads * dim
    shared = shared_heads(heads, module.num_kv_heads) * (own + dim)
    gates = {None: 0, "headwise": heads, "elementwise": inner}[module.gate]
    made = heads * own + shared + gates
    biases = made * module.qkv_bias + channels * module.out_bias
    encoding = positions.build(module.position, prefix=module.prefix)
    of_positions = encoding.parameters(
        tuple(places), channels=channels, num_heads=heads, head_dim=own
    )
    maps = channels * (made + inner)
    return maps + biases + 2 * own * module.qk_norm + of_positions


MultiHead.card = Card(
    family="token",
    contract="token",
    paper=Paper(
        title="Attention Is All You Need",
        authors=(
            "Vaswani, Shazeer, Parmar, Uszkoreit, Jones, Gomez, Kaiser, Polosukhin"
        ),
        year=2017,
        arxiv="1706.03762",
    ),
    formula="concat_n(softmax(Q_n K_n^T / sqrt(D)) V_n) W_O",
    complexity="2 T C^2 + 2 S C^2 + 2 T S C",
    parameters=_parameters,
    maps=("token_matrix",),
    supports=frozenset(
        {"any resolution", "cross", "mask", "kv_mask", "causal", "decode"}
    ),
    variants={
        "biases": {},
        "paper": {"qkv_bias": False, "out_bias": False},
        "vit_22b": {"qk_norm": True, "qkv_bias": False},
    },
    note=(
        "The four linear maps have biases by default, as in torch, timm and ViT,"
        " 4 C^2 + 4 C parameters; the formula of the paper has none. A token that may"
        " attend to nothing reads zeros. With a position encoding of a grid the count"
        " of parameters is for the shape (H, W, C)."
    ),
)
