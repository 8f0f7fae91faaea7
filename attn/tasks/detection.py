"""Detection of objects as a set: each query finds one object or none.

Carion et al., "End-to-End Object Detection with Transformers", ECCV 2020,
https://arxiv.org/abs/2005.12872, sections 3.1 and A.2.

Differs from the authors' code: the weighted mean of the cross-entropy is over the
global batch, as that of the boxes is, and not over each device's part of it.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from attn import settings
from attn.data.source import Most
from attn.ops import boxes as geometry
from attn.tasks import answers, coco, tokens
from attn.tasks.answers import Finding
from attn.tasks.base import Batch, Mean, Metric, Task
from attn.tasks.matching import match

ERROR = Metric("class_error", "class error", unit="%")
IOU = Metric("matched_iou", "IoU of matched boxes", unit="%", better="higher")
BY_LAYER = ("ap", "ap50")  # scores that are measured of each decoder layer
SHOWN = 0.5  # probability from which on a box is told in a caption


class _Matched(NamedTuple):
    """What the queries have found, in each layer.

    objects: bool [B, 1, N], where there is an object.
    classes: int [B, L, Q], what each query is to say, K for "no object".
    labels: int [B, 1, N], the class of each object.
    said: int [B, L, N], the class that the query of each object says.
    distance: [B, L, N], L1 between the boxes of each object and its query.
    iou, giou: [B, L, N], of these boxes.
    """

    objects: jax.Array
    classes: jax.Array
    labels: jax.Array
    said: jax.Array
    distance: jax.Array
    iou: jax.Array
    giou: jax.Array


@dataclasses.dataclass(frozen=True)
class Detection(Task):
    """The set loss of DETR, and COCO's average precision.

    For outputs "logits" [B, L, Q, K + 1], class K being "no object", and "boxes"
    [B, L, Q, 4], (cx, cy, w, h) in [0, 1] of the image without its padding, of each of
    L decoder layers, the last of which is the prediction. Each layer is matched by
    itself with the objects, boxes [B, N, 4] by corners in pixels, at the least cost

        -class_weight p(class) + l1_weight |box - box'| - giou_weight GIoU

    and the losses of all layers are added. That of the boxes is a mean over the objects
    of the whole batch, and that of the classes over all queries, by the weights of
    their classes; where `train.accumulate` adds batches, each is divided by its own.
    Crowds are no objects to be found. A query's highest class counts as found whatever
    "no object" has, as in the paper's code; here in the class error, too, where that
    code counts "no object" as wrong.

    Attributes:
        class_weight, l1_weight, giou_weight: of the parts of the loss and of the cost;
            0 leaves a part out.
        no_object_weight: of queries without an object in the cross-entropy.
        auxiliary: whether layers before the last have a loss too.
        layers: after how many of the first decoder layers, the last not among them,
            the average precision is measured too.
    """

    class_weight: settings.NotNegative = 1.0
    l1_weight: settings.NotNegative = 5.0
    giou_weight: settings.NotNegative = 2.0
    no_object_weight: settings.NotNegative = 0.1
    auxiliary: bool = True
    layers: settings.Count = 0

    fields: ClassVar[tuple[str, ...]] = ("boxes", "boxes_mask", "labels")
    probes: ClassVar[tuple[str, ...]] = ("attention", "detections")
    optional: ClassVar[tuple[str, ...]] = (
        *("boxes_area", "boxes_crowd"),
        *("image_size", "image_mask"),
    )
    scoring: ClassVar[tuple[str, ...]] = (
        *("boxes_mask", "labels"),
        *("boxes_area", "boxes_crowd"),
    )

    def __post_init__(self):
        if not self.minimised:
            raise settings.Invalid(
                "one of class_weight, l1_weight and giou_weight must be above 0"
            )

    @property
    def minimised(self) -> tuple[str, ...]:
        weights = {
            "class_loss": self.class_weight,
            "l1_loss": self.l1_weight,
            "giou_loss": self.giou_weight,
        }
        return tuple(name for name, weight in weights.items() if weight)

    @property
    def metrics(self) -> tuple[Metric, ...]:
        named = dict(zip(coco.SCORES, coco.LABELS, strict=True))
        after = {
            f"{name}_after_{layer + 1}": f"{named[name]} after layer {layer + 1}"
            for name in BY_LAYER
            for layer in range(self.layers)
        }
        scores = (
            Metric(
                name,
                label,
                unit="%",
                better="higher",
                kind="corpus",
                note=coco.signature() if name == coco.SCORES[0] else "",
            )
            for name, label in (named | after).items()
        )
        return (*scores, ERROR, IOU)

    def check(self, outputs: Any, example: Batch, facts: Mapping[str, Any]) -> None:
        if "num_classes" not in facts:
            raise settings.Invalid(
                "task 'detection' needs the fact 'num_classes' of a data set"
            )
        classes = facts["num_classes"]
        logits, boxes = _shapes(outputs)
        if len(logits) != 4 or boxes != (*logits[:-1], 4):
            raise settings.Invalid(
                "task 'detection' takes the outputs 'logits' [B, L, Q, K + 1] and"
                " 'boxes' [B, L, Q, 4] of a model such as 'detr', got"
                f" {logits or 'none'} and {boxes or 'none'}"
            )
        if logits[-1] != classes + 1:
            raise settings.Invalid(
                f"the model has {logits[-1]} logits, and {classes} classes of the data"
                f" and 'no object' need {classes + 1}"
            )
        if self.layers >= logits[1]:
            raise settings.Invalid(
                f"layers must be at most {logits[1] - 1}, those before the last of the"
                f" model's outputs, got {self.layers}"
            )
        self._check_objects(logits[2], example, facts)

    def _check_objects(
        self, queries: int, example: Batch, facts: Mapping[str, Any]
    ) -> None:
        if "image" not in example:
            raise settings.Invalid("task 'detection' needs images, got none")
        places = Most(example["boxes"].shape[1], "an example of the data")
        known = facts.get("max_objects", places)
        most = max(known, places, key=lambda most: most.count)
        if most.count > queries:
            raise settings.Invalid(
                f"{most.where} has {most.count} objects, and the model {queries}"
                f" queries: it needs num_queries={most.count} at least"
            )

    def loss(self, outputs: Any, batch: Batch) -> dict[str, Mean]:
        """The parts of the loss by name, and "class_error" and "matched_iou"."""
        return self.evaluate(outputs, batch)

    def evaluate(self, outputs: Any, batch: Batch) -> dict[str, Mean]:
        """The same, of each example."""
        if not self.auxiliary:
            outputs = {name: value[:, -1:] for name, value in outputs.items()}
        found = self._matched(outputs, batch)
        none = outputs["logits"].shape[-1] - 1
        entropy = tokens.cross_entropy(outputs["logits"], found.classes)
        weight = jnp.where(found.classes == none, self.no_object_weight, 1.0)
        objects = found.objects.astype(jnp.float32)
        of_classes = jnp.sum(weight * entropy, axis=(1, 2))
        last = jnp.sum(weight[:, -1], axis=1)  # each layer finds as many objects

        def over_objects(values: jax.Array) -> Mean:
            kept = jnp.where(found.objects, values, 0.0)
            return Mean(kept.sum(axis=(1, 2)), objects.sum(axis=(1, 2)))

        means = {
            "class_loss": Mean(self.class_weight * of_classes, last),
            "l1_loss": over_objects(self.l1_weight * found.distance),
            "giou_loss": over_objects(self.giou_weight * (1 - found.giou)),
        }
        means = {name: means[name] for name in self.minimised}
        wrong = 100.0 * (found.said != found.labels)
        means["class_error"] = over_objects(wrong[:, -1:])
        return means | {"matched_iou": over_objects(100 * found.iou[:, -1:])}

    def derive(self, values: Mapping[str, float]) -> dict[str, float]:
        """The "loss", the sum of its parts."""
        return {"loss": sum(values[name] for name in self.minimised)}

    def _matched(self, outputs: Any, batch: Batch) -> _Matched:
        logits, boxes = outputs["logits"], outputs["boxes"].astype(jnp.float32)
        objects, truth = _objects(batch), _targets(batch)
        labels = jnp.maximum(batch["labels"], 0)[:, None]
        query = match(self._costs(outputs, truth, labels), objects[:, None])

        def of_objects(values: jax.Array) -> jax.Array:
            """Of the query of each object: [B, L, Q, ...] -> [B, L, N, ...]."""
            index = query.reshape(*query.shape, *(1,) * (values.ndim - 3))
            return jnp.take_along_axis(values, index, axis=2)

        queries = jnp.arange(logits.shape[2])[None, None, :, None]
        taken = (query[:, :, None] == queries) & objects[:, None, None]
        said = jnp.sum(jnp.where(taken, labels[:, :, None], 0), axis=-1)
        classes = jnp.where(taken.any(axis=-1), said, logits.shape[-1] - 1)
        boxes = of_objects(boxes)
        pair = geometry.corners(boxes), geometry.corners(truth)[:, None]
        return _Matched(
            objects=objects[:, None],
            classes=classes,
            labels=labels,
            said=of_objects(jnp.argmax(logits[..., :-1], axis=-1)),
            distance=jnp.abs(boxes - truth[:, None]).sum(axis=-1),
            iou=geometry.iou(*pair),
            giou=geometry.giou(*pair),
        )

    def _costs(self, outputs: Any, truth: jax.Array, labels: jax.Array) -> jax.Array:
        """Of each query for each object: [B, L, Q, N].

        Args:
            outputs: of the model.
            truth: [B, N, 4], the objects' boxes as the model gives them.
            labels: [B, 1, N], their classes.
        """
        boxes = outputs["boxes"].astype(jnp.float32)
        chances = jax.nn.softmax(outputs["logits"].astype(jnp.float32), axis=-1)
        own = jnp.broadcast_to(
            labels[:, :, None], (*chances.shape[:3], labels.shape[2])
        )
        chances = jnp.take_along_axis(chances, own, axis=-1)
        distance = jnp.abs(boxes[..., None, :] - truth[:, None, None]).sum(axis=-1)
        corners = geometry.corners(boxes), geometry.corners(truth)[:, None]
        overlap = geometry.pairwise_giou(*corners)
        costs = self.l1_weight * distance - self.giou_weight * overlap
        return costs - self.class_weight * chances

    def predict(
        self, model: nn.Module, variables: Any, batch: Batch, key: jax.Array
    ) -> dict[str, jax.Array]:
        """`detected` of the layers that are scored, the last of them the prediction.

        Returns:
            "boxes" [B, M, Q, 4], "labels" and "scores" [B, M, Q], M being `layers` and
            one more, and the objects' boxes "truth" [B, N, 4]; boxes by corners, in
            pixels of the original image.
        """
        given = (batch[name] for name in getattr(model, "inputs", ("image",)))
        outputs = model.apply(variables, *given, train=False, rngs={"sample": key})
        taken = np.array([*range(self.layers), -1])
        outputs = {name: value[:, taken] for name, value in outputs.items()}
        size = batch["image_size"] if "image_size" in batch else given_size(batch)
        scale = jnp.tile(size[:, None, ::-1], 2).astype(jnp.float32)
        truth = geometry.corners(_targets(batch)) * scale
        return detected(outputs, size) | {"truth": truth}

    def score(
        self,
        predictions: Mapping[str, np.ndarray],
        batch: Mapping[str, np.ndarray],
        facts: Mapping[str, Any],
    ) -> dict[str, float]:
        """COCO's average precisions, and those after the first layers, in percent.

        That of small, medium or large objects is left out where there are none.
        """
        boxes = predictions["truth"]
        sides = boxes[..., 2:] - boxes[..., :2]
        truth = {
            "boxes": boxes,
            "mask": batch["boxes_mask"],
            "labels": batch["labels"],
            "area": batch.get("boxes_area", np.prod(sides, axis=-1)),
            "crowd": batch.get("boxes_crowd", np.zeros_like(batch["boxes_mask"])),
        }
        names = ("boxes", "labels", "scores")
        found = [
            coco.average_precision(truth, {n: predictions[n][:, layer] for n in names})
            for layer in range(predictions["scores"].shape[1])
        ]
        after = {
            f"{name}_after_{layer + 1}": scores[name]
            for layer, scores in enumerate(found[:-1])
            for name in BY_LAYER
        }
        last = {
            name: value
            for name, value in found[-1].items()
            if math.isfinite(value) or name not in coco.SIZES
        }
        return last | after

    def describe(
        self, outputs: Any, batch: Mapping[str, np.ndarray], facts: Mapping[str, Any]
    ) -> list[tuple[str, bool]]:
        """Captions "objects → found", of which those are told that are likely."""
        names = facts["class_names"]
        logits = np.asarray(outputs["logits"][:, -1], np.float64)
        chances = np.exp(logits - logits.max(axis=-1, keepdims=True))
        chances = (chances / chances.sum(axis=-1, keepdims=True))[..., :-1]
        captions = []
        for i, mask in enumerate(np.asarray(_objects(batch))):
            right = sorted(batch["labels"][i][mask].tolist())
            shown = chances[i][chances[i].max(axis=-1) > SHOWN]
            said = sorted(shown.argmax(axis=-1).tolist())
            texts = [_text(some, names) for some in (right, said)]
            captions.append((" \N{RIGHTWARDS ARROW} ".join(texts), right != said))
        return captions

    def recognise(
        self, outputs: Any, batch: Mapping[str, np.ndarray], facts: Mapping[str, Any]
    ) -> list[list[Finding]]:
        """The boxes of all queries."""
        last = {name: value[:, -1] for name, value in outputs.items()}
        found = jax.device_get(detected(last, given_size(batch)))
        if np.isnan(found["scores"]).any():
            raise answers.broken()
        names, findings = facts["class_names"], []
        for boxes, labels, scores in zip(*found.values(), strict=True):
            order = np.argsort(-scores, kind="stable").tolist()
            findings.append(
                [
                    Finding(
                        names[labels[q]], float(scores[q]), tuple(boxes[q].tolist())
                    )
                    for q in order
                ]
            )
        return findings


def detected(outputs: Mapping[str, jax.Array], size: jax.Array) -> dict[str, jax.Array]:
    """What each query finds, by the class of the highest probability but "no object".

    Args:
        outputs: "logits" [B, ..., K + 1] and "boxes" [B, ..., 4], as of a model.
        size: int [B, 2], height and width of each image.

    Returns:
        "boxes" [B, ..., 4], (x0, y0, x1, y1) in pixels; "labels" int32 and "scores",
        the probabilities, [B, ...].
    """
    logits = outputs["logits"].astype(jnp.float32)
    chances = jax.nn.softmax(logits, axis=-1)[..., :-1]
    boxes = geometry.corners(outputs["boxes"].astype(jnp.float32))
    scale = jnp.tile(size[:, ::-1], 2).astype(jnp.float32)
    scale = scale.reshape(len(scale), *(1,) * (boxes.ndim - 2), 4)
    return {
        "boxes": boxes * scale,
        "labels": jnp.argmax(chances, axis=-1).astype(jnp.int32),
        "scores": jnp.max(chances, axis=-1),
    }


def given_size(batch: Batch) -> jax.Array:
    """Height and width of each image without its padding, int32 [B, 2]."""
    if "image_mask" not in batch:
        count, *size, _ = batch["image"].shape
        return jnp.broadcast_to(jnp.array([size], jnp.int32), (count, 2))
    mask = batch["image_mask"]
    sides = [mask.any(axis=axis).sum(axis=1) for axis in (2, 1)]
    return jnp.stack(sides, axis=1).astype(jnp.int32)


def _targets(batch: Batch) -> jax.Array:
    """The objects' boxes as a model gives them: [B, N, 4]."""
    size = jnp.tile(given_size(batch)[:, None, ::-1], 2)
    return geometry.centred(batch["boxes"].astype(jnp.float32) / size)


def _objects(batch: Mapping[str, Any]) -> Any:
    """Where there is an object that is to be found: bool [B, N]."""
    mask = batch["boxes_mask"]
    return mask & ~batch["boxes_crowd"] if "boxes_crowd" in batch else mask


def _shapes(outputs: Any) -> list[tuple[int, ...]]:
    """Of the outputs "logits" and "boxes"; empty if there are none."""
    named = outputs if isinstance(outputs, Mapping) else {}
    return [tuple(getattr(named.get(n), "shape", ())) for n in ("logits", "boxes")]


def _text(labels: Sequence[int], names: Sequence[str]) -> str:
    return ", ".join(names[i] for i in labels) or "nothing"
