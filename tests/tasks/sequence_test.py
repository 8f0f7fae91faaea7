"""Sequences against float64 NumPy, place by place."""

import jax
import numpy as np
import pytest

from attn import tasks

RANDOM = np.random.default_rng(1)
LOGITS = RANDOM.normal(size=(6, 3, 5)).astype(np.float32) * 3
LABEL = LOGITS.argmax(axis=-1).astype(np.int32)
LABEL[1, 0] = (LABEL[1, 0] + 1) % 5  # one place wrong
LABEL[2] = (LABEL[2] + 2) % 5  # all wrong
LABEL[5, 2] = (LABEL[5, 2] + 3) % 5
BATCH = {"label": LABEL}


def entropy(i, place, smoothing):
    logits = LOGITS[i, place].astype(np.float64)
    log = logits - np.log(np.exp(logits).sum())
    target = np.full(5, smoothing / 5)
    target[LABEL[i, place]] += 1 - smoothing
    return -target @ log


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_the_loss_is_the_mean_over_examples_and_places(smoothing):
    task = tasks.create({"name": "sequence", "label_smoothing": smoothing})
    means = tasks.divide(jax.jit(task.loss)(LOGITS, BATCH))
    want = np.mean([entropy(i, k, smoothing) for i, k in np.ndindex(6, 3)])
    assert means["loss"] == pytest.approx(want, rel=1e-5)
    assert means["error"] == pytest.approx(100 * 3 / 6)


def test_an_example_is_wrong_where_any_place_is():
    task = tasks.create({"name": "sequence", "label_smoothing": 0.3})
    found = jax.jit(task.evaluate)(LOGITS, BATCH)
    want = [sum(entropy(i, k, 0) / 3 for k in range(3)) for i in range(6)]
    np.testing.assert_allclose(found["loss"].total, want, rtol=1e-5)
    np.testing.assert_array_equal(found["error"].total, [0, 100, 100, 0, 0, 100])


def test_one_place_is_a_classification():
    sequence, single = (
        tasks.create({"name": name, "label_smoothing": 0.1, "top5": True})
        for name in ("sequence", "classification")
    )
    for method in ("loss", "evaluate"):
        one = {"label": LABEL[:, :1]}
        found = jax.jit(getattr(sequence, method))(LOGITS[:, :1], one)
        flat = {"label": LABEL[:, 0]}
        want = jax.jit(getattr(single, method))(LOGITS[:, 0], flat)
        jax.tree.map(np.testing.assert_allclose, found, want)


@pytest.mark.parametrize(
    "name, logits, label",
    [
        ("sequence", (6, 5), (6,)),
        ("sequence", (6, 5), (6, 3)),
        ("sequence", (6, 4, 5), (6, 3)),
        ("classification", (6, 5), (6, 3)),
        ("classification", (6, 3, 5), (6, 3)),
        ("classification", (6, 3, 5), (6,)),
    ],
)
def test_other_shapes_are_one_sentence_that_names_them(name, logits, label):
    task = tasks.create({"name": name})
    example = {"label": jax.ShapeDtypeStruct(label, np.int32)}
    outputs = jax.ShapeDtypeStruct(logits, np.float32)
    with pytest.raises(ValueError, match=f"task '{name}' takes logits") as error:
        task.check(outputs, example, {})
    assert f"got {logits} for {label}" in str(error.value)


def test_smoothing_out_of_range_is_refused():
    with pytest.raises(ValueError, match=r"label_smoothing .* got 1\.0"):
        tasks.create({"name": "sequence", "label_smoothing": 1.0})
