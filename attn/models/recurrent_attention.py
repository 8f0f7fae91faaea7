"""Recurrent attention (RAM): a network that sees an image by a few glimpses.

Mnih, Heess, Graves, Kavukcuoglu, "Recurrent Models of Visual Attention", NIPS 2014,
https://arxiv.org/abs/1406.6247, section 3.1 (glimpse sensor and network, core, location
network), 3.2 (baseline) and 4 (sizes).

Differs from the paper: the mean of a place is brought into [-1, 1] by tanh and what is
drawn round it is clipped there, as places outside the image teach nothing; what is
predicted after each glimpse is put out, not only after the last; and a filled slot
"grid" makes a soft attention of it, to compare with.

Letters: B examples, M draws of places, T glimpses, K classes, k scales, C channels, W
width.
"""

from collections.abc import Sequence
from typing import ClassVar, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from attn import modules
from attn.models import slots
from attn.models.base import Model
from attn.models.layers.checks import check_sizes
from attn.models.layers.dense import HE, LECUN, classify, dense, hidden
from attn.models.scaling import Width, step_of
from attn.modules import choices
from attn.modules.capture import COLLECTION
from attn.modules.glimpse.glimpse_sensor import check_patches
from attn.ops.glimpse import glimpses
from attn.ops.grid import regular_grid
from attn.settings import Invalid, Positive, PositiveFloat

Arrays = dict[str, jax.Array]


