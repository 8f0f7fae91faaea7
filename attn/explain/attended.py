"""What each attention of a model looked at, family by family on one footing.

An attention that has places gives its own map, see `attn.explain.places`. A gate or a
matrix of channels says what to look at and not where; its map is the class activation
of what it lets through: Selvaraju et al., "Grad-CAM: Visual Explanations from Deep
Networks via Gradient-based Localization", ICCV 2017, https://arxiv.org/abs/1610.02391,
equations 1 and 2, with the output of the attention as A:

    relu(sum_c alpha_c A_c),   alpha_c = the mean over places of d logit / d A_c.

A plain network records no attention. For it, and for all on the same scale, there is
the saliency of the image: Simonyan, Vedaldi, Zisserman, "Deep Inside Convolutional
Networks", 2014, https://arxiv.org/abs/1312.6034, section 3; with noise, the mean
gradient of Smilkov et al., "SmoothGrad", 2017, https://arxiv.org/abs/1706.03825.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from attn.explain.places import grid_of, normalise, on_grid, relevance, spread
from attn.explain.taps import Tap, Target, apply, chosen, mean_logits, run

CHANNELS = ("channel_gate", "channel_matrix")


def attention_maps(
    model: nn.Module, variables: Any, images: jax.Array, target: Target = None
) -> dict[str, jax.Array]:
    """Where each attention of a model looked.

    Args:
        model: any network, or a bare mechanism.
        variables: of the model.
        images: [B, H, W, C].
        target: the logit by whose gradient channels are weighed, where attentions have
            no places: classes, int [B]; None for the predicted ones; or a function
            from the outputs to [B].

    Returns:
        float32 [B, H, W] of sum 1 by the path of the attention, such as
        "stage2/block0/residual". An attention whose tokens lie on no known grid is left
        out.
    """
    size = tuple(images.shape[1:3])
    slopes = needs_gradients(model, variables, images)
    _, taps = run(model, variables, images, target, gradients=slopes)
    return maps_of(taps, size)


def needs_gradients(model: nn.Module, variables: Any, images: jax.Array) -> bool:
    """Whether some attention of a model has channels alone, and no places."""
    shapes = jax.eval_shape(
        lambda v, x: run(model, v, x, gradients=False)[1], variables, images
    )
    return any(_only_channels(tap) for tap in shapes.values())


def maps_of(taps: Mapping[str, Tap], size: tuple[int, int]) -> dict[str, jax.Array]:
    """The maps of tapped attentions by their paths, as `attention_maps` has them.

    Those of channels alone are left out where there are no gradients.
    """
    maps = {path: _look(tap, size) for path, tap in taps.items()}
    return {path: found for path, found in maps.items() if found is not None}


def attention_paths(model: nn.Module, variables: Any, images: jax.Array) -> list[str]:
    """The paths of the attentions of a model, in the order in which they are called."""
    paths: list[str] = []

    def note(variables: Any, images: jax.Array) -> None:
        paths.extend(run(model, variables, images, gradients=False)[1])

    jax.eval_shape(note, variables, images)
    return paths


def mean_map(maps: Mapping[str, jax.Array]) -> jax.Array:
    """The mean over the attentions of a model, [B, H, W] of sum 1.

    Raises:
        ValueError: there are none.
    """
    if not maps:
        raise ValueError("the model has no attention with places: take its saliency")
    return sum(maps.values()) / len(maps)


def class_activation(
    features: jax.Array, gradient: jax.Array, size: tuple[int, int]
) -> jax.Array | None:
    """Grad-CAM of features [B, h, w, C], or tokens [B, T, C]: [B, H, W] of sum 1.

    Where no place speaks for the class it is even; tokens on no grid have None.
    """
    if features.ndim == 3:
        grid = grid_of(features.shape[1], size)
        if grid is None:
            return None
        place = lambda x: jnp.moveaxis(on_grid(x.swapaxes(1, 2), grid), 1, -1)
        features, gradient = place(features), place(gradient)
    features, gradient = (x.astype(jnp.float32) for x in (features, gradient))
    alpha = gradient.mean(axis=(1, 2), keepdims=True)
    return spread(normalise(nn.relu((alpha * features).sum(axis=-1))), size)


def saliency(
    model: nn.Module,
    variables: Any,
    images: jax.Array,
    target: Target = None,
    *,
    samples: int = 1,
    noise: float = 0.0,
    key: jax.Array | None = None,
) -> jax.Array:
    """How much each pixel moves the chosen logit: [B, H, W] of sum 1.

    The largest size of the gradient over the channels. A model needs no attention.

    Args:
        model: any network.
        variables: of the model.
        images: [B, H, W, C].
        target: as in `attention_maps`; predictions are those of the images without
            noise.
        samples: over how many noisy images the gradient is averaged.
        noise: standard deviation of the noise, as a share of the range of each image;
            the paper on SmoothGrad has 0.1 to 0.2.
        key: of the noise; None is that of the seed 0.

    Raises:
        ValueError: no samples, or several without noise.
    """
    if samples < 1 or (samples > 1 and noise <= 0):
        raise ValueError(
            f"samples must be 1, or more with noise above 0, got {samples} samples and"
            f" noise {noise}"
        )
    images = jnp.asarray(images)
    run_on = lambda x: apply(model, variables, x)
    if target is None:
        target = jnp.argmax(mean_logits(run_on(images)), axis=-1)
    slope = jax.grad(lambda x: chosen(run_on(x), target).sum())
    if noise == 0:
        return normalise(jnp.abs(slope(images)).max(axis=-1))
    whole = tuple(range(1, images.ndim))
    wide = images.max(axis=whole, keepdims=True) - images.min(axis=whole, keepdims=True)

    def one(total: jax.Array, key: jax.Array) -> tuple[jax.Array, None]:
        normal = jax.random.normal(key, images.shape, images.dtype)
        return total + slope(images + noise * wide * normal), None

    keys = jax.random.split(jax.random.key(0) if key is None else key, samples)
    total, _ = jax.lax.scan(one, jnp.zeros_like(images), keys)
    return normalise(jnp.abs(total).max(axis=-1))


def _only_channels(tap: Tap) -> bool:
    return all(found.kind in CHANNELS for found in tap.maps.values())


def _look(tap: Tap, size: tuple[int, int]) -> jax.Array | None:
    if _only_channels(tap):
        if tap.gradient is None:
            return None
        return class_activation(tap.output, tap.gradient, size)
    found = [relevance(entry, size) for entry in tap.maps.values()]
    found = [entry for entry in found if entry is not None]
    return sum(found) / len(found) if found else None
