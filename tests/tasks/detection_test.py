"""The set loss against loops in float64, and scores of predictions made by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from attn import settings, tasks
from attn.data.source import Most
from attn.tasks import detection
from attn.train import partition
from attn.train.program import Program
from tests.train import small

RANDOM = np.random.default_rng(2)
B, L, Q, N, K = 4, 3, 7, 4, 5
HEIGHT, WIDTH = 24, 40
COUNTS = np.array([3, 0, 4, 1])
MASK = np.arange(N) < COUNTS[:, None]
OUTPUTS = {
    "logits": 2 * RANDOM.normal(size=(B, L, Q, K + 1)).astype(np.float32),
    "boxes": RANDOM.uniform(0.1, 0.9, (B, L, Q, 4)).astype(np.float32),
}
FIRST = RANDOM.uniform(0, 10, (B, N, 2))
BOXES = np.concatenate([FIRST, FIRST + RANDOM.uniform(2, 14, (B, N, 2))], -1)
BATCH = {
    "image": np.zeros((B, HEIGHT, WIDTH, 3), np.float32),
    "boxes": np.where(MASK[..., None], BOXES, 0).astype(np.float32),
    "boxes_mask": MASK,
    "labels": np.where(MASK, RANDOM.integers(0, K, MASK.shape), -1).astype(np.int32),
}
FACTS = {"num_classes": K, "class_names": tuple("abcde")}
FACTS["max_objects"] = Most(N, "a.png")
LOSSES = ("class_loss", "l1_loss", "giou_loss")


def task(**changes):
    return tasks.create({"name": "detection", **changes}, FACTS)


def corners(box):
    x, y, w, h = box
    return x - w / 2, y - h / 2, x + w / 2, y + h / 2


def overlap(a, b):
    """IoU and generalised IoU of two boxes by corners."""
    wide = max(min(a[2], b[2]) - max(a[0], b[0]), 0)
    high = max(min(a[3], b[3]) - max(a[1], b[1]), 0)
    area = lambda box: (box[2] - box[0]) * (box[3] - box[1])
    union = area(a) + area(b) - wide * high
    hull = (max(a[2], b[2]) - min(a[0], b[0])) * (max(a[3], b[3]) - min(a[1], b[1]))
    return wide * high / union, wide * high / union - (hull - union) / hull


def oracle(weights, batch=BATCH, size=((HEIGHT, WIDTH),) * B, none=0.1, layers=L):
    """Losses and measures as sums over examples, and what they are divided by."""
    found = dict.fromkeys((*LOSSES, "class_error", "matched_iou"), 0.0)
    queries = objects = 0.0
    for i in range(B):
        height, width = size[i]
        there = batch["boxes_mask"][i] & ~batch.get("boxes_crowd", 0 * MASK == 1)[i]
        labels = batch["labels"][i][there]
        truth = batch["boxes"][i][there].astype(np.float64) / ([width, height] * 2)
        for layer in range(L - layers, L):
            logits = OUTPUTS["logits"][i, layer].astype(np.float64)
            chance = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
            boxes = OUTPUTS["boxes"][i, layer].astype(np.float64)
            costs, parts = np.zeros((Q, len(truth))), {}
            for q in range(Q):
                for n, (x0, y0, x1, y1) in enumerate(truth):
                    centred = np.array([(x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0])
                    l1 = np.abs(boxes[q] - centred).sum()
                    iou, giou = overlap(corners(boxes[q]), truth[n])
                    parts[q, n] = l1, iou, giou
                    terms = -chance[q, labels[n]], l1, -giou
                    costs[q, n] = np.dot(weights, terms)
            classes = np.full(Q, K)
            for q, n in zip(*linear_sum_assignment(costs), strict=True):
                classes[q] = labels[n]
                l1, iou, giou = parts[q, n]
                found["l1_loss"] += weights[1] * l1
                found["giou_loss"] += weights[2] * (1 - giou)
                if layer == L - 1:
                    objects += 1
                    found["matched_iou"] += 100 * iou
                    said = logits[q, :K].argmax()
                    found["class_error"] += 100 * (said != labels[n])
            each = np.where(classes == K, none, 1.0)
            entropy = -np.log(chance[np.arange(Q), classes])
            found["class_loss"] += weights[0] * (each * entropy).sum()
            queries += each.sum() * (layer == L - 1)
    return {
        name: value / (queries if name == "class_loss" else objects)
        for name, value in found.items()
    }


def values(made, batch=BATCH):
    return tasks.divide(jax.device_get(jax.jit(made.evaluate)(OUTPUTS, batch)))


@pytest.mark.parametrize(
    "weights", [(1, 5, 2), (1, 5, 0), (1, 0, 2), (0, 1, 0), (3, 0, 0)]
)
def test_the_loss_is_that_of_the_paper(weights):
    names = ("class_weight", "l1_weight", "giou_weight")
    made = task(**dict(zip(names, weights, strict=True)))
    kept = [name for name, w in zip(LOSSES, weights, strict=True) if w]
    assert list(made.minimised) == kept
    want = oracle(weights)
    want = {n: v for n, v in want.items() if n in kept or n not in LOSSES}
    found = values(made)
    assert found == pytest.approx(want, rel=1e-5)
    total = sum(want[name] for name in kept)
    assert made.derive(found)["loss"] == pytest.approx(total, rel=1e-5)
    assert found["class_error"] > 0 and found["matched_iou"] > 0


def test_no_object_has_its_own_weight_and_auxiliary_losses_can_be_left_out():
    made = task(no_object_weight=0.4, auxiliary=False)
    want = oracle((1, 5, 2), none=0.4, layers=1)
    assert values(made) == pytest.approx(want, rel=1e-5)


def test_images_with_padding_are_measured_without_it():
    size = np.array([[HEIGHT, WIDTH], [20, 30], [18, 40], [24, 26]])
    rows, columns = np.arange(HEIGHT)[:, None], np.arange(WIDTH)
    image_mask = np.stack([(rows < h) & (columns < w) for h, w in size])
    batch = BATCH | {"image_mask": image_mask}
    want = oracle((1, 5, 2), size=size)
    assert values(task(), batch) == pytest.approx(want, rel=1e-5)
    assert want != pytest.approx(oracle((1, 5, 2)))


def test_crowds_are_no_objects():
    crowd = np.zeros_like(MASK)
    crowd[0, 1] = crowd[3, 0] = True
    batch = BATCH | {"boxes_crowd": crowd}
    assert values(task(), batch) == pytest.approx(oracle((1, 5, 2), batch), rel=1e-5)


def test_examples_have_their_own_sums_and_no_object_weighs_nothing():
    found = jax.device_get(jax.jit(task().evaluate)(OUTPUTS, BATCH))
    for name, mean in found.items():
        assert mean.total.shape == mean.weight.shape == (B,)
        if name != "class_loss":
            np.testing.assert_array_equal(mean.weight, COUNTS)
    want = COUNTS + 0.1 * (Q - COUNTS)
    np.testing.assert_allclose(found["class_loss"].weight, want, rtol=1e-6)


def test_gradients_are_finite_without_objects_and_with_boxes_without_area():
    flat = OUTPUTS["boxes"] * [1, 1, 0, 0]
    boxes = np.where(np.arange(B)[:, None, None, None] == 0, flat, OUTPUTS["boxes"])
    batch = dict(BATCH)
    batch["boxes"] = np.array(BATCH["boxes"])
    batch["boxes"][2, 1, 2:] = batch["boxes"][2, 1, :2]

    def loss(outputs):
        means = task().loss(outputs, batch)
        return sum(means[name].total.sum() for name in LOSSES)

    outputs = {"logits": OUTPUTS["logits"], "boxes": boxes.astype(np.float32)}
    for gradient in jax.tree.leaves(jax.jit(jax.grad(loss))(outputs)):
        assert np.isfinite(gradient).all()
        assert np.abs(gradient).sum() > 0


def program(devices, **changes):
    config = small.config(
        data={"name": "digits_scene", "test": "test[:20]", **changes.pop("data", {})},
        model={"name": "tests.user_code.set_detector:Detector"},
        task={"name": "detection", **changes},
        train={"steps": 4, "batch_size": 8},
    )
    return Program(config, jax.devices()[:devices])


@pytest.fixture(scope="module")
def one_and_eight():
    return program(1), program(8)


def test_the_loss_is_over_the_objects_of_all_devices(one_and_eight):
    """All objects are in the example of one device of eight."""
    with one_and_eight[0].dataset.train(8, seed=0) as batches:
        batch = dict(next(batches))
    only = np.zeros_like(batch["boxes_mask"])
    only[5, :3] = True
    batch |= {"boxes_mask": only, "labels": np.where(only, batch["labels"], -1)}
    found = []
    for made in one_and_eight:
        state = small.start(made, 0)
        state, loss = made.train_step(state, small.fed(made, batch))
        (fetched,) = (partition.fetch(state),)
        found.append((float(np.ravel(loss)[0]), fetched.params, fetched.totals))
    (loss, params, totals), (other, others, sums) = found
    assert loss == pytest.approx(other, rel=1e-5) and loss > 1
    assert float(totals["l1_loss"].weight) == float(sums["l1_loss"].weight) == 3
    for a, b in zip(*map(jax.tree.leaves, (params, others)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_an_evaluation_is_the_same_on_any_number_of_devices(one_and_eight):
    """With a split that no batch divides, so that some examples are padding."""
    one, eight = one_and_eight
    assert one.task_fields == detection.Detection.fields  # none of the others is there
    state = small.start(one, 0)
    found = small.evaluate(one, state)
    state = eight.partition.stack([partition.fetch(state)])
    other = small.evaluate(eight, state)
    assert found.values["examples"] == 20
    assert found.values == pytest.approx(other.values, rel=1e-4, nan_ok=True)
    assert 0 <= found.values["ap"] <= found.values["ap50"] < 100


def by_hand(batch, size):
    """Outputs that say all objects, those of the first layer with wrong boxes."""
    logits = np.zeros((B, 2, Q, K + 1), np.float32)
    boxes = np.full((B, 2, Q, 4), 0.5, np.float32)
    logits[..., K] = 5
    for i, k in np.argwhere(batch["boxes_mask"]):
        height, width = size[i]
        x0, y0, x1, y1 = batch["boxes"][i, k] / ([width, height] * 2)
        logits[i, :, k, batch["labels"][i, k]] = 9
        boxes[i, 1, k] = (x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0
    return {"logits": logits, "boxes": boxes}


class ByHand:
    """A model that gives outputs that are known."""

    def __init__(self, outputs):
        self.outputs = outputs

    def apply(self, variables, image, *, train, rngs):
        return jax.tree.map(jnp.asarray, self.outputs)


def scored(made, outputs, batch):
    predict = jax.jit(lambda batch: made.predict(ByHand(outputs), {}, batch, None))
    found = jax.device_get(predict(batch))
    return found, made.score(found, batch, FACTS)


def test_what_is_said_by_hand_is_scored_after_each_layer():
    made = task(layers=1)
    found, scores = scored(made, by_hand(BATCH, [(HEIGHT, WIDTH)] * B), BATCH)
    assert scores["ap"] == scores["ap50"] == scores["ap_small"] == pytest.approx(100)
    assert scores["ap_after_1"] < 50
    others = {"class_error", "matched_iou", "ap_medium", "ap_large"}  # none is large
    assert set(scores) == {m.name for m in made.metrics} - others
    boxes = found["boxes"][:, 1, :N]
    np.testing.assert_allclose(boxes[MASK], BATCH["boxes"][MASK], atol=1e-4)
    np.testing.assert_array_equal(
        found["labels"][:, 1, :N][MASK], BATCH["labels"][MASK]
    )


def test_scores_are_in_pixels_of_the_original_image():
    """Objects of a picture twice as high and four times as wide are larger."""
    size = np.array([[HEIGHT, WIDTH]] * B, np.int32)
    outputs = by_hand(BATCH, size)
    batch = BATCH | {"image_size": size * [[20, 40]]}
    found, scores = scored(task(), outputs, batch)
    wanted = BATCH["boxes"] * [40, 20, 40, 20]
    np.testing.assert_allclose(found["boxes"][:, 0, :N][MASK], wanted[MASK], rtol=1e-4)
    np.testing.assert_allclose(found["truth"][MASK], wanted[MASK], rtol=1e-4)
    assert scores["ap"] == scores["ap_large"] == pytest.approx(100)
    assert "ap_small" not in scores
    small_ones = batch | {"boxes_area": np.full(MASK.shape, 30.0, np.float32)}
    _, scores = scored(task(), outputs, small_ones)
    assert scores["ap_small"] == pytest.approx(100) and "ap_large" not in scores


def test_a_query_counts_as_found_whatever_no_object_has():
    outputs = by_hand(BATCH, [(HEIGHT, WIDTH)] * B)
    outputs["logits"][..., K] = 30
    _, scores = scored(task(), outputs, BATCH)
    assert scores["ap"] == pytest.approx(100)


def test_of_a_split_only_what_is_scored_is_kept():
    made = task()
    assert {"image_mask", "image_size"} <= set(made.optional) - set(made.scoring)
    area = np.full(MASK.shape, 1e5, np.float32)  # so large is no box
    crowd = np.zeros_like(MASK)
    crowd[0, 0] = True  # which nobody has to find
    batch = BATCH | {"boxes_area": area, "boxes_crowd": crowd}
    outputs = by_hand(BATCH, [(HEIGHT, WIDTH)] * B)
    outputs["logits"][0, :, 0] = np.eye(K + 1)[K]
    found, scores = scored(made, outputs, batch)
    kept = {name: batch[name] for name in made.scoring}
    assert made.score(found, kept, FACTS) == scores
    assert scores["ap"] == scores["ap_large"] == pytest.approx(100)
    assert "ap_small" not in scores


def test_a_detector_whose_scores_are_no_numbers_finds_nothing_wrongly():
    outputs = {**OUTPUTS, "logits": np.full_like(OUTPUTS["logits"], np.nan)}
    with pytest.raises(settings.Invalid, match="scores of the model are NaN"):
        task().recognise(outputs, BATCH, FACTS)


def test_captions_tell_what_there_is_and_what_is_found():
    made = task()
    outputs = by_hand(BATCH, [(HEIGHT, WIDTH)] * B)
    outputs["logits"][3, 1, 0] = [9, 0, 0, 0, 0, 20]  # one is missed
    captions = made.describe(outputs, BATCH, FACTS)
    names = [
        ", ".join(sorted("abcde"[c] for c in BATCH["labels"][i] if c >= 0))
        for i in range(B)
    ]
    assert captions[0] == (f"{names[0]} → {names[0]}", False)
    assert captions[1] == ("nothing → nothing", False)
    assert captions[3] == (f"{names[3]} → nothing", True)


def shapes(**changes):
    found = {"logits": (1, L, Q, K + 1), "boxes": (1, L, Q, 4), **changes}
    return {
        name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in found.items()
    }


@pytest.mark.parametrize(
    ("changes", "outputs", "facts", "message"),
    [
        ({}, jax.ShapeDtypeStruct((1, K), jnp.float32), {}, "got none and none"),
        ({}, shapes(boxes=(1, Q, 4)), {}, r"got .1, 3, 7, 6. and .1, 7, 4.$"),
        ({}, shapes(logits=(1, L, Q, K)), {}, "has 5 logits, and 5 classes .* need 6"),
        ({"layers": 3}, shapes(), {}, "layers must be at most 2, .* got 3"),
        (
            {},
            shapes(),
            {"max_objects": Most(9, "b.png")},
            "b.png has 9 objects, .* 7 q",
        ),
        (
            {},
            shapes(boxes=(1, L, 3, 4), logits=(1, L, 3, K + 1)),
            {"max_objects": None},
            "an example of the data has 4 objects, .* 3 queries: .* num_queries=4",
        ),
        ({}, shapes(), {"num_classes": None}, "needs the fact 'num_classes'"),
    ],
)
def test_what_does_not_fit_is_refused(changes, outputs, facts, message):
    facts = {k: v for k, v in (FACTS | facts).items() if v is not None}
    example = {
        k: jax.ShapeDtypeStruct((1, *v.shape[1:]), v.dtype) for k, v in BATCH.items()
    }
    with pytest.raises(settings.Invalid, match=message):
        task(**changes).check(outputs, example, facts)
    task().check(shapes(), example, FACTS)


def test_wrong_settings_are_refused():
    with pytest.raises(settings.Invalid, match="must be above 0"):
        task(class_weight=0.0, l1_weight=0.0, giou_weight=0.0)
    with pytest.raises(settings.Invalid, match="no_object_weight"):
        task(no_object_weight=-1.0)


def test_more_objects_than_queries_is_one_sentence_when_it_is_built():
    config = small.config(
        data={"name": "digits_scene"},
        model={"name": "tests.user_code.set_detector:Detector", "num_queries": 4},
        task={"name": "detection"},
    )
    message = "config.task: a scene has 5 objects, and the model 4 queries: it needs"
    with pytest.raises(settings.Invalid, match=message):
        Program(config, jax.devices()[:1])


def test_layers_of_the_predictions_are_those_that_are_asked_for():
    made = task(layers=2)
    found, _ = scored(made, OUTPUTS, BATCH)
    whole = detection.detected(OUTPUTS, jnp.asarray([[HEIGHT, WIDTH]] * B))
    for name in ("boxes", "labels", "scores"):
        np.testing.assert_allclose(found[name], whole[name], rtol=1e-6)
