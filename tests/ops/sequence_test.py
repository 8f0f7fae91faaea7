"""A sequence on eight devices against the whole of it on one, in float64 NumPy.

The oracle's gradients are those of the formula, written out. Blocks are so small that
the part of a device has several.
"""

import functools

import jax
import jax.extend.core
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec

from attn import ops
from attn.ops import masks, sequence
from attn.ops.dot_product import blocks, skips

DEVICES, B, N, K, D, DV = 8, 2, 16, 8, 5, 3
T, S = 12, 10  # of each device
TARGETS, SOURCES = DEVICES * T, DEVICES * S
DOCUMENTS = np.sort(np.random.default_rng(2).integers(0, 9, (B, TARGETS)), axis=1)
FLOAT = np.float32


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(blocks, "table", lambda *case: blocks.Limits(8, 8))
    monkeypatch.setattr(skips, "TILE", 8)


def normal(*shape, seed=3):
    return np.random.default_rng(seed).normal(size=shape).astype(FLOAT)


def inputs(heads=N, key_heads=K):
    """Of the whole sequence: q, k, v, and the gradient of what is read."""
    shapes = (B, TARGETS, heads, D), (B, SOURCES, key_heads, D)
    shapes += (B, SOURCES, key_heads, DV), (B, TARGETS, heads, DV)
    return [normal(*shape, seed=i) for i, shape in enumerate(shapes)]


def band(left, right):
    distance = np.arange(TARGETS)[:, None] - np.arange(SOURCES)
    return (distance <= left) & (-distance <= right)


# What is asked; of it the oracle gets a mask [B, N, T, S] and a bias, both whole.
CASES = {
    "causal, cap": (
        {"is_causal": True, "logits_cap": 0.9},
        {"mask": band(999, 0), "cap": 0.9},
    ),
    "window": ({"window": 9, "scale": 0.3}, {"mask": band(9, 9), "scale": 0.3}),
    "ahead": ({"window": (0, 17)}, {"mask": band(0, 17)}),
    "lengths, bias, sinks": (
        {
            "q_lengths": np.array([50, TARGETS]),
            "kv_lengths": np.array([70, 33]),
            "bias": normal(N, TARGETS, SOURCES),
            "sinks": normal(N),
        },
        {
            "mask": (
                np.arange(TARGETS)[:, None] < np.array([50, 96]).reshape(B, 1, 1, 1)
            )
            & (np.arange(SOURCES) < np.array([70, 33]).reshape(B, 1, 1, 1)),
            "bias": normal(N, TARGETS, SOURCES),
            "sinks": normal(N),
        },
    ),
    "functions": (
        {
            "mask_mod": masks.documents(DOCUMENTS, DOCUMENTS[:, :SOURCES]),
            "score_mod": lambda x, b, n, t, s: x - 0.1 * (n + 1) * jnp.abs(t - s),
            "is_causal": True,
        },
        {
            "mask": (DOCUMENTS[:, None, :, None] == DOCUMENTS[:, None, None, :SOURCES])
            & band(999, 0),
            "bias": -0.1
            * np.arange(1, N + 1)[:, None, None]
            * np.abs(np.arange(TARGETS)[:, None] - np.arange(SOURCES)),
        },
    ),
}


def oracle(q, k, v, dy, *, mask=True, bias=0.0, scale=D**-0.5, cap=None, sinks=None):
    """What is read; gradients by q, k, v, the bias [B, N, T, S] and the sinks."""
    q, k, v, dy = (np.asarray(x, np.float64) for x in (q, k, v, dy))
    heads, group = q.shape[2], q.shape[2] // k.shape[2]
    shape = B, heads, TARGETS, SOURCES
    mask, bias = np.broadcast_to(mask, shape), np.broadcast_to(bias, shape)
    y, dq, dk, dv, ds = (
        np.zeros(x) for x in (dy.shape, q.shape, k.shape, v.shape, shape)
    )
    dsinks = np.zeros(heads)
    for b, n in np.ndindex(B, heads):
        m = n // group
        x, slope = scale * q[b, :, n] @ k[b, :, m].T + bias[b, n], 1
        if cap is not None:
            x, slope = cap * np.tanh(x / cap), 1 - np.tanh(x / cap) ** 2
        e = np.exp(x) * mask[b, n]
        rest = 0 if sinks is None else np.exp(np.float64(sinks[n]))
        below = np.maximum(e.sum(1, keepdims=True) + rest, 1e-300)
        p = e / below
        y[b, :, n] = p @ v[b, :, m]
        dp = dy[b, :, n] @ v[b, :, m].T
        delta = (p * dp).sum(1, keepdims=True)
        ds[b, n] = p * (dp - delta) * slope
        dsinks[n] -= (rest / below * delta).sum()
        dq[b, :, n] = scale * ds[b, n] @ k[b, :, m]
        dk[b, :, m] += scale * ds[b, n].T @ q[b, :, n]
        dv[b, :, m] += p.T @ dy[b, :, n]
    return y, dq, dk, dv, ds, dsinks


