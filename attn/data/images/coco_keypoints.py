"""coco_keypoints: one person in the box of a detector, and where the joints are.

Persons of COCO (Lin et al., "Microsoft COCO", 2014, https://arxiv.org/abs/1405.0312) or
of files in its form, as that of its keypoints:

    FOLDER/annotations/person_keypoints_train2017.json  and pictures, FOLDER/train2017/
    FOLDER/annotations/person_keypoints_val2017.json                  FOLDER/val2017/

An example is a person with at least one labelled joint who is no crowd. The crop is the
box, cut off at the edges of the picture, as a detector that errs has it
(`attn.data.images.boxed`). What lies beyond the picture is black. Persons whose boxes
have no area are left out; how many is said on standard error.

COCO's joints are numbers of pixels, the middle of which is half a pixel further, while
its boxes are places: so Detectron2 takes them (`docs/tutorials/datasets.md`).
"""

import dataclasses
import functools
import json
import os
import pathlib
import sys
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from attn import settings
from attn.data import splits
from attn.data.images import boxed, folder, labelled, normalise
from attn.data.source import Batch, Source

NAME = "coco_keypoints"
PAIRED = ("eye", "ear", "shoulder", "elbow", "wrist", "hip", "knee", "ankle")
JOINTS = (
    "nose",
    *(f"{side}_{joint}" for joint in PAIRED for side in ("left", "right")),
)
# As in `Params.setKpParams` of pycocotools/cocoeval.py, of the nose and of each pair.
SIGMAS = (0.026, *np.repeat([25, 35, 79, 72, 62, 107, 87, 89], 2) / 1000)
# The "skeleton" of the category, from 0 on.
LIMBS = (
    *((15, 13), (13, 11), (16, 14), (14, 12), (11, 12), (5, 11), (6, 12), (5, 6)),
    *((5, 7), (6, 8), (7, 9), (8, 10), (1, 2), (0, 1), (0, 2), (1, 3), (2, 4)),
    *((3, 5), (4, 6)),
)
HELD_OUT = 0.05  # of the pictures of "train", for "validation"


class Persons(NamedTuple):
    """All persons of a file, those of one picture together.

    files: of the pictures.
    picture: which one each person is in, int [n], ascending.
    low, high: corners (x, y) of their boxes, in pixels, float64 [n, 2].
    joints: float64 [n, J, 2], in pixels, zeros where they are not labelled.
    labelled: bool [n, J].
    area: in pixels, float64 [n].
    """

    files: tuple[pathlib.Path, ...]
    picture: np.ndarray
    low: np.ndarray
    high: np.ndarray
    joints: np.ndarray
    labelled: np.ndarray
    area: np.ndarray


@dataclasses.dataclass(frozen=True)
class CocoKeypoints:
    """coco_keypoints: one person in the box of a detector, and where the joints are.

    A batch holds the fields of `attn.data.images.skeletons`, with "image" uint8 and J =
    17 joints. "visible" says whether a joint is labelled and inside of the image, and
    "centred_visible" likewise; joints that are not labelled are at (0, 0). COCO does
    not measure heads, says the fact heads, and "head" is 0. "area" is that of the
    outline, or of the box as `boxed.PERSON` says where there is none.

    Facts: num_joints, joint_names, limbs, sigmas, heads. Splits "train", "fit" and
    "validation", which are parts of it without a picture in common, and "test". They
    have the order of a hash of the picture's name.

    Attributes:
        path: of the folder.
        training: name of the file and the pictures of "train".
        testing: likewise of "test".
        size: H and W of the crop.
        margin, shift, scale: as of `Skeletons`; a margin of 0.25 is usual.
    """

    path: str = ""
    training: str = "train2017"
    testing: str = "val2017"
    size: tuple[settings.Positive, settings.Positive] = (256, 192)
    margin: settings.NotNegative = 0.25
    shift: settings.NotNegative = 0.1
    scale: settings.NotNegative = 0.2

    def open(self, split: str) -> Source:
        """One split, such as "train[:90%]".

        Raises:
            Invalid: no such split or folder, a file that is not in the form of COCO, or
                a picture that is not there.
        """
        testing = split.partition("[")[0] == "test"
        persons = _opened(self.path, self.testing if testing else self.training)
        total = len(persons.picture)
        first = int((1 - HELD_OUT) * len(persons.files))
        cut = int(np.searchsorted(persons.picture, first))
        rows = {
            "train": range(total),
            "fit": range(cut),
            "validation": range(cut, total),
            "test": range(total),
        }
        sizes = {name: len(found) for name, found in rows.items()}
        name, part = splits.part(split, sizes, NAME)
        chosen = np.array(rows[name][part.start : part.stop])

        def read(rows: np.ndarray, draws: np.ndarray) -> Batch:
            return self._read(persons, chosen[rows], draws)

        facts = {
            "num_joints": len(JOINTS),
            "joint_names": JOINTS,
            "limbs": LIMBS,
            "sigmas": tuple(map(float, SIGMAS)),
            "heads": False,
        }
        return Source(
            len(part),
            read,
            facts,
            draws=boxed.DRAWS,
            threads=min(16, os.cpu_count() or 1),
            statistics=normalise.statistics(NAME, 3),
        )

    def _read(self, persons: Persons, rows: np.ndarray, draws: np.ndarray) -> Batch:
        low, high = persons.low[rows], persons.high[rows]
        joints, known = persons.joints[rows], persons.labelled[rows]
        crops = functools.partial(boxed.crops, low, high, self.size)
        crop = crops(
            margin=self.margin, shift=self.shift, scale=self.scale, draws=draws
        )
        right = crops(margin=self.margin)
        images = [
            crop.cut(number, labelled.read(persons.files[persons.picture[row]]))
            for number, row in enumerate(rows.tolist())
        ]
        keypoints, centred = (
            np.where(known[..., None], one.places(joints), 0) for one in (crop, right)
        )
        return {
            "image": np.stack(images),
            "keypoints": keypoints.astype(np.float32),
            "visible": known & crop.inside(keypoints),
            "head": np.zeros(len(rows), np.float32),
            "area": (persons.area[rows] / crop.pixel**2).astype(np.float32),
            "centred": centred.astype(np.float32),
            "centred_visible": known & right.inside(centred),
        }


