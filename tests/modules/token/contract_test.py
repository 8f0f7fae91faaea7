"""The contract of token modules, for every one of them by what its card supports.

Each property names the bug that it catches: masks turned around or applied after the
softmax, a later token that is seen, a cache that is read beyond its end, padding whose
NaN times zero is NaN.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import attn
from attn import settings
from attn.modules.token import Token
from tests.modules.cases import ALL, GRID, TOKEN, close, initialise, made, need, on_grid

OPTIONS = ("mask", "kv_mask", "causal", "decode")
TOKENS = 12


@pytest.fixture(scope="module", params=TOKEN)
def subject(request):
    """Each case in turn; pytest runs all tests of one before the next."""
    return made(request.param)


def asked(option):
    """Arguments that ask for `option`."""
    masks = {"mask": (1, 1, 12, 12), "kv_mask": (8, 12)}
    if option in masks:
        return {option: np.ones(masks[option], bool)}
    return {option: True}


def test_all_that_the_card_lacks_is_refused_by_name(subject):
    has = [option for option in OPTIONS if option in subject.card.supports]
    for option in OPTIONS:
        run = functools.partial(initialise, subject.module, **asked(option))
        if option in has:
            jax.eval_shape(run, subject.x)
            continue
        with pytest.raises(ValueError) as error:
            jax.eval_shape(run, subject.x)
        says = str(error.value)
        name = type(subject.module).__name__
        assert says.startswith(f"{name} does not support {option}; of")
        assert says.endswith(f"it supports {', '.join(has) or 'none'}")


def test_masked_sources_change_nothing_and_others_do(subject):
    need(subject, "mask", "cross")
    q, kv = subject.x, jnp.flip(subject.x, axis=1)[:, :7]
    mask = np.ones((1, 1, 1, 7), bool)
    mask[..., 2:4] = False

    def apply(kv):
        return subject.apply(subject.variables, q, kv, mask=mask)

    y = apply(kv)
    close(apply(kv.at[:, 2:4].add(5.0)), y, rtol=1e-6, atol=1e-6)
    without = jnp.concatenate([kv[:, :2], kv[:, 4:]], axis=1)
    close(subject.apply(subject.variables, q, without), y)
    for source in (0, 1, 4, 5, 6):
        assert not np.allclose(apply(kv.at[:, source].add(1.0)), y, atol=1e-5)


def test_targets_have_masks_of_their_own(subject):
    need(subject, "mask")
    mask = np.ones((8, 1, TOKENS, TOKENS), bool)
    mask[1, :, 0, 5:] = False
    y = subject.apply(subject.variables, subject.x, mask=mask)
    differs = np.abs(y - subject.y).max(-1) > 1e-5
    assert np.argwhere(differs).tolist() == [[1, 0]]
    row = np.arange(TOKENS) < 5  # which may be a list
    masks = (row[None, None, None], [[[row.tolist()]]])
    apply = functools.partial(subject.apply, subject.variables, subject.x)
    close(apply(mask=masks[0]), apply(mask=masks[1]))


def test_a_grid_has_no_more_places_than_there_are_sources(subject):
    with pytest.raises(ValueError, match=r"a grid of 4 x 5 places .* 12 sources"):
        jax.eval_shape(
            functools.partial(initialise, subject.module, grid=(4, 5)), subject.x
        )


@pytest.mark.parametrize("shape", [(8, 1, TOKENS, TOKENS - 1), (1,) * 5])
def test_a_mask_that_does_not_fit_is_answered_in_the_callers_shapes(subject, shape):
    need(subject, "mask")
    run = functools.partial(initialise, subject.module, mask=np.ones(shape, bool))
    says = r"does not broadcast to \[B, N, T, S\] = \(8, \d, 12, 12\)"
    with pytest.raises(ValueError, match=says):
        jax.eval_shape(run, subject.x)


def test_tokens_attend_to_themselves_and_commute_with_permutations(subject):
    need(subject, "cross")
    close(subject.apply(subject.variables, subject.x, subject.x), subject.y)
    order = np.random.default_rng(4).permutation(TOKENS)
    y = subject.apply(subject.variables, subject.x[:, order])
    close(y, subject.y[:, order])


REAL = np.arange(TOKENS) < np.arange(5, 13)[:, None]  # 5 to 12 real tokens


def test_padding_changes_nothing(subject):
    need(subject, "kv_mask")
    junk = jnp.where(REAL[..., None], subject.x, jnp.nan)
    huge = jnp.where(REAL[..., None], subject.x, 1e30)

    def loss(params, x):
        variables = {**subject.variables, "params": params}
        y = subject.plain(variables, x, kv_mask=REAL)
        return jnp.sum(jnp.sin(y), where=REAL[..., None]), y

    run = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))
    params = subject.variables["params"]
    (_, y), (of_params, of_x) = run(params, subject.x)
    for other in (junk, huge):
        (_, again), (again_params, again_x) = run(params, other)
        np.testing.assert_array_equal(again[REAL], y[REAL])
        jax.tree.map(np.testing.assert_array_equal, again_params, of_params)
        np.testing.assert_array_equal(again_x, of_x)
    np.testing.assert_array_equal(of_x[~REAL], 0)
    assert np.all(np.isfinite(y))
    if (
        "any resolution" in subject.card.supports
        and "grid" not in subject.card.supports
    ):
        short = jax.jit(subject.plain)(subject.variables, subject.x[:1, :5])
        close(y[:1, :5], short)


def test_positions_of_padding_change_nothing(subject):
    need(subject, "kv_mask")
    place = jnp.cos(jnp.arange(subject.x.size)).reshape(subject.x.shape)

    def loss(params, place):
        variables = {**subject.variables, "params": params}
        y = subject.plain(variables, subject.x, kv_mask=REAL, q_position=place)
        return jnp.sum(jnp.sin(y), where=REAL[..., None])

    run = jax.jit(jax.value_and_grad(loss))
    want = run(subject.variables["params"], place)
    junk = jnp.where(REAL[..., None], place, jnp.nan)
    got = run(subject.variables["params"], junk)
    jax.tree.map(np.testing.assert_array_equal, got, want)


def test_positions_count_for_queries_and_keys_and_not_for_values(subject):
    x, rng = subject.x, np.random.default_rng(5)
    place, of_q, of_kv = (
        jnp.asarray(rng.normal(size=(n, t, 16)), x.dtype)
        for n, t in ((8, TOKENS), (1, TOKENS), (1, 7))
    )
    calls = [((x,), {"q_position": place}), ((x + place,), {})]
    if "cross" in subject.card.supports:
        kv, both = jnp.flip(x, axis=1)[:, :7], {"q_position": of_q, "k_position": of_kv}
        calls += [((x, kv), both), ((x + of_q, kv + of_kv), {})]
        calls += [((x, kv), {"q_position": of_q}), ((x + of_q, kv), {})]

    @jax.jit  # all in one program
    def run(variables, calls):
        options = on_grid(subject.module, GRID)
        capture = functools.partial(attn.capture, subject.module, variables, **options)
        return [capture(*inputs, **given) for inputs, given in calls]

    found = run(subject.variables, calls)
    for (_, got), (_, want) in zip(found[::2], found[1::2], strict=True):
        jax.tree.map(close, got, want)
    for other in (subject.y, found[1][0]):
        assert np.abs(found[0][0] - other).max() > 1e-3
    with pytest.raises(ValueError, match=r"q_position of shape \(3, 16\) does not fit"):
        subject.plain(subject.variables, x, q_position=place[0, :3])


def test_targets_without_a_real_source_read_zeros(subject):
    need(subject, "kv_mask")
    none = np.zeros((8, TOKENS), bool)
    none[0] = True
    y = subject.apply(subject.variables, subject.x, kv_mask=none)
    close(y[0], subject.y[0], rtol=1e-6, atol=1e-6)
    zeros = subject.apply(subject.variables, jnp.zeros_like(subject.x), kv_mask=none)
    np.testing.assert_array_equal(y[1:], zeros[1:])


def test_a_later_source_has_no_gradient(subject):
    need(subject, "causal")

    def slopes(x):
        """Of each target of an example by each source, [T, S]."""
        options = {"causal": True}
        y, back = jax.vjp(lambda x: subject.plain(subject.variables, x, **options), x)
        one = jnp.cos(jnp.arange(16.0))[None, None] * jnp.eye(TOKENS)[:, :, None]
        rows = jnp.zeros((TOKENS, *y.shape)).at[:, 0].set(one)
        return jnp.abs(jax.vmap(back)(rows)[0][:, 0]).max(-1)

    found = np.asarray(jax.jit(slopes)(subject.x))
    np.testing.assert_array_equal(np.triu(found, 1), 0)
    assert np.all(np.diag(found) > 1e-6)
    if "entmax15" not in subject.case:  # which gives many sources nothing
        assert np.all(found[np.tril_indices(TOKENS)] > 1e-8)


def test_causal_equals_a_mask_of_the_earlier(subject):
    need(subject, "causal", "mask")
    before = np.tril(np.ones((TOKENS, TOKENS), bool))
    want = subject.apply(subject.variables, subject.x, mask=before)
    got = subject.apply(subject.variables, subject.x, causal=True)
    close(got, want)
    assert not np.allclose(got, subject.y, atol=1e-3)


def decoder(subject, *inputs, **options):
    """An empty cache for full inputs, and one compiled step of decoding."""
    run = functools.partial(initialise, subject.module, decode=True, **options)
    shapes = jax.eval_shape(run, *inputs)["cache"]
    cache = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), shapes)

    @jax.jit
    def step(cache, *inputs, **masks):
        variables = {**subject.variables, "cache": cache}
        y, changed = subject.module.apply(
            variables, *inputs, decode=True, train=False, mutable=["cache"], **masks
        )
        return y, changed["cache"]

    return cache, step


def test_step_by_step_is_the_causal_pass(subject):
    need(subject, "decode")
    cache, step = decoder(subject, subject.x)
    want = subject.apply(subject.variables, subject.x, causal=True, kv_mask=REAL)
    parts, start = [], 0
    for count in (5, 1, 1, 1, 1, 1, 1, 1):
        here = slice(start, start + count)
        y, cache = step(cache, subject.x[:, here], kv_mask=REAL[:, here])
        parts.append(y)
        start += count
    close(jnp.concatenate(parts, axis=1), want)


def test_cross_attention_keeps_its_sources(subject):
    need(subject, "decode", "cross")
    q, kv = subject.x, jnp.flip(subject.x, axis=1)[:, :7]
    real = REAL[:, 2:9]
    cache, step = decoder(subject, q, kv)
    want = subject.apply(subject.variables, q, kv, kv_mask=real)
    y, cache = step(cache, q[:, :1], kv, kv_mask=real)
    close(y, want[:, :1])
    for target in range(1, 4):
        y, cache = step(cache, q[:, target : target + 1])
        close(y, want[:, target : target + 1])


def test_cross_attention_that_decodes_has_no_order(subject):
    need(subject, "decode", "cross", "causal")
    make = functools.partial(subject.module.init, jax.random.key(0))
    asks = {"causal": True, "decode": True, "train": False}
    with pytest.raises(settings.Invalid, match="cannot be causal in cross-attention"):
        make(subject.x, subject.x, **asks)


def test_examples_that_do_not_fit_are_refused(subject):
    need(subject, "cross")
    with pytest.raises(ValueError, match="q has 1 examples and kv 8"):
        subject.plain(subject.variables, subject.x[:1], subject.x)
    with pytest.raises(ValueError, match=r"q must be tokens \[B, T, C\], got"):
        subject.plain(subject.variables, subject.x[0])


def test_what_a_cache_cannot_do_is_said(subject):
    need(subject, "decode")
    with pytest.raises(ValueError, match="needs a cache to decode: init"):
        subject.module.apply(
            subject.variables, subject.x, decode=True, train=False, mutable=["cache"]
        )
    cache, step = decoder(subject, subject.x)
    with pytest.raises(ValueError, match="is of self-attention, which takes no kv"):
        step(cache, subject.x, subject.x)
    if "cached_kv_mask" not in cache:
        return  # keeps sums, of any number
    with pytest.raises(ValueError, match="has 12 places, got 13 tokens"):
        step(cache, jnp.zeros((8, 13, 16)))
    _, cache = step(cache, subject.x)
    assert np.all(np.isnan(step(cache, subject.x[:, :1])[0])), "beyond the end"


def test_nothing_at_all_is_no_error(subject):
    need(subject, "any resolution")
    whole = {"cross"} & subject.card.supports or "class" in subject.case
    for batch, targets, sources in EMPTY:
        if "grid" in subject.card.supports and targets * sources == 0:
            continue  # there is no such grid
        options = on_grid(subject.module, GRID)
        q, kv = (jnp.ones((batch, n, 16)) for n in (targets, sources))
        inputs = (q, kv) if whole else (q,)
        y = subject.module.apply(subject.variables, *inputs, train=False, **options)
        assert y.shape == q.shape
        assert np.all(np.isfinite(y))


EMPTY = [(0, TOKENS, TOKENS), (2, 0, 4), (2, 3, 0), (2, 0, 0)]


def test_every_token_module_is_a_token():
    for case in TOKEN:
        assert issubclass(type(made(case).module), Token)
    assert len(TOKEN) < len(ALL)
    assert attn.card("multi_head").supports >= set(OPTIONS)
    assert on_grid(made("window-masked").module, GRID) == {"grid": GRID}
