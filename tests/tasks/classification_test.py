"""Classification against float64 NumPy."""

import jax
import numpy as np
import pytest

from attn import tasks

RANDOM = np.random.default_rng(0)
LOGITS = RANDOM.normal(size=(6, 9)).astype(np.float32) * 3
BATCH = {"label": np.asarray([0, 8, 2, 1, 1, 3], np.int32)}
FACTS = {"num_classes": 9, "class_names": tuple("abcdefghi")}


def log_probabilities():
    logits = LOGITS.astype(np.float64)
    return logits - np.log(np.exp(logits).sum(1, keepdims=True))


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_the_loss_spreads_the_smoothing_over_all_classes(smoothing):
    task = tasks.create({"name": "classification", "label_smoothing": smoothing})
    means = tasks.divide(jax.jit(task.loss)(LOGITS, BATCH))
    target = np.full((6, 9), smoothing / 9)
    target[np.arange(6), BATCH["label"]] += 1 - smoothing
    want = -(target * log_probabilities()).sum(1).mean()
    assert means["loss"] == pytest.approx(want, rel=1e-5)
    wrong = LOGITS.argmax(1) != BATCH["label"]
    assert means["error"] == pytest.approx(100 * wrong.mean())


def test_the_evaluation_is_of_each_example_without_smoothing():
    task = tasks.create({"name": "classification", "label_smoothing": 0.3})
    found = jax.jit(task.evaluate)(LOGITS, BATCH)
    losses = -log_probabilities()[np.arange(6), BATCH["label"]]
    np.testing.assert_allclose(found["loss"].total, losses, rtol=1e-5)
    wrong = LOGITS.argmax(1) != BATCH["label"]
    np.testing.assert_array_equal(found["error"].total, 100 * wrong)
    assert {metric.name for metric in task.metrics} == {"error"}
    for mean in found.values():
        np.testing.assert_array_equal(mean.weight, np.ones(6))


def test_top_five_counts_the_labels_that_are_not_among_the_five_highest():
    task = tasks.create({"name": "classification", "top5": True})
    found = jax.jit(task.evaluate)(LOGITS, BATCH)["top5_error"].total
    ranks = [
        list(np.argsort(-row)).index(n)
        for row, n in zip(LOGITS, BATCH["label"], strict=True)
    ]
    np.testing.assert_array_equal(found, [100 * (rank >= 5) for rank in ranks])
    assert 0 < np.mean(found) < 100
    assert [metric.name for metric in task.metrics] == ["error", "top5_error"]
    constant = jax.jit(task.evaluate)(np.zeros_like(LOGITS), BATCH)
    assert (np.asarray(constant["top5_error"].total) == 100).all()
    broken = jax.jit(task.evaluate)(np.full_like(LOGITS, np.nan), BATCH)
    assert (np.asarray(broken["top5_error"].total) == 100).all()


def test_examples_are_described_by_their_classes():
    task = tasks.create({"name": "classification"})
    said = task.describe(LOGITS, BATCH, FACTS)
    taken, names = LOGITS.argmax(1), FACTS["class_names"]
    assert said == [
        (f"{names[a]} \N{RIGHTWARDS ARROW} {names[b]}", a != b)
        for a, b in zip(BATCH["label"], taken, strict=True)
    ]


def test_a_model_of_other_classes_is_refused():
    task = tasks.create({"name": "classification"})
    outputs = jax.ShapeDtypeStruct((1, 5), np.float32)
    example = {"label": jax.ShapeDtypeStruct((1,), np.int32)}
    with pytest.raises(ValueError, match="5 logits for 9 classes"):
        task.check(outputs, example, FACTS)


def test_an_unknown_task_names_those_there_are():
    with pytest.raises(
        ValueError, match=r"unknown task 'guess' \(valid: captioning, classif"
    ):
        tasks.create({"name": "guess"})
