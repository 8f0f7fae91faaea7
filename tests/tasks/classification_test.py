"""Classification against float64 NumPy."""

import jax
import numpy as np
import pytest

from attn import tasks

LOGITS = np.random.default_rng(0).normal(size=(6, 5)).astype(np.float32) * 3
BATCH = {
    "label": np.asarray([0, 4, 2, 1, 1, 3], np.int32),
    "weight": np.asarray([1, 1, 0, 1, 1, 0], np.float32),
}


def log_probabilities():
    logits = LOGITS.astype(np.float64)
    return logits - np.log(np.exp(logits).sum(1, keepdims=True))


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_the_loss_spreads_the_smoothing_over_all_classes(smoothing):
    task = tasks.create({"name": "classification", "label_smoothing": smoothing})
    loss, metrics = jax.jit(task.loss)(LOGITS, BATCH)
    target = np.full((6, 5), smoothing / 5)
    target[np.arange(6), BATCH["label"]] += 1 - smoothing
    want = -(target * log_probabilities()).sum(1).mean()
    assert loss == pytest.approx(want, rel=1e-5)
    assert metrics["loss"] == loss
    wrong = LOGITS.argmax(1) != BATCH["label"]
    assert metrics["error"] == pytest.approx(100 * wrong.mean())
    assert metrics.keys() == set(task.metrics)


def test_the_evaluation_counts_each_example_by_its_weight_without_smoothing():
    task = tasks.create({"name": "classification", "label_smoothing": 0.3})
    sums = jax.jit(task.sums)(LOGITS, BATCH)
    weight = BATCH["weight"]
    losses = -log_probabilities()[np.arange(6), BATCH["label"]]
    wrong = LOGITS.argmax(1) != BATCH["label"]
    assert sums["loss"] == pytest.approx((weight * losses).sum(), rel=1e-5)
    assert sums["error"] == pytest.approx(100 * (weight * wrong).sum())
    assert sums["examples"] == 4


def test_an_unknown_task_names_those_there_are():
    with pytest.raises(ValueError, match=r"unknown task 'detect' \(valid: classif"):
        tasks.create({"name": "detect"})