def split(x, axis=1):
    """[..., T, ...] -> [devices, ..., T / devices, ...]."""
    return np.stack(np.split(x, DEVICES, axis=axis))


def whole(x, axis=1):
    return np.concatenate(list(np.asarray(x)), axis=axis)


def run(method, arrays, **case):
    """What is read and all gradients; of bias and sinks too, if there are any."""
    *qkv, dy = map(split, arrays)
    given = {name: case.pop(name) for name in ("bias", "sinks") if name in case}

    def differentiate(dy, q, k, v, given):
        attend = functools.partial(
            ops.sequence_attention, axis_name="sequence", method=method, **case
        )
        function = lambda q, k, v, given: attend(q, k, v, **given)
        y, back = jax.vjp(function, q, k, v, given)
        return y, *back(dy.astype(y.dtype))

    rows = {
        "bias": lambda x: split(x, axis=x.ndim - 2),
        "sinks": lambda x: [x] * DEVICES,
    }
    given = {name: np.stack(rows[name](x)) for name, x in given.items()}
    y, *grads, extra = jax.pmap(differentiate, axis_name="sequence")(dy, *qkv, given)
    if "bias" in extra:
        grads.append(whole(extra["bias"], axis=1))
    if "sinks" in extra:
        grads.append(np.sum(extra["sinks"], axis=0))
    return [whole(y), *map(whole, grads[:3]), *grads[3:]]


def wanted(arrays, **options):
    *got, ds, dsinks = oracle(*arrays, **options)
    got += [ds.sum(0)] if "sinks" in options else []
    return got + ([dsinks] if "sinks" in options else [])


def close(got, want, **tolerance):
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b, **{"rtol": 1e-4, "atol": 2e-5} | tolerance)


PAIRS = [("ring", name) for name in CASES]
PAIRS += [
    (method, name)
    for method in ("all_gather", "all_to_all")
    for name in ("lengths, bias, sinks", "functions")
]


@pytest.mark.parametrize(("method", "name"), PAIRS)
def test_equals_the_whole_sequence(method, name):
    options, whole_options = CASES[name]
    arrays = inputs()
    want = wanted(arrays, **whole_options)
    for length, parts in (("q_lengths", (0,)), ("kv_lengths", (1, 2))):
        for b, first in enumerate(options.get(length, ())):
            for part in parts:
                arrays[part][b, first:] = np.nan
    close(run(method, arrays, **options), want)


@pytest.mark.parametrize("method", sequence.METHODS)
@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize("heads", [1, N])
def test_a_bias_may_differ_between_devices(method, rows, heads):
    """One for all targets of a device, of which there may be one."""
    q, k, v, _ = inputs()
    q, k, v = q[:, : DEVICES * rows], k[:, : 2 * DEVICES], v[:, : 2 * DEVICES]
    bias = 3 * normal(1, heads, DEVICES, 2 * DEVICES)

    def attend(q, k, v, bias):
        return ops.sequence_attention(
            q, k, v, axis_name="sequence", method=method, bias=bias
        )

    mesh = Mesh(jax.devices(), ("sequence",))
    of = lambda axis: PartitionSpec(*[None] * axis, "sequence")
    specs = {"in_specs": (of(1), of(1), of(1), of(2)), "out_specs": of(1)}
    got = jax.jit(jax.shard_map(attend, mesh=mesh, **specs))(q, k, v, bias)
    want = ops.dot_product_attention(q, k, v, bias=np.repeat(bias, rows, axis=2))
    close([got], [want])


