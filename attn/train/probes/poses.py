"""Poses that a model finds, beside the true ones, and in what a transformer shows."""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from attn import ops
from attn.data import Dataset
from attn.tasks import keypoints
from attn.train.probes import rows
from attn.train.program import Program
from attn.workdir import files

EXAMPLES = 6
THETA = "theta"  # the output with the affine map of the transformer


def write(
    directory: pathlib.Path, program: Program, variables: Any, dataset: Dataset
) -> list[Any]:
    """Writes `examples.npz`, in the form of `attn.report.sections.examples`.

    Of the first images of the split that curves are of: the image as the model reads
    it, with the visible joints of the true pose, and with all joints that are found;
    how many of them are right; and, of a model with the outputs "seen" [B, H', W', C]
    and "theta" [B, 2, 3], by which (x, y) in what is seen is theta (x, y, 1) in the
    image, both from -1 to 1 between their outer edges, what is seen, with the pose that
    is found.
    """
    batch = rows.first(dataset, program.curve_split, EXAMPLES, program.fields)
    apply = program.compiled("apply", program.apply)
    given = {name: batch[name] for name in program.inputs}
    outputs = jax.device_get(apply(variables, given))
    found = np.asarray(keypoints.decoded(outputs, batch))
    captions = program.task.describe(outputs, batch, dataset.facts)
    limbs = np.array(dataset.facts.get("limbs", ()), int).reshape(-1, 2)
    arrays = {
        "image": _pictures(batch["image"], dataset),
        "true": np.where(batch["visible"][..., None], batch["keypoints"], np.nan),
        "found": found,
        "limbs": np.repeat(limbs[None], len(found), axis=0),
        "right": np.array([text for text, _ in captions]),
    }
    fields = [_pose("true pose", "true"), _pose("pose found", "found")]
    if isinstance(outputs, Mapping) and {keypoints.SEEN, THETA} <= outputs.keys():
        seen, size = outputs[keypoints.SEEN], batch["image"].shape[1:3]
        arrays["seen"] = _pictures(np.asarray(seen, np.float32), dataset)
        arrays["there"] = _moved(found, outputs[THETA], size, seen.shape[1:3])
        fields.append({"name": "seen", "kind": "image", "keys": ["seen"]})
        fields.append(_pose("pose in what is seen", "there", on="seen"))
    fields = [
        {"name": "image", "kind": "image", "keys": ["image"]},
        *fields,
        {"name": "right", "kind": "text", "keys": ["right"]},
    ]
    files.write_npz(
        directory / "examples.npz", index=np.asarray(json.dumps(fields)), **arrays
    )
    return []


def _pose(name: str, key: str, on: str = "image") -> dict[str, Any]:
    return {"name": name, "kind": "pose", "keys": [key, "limbs"], "on": on}


def _pictures(images: np.ndarray, dataset: Dataset) -> np.ndarray:
    """The images in [0, 1]: what is seen may leave it."""
    shown = np.stack([dataset.picture(image) for image in images])
    return np.clip(shown, 0, 1).astype(np.float32)


def _moved(
    points: np.ndarray,
    theta: np.ndarray,
    image: tuple[int, int],
    seen: tuple[int, int],
) -> np.ndarray:
    """Points of the image, in pixels, in what is seen of it: [B, J, 2] -> [B, J, 2].

    Args:
        points: (x, y) in pixels of the image.
        theta: [B, 2, 3], from what is seen to the image.
        image, seen: height and width of both.
    """
    places = 2 * points / image[::-1] - 1
    back = _back(theta, places)
    return (np.asarray(back) + 1) / 2 * seen[::-1]


@jax.jit
def _back(theta: jax.Array, places: jax.Array) -> jax.Array:
    """Places in what is seen of an image, by those in the image: [B, J, 2]."""
    return ops.move_points(ops.invert_affine(theta), places)
