"""Multi-head attention over tokens: N softmax attentions on slices of the channels.

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
import jax.numpy as jnp

from attn import settings
from attn.modules import position as positions
from attn.modules.capture import sow
from attn.modules.card import Card, Paper
from attn.modules.token._projections import head_shape
from attn.ops import dot_product


class MultiHead(nn.Module):
    """Token attention: q [B, T, C], kv [B, S, C] or None -> [B, T, C].

    Softmax(Q K^T / sqrt(D)) V in N heads, between linear maps. Without `kv` the
    tokens attend to each other. There is no residual inside, and no position unless
    it is asked for: it commutes with permutations of the tokens. `card` tells the
    count of parameters.

    Attributes:
        num_heads: N, which must divide C. None is C / head_dim, or 4 heads.
        head_dim: D, which must divide C. None is C / num_heads. With both, the inner
            width N D may differ from C.
        num_kv_heads: K, which must divide N: each head of keys and values serves
            N / K heads of queries in a row. None is N, 1 is multi-query attention.
        qkv_bias: whether queries, keys and values have biases.
        out_bias: whether the last linear map has one.
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
        dtype: computation type; None takes the type of the input.
        param_dtype: type in which parameters are kept.
    """

    num_heads: int | None = None
    head_dim: int | None = None
    qkv_bias: bool = True
    out_bias: bool = True
    num_kv_heads: int | None = None
    qk_norm: bool = False
    gate: Literal["elementwise", "headwise"] | None = None
    position: str | Mapping[str, Any] | None = None
    prefix: int = 0
    normalize: Literal["softmax", "sigmoid", "sparsemax", "entmax15"] = "softmax"
    implementation: str | None = None
    attention_dropout: float = 0.0
    output_dropout: float = 0.0
    dtype: jnp.dtype | None = None
    param_dtype: jnp.dtype = jnp.float32

    card: ClassVar[Card]

    def __post_init__(self):
        self.position = positions.check(self.position)
        super().__post_init__()

    @nn.compact
    def __call__(
        self,
        q: jax.Array,
        kv: jax.Array | None = None,
        *,
        mask: jax.Array | None = None,
        grid: tuple[int, int] | None = None,
        train: bool,
    ) -> jax.Array:
        """Attends.

        Args:
            q: tokens that ask, [B, T, C].
            kv: tokens that are asked, [B, S, C]; None takes `q`.
            mask: boolean, True = may attend, broadcastable to [B, N, T, S].
            grid: (rows, columns) on which the tokens after the prefix lie, for
                positions and the record.
            train: whether to drop; draws from the random stream "dropout".

        Raises:
            Invalid: heads do not divide C, K does not divide N, `mask` does not
                fit, or `position` needs another grid.
        """
        kv = q if kv is None else kv
        encoding = positions.build(
            self.position,
            prefix=self.prefix,
            param_dtype=self.param_dtype,
            called="position",
        )
        query, key, value = self._project(q, kv, encoding, grid)
        query, key = encoding.rotate(query, key, grid)
        options = {"bias": encoding.bias(query, key, grid), "mask": mask}
        options["normalize"] = self.normalize
        y = self._read(query, key, value, options, None if self.prefix else grid, train)
        if self.gate is not None:
            y = y * self._gate(q, y)
        y = nn.DenseGeneral(
            q.shape[-1],
            axis=(-2, -1),
            use_bias=self.out_bias,
            name="out",
            **self._kinds(q),
        )(y)
        return nn.Dropout(self.output_dropout, deterministic=not train)(y)

    def _kinds(self, q):
        return {"dtype": self.dtype or q.dtype, "param_dtype": self.param_dtype}

    def _project(self, q, kv, encoding, grid):
        """Queries [B, T, N, D], keys and values [B, S, K, D]."""
        heads, dim = head_shape(q.shape[-1], self.num_heads, self.head_dim)
        kv_heads = shared_heads(heads, self.num_kv_heads)
        kinds = self._kinds(q)
        placed = encoding.tokens(q, grid)
        keys = placed if kv is q else encoding.tokens(kv, grid)
        inputs = {"query": (heads, placed), "key": (kv_heads, keys)}
        inputs["value"] = (kv_heads, kv)
        query, key, value = (
            nn.DenseGeneral((n, dim), use_bias=self.qkv_bias, name=name, **kinds)(x)
            for name, (n, x) in inputs.items()
        )
        if self.qk_norm:
            # The mean of squares minus the squared mean is inexact for few channels.
            kinds |= {"use_bias": False, "use_fast_variance": False}
            query = nn.LayerNorm(name="query_ln", **kinds)(query)
            key = nn.LayerNorm(name="key_ln", **kinds)(key)
        return query, key, value

    def _read(self, query, key, value, options, grid, train):
        """What the heads read, [B, T, N, D]."""
        sow(
            self,
            "token_matrix",
            lambda: dot_product.attention_weights(query, key, **options),
            grid=grid,
        )
        if train and self.attention_dropout > 0:
            options["dropout_rate"] = self.attention_dropout
            options["dropout_rng"] = self.make_rng("dropout")
        return dot_product.dot_product_attention(
            query, key, value, implementation=self.implementation, **options
        )

    def _gate(self, q, y):
        """Factors of what the heads read, [B, T, N, D] or [B, T, N, 1]."""
        heads, dim = y.shape[-2:]
        logits = nn.DenseGeneral(
            (heads, dim if self.gate == "elementwise" else 1),
            use_bias=self.qkv_bias,
            name="gate",
            **self._kinds(q),
        )(q)
        return nn.sigmoid(logits)


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
    heads, dim = head_shape(channels, module.num_heads, module.head_dim)
    inner = heads * dim
    shared = 2 * shared_heads(heads, module.num_kv_heads) * dim
    gates = {None: 0, "headwise": heads, "elementwise": inner}[module.gate]
    biases = (inner + shared + gates) * module.qkv_bias + channels * module.out_bias
    encoding = positions.build(module.position, prefix=module.prefix)
    of_positions = encoding.parameters(
        tuple(places), channels=channels, num_heads=heads, head_dim=dim
    )
    maps = channels * (2 * inner + shared + gates)
    return maps + biases + 2 * dim * module.qk_norm + of_positions


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
    supports=("any resolution", "mask", "cross"),
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
