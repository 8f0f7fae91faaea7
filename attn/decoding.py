"""Decoding: sentences from a model that tells the next word, greedily or by beams.

Both searches are pure functions with static shapes, to be compiled, over a step

    step(tokens [N], cache) -> (logits [N, V], cache)

that appends one token to each of N sentences and tells the logits of the next. Letters:
B examples, K beams, L tokens of a sentence at most, V words. `generate` makes the step
of a model with

    encode(*sources, train) -> memory
    decode(tokens [B, T], memory or None, *, decode, train) -> logits [B, T, V]

whose attention modules keep what they have read in the collection "cache"
(`attn.modules.token`), so that translation and captioning are decoded alike.

Beam search is that of tensor2tensor, with which "Attention Is All You Need" (Vaswani et
al. 2017, https://arxiv.org/abs/1706.03762, section 6.1) was decoded, 4 beams and 0.6.
The length penalty is that of Wu et al., "Google's Neural Machine Translation System",
2016, https://arxiv.org/abs/1609.08144, equation 14, without their penalty of coverage.
Other than in tensor2tensor each example has a limit of its own, so that its sentence
does not depend on the batch that it is in, and only as many beams must be beyond reach
as are kept. Other searches let a sentence end only where the end is among the K best
continuations of all; here, as there, it may be any of the 2 K best.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from attn import settings

Cache = Any
Step = Callable[[jax.Array, Cache], tuple[jax.Array, Cache]]
Penalty = Callable[[jax.Array], jax.Array]
Reorder = Callable[[Cache, jax.Array], Cache]

BEAMS, ALPHA = 4, 0.6  # of the paper
PAD = 0  # behind the end of a sentence


class Found(NamedTuple):
    """Sentences, the best first, without the start.

    An example whose logits became NaN, or all -inf, has the score NaN and no words.
    """

    tokens: jax.Array
    """int32 [B, kept, L], the end included where it was reached; padding behind it"""
    scores: jax.Array
    """float32 [B, kept]: log-probability over the penalty; -inf for no sentence"""


def length_penalty(alpha: float = ALPHA) -> Penalty:
    """The penalty ((5 + n) / 6)^alpha of n tokens; alpha = 0 has none."""
    return lambda length: ((5 + length) / 6) ** alpha


def check(beams: int, words: int) -> None:
    """Refuses a number of beams that no search can have.

    Raises:
        settings.Invalid: fewer beams than 1, or more than there are words.
    """
    if not 1 <= beams <= words:
        raise settings.Invalid(
            f"beams must be from 1 to the {words} words of the vocabulary, got {beams}"
        )


def greedy(
    step: Step,
    cache: Cache,
    start: jax.Array,
    *,
    end: int,
    length: int,
    limits: jax.Array | None = None,
    pad: int = PAD,
) -> Found:
    """The sentence of which each word is the likeliest, given those before.

    Args:
        step: see above.
        cache: what the step begins with. The first step may return one of another
            structure; from then on it stays as it is.
        start: int32 [B], the token before the first word.
        end: the token that ends a sentence.
        length: L, tokens of a sentence at most, the end included.
        limits: int32 [B], the same for each example, at least 1; None takes L.
        pad: what stands behind the end.

    Returns:
        One sentence an example, its score the log-probability.
    """
    limits = _limits(limits, start, length)

    def advance(state: _Greedy, logits: jax.Array, cache: Cache) -> _Greedy:
        own, token = _best(logits, 1)
        own, token = own[:, 0], jnp.where(state.done, pad, token[:, 0])
        place = state.tokens.at[:, state.number].set(token)
        score = state.score + jnp.where(state.done, 0.0, own)
        number = state.number + 1
        done = state.done | (token == end) | jnp.isnan(score) | (number >= limits)
        return _Greedy(number, place, score, done, cache)

    def body(state: _Greedy) -> _Greedy:
        return advance(state, *step(state.tokens[:, state.number - 1], state.cache))

    examples = len(start)
    first = _Greedy(
        number=jnp.zeros((), jnp.int32),
        tokens=jnp.full((examples, length), pad, jnp.int32),
        score=jnp.zeros(examples),
        done=jnp.zeros(examples, bool),
        cache=None,
    )
    first = advance(first, *step(start, cache))
    last = jax.lax.while_loop(lambda state: ~state.done.all(), body, first)
    broken = jnp.isnan(last.score)
    return _found(last.tokens[:, None], last.score[:, None], broken, pad)


def beam_search(
    step: Step,
    cache: Cache,
    start: jax.Array,
    *,
    end: int,
    length: int,
    limits: jax.Array | None = None,
    pad: int = PAD,
    beams: int = BEAMS,
    keep: int = 1,
    penalty: Penalty | None = None,
    reorder: Reorder | None = None,
) -> Found:
    """The likeliest sentences that a search with some beams finds.

    Of each example K sentences are alive, those of the highest log-probability, and K
    are finished, those of the highest score. The search of an example ends at its
    limit, or where the best one alive could not, at the penalty of the limit, come
    among the finished ones that are kept. Where none is finished, those alive at the
    limit are found. One beam is `greedy` only without a penalty: the second best word
    lives on where the best is the end.

    Args:
        step, start, end, length, limits, pad: as of `greedy`. The first step is of B
            sentences, the others are of B * K.
        cache: as of `greedy`; its arrays begin with the axis of sentences, but for
            scalars, which all share.
        beams: K.
        keep: sentences that are returned of each example, at most K.
        penalty: of a length in tokens, the end included, by which log-probabilities
            are divided; it must not fall with the length. None is `length_penalty()`.
        reorder: (cache, which of its sentences [B * K]) -> cache of these; None takes
            them of all arrays.

    Raises:
        settings.Invalid: fewer beams than 1 or than are kept, or more than words.
    """
    if not 1 <= keep <= beams:
        raise settings.Invalid(f"cannot keep {keep} sentences of {beams} beams")
    search = _Search(
        end=end,
        limits=_limits(limits, start, length),
        pad=pad,
        beams=beams,
        keep=keep,
        penalty=penalty or length_penalty(),
    )
    examples = len(start)
    logits, cache = step(start, cache)
    check(beams, logits.shape[-1])
    state, _ = search.advance(search.begin(examples, length), logits[:, None])
    cache = take(cache, jnp.repeat(jnp.arange(examples), beams))

    def body(carried: tuple[_Beams, Cache]) -> tuple[_Beams, Cache]:
        state, cache = carried
        token = state.alive[:, :, state.number - 1]
        logits, cache = step(token.reshape(-1), cache)
        after, order = search.advance(state, logits.reshape(examples, beams, -1))
        return search.kept(state, after), (reorder or take)(cache, order)

    ongoing = lambda carried: ~search.done(carried[0]).all()
    last, _ = jax.lax.while_loop(ongoing, body, (state, cache))
    return search.found(last)


def take(cache: Cache, order: jax.Array) -> Cache:
    """Some sentences of a cache, whose scalars all share."""
    return jax.tree.map(lambda x: x[order] if jnp.ndim(x) else x, cache)


def generate(
    model: nn.Module,
    variables: Any,
    sources: Sequence[jax.Array],
    *,
    start: int,
    end: int,
    length: int,
    limits: jax.Array | None = None,
    pad: int = PAD,
    beams: int = BEAMS,
    keep: int = 1,
    penalty: Penalty | None = None,
    never: Sequence[int] = (),
    rngs: Mapping[str, jax.Array] | None = None,
) -> Found:
    """What a model with `encode` and `decode` says to sources: see the module.

    Args:
        model, variables: what decodes.
        sources: what `encode` is called with, [B, ...] each.
        start, end: the tokens before the first word and behind the last.
        length, limits, pad: as of `greedy`.
        beams: K; one is decoded greedily, without a penalty.
        keep, penalty: as of `beam_search`.
        never: tokens that are no word, such as padding.
        rngs: for models that draw in an evaluation.

    Raises:
        settings.Invalid: as of `beam_search`.
    """
    call = {"decode": True, "train": False, "method": "decode"}
    rngs = dict(rngs or {})
    memory = model.apply(variables, *sources, train=False, method="encode", rngs=rngs)
    first = jnp.full(len(sources[0]), start, jnp.int32)
    # a call of full length makes the cache; of it the compiler keeps nothing else
    whole = jnp.zeros((len(first), length), jnp.int32)
    cache = model.init(jax.random.key(0), whole, memory, **call)["cache"]
    barred = jnp.asarray(never, jnp.int32)

    def step(tokens: jax.Array, state: Any) -> tuple[jax.Array, Any]:
        memory, cache = state  # the memory in the first step alone
        logits, changed = model.apply(
            {**variables, "cache": cache},
            tokens[:, None],
            memory,
            **call,
            mutable=["cache"],
            rngs=rngs,
        )
        logits = logits[:, -1].at[:, barred].set(-jnp.inf)
        return logits, (None, changed["cache"])

    known = {"end": end, "length": length, "limits": limits, "pad": pad}
    if beams == 1 and keep == 1:
        return greedy(step, (memory, cache), first, **known)
    return beam_search(
        step,
        (memory, cache),
        first,
        **known,
        beams=beams,
        keep=keep,
        penalty=penalty,
        reorder=_reorder,
    )


class _Greedy(NamedTuple):
    """The state of a greedy search."""

    number: jax.Array  # of tokens
    tokens: jax.Array  # [B, L]
    score: jax.Array  # [B]
    done: jax.Array  # [B]
    cache: Cache


class _Beams(NamedTuple):
    """The state of a beam search, without the cache; scores fall along the beams."""

    number: jax.Array  # of tokens
    alive: jax.Array  # [B, K, L]
    chances: jax.Array  # [B, K], log-probabilities of these
    finished: jax.Array  # [B, K, L]
    scores: jax.Array  # [B, K], of these, -inf for none
    broken: jax.Array  # [B], whether there was a NaN


class _Search(NamedTuple):
    """A beam search, of which `beam_search` is the loop; see its arguments."""

    end: int
    limits: jax.Array
    pad: int
    beams: int
    keep: int
    penalty: Penalty

    def begin(self, examples: int, length: int) -> _Beams:
        """The state before the first token, when one sentence is alive."""
        empty = jnp.full((examples, self.beams, length), self.pad, jnp.int32)
        return _Beams(
            number=jnp.zeros((), jnp.int32),
            alive=empty[:, :1],
            chances=jnp.zeros((examples, 1)),
            finished=empty,
            scores=jnp.full((examples, self.beams), -jnp.inf),
            broken=jnp.zeros(examples, bool),
        )

    def done(self, state: _Beams) -> jax.Array:
        """Whether the search of each example has ended, [B]."""
        bound = state.chances[:, 0] / self.penalty(self.limits)
        beyond = state.scores[:, self.keep - 1] >= bound
        return beyond | state.broken | (state.number >= self.limits)

    def advance(self, state: _Beams, logits: jax.Array) -> tuple[_Beams, jax.Array]:
        """Appends a token to what is alive, of whose next words there are the logits.

        Args:
            state: before.
            logits: [B, K, V], of the first token [B, 1, V].

        Returns:
            The state behind, and of which of the sentences [B * K] those alive are.
        """
        examples, alive, words = logits.shape
        # of twice as many as are taken, one for each sentence may be its end
        best, words = _best(logits, min(2 * self.beams, words))
        before = state.chances[..., None]
        best = jnp.where(before > -jnp.inf, before + best, -jnp.inf)
        broken = jnp.isnan(best).any(axis=(1, 2))
        best = best.reshape(examples, -1)
        chances, chosen = jax.lax.top_k(best, min(2 * self.beams, best.shape[1]))
        parent = chosen // words.shape[-1]
        token = jnp.take_along_axis(words.reshape(examples, -1), chosen, axis=1)
        sentences = _of(state.alive, parent).at[:, :, state.number].set(token)
        ended = token == self.end
        scores = chances / self.penalty(state.number + 1)
        scores = jnp.where(ended, scores, -jnp.inf)
        scores, kept = jax.lax.top_k(
            jnp.concatenate([state.scores, scores], axis=1), self.beams
        )
        finished = _of(jnp.concatenate([state.finished, sentences], axis=1), kept)
        chances, living = jax.lax.top_k(jnp.where(ended, -jnp.inf, chances), self.beams)
        after = _Beams(
            number=state.number + 1,
            alive=_of(sentences, living),
            chances=chances,
            finished=finished,
            scores=scores,
            broken=broken,
        )
        parent = jnp.take_along_axis(parent, living, axis=1)
        order = (jnp.arange(examples)[:, None] * alive + parent).reshape(-1)
        return after, order

    def kept(self, before: _Beams, after: _Beams) -> _Beams:
        """The state behind a token, but what it was of examples that were done."""
        done = self.done(before)

        def choose(old: jax.Array, new: jax.Array) -> jax.Array:
            return jnp.where(done.reshape(-1, *[1] * (new.ndim - 1)), old, new)

        kept = jax.tree.map(
            choose, before._replace(number=None), after._replace(number=None)
        )
        return kept._replace(number=after.number)

    def found(self, state: _Beams) -> Found:
        """What the search has found: the finished, or those alive where none is."""
        none = state.scores[:, 0] == -jnp.inf
        tokens = jnp.where(none[:, None, None], state.alive, state.finished)
        alive = state.chances / self.penalty(self.limits)[:, None]
        scores = jnp.where(none[:, None], alive, state.scores)
        kept = tokens[:, : self.keep], scores[:, : self.keep]
        return _found(*kept, state.broken, self.pad)


def _limits(limits: jax.Array | None, start: jax.Array, length: int) -> jax.Array:
    """Tokens of each example at most, [B]."""
    if limits is None:
        return jnp.full(len(start), length, jnp.int32)
    return jnp.clip(limits, 1, length).astype(jnp.int32)


def _best(logits: jax.Array, most: int) -> tuple[jax.Array, jax.Array]:
    """The likeliest words by logits [..., V]: log-probabilities, and which they are.

    The log-probabilities are NaN where any logit is, or all are -inf.
    """
    logits = logits.astype(jnp.float32)
    best, words = jax.lax.top_k(logits, most)
    return best - jax.nn.logsumexp(logits, axis=-1, keepdims=True), words


def _of(sentences: jax.Array, which: jax.Array) -> jax.Array:
    """Sentences [B, m, L] by their numbers [B, n]."""
    return jnp.take_along_axis(sentences, which[:, :, None], axis=1)


def _found(tokens: jax.Array, scores: jax.Array, broken: jax.Array, pad: int) -> Found:
    """Sentences and scores, but none for examples that are broken."""
    tokens = jnp.where(broken[:, None, None], pad, tokens)
    return Found(tokens, jnp.where(broken[:, None], jnp.nan, scores))


def _reorder(state: Any, order: jax.Array) -> Any:
    """Takes sentences of the caches of a model, but for what it keeps of its sources.

    That is the same for all beams of an example. It is where a module keeps sources
    and their mask, and no index: see `attn.modules.token`.
    """
    memory, cache = state

    def of(node: Any) -> Any:
        if not isinstance(node, Mapping):
            return take(node, order)
        if "cached_kv_mask" in node and "cached_index" not in node:
            return node
        return {name: of(part) for name, part in node.items()}

    return memory, of(cache)
