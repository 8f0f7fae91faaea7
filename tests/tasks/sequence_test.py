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
BATCH = {"label": LABEL, "weight": np.asarray([1, 1, 1, 0, 1, 0], np.float32)}


def entropy(i, place, smoothing):
    logits = LOGITS[i, place].astype(np.float64)
    log = logits - np.log(np.exp(logits).sum())
    target = np.full(5, smoothing / 5)
    target[LABEL[i, place]] += 1 - smoothing
    return -target @ log


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_the_loss_is_the_mean_over_examples_and_places(smoothing):
    task = tasks.create({"name": "sequence", "label_smoothing": smoothing})
    loss, metrics = jax.jit(task.loss)(LOGITS, BATCH)
    want = np.mean([entropy(i, k, smoothing) for i, k in np.ndindex(6, 3)])
    assert loss == pytest.approx(want, rel=1e-5)
    assert metrics["loss"] == loss
    assert metrics["error"] == pytest.approx(100 * 3 / 6)
    assert metrics.keys() == set(task.metrics)


def test_the_evaluation_counts_each_example_by_its_weight_without_smoothing():
    task = tasks.create({"name": "sequence", "label_smoothing": 0.3})
    sums = jax.jit(task.sums)(LOGITS, BATCH)
    want = sum(entropy(i, k, 0) / 3 for i in (0, 1, 2, 4) for k in range(3))
    assert sums["loss"] == pytest.approx(want, rel=1e-5)
    assert sums["error"] == pytest.approx(200)  # two of the four, in percent
    assert sums["examples"] == 4


def test_one_place_is_a_classification():
    one = {"label": LABEL[:, :1], "weight": BATCH["weight"]}
    flat = {"label": LABEL[:, 0], "weight": BATCH["weight"]}
    sequence, single = (
        tasks.create({"name": name, "label_smoothing": 0.1})
        for name in ("sequence", "classification")
    )
    for method in ("loss", "sums"):
        found = jax.jit(getattr(sequence, method))(LOGITS[:, :1], one)
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
    batch = {"label": np.zeros(label, np.int32), "weight": np.ones(6, np.float32)}
    for method in (task.loss, task.sums):
        with pytest.raises(ValueError, match=f"task '{name}' takes logits") as error:
            method(np.zeros(logits, np.float32), batch)
        assert f"got {logits} for {label}" in str(error.value)


def test_smoothing_out_of_range_is_refused():
    with pytest.raises(ValueError, match=r"label_smoothing .* got 1\.0"):
        tasks.create({"name": "sequence", "label_smoothing": 1.0})
