"""The hybrid loss of RAM against float64 NumPy, draw by draw."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attn import settings, tasks

B, M, T, K = 3, 4, 2, 5
RANDOM = np.random.default_rng(0)
LABEL = np.array([1, 4, 0], np.int32)
OUTPUTS = {
    "logits": 2 * RANDOM.normal(size=(B, M, T, K)),
    "log_prob": RANDOM.normal(size=(B, M, T)),
    "baseline": RANDOM.normal(size=(B, M, T)),
    "places": RANDOM.normal(size=(B, M, T, 2)),
}
OUTPUTS = {name: np.asarray(a, np.float32) for name, a in OUTPUTS.items()}
OUTPUTS["logits"][0, 1, -1, 1] = 9  # one draw is right
BATCH = {"label": LABEL}


def create(**given):
    return tasks.create({"name": "recurrent_attention", **given})


def logs(b, m):
    logits = OUTPUTS["logits"][b, m, -1].astype(float)
    return logits - np.log(np.exp(logits).sum())


def rewards(reward):
    right = lambda b, m: float(np.argmax(logs(b, m)) == LABEL[b])
    kinds = {"correct": right, "log_prob": lambda b, m: logs(b, m)[LABEL[b]]}
    return np.array([[kinds[reward](b, m) for m in range(M)] for b in range(B)])


@pytest.mark.parametrize("reward", ["correct", "log_prob"])
@pytest.mark.parametrize("baseline", ["learnt", "others", "none"])
def test_is_cross_entropy_and_rewards(reward, baseline):
    task = create(reward=reward, baseline=baseline, reward_weight=0.5)
    found = tasks.divide(jax.jit(task.loss)(OUTPUTS, BATCH))
    reward = rewards(reward)
    want = {"cross_entropy": 0.0, "reinforce": 0.0, "baseline": 0.0}
    for b, m in np.ndindex(B, M):
        want["cross_entropy"] -= logs(b, m)[LABEL[b]] / (B * M)
        for t in range(T):
            expected = OUTPUTS["baseline"][b, m, t]
            compared = {
                "learnt": expected,
                "others": np.delete(reward[b], m).mean(),
                "none": 0.0,
            }[baseline]
            gain = (reward[b, m] - compared) * OUTPUTS["log_prob"][b, m, t]
            want["reinforce"] -= 0.5 * gain / (B * M)
            want["baseline"] += (reward[b, m] - expected) ** 2 / (B * M * T)
    if baseline != "learnt":
        del want["baseline"]
    want["loss"] = sum(want.values())
    want["error"] = 100 * (1 - rewards("correct").mean())
    assert found.keys() == want.keys()
    for name, value in want.items():
        assert found[name] == pytest.approx(value, rel=1e-4), name


def test_each_place_is_rewarded_by_what_it_gained():
    task = create(answers="every", reward="gain", baseline="others")
    found = tasks.divide(jax.jit(task.loss)(OUTPUTS, BATCH))
    every = OUTPUTS["logits"].astype(float)
    every -= np.log(np.exp(every).sum(axis=-1, keepdims=True))
    likely = np.stack([every[b, :, :, LABEL[b]] for b in range(B)])
    assert found["cross_entropy"] == pytest.approx(-likely.mean(), rel=1e-5)
    before = np.concatenate([np.full((B, M, 1), np.log(1 / K)), likely[..., :-1]], -1)
    gain = likely - before
    others = (gain.sum(axis=1, keepdims=True) - gain) / (M - 1)
    want = -((gain - others) * OUTPUTS["log_prob"]).sum(axis=-1).mean()
    assert found["reinforce"] == pytest.approx(want, rel=1e-4)


def test_rewards_teach_the_places_and_the_baseline_and_nothing_else():
    task = create()
    loss = lambda outputs: task.loss(outputs, BATCH)["loss"].total.sum()
    found = jax.grad(loss)(jax.tree.map(jnp.asarray, OUTPUTS))
    alone = {"logits": OUTPUTS["logits"]}  # places that are not rewarded
    want = jax.grad(loss)(jax.tree.map(jnp.asarray, alone))
    np.testing.assert_allclose(found["logits"], want["logits"], rtol=1e-6)
    gain = rewards("correct")[..., None] - OUTPUTS["baseline"]
    np.testing.assert_allclose(found["log_prob"], -gain / M, rtol=1e-5)
    np.testing.assert_allclose(found["baseline"], -2 * gain / (M * T), rtol=1e-5)
    assert not np.any(found["places"])


def test_entropy_is_maximised():
    task = create(entropy_weight=0.3, baseline="none")
    plain = {name: OUTPUTS[name] for name in ("logits", "log_prob")}
    outputs = plain | {"entropy": np.ones((B, M, T), np.float32)}
    one, other = (tasks.divide(task.loss(o, BATCH))["loss"] for o in (plain, outputs))
    assert other - one == pytest.approx(-0.3 * T, rel=1e-4)


def test_an_evaluation_averages_the_probabilities_of_the_draws():
    task = create(top5=True)
    found = jax.jit(task.evaluate)(OUTPUTS, BATCH)
    for b in range(B):
        mean = np.mean([np.exp(logs(b, m)) for m in range(M)], axis=0)
        assert found["loss"].total[b] == pytest.approx(-np.log(mean[LABEL[b]]), 1e-4)
        assert found["error"].total[b] == 100 * (np.argmax(mean) != LABEL[b])
    facts = {"class_names": "abcde"}
    captions = task.describe(OUTPUTS, BATCH, facts)
    assert [wrong for _, wrong in captions] == list(found["error"].total > 0)
    task.check(
        {n: jax.ShapeDtypeStruct(a.shape, a.dtype) for n, a in OUTPUTS.items()},
        {"label": jax.ShapeDtypeStruct((B,), np.int32)},
        {"num_classes": K},
    )


@pytest.mark.parametrize(
    ("change", "given", "says"),
    [
        ({"logits": OUTPUTS["logits"][:, 0]}, {}, r"logits \[B, M, T, K\], such as"),
        ({"logits": OUTPUTS["logits"][..., :4]}, {}, "4 logits for 5 classes"),
    ],
)
def test_a_model_that_does_not_fit_is_refused(change, given, says):
    outputs = {k: v for k, v in {**OUTPUTS, **change}.items() if v is not None}
    with pytest.raises(settings.Invalid, match=says):
        create(**given).check(outputs, BATCH, {"num_classes": K})


def test_a_learnt_baseline_that_is_not_there_is_refused():
    outputs = {k: v for k, v in OUTPUTS.items() if k != "baseline"}
    says = "baseline 'learnt' is the model's, and this one has none"
    with pytest.raises(settings.Invalid, match=says):
        create().loss(outputs, BATCH)
    create(baseline="none").loss(outputs, BATCH)


def test_pictures_are_named_by_the_average_of_the_draws():
    facts = {"class_names": tuple("abcde")}
    found = create().recognise(OUTPUTS, BATCH, facts)
    for b, findings in enumerate(found):
        mean = np.mean([np.exp(logs(b, m)) for m in range(M)], axis=0)
        assert findings[0].name == "abcde"[np.argmax(mean)]
        assert findings[0].probability == pytest.approx(mean.max(), rel=1e-4)


def test_one_draw_has_no_others():
    one = {name: a[:, :1] for name, a in OUTPUTS.items()}
    says = "samples of at least 2, got 1"
    with pytest.raises(settings.Invalid, match=says):
        create(baseline="others").loss(one, BATCH)
