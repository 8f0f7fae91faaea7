"""`tokamax.dot_product_attention` as an implementation, where it is installed.

https://github.com/openxla/tokamax: kernels for newer GPUs and TPUs, and XLA elsewhere;
which of them, is its own choice.
"""

import jax

from attn.ops.dot_product import jax_nn, visible
from attn.ops.dot_product.problem import Asked, Inputs


def attend(inputs: Inputs, asked: Asked) -> jax.Array:
    """The read values [B, T, N, Dv].

    Raises:
        NotImplementedError: tokamax is not installed, or lacks an option.
    """
    jax_nn.refuse("tokamax", inputs, asked, logits_cap=True, mask_mod=True)
    try:
        import tokamax  # here: it is optional, and takes seconds
    except ImportError as error:
        raise NotImplementedError("tokamax is not installed") from error
    only_causal = asked.left is None and asked.right == 0
    arrays = asked.banded or inputs.q_lengths is not None
    if asked.mask_mod is not None or (arrays and not only_causal):
        inputs = inputs._replace(mask=visible.combined(inputs, asked))
        return _call(tokamax, inputs, asked)
    return _call(
        tokamax,
        inputs,
        asked,
        is_causal=only_causal,
        query_seq_lengths=inputs.q_lengths,
        key_value_seq_lengths=inputs.kv_lengths,
    )


def _call(tokamax, inputs: Inputs, asked: Asked, **options) -> jax.Array:
    return tokamax.dot_product_attention(
        inputs.q,
        inputs.k,
        inputs.v,
        inputs.bias,
        inputs.mask,
        scale=asked.scale,
        logits_soft_cap=asked.logits_cap,
        **options,
    )
