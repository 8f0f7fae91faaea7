"""Small networks with variables that are not the initial ones, and images for them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from attn import models

CLASSES = 5
SIZE = (8, 12)
SMALL = {
    "vit": {"patch_size": 4, "width": 12, "depth": 3, "num_heads": 3},
    "deit": {"patch_size": 4, "width": 12, "depth": 2, "num_heads": 3},
    "cait": {"patch_size": 4, "width": 12, "depth": 2, "num_heads": 3},
    "xcit": {"patch_size": 8, "width": 16, "depth": 2, "num_heads": 2},
    "swin": {
        "patch_size": 2,
        "width": 8,
        "depths": (2, 2),
        "num_heads": (2, 4),
        "window": 2,
    },
    "cnn": {"filters": (6, 8), "kernel_sizes": 3, "padding": "SAME"},
}


def images(size=SIZE, count=2, channels=3, seed=0):
    rng = np.random.default_rng(seed)
    return jnp.asarray(rng.normal(size=(count, *size, channels)), jnp.float32)


def network(name, size=SIZE, seed=1, **settings):
    """A model and its variables, on images of a size."""
    model = models.create(name, num_classes=CLASSES, **{**SMALL[name], **settings})
    return model, disturbed(model, images(size), seed=seed)


def disturbed(model, *inputs, seed=1, **options):
    """Random variables, of about their natural size."""
    rng = np.random.default_rng(seed)

    def leaf(path, a):
        if path[-1].key == "var":
            return rng.uniform(0.5, 2, a.shape).astype(np.float32)
        fan = np.prod(a.shape[:-1]) if a.ndim > 1 else 2
        return rng.normal(scale=1.5 * fan**-0.5, size=a.shape).astype(np.float32)

    init = lambda *inputs: model.init(
        jax.random.key(0), *inputs, train=False, **options
    )
    return jax.tree.map_with_path(leaf, jax.eval_shape(init, *inputs))


def compiled(function, model, *args, **options):
    """What a function of `attn.explain` makes of a model, in one compiled program."""
    run = jax.jit(functools.partial(function, model, **options))
    return jax.tree.map(np.asarray, run(*args))