@pytest.mark.parametrize("method", sequence.METHODS)
def test_scores_may_be_huge_and_all_alike(method):
    """As where a mask of large negative numbers is added to all sources of a target."""
    q, k, v, _ = inputs()
    hidden = lambda x, b, n, t, s: jnp.where(t % 3 == 0, x - 1e9, x)
    want = ops.dot_product_attention(
        q, k, v, score_mod=hidden, implementation="reference"
    )
    close([mapped(hidden, method)(q, k, v)], [want])


def positive(x, b, n, t, s):
    return jax.nn.relu(x)  # which has a derivative of its own


def of_earlier(x, b, n, t, s):
    return jax.lax.cond(t > s, lambda: x, lambda: 0.5)


def mapped(score_mod, method, **options):
    """Attention over the sequence on all devices."""
    attend = functools.partial(
        ops.sequence_attention,
        axis_name="sequence",
        method=method,
        score_mod=score_mod,
    )
    spec = PartitionSpec(None, "sequence")
    mesh = Mesh(jax.devices(), ("sequence",))
    specs = {"in_specs": (spec,) * 3, "out_specs": spec}
    return jax.jit(jax.shard_map(attend, mesh=mesh, **specs, **options))


@pytest.mark.parametrize("method", sequence.METHODS)
@pytest.mark.parametrize(
    ("score_mod", "options"), [(of_earlier, {}), (positive, {"check_vma": False})]
)
def test_functions_may_branch_and_have_derivatives(method, score_mod, options):
    q, k, v, dy = inputs()
    whole = functools.partial(
        ops.dot_product_attention, score_mod=score_mod, implementation="reference"
    )
    made = []
    for function in (mapped(score_mod, method, **options), whole):
        y, back = jax.vjp(function, q, k, v)
        made.append((y, *back(jnp.asarray(dy))))
    close(*made)


@pytest.mark.parametrize("method", sequence.METHODS)
def test_derivatives_of_functions_are_refused_where_types_tell_of_devices(method):
    with pytest.raises(NotImplementedError, match="derivatives of their own, such as"):
        mapped(positive, method)(*inputs()[:3])


def test_targets_that_see_nothing_read_zeros():
    want = oracle(*inputs(), **CASES["ahead"][1])
    assert np.any(np.all(want[0] == 0, axis=(0, 2, 3)))


def test_one_head_of_keys_serves_the_heads_of_many_devices():
    arrays = inputs(key_heads=2)
    want = wanted(arrays, **CASES["functions"][1])
    close(run("all_to_all", arrays, **CASES["functions"][0]), want)


def test_what_a_score_captures_learns():
    """Its gradients are those of the targets of a device."""
    q, k, v, dy = inputs()
    slopes = normal(N)

    def differentiate(q, k, v, dy, slopes):
        def attend(slopes):
            score_mod = lambda x, b, n, t, s: x + 0.02 * slopes[n] * (t - s)
            return ops.sequence_attention(
                q, k, v, axis_name="sequence", method="ring", score_mod=score_mod
            )

        y, back = jax.vjp(attend, slopes)
        return y, *back(dy)

    mapped = jax.pmap(differentiate, axis_name="sequence", in_axes=(0, 0, 0, 0, None))
    y, dslopes = mapped(*map(split, (q, k, v, dy)), slopes)
    distance = 0.02 * (np.arange(TARGETS)[:, None] - np.arange(SOURCES))
    want, *_, ds, _ = oracle(q, k, v, dy, bias=slopes[:, None, None] * distance)
    close([whole(y)], [want])
    close([dslopes.sum(0)], [(ds * distance).sum((0, 2, 3))])


def test_bfloat16_comes_near_and_sums_in_float32():
    low = [x.astype(jnp.bfloat16) for x in inputs()]
    got = run("ring", low, is_causal=True)
    assert {a.dtype for a in got} == {jnp.dtype(jnp.bfloat16)}
    want = wanted([x.astype(FLOAT) for x in low], mask=band(999, 0))
    close([x.astype(FLOAT) for x in got], want, rtol=0.03, atol=0.03)


