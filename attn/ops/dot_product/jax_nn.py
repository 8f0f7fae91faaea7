"""`jax.nn.dot_product_attention` as an implementation: XLA's and cuDNN's.

Queries, keys and values of different widths are filled with zeros to the same one,
which changes nothing. Masks, windows, lengths and mask functions go to XLA as one mask.
"""

import jax
import jax.numpy as jnp

from attn.ops.dot_product import visible
from attn.ops.dot_product.problem import Asked, Inputs


def xla(inputs: Inputs, asked: Asked) -> jax.Array:
    """The read values [B, T, N, Dv]; has B N T S numbers in memory.

    Raises:
        NotImplementedError: an option that `jax.nn` lacks.
    """
    refuse("xla", inputs, asked, mask_mod=True)
    mask = visible.combined(inputs, asked)
    if inputs.bias is None:
        return _call(inputs, asked, mask=mask, implementation="xla")
    # Masked logits are finite there, above those that a bias makes -inf.
    seen = inputs.bias > -jnp.inf
    mask = seen if mask is None else mask & seen
    y = _call(inputs, asked, mask=mask, implementation="xla")
    rows = jnp.any(mask, axis=3, keepdims=True).transpose(0, 2, 1, 3)
    return jnp.where(rows, y, 0)


def cudnn(inputs: Inputs, asked: Asked) -> jax.Array:
    """The read values [B, T, N, Dv], by NVIDIA's fused kernel.

    A bias is rounded to the type of the queries, as the kernel takes no other.

    Raises:
        NotImplementedError: no GPU, float32, or what the kernel cannot do; also if it
            could, but not its gradients.
    """
    refuse("cudnn", inputs, asked)
    if jax.default_backend() != "gpu":
        raise NotImplementedError(f"cudnn needs a GPU, not a {jax.default_backend()}")
    if inputs.q.dtype not in (jnp.float16, jnp.bfloat16):
        raise NotImplementedError(
            f"cudnn computes in float16 and bfloat16, not in {inputs.q.dtype}"
        )
    if asked.right or (asked.right is None and asked.left is not None):
        raise NotImplementedError(
            "cudnn has windows only where targets see nothing to their right, not"
            f" {(asked.left, asked.right)}"
        )
    lengths = inputs.q.shape[1], inputs.k.shape[1]
    added = inputs.bias is not None or inputs.mask is not None
    if added and any(length % 2 for length in lengths):
        raise NotImplementedError(
            "cudnn has gradients with a bias or mask for even numbers of targets and"
            f" sources only, not for {lengths}"
        )
    options = {
        "mask": inputs.mask,
        "is_causal": asked.right == 0,
        "local_window_size": None if asked.left is None else (asked.left, 0),
        "query_seq_lengths": inputs.q_lengths,
        "key_value_seq_lengths": inputs.kv_lengths,
    }
    try:
        return _call(inputs, asked, implementation="cudnn", **options)
    except (NotImplementedError, RuntimeError, ValueError) as error:
        raise NotImplementedError(f"cudnn says: {error}") from error


def refuse(
    name: str,
    inputs: Inputs,
    asked: Asked,
    *,
    logits_cap: bool = False,
    mask_mod: bool = False,
) -> None:
    """Raises NotImplementedError for what no foreign kernel can do.

    Args:
        name: of the implementation.
        inputs: the arrays.
        asked: the settings.
        logits_cap: whether the implementation can cap logits.
        mask_mod: whether it takes a mask that it gets as an array.
    """
    lacks = {
        "return the weights": asked.return_weights,
        f"normalize by {asked.normalize}": asked.normalize != "softmax",
        "drop weights": asked.dropout_rate > 0,
        "cap logits": asked.logits_cap is not None and not logits_cap,
        "take a mask_mod": asked.mask_mod is not None and not mask_mod,
        "take a score_mod": asked.score_mod is not None,
        "take sinks": inputs.sinks is not None,
    }
    missing = [what for what, wanted in lacks.items() if wanted]
    if missing:
        whole = asked.return_weights or asked.normalize not in ("softmax", "sigmoid")
        able = "reference can" if whole else "blockwise and reference can"
        raise NotImplementedError(f"{name} cannot {' or '.join(missing)}; {able}")


def widened(inputs: Inputs, *, wide: bool = False) -> Inputs:
    """q, k and v with the same type and width, and a type that all three fit.

    Args:
        inputs: the arrays.
        wide: whether it fits a bias too.
    """
    dtype = jnp.result_type(inputs.q, inputs.k, inputs.v)
    if wide and inputs.bias is not None:
        dtype = jnp.result_type(dtype, inputs.bias)
    width = max(inputs.q.shape[-1], inputs.v.shape[-1])
    fill = lambda x: jnp.pad(
        x.astype(dtype), ((0, 0), (0, 0), (0, 0), (0, width - x.shape[-1]))
    )
    return inputs._replace(q=fill(inputs.q), k=fill(inputs.k), v=fill(inputs.v))


def _call(inputs: Inputs, asked: Asked, **options) -> jax.Array:
    width = inputs.v.shape[-1]
    inputs = widened(inputs, wide=options["implementation"] == "xla")
    bias = inputs.bias
    y = jax.nn.dot_product_attention(
        inputs.q,
        inputs.k,
        inputs.v,
        bias=None if bias is None else bias.astype(inputs.q.dtype),
        scale=asked.scale,
        **options,
    )
    return y[..., :width]
