"""Average precision of boxes as COCO defines it, by pycocotools.

Lin et al., "Microsoft COCO: Common Objects in Context", 2014,
https://arxiv.org/abs/1405.0312; the evaluation is told at
https://cocodataset.org/#detection-eval. pycocotools is the evaluation that papers used,
needs only NumPy, and takes some seconds for thousands of images. faster-coco-eval gives
the same numbers several times as fast (`tests/tasks/coco_test.py` compares them), which
is not worth a second implementation's word for the headline of a table.
"""

import contextlib
import functools
import io
import math
from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import Any

import numpy as np

# By name, in the order of pycocotools: over IoU of 0.5 to 0.95, at 0.5, at 0.75, and of
# small, medium and large objects, with areas up to 32^2, up to 96^2 and beyond.
SCORES = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large")
SIZES = SCORES[3:]
LABELS = ("AP", "AP50", "AP75", "APS", "APM", "APL")


def average_precision(
    truth: Mapping[str, np.ndarray], found: Mapping[str, np.ndarray]
) -> dict[str, float]:
    """The `SCORES` in percent of boxes found in n images; NaN where no object counts.

    The 100 boxes of the highest score of each image and class count. Boxes or scores
    that are NaN count as not found.

    Args:
        truth: "boxes" [n, N, 4], (x0, y0, x1, y1) in pixels; "mask" bool [n, N], where
            there is an object; "labels" int [n, N]; "area" [n, N], by which an object
            is small or large; "crowd" bool [n, N], crowds of objects, which count
            neither as found nor as missed.
        found: "boxes" [n, Q, 4], "labels" [n, Q], "scores" [n, Q].
    """
    images = [{"id": number} for number in range(len(truth["boxes"]))]
    classes = np.union1d(truth["labels"][truth["mask"]], found["labels"])
    whole = {
        "images": images,
        "categories": [{"id": int(number)} for number in classes],
    }
    objects, boxes = _objects(truth), _found(found)
    if not objects:
        return dict.fromkeys(SCORES, math.nan)
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval

        sets = []
        for annotations in (objects, boxes):
            one: Any = COCO()
            one.dataset = {**whole, "annotations": annotations}
            one.createIndex()
            sets.append(one)
        evaluation = COCOeval(*sets, iouType="bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    values = 100 * evaluation.stats[: len(SCORES)]
    return {
        name: float(value) if value >= 0 else math.nan
        for name, value in zip(SCORES, values, strict=True)
    }


@functools.cache
def signature() -> str:
    """How the scores are computed."""
    return f"pycocotools {metadata.version('pycocotools')}, at most 100 boxes an image"


def _objects(truth: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
    image, place = np.nonzero(truth["mask"])
    part = {name: truth[name][image, place] for name in ("labels", "area", "crowd")}
    more = {
        "area": part["area"].tolist(),
        "iscrowd": part["crowd"].astype(int).tolist(),
    }
    return _entries(image, truth["boxes"][image, place], part["labels"], more)


def _found(found: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
    whole = np.isfinite(found["boxes"]).all(axis=-1) & np.isfinite(found["scores"])
    image, place = np.nonzero(whole)
    boxes = found["boxes"][image, place]
    sides = (boxes[:, 2:] - boxes[:, :2]).astype(np.float64)
    more = {
        "score": found["scores"][image, place].tolist(),
        "area": np.prod(sides, axis=1).tolist(),
        "iscrowd": [0] * len(image),
    }
    return _entries(image, boxes, found["labels"][image, place], more)


def _entries(
    image: np.ndarray,
    boxes: np.ndarray,
    labels: np.ndarray,
    more: Mapping[str, Sequence],
) -> list[dict[str, Any]]:
    """Annotations in COCO's form, whose boxes are (x0, y0, width, height).

    Args:
        image: the number of the image of each of n boxes.
        boxes: [n, 4] by their corners.
        labels: [n].
        more: lists of n values by name.
    """
    boxes = boxes.astype(np.float64)
    boxes = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
    columns = {
        "id": range(1, len(image) + 1),  # 0 means "none" to pycocotools
        "image_id": image.tolist(),
        "category_id": labels.tolist(),
        "bbox": boxes.tolist(),
        **more,
    }
    return [
        dict(zip(columns, values, strict=True))
        for values in zip(*columns.values(), strict=True)
    ]