def sharded(share=(1, DEVICES), sizes=(TARGETS, SOURCES), heads=(N, K), **case):
    """Values and gradients of the whole sequence, over a mesh, as one program."""

    def differentiate(q, k, v, dy):
        attend = functools.partial(ops.sequence_attention, axis_name="sequence", **case)
        y, back = jax.vjp(attend, q, k, v)
        return y, *back(dy)

    devices = np.array(jax.devices()[: np.prod(share)]).reshape(share)
    mesh = Mesh(devices, ("data", "sequence"))
    spec = PartitionSpec("data", "sequence")
    program = jax.shard_map(differentiate, mesh=mesh, in_specs=spec, out_specs=spec)
    shapes = [(B, sizes[0], heads[0], D), (B, sizes[1], heads[1], D)]
    shapes += [(B, sizes[1], heads[1], DV), (B, sizes[0], heads[0], DV)]
    return jax.jit(program), [jax.ShapeDtypeStruct(s, jnp.float32) for s in shapes]


@pytest.mark.parametrize(
    ("share", "method"),
    [
        ((2, 4), "ring"),
        ((1, 1), "ring"),
        ((2, 4), "all_to_all"),
        ((2, 4), "all_gather"),
    ],
)
def test_works_in_a_mesh_beside_a_split_of_the_batch(share, method):
    """With functions whose arrays all devices have."""
    places = jnp.asarray(DOCUMENTS[0])
    same = lambda b, n, t, s: (places[t] == places[s]) | (s == t)
    scaled = lambda x, b, n, t, s: jnp.where(n % 2 == 0, x, 0.5 * x * places[s])
    program, _ = sharded(share, method=method, mask_mod=same, score_mod=scaled)
    q, k, v, dy = inputs()
    attend = functools.partial(
        ops.dot_product_attention,
        mask_mod=same,
        score_mod=scaled,
        implementation="reference",
    )
    y, back = jax.vjp(attend, q, k, v)
    close(program(q, k, v, dy), (y, *back(dy)))


def test_memory_of_a_device_grows_with_its_share_and_not_with_its_square(monkeypatch):
    monkeypatch.undo()

    def peak(length, **case):
        sizes, heads = (8 * length, 8 * length), (4, 2)
        program, shapes = sharded(sizes=sizes, heads=heads, method="ring", **case)
        return program.lower(*shapes).compile().memory_analysis().temp_size_in_bytes

    case = {"mask_mod": masks.causal()}
    small, large = peak(512, **case), peak(4096, **case)
    rows = 4 * B * 4 * 4096  # bytes of a number for each target of a device
    assert large < 9 * small
    assert large < rows * 64 < rows * 4096 / 32, "far less than its share of the matrix"


def count(jaxpr, name):
    """How often an operation stands in a program, loops once, and its shapes."""
    found = []
    for eqn in jaxpr.eqns:
        if eqn.primitive.name == name:
            found.append(eqn)
        for inner in jax.extend.core.jaxprs_in_params(eqn.params):
            found += count(inner, name)
    return found


def test_what_a_window_hides_is_not_sent_around():
    """The loop over parts is as long as the window reaches."""

    def rounds(**case):
        sizes = (7 * DEVICES, 7 * DEVICES)
        program, shapes = sharded(sizes=sizes, method="ring", **case)
        loops = count(jax.make_jaxpr(program)(*shapes).jaxpr, "scan")
        return {
            e.params["length"]
            for e in loops
            if count(e.params["jaxpr"].jaxpr, "ppermute")
        }

    assert rounds() == rounds(is_causal=True) == {7}
    assert rounds(window=(7, 0)) == {1}
    assert rounds(window=(8, 0)) == {2}
    assert rounds(window=7) == {2}
    assert rounds(window=(0, 14)) == {2}