class RecurrentAttention(Model):
    """Looks T times: images [B, H, W, C] -> logits, places, and what rewards need.

    The outputs, all float32, are

        logits      [B, M, T, K] after each glimpse; the last ones are the prediction
        places      [B, M, T, 2], (x, y) of the middle of each glimpse in [-1, 1]
        log_prob    [B, M, T], of each place; 0 for the first, which is random
        baseline    [B, M, T], the reward that was expected before each glimpse

    of M independent draws of all places, of which an evaluation averages the
    probabilities. Of random places there are no log_prob and baseline. Neither these
    nor the place of a glimpse pass gradients to the rest of the network.

    Slots:

        input   the image, before everything
        grid    instead of glimpses that are placed, a token attention: in each step the
                state, which is the query, reads glimpses at grid_size x grid_size fixed
                places. M is 1, and there are no places and no baseline, but log_prob
                and entropy [B, 1, T] of an attention that draws, as "hard_attention"

    Attributes:
        num_classes: K.
        glimpses: T.
        size: side of the sharpest patch, in pixels.
        scales: k, the number of patches; each is twice as wide as the one before.
        locations: whether places are "learnt" or all "random".
        deviation: of a place round its mean, of an image that spans 2. In the paper it
            is fixed, too, but not told.
        samples: M in training.
        eval_samples: M in evaluation.
        patch_width: of the hidden layer on patches; the paper's is 128.
        place_width: of that on places; 128.
        width: W, of glimpses and of the state; 256.
        grid_size: side of the grid of a filled slot "grid".
        other attributes: see `Model`; places, log_prob and the heads are float32.

    Raises:
        Invalid: when it is made, a size below 1, or a slot, attention or setting that
            does not exist or fit; when it is called, a patch larger than the image.
    """

    places: ClassVar = {"input": 0, "grid": 0}
    task_layers: ClassVar = ("classifier", "baseline")

    num_classes: int
    glimpses: Positive = 6
    size: Positive = 8
    scales: Positive = 1
    locations: Literal["learnt", "random"] = "learnt"
    deviation: PositiveFloat = 0.15
    samples: Positive = 1
    eval_samples: Positive = 1
    patch_width: Positive = 128
    place_width: Positive = 128
    width: Positive = 256
    grid_size: Positive = 5

    def __post_init__(self):
        names = ("num_classes", "glimpses", "size", "scales", "samples", "grid_size")
        names += ("eval_samples", "patch_width", "place_width", "width")
        check_sizes(self, **{name: getattr(self, name) for name in names})
        super().__post_init__()
        for spec in self.fill.get("grid", ()):
            if not _reads(spec["name"]):
                found = [name for name in modules.names() if _reads(name)]
                raise Invalid(
                    f"slot 'grid': {spec['name']} cannot read other tokens than its own"
                    f" (valid: {', '.join(found)})"
                )

    def width_settings(self) -> dict[str, Width]:
        """The settings that scale its width, which heads in "grid" restrict."""
        step = step_of({"grid": self.fill.get("grid", ())}, {})
        return {
            "patch_width": Width(self.patch_width, 1),
            "place_width": Width(self.place_width, 1),
            "width": Width(self.width, step),
        }

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool) -> Arrays:
        image = image.astype(self.dtype or image.dtype)
        image = slots.attend(self, "input", image, train=train)
        check_patches((self.size, self.size), self.scales, image.shape[1:3])
        if slots.filled(self.fill, "grid"):
            states, outputs = self._read(image, train)
        else:
            states, outputs = self._look(image, train)
        logits = classify(self, states, self.num_classes, init=LECUN)
        return {"logits": logits, **outputs}

    def _look(self, image: jax.Array, train: bool) -> tuple[jax.Array, Arrays]:
        """The states after glimpses one after another, [B, M, T, W], and outputs."""
        draws = self.samples if train else self.eval_samples

        def look(model: "RecurrentAttention", state: jax.Array, first: jax.Array):
            place, outputs = model._place(state, first)
            glimpse = model._glimpse(image, place)
            state = model._core(state, glimpse)
            return state, (state, {"places": place, **outputs})

        start = jnp.zeros((len(image), draws, self.width), image.dtype)
        return self._scan(look)(self, start, jnp.arange(self.glimpses) == 0)[1]

    def _read(self, image: jax.Array, train: bool) -> tuple[jax.Array, Arrays]:
        """The states after readings of a grid of glimpses, and outputs."""
        size = (self.grid_size, self.grid_size)
        grid = regular_grid(size, align_corners=False)
        fixed = jnp.asarray(grid.reshape(1, -1, 2), jnp.float32)
        fixed = jnp.broadcast_to(fixed, (len(image), *fixed.shape[1:]))
        sources = self._glimpse(image, fixed)

        def read(attentions: Sequence[nn.Module], state: jax.Array) -> jax.Array:
            for attention in attentions:
                state = attention(state, sources, grid=size, train=train)
            return state

        def step(model: "RecurrentAttention", state: jax.Array, _: jax.Array):
            del _
            attentions = slots.build(model, "grid")
            state = model._core(state, read(attentions, state))
            return state, (state, choices.of(*attentions))

        start = jnp.zeros((len(image), 1, self.width), image.dtype)
        steps = jnp.arange(self.glimpses)
        _, (states, drawn) = self._scan(step)(self, start, steps)
        if self.is_mutable_collection(COLLECTION) and not self.is_initializing():
            # all at once, so that the maps that are recorded are of all steps
            before = jnp.concatenate([start[:, :, None], states[:, :, :-1]], axis=2)
            read(slots.build(self, "grid"), before[:, 0])
        if drawn is None:
            return states, {}
        return states, {"log_prob": drawn.log_prob, "entropy": drawn.entropy}

    def _scan(self, step):
        """Of steps that draw, and whose outputs are [B, M, T, ...]."""
        return nn.scan(
            step,
            variable_broadcast="params",
            variable_axes={choices.COLLECTION: 0},
            split_rngs={"params": False, "sample": True, "dropout": True},
            out_axes=2,
        )

    def _place(self, state: jax.Array, first: jax.Array) -> tuple[jax.Array, Arrays]:
        """Where to look next, [B, M, 2], and log_prob and baseline of learnt places."""
        key, noise = jax.random.split(self.make_rng("sample"))
        shape = (*state.shape[:2], 2)
        anywhere = jax.random.uniform(key, shape, jnp.float32, -1.0, 1.0)
        if self.locations == "random":
            return anywhere, {}
        state = jax.lax.stop_gradient(state).astype(jnp.float32)
        mean = jnp.tanh(dense(self, "locator", state, 2, LECUN))
        baseline = dense(self, "baseline", state, 1, LECUN)[..., 0]
        off = self.deviation * jax.random.normal(noise, shape, jnp.float32)
        drawn = jax.lax.stop_gradient(mean + off)
        log_prob = jax.scipy.stats.norm.logpdf(drawn, mean, self.deviation).sum(-1)
        place = jnp.where(first, anywhere, jnp.clip(drawn, -1.0, 1.0))
        log_prob = jnp.where(first, 0.0, log_prob)
        return place, {"log_prob": log_prob, "baseline": baseline}

    def _glimpse(self, image: jax.Array, places: jax.Array) -> jax.Array:
        """What is seen at some places, [B, P, 2] -> [B, P, W]."""
        size = (self.size, self.size)
        patches = glimpses(image, places, size, self.scales)
        patches = patches.reshape(*places.shape[:2], -1)
        what = hidden(self, "patch", patches, self.patch_width)
        where = hidden(self, "place", places.astype(what.dtype), self.place_width)
        both = dense(self, "glimpse_of_patch", what, self.width, HE)
        both += dense(self, "glimpse_of_place", where, self.width, HE)
        return nn.relu(both)

    def _core(self, state: jax.Array, glimpse: jax.Array) -> jax.Array:
        """The next state, [B, M, W]."""
        kept = dense(self, "core_of_state", state, self.width, LECUN)
        return nn.relu(kept + dense(self, "core_of_glimpse", glimpse, self.width, HE))


def _reads(name: str) -> bool:
    """Whether an attention may read the glimpses of a grid."""
    module = modules.find(name)
    if slots.contract(module) == "map":
        return False
    supports = slots.supports(module)
    return "cross" in supports and "grid" not in supports
