"""Average precision against COCO's tools, reading files, and by hand."""

import contextlib
import io
import json
import math

import faster_coco_eval
import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from attn.tasks import coco

IMAGES, OBJECTS, FOUND, CLASSES = 30, 6, 12, 4


@pytest.fixture(scope="module")
def example():
    """Objects of all sizes, some of them crowds, and boxes near them and elsewhere."""
    rng = np.random.default_rng(0)
    first = rng.uniform(0, 300, (IMAGES, OBJECTS, 2))
    sides = np.exp(rng.uniform(np.log(8), np.log(300), first.shape))
    mask = np.arange(OBJECTS) < rng.integers(0, OBJECTS + 1, (IMAGES, 1))
    truth = {
        "boxes": np.concatenate([first, first + sides], -1).astype(np.float32),
        "mask": mask,
        "labels": np.where(mask, rng.integers(0, CLASSES, mask.shape), -1),
        # smaller than the boxes, as masks of objects are
        "area": (sides.prod(-1) * rng.uniform(0.4, 0.9, mask.shape)).round(2),
        "crowd": mask & (rng.uniform(size=mask.shape) < 0.15),
    }
    near = np.tile(truth["boxes"], (1, 2, 1))
    size = np.tile(sides, (1, 2, 2))
    boxes = near + 0.12 * size * rng.normal(size=near.shape)
    labels = np.tile(np.maximum(truth["labels"], 0), (1, 2))
    wrong = rng.uniform(size=labels.shape) < 0.2
    found = {
        "boxes": boxes.astype(np.float32),
        "labels": np.where(wrong, rng.integers(0, CLASSES, labels.shape), labels),
        "scores": rng.uniform(size=labels.shape).round(2).astype(np.float32),  # ties
    }
    return truth, found


def corners_to_coco(box):
    x, y, right, bottom = (float(v) for v in box)
    return [x, y, right - x, bottom - y]


def as_files(truth, found, folder):
    """The two files that COCO's tools read."""
    objects = [
        {
            "id": 10 + OBJECTS * i + k,
            "image_id": 100 + i,
            "category_id": 7 + int(truth["labels"][i, k]),
            "bbox": corners_to_coco(truth["boxes"][i, k]),
            "area": float(truth["area"][i, k]),
            "iscrowd": int(truth["crowd"][i, k]),
        }
        for i, k in np.argwhere(truth["mask"]).tolist()
    ]
    results = [
        {
            "image_id": 100 + i,
            "category_id": 7 + int(found["labels"][i, k]),
            "bbox": corners_to_coco(found["boxes"][i, k]),
            "score": float(found["scores"][i, k]),
        }
        for i, k in np.ndindex(*found["scores"].shape)
    ]
    whole = {
        "images": [{"id": 100 + i} for i in range(len(truth["mask"]))],
        "categories": [{"id": 7 + c} for c in range(CLASSES)],
        "annotations": objects,
    }
    (folder / "objects.json").write_text(json.dumps(whole))
    (folder / "results.json").write_text(json.dumps(results))


TOOLS = {
    "pycocotools": (COCO, COCOeval),
    "faster-coco-eval": (faster_coco_eval.COCO, faster_coco_eval.COCOeval_faster),
}


@pytest.mark.parametrize("tool", TOOLS)
def test_scores_are_those_of_the_tools_that_read_files(example, tool, tmp_path):
    as_files(*example, tmp_path)
    read, evaluator = TOOLS[tool]
    with contextlib.redirect_stdout(io.StringIO()):
        objects = read(str(tmp_path / "objects.json"))
        results = objects.loadRes(str(tmp_path / "results.json"))
        made = evaluator(objects, results, "bbox")
        made.evaluate()
        made.accumulate()
        made.summarize()
    ours = coco.average_precision(*example)
    assert list(ours) == list(coco.SCORES)
    assert [*ours.values()] == pytest.approx([*(100 * made.stats[:6])], abs=1e-9)
    assert len({round(value, 6) for value in ours.values()}) == 6
    assert 5 < ours["ap"] < ours["ap50"] < 95


@pytest.mark.parametrize("field", ["area", "crowd"])
def test_areas_and_crowds_count(example, field):
    truth, found = example
    changed = truth | {field: np.zeros_like(truth[field])}
    ours = coco.average_precision(*example)
    assert coco.average_precision(changed, found) != pytest.approx(ours, nan_ok=True)


def one_class(boxes, scores, objects):
    """One image with objects of 40x10 pixels at these places, and boxes like them."""

    def at(x):
        x = np.asarray(x, np.float32)
        return np.stack([x, 0 * x, x + 40, 0 * x + 10], -1)[None]

    count = len(objects)
    truth = {
        "boxes": at(objects),
        "mask": np.ones((1, count), bool),
        "labels": np.full((1, count), 3),
        "area": np.full((1, count), 400.0),
        "crowd": np.zeros((1, count), bool),
    }
    found = {
        "boxes": at(boxes),
        "labels": np.full((1, len(boxes)), 3),
        "scores": np.asarray([scores]),
    }
    return coco.average_precision(truth, found)


def test_a_worked_example():
    """Right, wrong, right: precision 1 up to recall 1/2, then 2/3.

    Of the 101 recalls 0, 0.01, ... 51 are at most 1/2.
    """
    ours = one_class([0, 200, 100], [0.9, 0.8, 0.7], [0, 100])
    wanted = 100 * (51 + 50 * 2 / 3) / 101
    for name in ("ap", "ap50", "ap75", "ap_small"):
        assert ours[name] == pytest.approx(wanted)
    assert math.isnan(ours["ap_medium"]) and math.isnan(ours["ap_large"])


def test_a_box_that_is_off_is_right_up_to_its_overlap():
    """Eight of 40 pixels off, IoU is 2/3: right at 0.5, 0.55, 0.6 and 0.65."""
    ours = one_class([8], [0.9], [0])
    assert ours["ap50"] == pytest.approx(100) and ours["ap75"] == 0
    assert ours["ap"] == pytest.approx(40)


def test_what_is_nan_is_not_found_and_no_objects_have_no_score(example):
    truth, found = example
    broken = {name: np.array(value) for name, value in found.items()}
    broken["scores"][:, ::2] = np.nan
    broken["boxes"][:, 1::2, 2] = np.inf
    assert coco.average_precision(truth, broken)["ap"] == 0
    none = truth | {"mask": np.zeros_like(truth["mask"])}
    assert all(map(math.isnan, coco.average_precision(none, found).values()))


def test_nothing_is_printed(example, capsys):
    coco.average_precision(*example)
    assert capsys.readouterr() == ("", "")
    assert coco.signature().startswith("pycocotools 2.")