@pytest.mark.parametrize(
    "case", [{"is_causal": True}, {"mask_mod": masks.causal()}], ids=["window", "mod"]
)
def test_blocks_that_nobody_sees_are_not_computed(case):
    """NaN spreads through every product, also through those of weight 0."""
    q, k, v, dy = inputs()
    first = 4 * S
    v[:, first:] = np.nan
    y, dq, *_ = run("ring", (q, k, v, dy), **case)
    assert np.all(np.isfinite(y[:, : first - 8]))
    assert np.all(np.isfinite(dq[:, : first - 8]))
    assert np.all(np.isnan(y[:, first:]))


@pytest.mark.parametrize(
    ("heads", "key_heads", "asked", "method"),
    [
        (16, 8, {}, "all_to_all"),
        (16, 4, {}, "all_to_all"),
        (16, 2, {}, "all_gather"),
        (12, 4, {}, "ring"),
        (16, 8, {"window": (20, 0)}, "ring"),
    ],
)
def test_the_method_of_none_is_by_the_rule(
    heads, key_heads, asked, method, monkeypatch
):
    taken = []
    for name in ("_by_ring", "_by_gathering", "_by_heads"):
        function = getattr(sequence, name)
        record = lambda *x, f=function: (taken.append(f.__name__), f(*x))[1]
        monkeypatch.setattr(sequence, name, record)
    program, shapes = sharded(heads=(heads, key_heads), **asked)
    jax.eval_shape(program, *shapes)
    names = {
        "ring": "_by_ring",
        "all_gather": "_by_gathering",
        "all_to_all": "_by_heads",
    }
    assert taken == [names[method]]


@pytest.mark.parametrize(
    ("shapes", "settings", "says"),
    [
        ([(1, 2, 4, 5), (1, 2, 3, 5), (1, 2, 3, 5)], {}, "3 heads of keys.*4 heads"),
        ([(1, 2, 4, 5), (1, 2, 4, 6), (1, 2, 4, 6)], {}, "5 channels, of keys 6"),
        ([(1, 2, 4, 5), (1, 2, 4, 5), (1, 3, 4, 5)], {}, "agree in B, S and K"),
        ([(1, 2, 4, 5)] * 3, {"window": -1}, "at least 0, got -1"),
        ([(1, 2, 4, 5)] * 3, {"method": "star"}, "one of .*'ring', .* got 'star'"),
        (
            [(1, 2, 4, 5)] * 3,
            {"method": "all_to_all"},
            "8 devices divide.* got 4 and 4",
        ),
        (
            [(1, 2, 4, 5)] * 3,
            {"bias": np.zeros((2, 3))},
            r"\(2, 3\) does not broadcast",
        ),
    ],
)
def test_says_what_does_not_fit(shapes, settings, says):
    arrays = [jnp.zeros((DEVICES, *shape)) for shape in shapes]
    attend = functools.partial(ops.sequence_attention, axis_name="sequence", **settings)
    with pytest.raises(ValueError, match=says):
        jax.pmap(attend, axis_name="sequence")(*arrays)


@pytest.mark.parametrize("method", ["ring", "all_gather", "all_to_all"])
def test_what_is_no_number_stays_none(method):
    q, k, v, _ = inputs()
    q[0, 3] = np.nan
    k[1, 40, 0] = np.nan
    attend = functools.partial(
        ops.sequence_attention, axis_name="sequence", method=method
    )
    y = whole(jax.pmap(attend, axis_name="sequence")(*map(split, (q, k, v))))
    # a target of the first example, and what reads the first head of keys of the second
    lost = np.zeros(y.shape[:3], bool)
    lost[0, 3] = lost[1, :, : N // K] = True
    np.testing.assert_array_equal(np.isnan(y).all(-1), lost)
    np.testing.assert_array_equal(np.isnan(y).any(-1), lost)


@pytest.mark.parametrize("method", ["ring", "all_gather", "all_to_all"])
def test_a_mask_that_is_given_as_a_bias_is_refused(method):
    attend = functools.partial(
        ops.sequence_attention, axis_name="sequence", method=method
    )
    bias = np.ones((DEVICES, 1, T, SOURCES), bool)
    call = lambda q, k, v, bias: attend(q, k, v, bias=bias)
    with pytest.raises(ValueError, match="is boolean: is it a mask"):
        jax.pmap(call, axis_name="sequence")(*map(split, inputs()[:3]), bias)
