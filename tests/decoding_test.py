"""Searches against all sentences there are, and against that of transformers."""

import functools
import itertools
import pathlib

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.core import FrozenDict

from attn import decoding, settings
from attn.models import slots
from attn.models.layers.transformer import DecoderBlock
from tests.golden import make_beam_search as drawn

GOLDEN = np.load(pathlib.Path(__file__).parent / "golden" / "beam_search.npz")
START, END = 1, 2
SHAPE = drawn.tables().shape
GNMT = (5.0, 6.0, 0.6)  # of a penalty ((a + n) / b)^c


def table_step(tables):
    """A step whose logits are those of `drawn.tables`, [B, L, V, V]."""

    def step(tokens, cache):
        number, of = cache["number"], jnp.arange(len(tokens))
        here = cache["tables"][:, number]
        logits = here[of, tokens] + here[of, cache["before"]] / 2
        return logits, {**cache, "number": number + 1, "before": tokens}

    before = jnp.zeros(len(tables), jnp.int32)
    number = jnp.zeros((), jnp.int32)
    return step, {"number": number, "tables": jnp.asarray(tables), "before": before}


def next_chances(table, sentence):
    """Log-probabilities [V] of the word behind a sentence, by an example's table."""
    *_, before, last = (0, START, *sentence)
    here = table[len(sentence)]
    return log_softmax(here[last] + here[before] / 2)


def chance(table, sentence):
    """The log-probability of a sentence."""
    parts = [next_chances(table, sentence[:n])[word] for n, word in enumerate(sentence)]
    return sum(parts)


@functools.partial(jax.jit, static_argnames=("start", "end", "beams", "keep"))
def _search(tables, limits, rule, *, start, end, beams, keep):
    step, cache = table_step(tables)
    first = jnp.full(len(tables), start, jnp.int32)
    known = {"end": end, "length": tables.shape[1], "limits": limits}
    if beams is None:
        return decoding.greedy(step, cache, first, **known)
    if rule is not None:
        plus, over, alpha = rule
        known["penalty"] = lambda length: ((plus + length) / over) ** alpha
    return decoding.beam_search(step, cache, first, **known, beams=beams, keep=keep)


def search(tables, limits=None, *, beams=4, keep=1, rule=GNMT, start=START, end=END):
    """A compiled search through tables [B, L, V, V]; without beams a greedy one."""
    limits = np.full(len(tables), tables.shape[1]) if limits is None else limits
    named = {"start": start, "end": end, "beams": beams, "keep": keep}
    limits = jnp.asarray(limits, jnp.int32)
    return jax.device_get(_search(jnp.asarray(tables), limits, rule, **named))


def log_softmax(x):
    x = x.astype(np.float64)
    return x - np.log(np.exp(x).sum(axis=-1, keepdims=True))


def everything(table, limit, words, alpha):
    """All finished sentences of some words, with their scores, the best first."""
    found = []
    for n in range(limit):
        for words_before in itertools.product(words, repeat=n):
            sentence = (*words_before, END)
            score = chance(table, sentence) / ((6 + n) / 6) ** alpha
            found.append((score, sentence))
    return sorted(found, reverse=True)


@pytest.mark.parametrize("alpha", [0.0, 0.6, 2.0])
def test_enough_beams_find_the_best_of_all_sentences(alpha):
    words, size, limits = (4, 5, 9), 90, np.array([5, 3, 4, 1])
    tables = np.full((4, 5, size, size), -np.inf, np.float32)
    rng = np.random.default_rng(3)
    for word in (END, *words):
        tables[..., word] = 1.5 * rng.normal(size=(4, 5, size))
    tables[2, :, :, END] -= 4  # long sentences
    found = search(tables, limits, beams=81, keep=3, rule=(5.0, 6.0, alpha))
    for i, limit in enumerate(limits):
        best = everything(tables[i], limit, words, alpha)[:3]
        for k, (score, sentence) in enumerate(best):
            said = found.tokens[i, k]
            assert said[: len(sentence)].tolist() == list(sentence)
            assert not said[len(sentence) :].any()
            np.testing.assert_allclose(found.scores[i, k], score, rtol=1e-5)


@pytest.mark.parametrize("beams", drawn.BEAMS)
@pytest.mark.parametrize("alpha", drawn.ALPHAS)
def test_it_finds_what_transformers_finds(beams, alpha):
    rule = (0.0, 1.0, alpha)
    named = {"start": drawn.START, "end": drawn.END, "rule": rule}
    found = search(drawn.tables(), beams=beams, keep=beams, **named)
    want = {name: GOLDEN[f"{beams}/{alpha}/{name}"] for name in ("tokens", "scores")}
    np.testing.assert_array_equal(found.tokens, want["tokens"])
    np.testing.assert_allclose(found.scores, want["scores"], rtol=1e-5)