@functools.lru_cache(maxsize=4)
def _opened(path: str, name: str) -> Persons:
    """The persons of the file called `name`."""
    if not path:
        raise settings.Invalid(
            f"data set {NAME!r} needs path, the folder with annotations/ and pictures"
        )
    root = pathlib.Path(path).expanduser()
    if not root.is_dir():
        raise settings.Invalid(f"the folder {path!r} of data set {NAME!r} is not there")
    file = root / "annotations" / f"person_keypoints_{name}.json"
    try:
        content = json.loads(file.read_bytes())
    except OSError as error:
        raise settings.Invalid(f"{file} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise settings.Invalid(f"{file} is no JSON: {error}") from error
    try:
        found = _persons(content, root / name)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise settings.Invalid(
            f"{file} is not in the form of COCO's keypoints, 'images' and 'annotations'"
            f" with {len(JOINTS)} joints: {type(error).__name__} {error}"
        ) from error
    persons, left_out = _with_area(found)
    if left_out:
        print(f"{file}: {left_out} boxes without area are left out", file=sys.stderr)
    if not len(persons.picture):
        raise settings.Invalid(f"{file} has no person with a labelled joint")
    _check_there(root / name, persons.files)
    return persons


def _persons(content: Mapping[str, Any], place: pathlib.Path) -> Persons:
    """The persons of annotations, whose pictures are in the folder `place`."""
    images = {image["id"]: image for image in content["images"]}
    of = {}
    for person in content["annotations"]:
        if person["num_keypoints"] and not person.get("iscrowd", 0):
            of.setdefault(person["image_id"], []).append(person)
    files = {number: place / images[number]["file_name"] for number in of}
    order = sorted(of, key=lambda number: folder.hash_of(files[number]))
    everyone = [person for number in order for person in of[number]]
    picture = np.repeat(np.arange(len(order)), [len(of[number]) for number in order])
    sizes = [[images[number][side] for side in ("width", "height")] for number in order]
    ends = np.array(sizes, np.float64).reshape(-1, 2)[picture]
    box = np.array([p["bbox"] for p in everyone], np.float64).reshape(-1, 4)
    low, high = box[:, :2], box[:, :2] + box[:, 2:]
    low, high = (np.clip(corner, 0, ends) for corner in (low, high))
    given = np.array([p["keypoints"] for p in everyone], np.float64)
    given = given.reshape(len(everyone), len(JOINTS), 3)
    there = given[..., 2] > 0
    joints = np.where(there[..., None], given[..., :2] + 0.5, 0)
    assumed = boxed.PERSON * np.prod(high - low, axis=1)
    area = [p.get("area", a) for p, a in zip(everyone, assumed, strict=True)]
    paths = tuple(files[number] for number in order)
    return Persons(paths, picture, low, high, joints, there, np.array(area, np.float64))


def _with_area(found: Persons) -> tuple[Persons, int]:
    """The persons whose boxes have an area, and how many have none."""
    kept = (found.high > found.low).all(axis=1)
    fields = found._asdict() | {
        name: value[kept] for name, value in found._asdict().items() if name != "files"
    }
    return Persons(**fields), int((~kept).sum())


def _check_there(place: pathlib.Path, paths: tuple[pathlib.Path, ...]) -> None:
    """Refuses a folder in which pictures of the annotations are missing."""
    if not place.is_dir():
        raise settings.Invalid(f"the folder of pictures {str(place)!r} is not there")
    there = set(os.listdir(place))
    lacking = [p for p in paths if p.name not in there and not p.is_file()]
    if lacking:
        raise settings.Invalid(
            f"the picture {lacking[0]} is not there, and so are {len(lacking)} of"
            f" {len(paths)} of the annotations"
        )
