"""Linear layers, from hidden ones to classifiers, and dropout.

They read the fields `param_dtype` and `dropout` of the module in whose compact
`__call__` they stand.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

HE = nn.initializers.he_normal()
LECUN = nn.initializers.lecun_normal()
# A normal of 0.02 cut off at two deviations: ViT's, and those of models after it.
NORMAL = nn.initializers.truncated_normal(0.02)
# torch.nn.Linear's: uniform within 1 / sqrt(inputs).
TORCH = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
# Uniform, of variance 2 / (inputs + outputs): Glorot and Bengio's.
XAVIER = nn.initializers.xavier_uniform()


def dense(
    parent: nn.Module,
    name: str,
    x: jax.Array,
    features: int,
    init: nn.initializers.Initializer = NORMAL,
) -> jax.Array:
    """A linear layer on the channels, as in transformers."""
    kinds = {"dtype": x.dtype, "param_dtype": parent.param_dtype}
    return nn.Dense(features, kernel_init=init, name=name, **kinds)(x)


def hidden(parent: nn.Module, name: str, x: jax.Array, width: int) -> jax.Array:
    """A linear layer, He-normal, and ReLU: [..., D] -> [..., width]."""
    kinds = {"dtype": x.dtype, "param_dtype": parent.param_dtype}
    return nn.relu(nn.Dense(width, kernel_init=HE, name=name, **kinds)(x))


def classify(
    parent: nn.Module,
    x: jax.Array,
    outputs: int,
    *,
    init: nn.initializers.Initializer = NORMAL,
    name: str = "classifier",
) -> jax.Array:
    """The linear layer that makes logits, in float32: [..., D] -> [..., outputs]."""
    kinds = {"dtype": jnp.float32, "param_dtype": parent.param_dtype}
    layer = nn.Dense(outputs, kernel_init=init, name=name, **kinds)
    return layer(x.astype(jnp.float32))


def drop(parent: nn.Module, x: jax.Array, train: bool) -> jax.Array:
    """Dropout at the rate `dropout` of the parent."""
    return nn.Dropout(parent.dropout, deterministic=not train)(x)