LIMITS = np.array([9, 2, 4, 9, 0])


def random_tables(seed=1):
    """Logits, of the shape of the golden's, that end now and then."""
    return np.random.default_rng(seed).normal(size=SHAPE).astype(np.float32)


def test_the_penalty_is_that_of_wu_and_others():
    named = decoding.length_penalty(0.6)(np.array([1, 7]))
    np.testing.assert_allclose(named, [1.0, 2**0.6])
    found = search(random_tables(), rule=None)
    want = search(random_tables())
    np.testing.assert_array_equal(found.tokens, want.tokens)
    np.testing.assert_allclose(found.scores, want.scores, rtol=1e-5)


def test_greedy_takes_the_best_word_each_time():
    tables = random_tables()
    found = search(tables, LIMITS, beams=None)
    for i, limit in enumerate(np.maximum(LIMITS, 1)):
        said = []
        while END not in said and len(said) < limit:
            said.append(int(next_chances(tables[i], said).argmax()))
        assert found.tokens[i, 0].tolist() == said + [0] * (9 - len(said))
        want = chance(tables[i], said)
        np.testing.assert_allclose(found.scores[i, 0], want, rtol=1e-5)


def test_one_beam_is_greedy_where_the_end_is_the_best_or_impossible():
    tables = random_tables()
    tables[..., END] = np.where(tables[..., END] > 1, 9, -np.inf)
    one = search(tables, LIMITS, beams=1, rule=(5.0, 6.0, 0.0))
    greedy = search(tables, LIMITS, beams=None)
    np.testing.assert_array_equal(one.tokens, greedy.tokens)
    np.testing.assert_allclose(one.scores, greedy.scores, rtol=1e-5)


def test_an_example_does_not_depend_on_the_others():
    tables, others = random_tables(), random_tables(2)
    together = search(tables, LIMITS, keep=4)
    for i in range(len(tables)):
        others[i] = tables[i]
        alone = search(others, np.full(5, LIMITS[i]), keep=4)
        np.testing.assert_array_equal(together.tokens[i], alone.tokens[i])
        np.testing.assert_array_equal(together.scores[i], alone.scores[i])


def test_what_cannot_end_is_found_as_it_is_at_the_limit():
    tables = random_tables()
    tables[0, ..., END] = -np.inf
    found = search(tables, np.full(5, 6), keep=4)
    assert (found.tokens[0, :, :6] != END).all() and not found.tokens[0, :, 6:].any()
    for sentence, score in zip(found.tokens[0], found.scores[0], strict=True):
        want = chance(tables[0], sentence[:6]) / (11 / 6) ** 0.6
        np.testing.assert_allclose(score, want, rtol=1e-5)


def test_the_best_is_the_same_however_many_are_kept():
    for seed in range(3):
        one, more = (search(random_tables(seed), keep=keep) for keep in (1, 4))
        np.testing.assert_array_equal(one.tokens[:, 0], more.tokens[:, 0])
        assert (more.scores[:, :-1] >= more.scores[:, 1:]).all()


@pytest.mark.parametrize("beams", [None, 4])
def test_an_example_with_a_nan_has_no_words(beams):
    tables = random_tables()
    clean = search(tables, beams=beams)
    tables[1, 0] = np.nan
    tables[3, 0, START, 5] = np.inf
    tables[4, 0] = -np.inf
    found = search(tables, beams=beams)
    broken = np.array([False, True, False, True, True])
    assert np.isnan(found.scores[broken]).all() and not found.tokens[broken].any()
    np.testing.assert_array_equal(found.tokens[~broken], clean.tokens[~broken])
    np.testing.assert_array_equal(found.scores[~broken], clean.scores[~broken])


@pytest.mark.parametrize(
    "beams, keep, message",
    [
        (12, 1, "beams must be from 1 to the 11 words of the vocabulary, got 12"),
        (0, 1, "cannot keep 1 sentences of 0 beams"),
        (2, 3, "cannot keep 3 sentences of 2 beams"),
    ],
)
def test_beams_that_no_search_can_have_are_refused(beams, keep, message):
    with pytest.raises(settings.Invalid, match=message):
        search(random_tables(), beams=beams, keep=keep)


