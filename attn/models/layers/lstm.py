"""A recurrent decoder that looks at an image before each word it writes.

Xu et al., "Show, Attend and Tell", ICML 2015, https://arxiv.org/abs/1502.03044,
sections 3.1.2 and 4, equations 1 to 3 and 7.

Letters used in shapes:
    B batch, T words, V vocabulary, E channels of a word, n channels of the state, h w =
    S places of the map (the annotations) of D channels.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from attn.models import slots
from attn.models.base import Slotted
from attn.models.layers.dense import LECUN, classify, dense, drop
from attn.modules import choices
from attn.modules.capture import Map, listening, sow

CACHE = "cache"
PLACE = "decoder.cross"

Carry = tuple[jax.Array, jax.Array]  # the memory c and the state h, [B, n] each


class Step(NamedTuple):
    """What one step makes, or all of them, with an axis of words behind B."""

    state: jax.Array
    """h after the step, [B, n]"""
    context: jax.Array
    """z, what was read of the image, [B, D]"""
    attention: jax.Array | None
    """what share of it each place was, float32 [B, S], where that is known"""
    choice: choices.Choice | None
    """of hard attention in training: [B] each"""
    expected: jax.Array | None = None
    """the reward that is expected before the step, float32 [B], if that is learnt"""


class Cell(Slotted):
    """One step: the carry, a word, the annotations -> the carry, and a `Step`.

    What is in the slot "decoder.cross" has the state h before the step as its query,
    [B, 1, n], and the annotations as keys and values. Where the slot is empty the mean
    of the annotations is read, or nothing.

    Attributes:
        width: n.
        other attributes: see `Slotted`.
    """

    width: int

    @nn.compact
    def __call__(
        self,
        carry: Carry,
        word: jax.Array,
        seen: jax.Array,
        pooled: jax.Array,
        annotations: jax.Array | None,
        decode: bool,
        train: bool,
    ) -> tuple[Carry, Step]:
        """The step.

        Args:
            carry: c and h.
            word: what the gates have of the word before, [B, 4 n].
            seen: whether the mean is read in this step, a scalar.
            pooled: the mean of the annotations, [B, D].
            annotations: [B, S, D]; None where an earlier step has them in the cache.
            decode, train: as of token attentions.
        """
        memory, state = carry
        if slots.filled(self.fill, PLACE):
            found = self._read(state, annotations, decode, train)
        else:
            found = _evenly(seen, pooled, annotations, decode)
        context, weights, choice = found
        gates = word + dense(
            self,
            "gates",
            jnp.concatenate([state, context.astype(state.dtype)], axis=-1),
            4 * self.width,
            LECUN,
        )
        i, f, o, g = jnp.split(gates, 4, axis=-1)
        memory = nn.sigmoid(f) * memory + nn.sigmoid(i) * nn.tanh(g)
        state = nn.sigmoid(o) * nn.tanh(memory)
        return (memory, state), Step(state, context, weights, choice)

    def _read(
        self,
        state: jax.Array,
        annotations: jax.Array | None,
        decode: bool,
        train: bool,
    ) -> tuple[Any, ...]:
        """z, the weights of the places where they are known, and the choice."""
        modules = slots.build(self, PLACE)
        query, options = state[:, None], {"decode": decode, "train": train}
        with listening() as heard:
            for module in modules:
                query = slots.on_tokens(module, query, annotations, **options)
        weights = attended(heard)
        weights = None if weights is None else weights[:, 0]
        choice = choices.of(*modules) if train else None
        return query[:, 0], weights, jax.tree.map(lambda x: x[:, 0], choice)


class LSTMDecoder(Slotted):
    """Words [B, T] and a map [B, h, w, D] -> logits [B, T, V], and the steps.

    c and h start as two linear maps of the mean annotation, through tanh. The logits
    are L_o tanh(E y + L_h h + L_z z), with dropout of h and before L_o.

    Attributes:
        vocab_size: V.
        width: n.
        embedding: E.
        dropout: rate.
        pool: at which words an empty slot reads the mean annotation: "every", or the
            "first" alone.
        baseline: whether it learns what reward to expect.
        other attributes: see `Slotted`.
    """

    vocab_size: int
    width: int
    embedding: int
    dropout: float
    pool: Literal["every", "first"]
    baseline: bool

    @nn.compact
    def __call__(
        self,
        words: jax.Array,
        grid_map: jax.Array | None = None,
        *,
        decode: bool = False,
        train: bool = False,
    ) -> tuple[jax.Array, Step]:
        """The logits of the next words, float32.

        Args:
            words: int [B, T].
            grid_map: the annotations; None where an earlier call with `decode` has
                them in the cache.
            decode: whether to go on from the cache.
            train: whether to drop and to draw.
        """
        kinds = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        known = nn.Embed(self.vocab_size, self.embedding, name="embedding", **kinds)(
            words
        )
        asked = dense(self, "gates_of_words", known, 4 * self.width, LECUN)
        if decode:
            steps = self._continued(asked, grid_map)
        else:
            steps = self._unrolled(asked, grid_map, train)
        hidden = dense(
            self, "state_out", drop(self, steps.state, train), self.embedding, LECUN
        )
        context = steps.context.astype(hidden.dtype)
        hidden += dense(self, "context_out", context, self.embedding, LECUN)
        hidden = drop(self, nn.tanh(known + hidden), train)
        return classify(self, hidden, self.vocab_size, init=LECUN, name="words"), steps

    def _unrolled(self, words: jax.Array, grid_map: jax.Array, train: bool) -> Step:
        """All steps, given the words before each: teacher forcing."""
        tokens = as_tokens(grid_map)
        carry, pooled = self._start(tokens)
        seen = jnp.arange(words.shape[1]) < self._until(words.shape[1])
        step = _forced_step(self._cell(Cell), carry, words[:, 0], pooled, tokens, train)
        names = [name for name in ("sample", "dropout") if self.has_rng(name)]
        keys = {
            name: jax.random.split(self.make_rng(name), len(seen)) for name in names
        }
        fed = (jnp.moveaxis(words, 1, 0), seen, keys)
        _, steps = jax.lax.scan(lambda carry, fed: step(carry, *fed), carry, fed)
        steps = jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1), steps)
        if self.baseline:
            before = jnp.concatenate([carry[1][:, None], steps.state[:, :-1]], axis=1)
            before = jax.lax.stop_gradient(before).astype(jnp.float32)
            expected = dense(self, "baseline", before, 1, LECUN)[..., 0]
            steps = steps._replace(expected=expected)
        if steps.attention is not None:
            weights = steps.attention[:, None]
            sow(self, "token_matrix", weights, grid=grid_map.shape[1:3])
        return steps

    def _continued(self, words: jax.Array, grid_map: jax.Array | None) -> Step:
        """The steps that follow those in the cache, which stand in it afterwards."""
        tokens = None if grid_map is None else as_tokens(grid_map)
        carry = pooled = None
        if tokens is not None:
            carry, pooled = self._start(tokens)
        first = None if carry is None else (*carry, pooled)
        names = ("cached_memory", "cached_state", "cached_mean")
        kept = [
            self.variable(CACHE, name, lambda i=i: jnp.zeros_like(first[i]))
            for i, name in enumerate(names)
        ]
        count = self.variable(CACHE, "cached_count", jnp.zeros, (), jnp.int32)
        if first is None:
            first = [variable.value for variable in kept]
        *carry, pooled = first
        carry, cell, steps = tuple(carry), self._cell(Cell), []
        # the cache is made with a call of full length, of which one step is enough
        length = 1 if self.is_initializing() else words.shape[1]
        for place in range(length):
            seen = count.value + place < self._until(None)
            fed = (words[:, place], seen, pooled, tokens, True, False)
            carry, step = cell(carry, *fed)
            steps.append(step)
            tokens = None
        if not self.is_initializing():
            for variable, value in zip(kept, (*carry, pooled), strict=True):
                variable.value = value
            count.value += length
        steps = jax.tree.map(lambda *parts: jnp.stack(parts, axis=1), *steps)
        if length < words.shape[1]:
            steps = jax.tree.map(lambda x: jnp.repeat(x, words.shape[1], 1), steps)
        return steps

    def _start(self, tokens: jax.Array) -> tuple[Carry, jax.Array]:
        """The carry before the first word, and the mean annotation."""
        pooled = tokens.astype(jnp.float32).mean(axis=1).astype(tokens.dtype)
        carry = (
            nn.tanh(dense(self, name, pooled, self.width, LECUN))
            for name in ("start_memory", "start_state")
        )
        return tuple(carry), pooled

    def _until(self, length: int | None) -> int:
        """The number of words at which an empty slot reads the mean."""
        most = jnp.iinfo(jnp.int32).max if length is None else length
        return 1 if self.pool == "first" else most

    def _cell(self, kind: Any) -> Any:
        return kind(width=self.width, fill=self.fill, name="cell", **self.inherited())


def _forced_step(
    cell: Cell,
    carry: Carry,
    word: jax.Array,
    pooled: jax.Array,
    tokens: jax.Array,
    train: bool,
) -> Callable[[Carry, jax.Array, jax.Array, Mapping[str, jax.Array]], tuple]:
    """A step of a cell, given the carry, a word, `seen` and keys of what is random.

    What attention makes of the annotations, such as keys, is made once, before all
    steps, and so are its gradients: it is in the cache as when words are decoded.
    """
    stored = slots.filled(cell.fill, PLACE)
    first = carry, word, jnp.array(True), pooled
    if cell.is_initializing():  # makes the parameters
        cell(*first, tokens, False, False)
    cell, variables = cell.unbind()
    if stored:
        init = functools.partial(cell.init, decode=True, train=False)
        made = jax.eval_shape(init, jax.random.key(0), *first, tokens)[CACHE]
        empty = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), made)
        fill = {"decode": True, "train": False, "mutable": CACHE}
        _, kept = cell.apply(variables | {CACHE: empty}, *first, tokens, **fill)
        variables, tokens = variables | kept, None

    def step(carry, word, seen, keys):
        fed = carry, word, seen, pooled, tokens, stored, train
        changed = (CACHE, choices.COLLECTION)
        return cell.apply(variables, *fed, rngs=keys, mutable=changed)[0]

    return step


def _evenly(
    seen: jax.Array, pooled: jax.Array, annotations: jax.Array | None, decode: bool
) -> tuple[jax.Array, jax.Array | None, None]:
    """What `Cell` reads of an empty slot: the mean, or nothing, and its weights."""
    weights = None
    if not decode:
        shape = annotations.shape[:2]
        weights = jnp.where(seen, jnp.full(shape, 1 / shape[1]), 0)
    return jnp.where(seen, pooled, 0), weights, None


def as_tokens(grid_map: jax.Array) -> jax.Array:
    """The places of a map in rows, [B, h, w, D] -> [B, S, D]."""
    return grid_map.reshape(len(grid_map), -1, grid_map.shape[-1])


def attended(heard: list[Map]) -> jax.Array | None:
    """What share of all sources each target read last, [B, T, S], the mean of heads."""
    found = [one.values for one in heard if one.kind == "token_matrix"]
    return found[-1].astype(jnp.float32).mean(axis=1) if found else None
