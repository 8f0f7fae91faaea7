"""Deletion and insertion: does the output hang on what a map calls important?

Petsiuk, Das, Saenko, "RISE: Randomized Input Sampling for Explanation of Black-box
Models", BMVC 2018, https://arxiv.org/abs/1806.07421, section 4.1: pixels are taken from
an image, the most important first, and the probability of its class should fall
quickly; or they are put into a blurred image, and it should rise quickly. The area
under the curve tells how much: small is good for deletion, large for insertion.

Differs from the paper: pixels go in a few steps, not row by row of a large image.
"""

import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from attn.explain.taps import Target, apply, mean_logits, of_classes

Score = Callable[[jax.Array], jax.Array]
STEPS = 20
BLUR = 5.0  # of the paper, for images of 224 pixels
PAPER_SIDE = 224


def confidence(
    model: nn.Module, variables: Any, images: jax.Array, target: Target = None
) -> Score:
    """A function from changed images to the probability of the class of each, [B].

    Args:
        model: any network with logits, [B, K]; of several classifiers, [B, n, K], the
            mean probability is taken.
        variables: of the model.
        images: [B, H, W, C], as they are, for their predictions.
        target: classes, int [B] or [B, n]; None for the predicted ones; or a
            function from the outputs to what is taken in place of a probability, [B].
    """
    run_on = lambda x: apply(model, variables, x)
    if callable(target):
        return lambda x: target(run_on(x))
    if target is None:
        target = jnp.argmax(mean_logits(run_on(images)), axis=-1)

    def score(changed: jax.Array) -> jax.Array:
        p = jax.nn.softmax(mean_logits(run_on(changed)).astype(jnp.float32), axis=-1)
        return of_classes(p, target).reshape(len(p), -1).mean(axis=-1)

    return score


def deletion(
    score: Score,
    images: jax.Array,
    maps: jax.Array,
    *,
    steps: int = STEPS,
    baseline: jax.Array | float = 0.0,
) -> jax.Array:
    """The curve as pixels are taken away, the most important first: [B, steps + 1].

    Entry k has k / steps of the pixels gone (rounded), so that the first is of whole
    images and the last of the baseline alone. Of pixels that are equally important,
    those of upper rows go first, left before right.

    Args:
        score: such as `confidence` makes: [B, H, W, C] -> [B].
        images: [B, H, W, C].
        maps: [B, H, W].
        steps: how many.
        baseline: what is left where a pixel is gone, a number or what broadcasts to
            the images. Zero is the mean colour of images that are normalised.

    Raises:
        ValueError: no step, or maps that do not fit the images.
    """
    images = jnp.asarray(images)
    blank = jnp.broadcast_to(jnp.asarray(baseline, images.dtype), images.shape)
    return _curve(score, images, blank, maps, steps)


def insertion(
    score: Score,
    images: jax.Array,
    maps: jax.Array,
    *,
    steps: int = STEPS,
    baseline: jax.Array | float | None = None,
) -> jax.Array:
    """The curve as pixels are put in, the most important first: [B, steps + 1].

    Args:
        score, images, maps, steps: as in `deletion`.
        baseline: into what; None is the images, blurred, see `blur`.
    """
    images = jnp.asarray(images)
    if baseline is None:
        baseline = blur(images)
    blank = jnp.broadcast_to(jnp.asarray(baseline, images.dtype), images.shape)
    return _curve(score, blank, images, maps, steps)


def area(curve: jax.Array) -> jax.Array:
    """The area under a curve over [0, 1], by trapezes: [B, steps + 1] -> [B]."""
    middle = (curve[:, 1:] + curve[:, :-1]) / 2
    return middle.mean(axis=-1)


def blur(images: jax.Array, sigma: float | None = None) -> jax.Array:
    """Images [B, H, W, C] under a Gaussian, whose mass stays inside the image.

    Args:
        images: what to blur.
        sigma: its standard deviation, in pixels; None is that of the paper, 5 for 224
            pixels of the longer side, and in proportion.
    """
    longest = max(images.shape[1:3])
    sigma = BLUR * longest / PAPER_SIDE if sigma is None else sigma
    rows, columns = (
        jnp.asarray(_gaussian(side, sigma), images.dtype) for side in images.shape[1:3]
    )
    return jnp.einsum("yh,bhwc,xw->byxc", rows, images, columns, precision="highest")


def _gaussian(side: int, sigma: float) -> np.ndarray:
    apart = np.arange(side)[:, None] - np.arange(side)
    weights = np.exp(-(apart**2) / (2 * sigma**2))
    return weights / weights.sum(axis=1, keepdims=True)


def both(
    score: Score, images: jax.Array, maps: jax.Array, *, steps: int = STEPS
) -> tuple[jax.Array, jax.Array]:
    """Deletion and insertion, in one program, which compiles faster than two."""
    images = jnp.asarray(images)
    pairs = [(images, jnp.zeros_like(images)), (blur(images), images)]
    before, after = (jnp.stack(some) for some in zip(*pairs, strict=True))
    deleted, inserted = _curves(score, before, after, maps, steps)
    return deleted, inserted


def _curve(score, before, after, maps, steps) -> jax.Array:
    """The scores as pixels of `before` become those of `after`, [B, steps + 1]."""
    return _curves(score, before[None], after[None], maps, steps)[0]


def _curves(score, before, after, maps, steps) -> jax.Array:
    """The same of some pairs of images, [n, B, H, W, C]: [n, B, steps + 1]."""
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    if maps.shape != before.shape[1:4]:
        raise ValueError(
            f"maps of shape {list(maps.shape)} do not fit images of shape"
            f" {list(before.shape[1:])}"
        )
    pixels = math.prod(maps.shape[1:])
    order = jnp.argsort(-maps.reshape(len(maps), -1), axis=-1, stable=True)
    rank = jnp.argsort(order, axis=-1, stable=True).reshape(maps.shape)
    counts = np.rint(pixels * np.arange(steps + 1) / steps).astype(np.int32)

    def one(place: tuple[jax.Array, jax.Array]) -> jax.Array:
        pair, count = place
        return score(jnp.where((rank < count)[..., None], after[pair], before[pair]))

    pairs, taken = (
        jnp.asarray(some.ravel())
        for some in np.meshgrid(np.arange(len(before)), counts, indexing="ij")
    )
    scores = jax.lax.map(one, (pairs, taken))
    return scores.reshape(len(before), steps + 1, -1).swapaxes(1, 2)