class Reader(nn.Module):
    """A decoder of one layer, the least that keeps the contract of `generate`."""

    words: int = 13

    def setup(self):
        heads = {"name": "multi_head", "num_heads": 2}
        fill = slots.flatten({"decoder.self": heads, "decoder.cross": heads})
        self.embed = nn.Embed(self.words, 12)
        self.block = DecoderBlock(fill=FrozenDict(fill))
        self.norm = nn.LayerNorm()
        self.logits = nn.Dense(self.words)

    def encode(self, source, mask, *, train):
        del train
        return self.embed(source), mask

    def decode(self, tokens, memory, *, decode=False, train):
        memory, mask = (None, None) if memory is None else memory
        more = {"memory_mask": mask, "decode": decode, "train": train}
        x = self.embed(tokens)
        x = self.block(x, memory, **more) - x  # or each word would follow itself
        return self.logits(self.norm(x))

    def __call__(self, source, mask, tokens, *, train):
        return self.decode(tokens, self.encode(source, mask, train=train), train=train)


@functools.cache
def reader():
    """A model, random variables, and sources with their mask."""
    model = Reader()
    rng = np.random.default_rng(0)
    source = jnp.asarray(rng.integers(3, 13, (5, 6)), jnp.int32)
    mask = jnp.asarray(np.arange(6) < np.array([[6], [3], [1], [5], [6]]))
    init = functools.partial(model.init, train=False)
    shapes = jax.eval_shape(init, jax.random.key(0), source, mask, source)
    rng = np.random.default_rng(1)
    draw = lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), jnp.float32)
    drawn = jax.tree.map(draw, shapes)["params"]
    small = jax.tree.map(lambda x: 0.3 * x, drawn)  # but for the words
    return model, {"params": {**small, "embed": drawn["embed"]}}, (source, mask)


def uncached(model, variables, sources, length):
    """A step that reads all words again each time."""
    memory = model.apply(variables, *sources, train=False, method="encode")

    def step(tokens, cache):
        number = cache["number"]
        said = cache["said"].at[:, number].set(tokens)
        logits = model.apply(
            variables, said, cache["memory"], train=False, method="decode"
        )
        logits = logits[:, number].at[:, jnp.array([0, START])].set(-jnp.inf)
        return logits, {"number": number + 1, "said": said, "memory": cache["memory"]}

    said = jnp.zeros((len(sources[0]), length), jnp.int32)
    return step, {"number": jnp.zeros((), jnp.int32), "said": said, "memory": memory}


@pytest.mark.parametrize("beams", [1, 4])
def test_a_cache_changes_nothing(beams):
    model, variables, sources = reader()
    known = {"end": END, "length": 9, "limits": sources[1].sum(axis=1) + 3}
    first = jnp.full(5, START, jnp.int32)
    some = {"beams": beams, "keep": beams}

    @jax.jit
    def both(ending):
        bias = jnp.zeros(model.words).at[END].set(ending)
        logits = {**variables["params"]["logits"], "bias": bias}
        changed = {"params": {**variables["params"], "logits": logits}}
        found = decoding.generate(
            model, changed, sources, start=START, never=(0, START), **some, **known
        )
        step, cache = uncached(model, changed, sources, 9)
        if beams == 1:
            return found, decoding.greedy(step, cache, first, **known)
        return found, decoding.beam_search(step, cache, first, **some, **known)

    words = set()
    for ending in (-2.0, -0.5, 0.0, 0.5):  # the logit of the end
        found, want = jax.device_get(both(ending))
        np.testing.assert_array_equal(found.tokens, want.tokens)
        np.testing.assert_allclose(found.scores, want.scores, rtol=1e-4)
        words |= set(found.tokens.flat)
    assert len(words) > 4  # they say something


@pytest.mark.parametrize("beams", [None, 3])
def test_behind_the_end_is_the_padding_that_is_asked_for(beams):
    step, cache = table_step(drawn.tables())
    first = jnp.full(len(drawn.tables()), START, jnp.int32)
    search = decoding.greedy
    if beams is not None:
        search = functools.partial(decoding.beam_search, beams=beams)
    plain, other = (
        jax.jit(functools.partial(search, step, end=END, length=SHAPE[1], pad=pad))(
            cache, first
        )
        for pad in (decoding.PAD, 7)
    )
    ends = np.asarray(plain.tokens) == END
    behind = np.cumsum(ends, axis=-1) - ends > 0
    assert behind.any()
    np.testing.assert_array_equal(plain.tokens, np.where(behind, 0, other.tokens))
    np.testing.assert_array_equal(np.asarray(other.tokens)[behind], 7)
