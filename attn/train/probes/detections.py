"""Objects that a detector finds, what its queries read, and which areas they serve.

As in Figures 3, 6 and 7 of Carion et al., "End-to-End Object Detection with
Transformers", ECCV 2020, https://arxiv.org/abs/2005.12872.
"""

import functools
import json
import math
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from attn.data import Dataset
from attn.tasks import detection
from attn.train.probes import rows
from attn.train.program import Program
from attn.workdir import files

EXAMPLES = 6  # images that are shown
READ = 3  # queries and places of each of them whose attention is shown
LIKELY = 0.5  # probability from which on a box is shown
IMAGES = 2000  # over which the areas of queries are collected
KIND = "token_matrix"


def write(
    directory: pathlib.Path, program: Program, variables: Any, dataset: Dataset
) -> list[Any]:
    """Writes `examples.npz` and `query_areas.npz`; there are no measures.

    The first, in the form that `attn.report.sections.examples` tells, has the first
    images of the split that curves are of, the boxes of the objects and those that are
    found, and heat: what the queries of the READ most probable boxes read of the image
    in the last layer of the decoder, and what the centres of as many objects read in
    the last layer of the encoder, means over heads. Attention that is no matrix of
    weights is left out.

    The second has for IMAGES images of this split "boxes" [n, Q, 4], (cx, cy, w, h) in
    [0, 1], of all queries after the last layer, and their "scores" [n, Q].
    """
    _write_examples(directory, program, variables, dataset)
    _write_areas(directory, program, variables, dataset)
    return []


def _write_examples(
    directory: pathlib.Path, program: Program, variables: Any, dataset: Dataset
) -> None:
    batch = rows.first(dataset, program.curve_split, EXAMPLES, program.fields)
    there = {name: batch[name] for name in program.inputs}
    size = np.asarray(detection.given_size(batch))
    objects = np.asarray(batch["boxes_mask"])
    places = _centres(batch["boxes"], objects)
    read = functools.partial(_read, program.capture, _paths(program, variables, there))
    read = program.compiled("detections", read)
    found, maps = jax.device_get(read(variables, there, size, places))
    names = np.asarray(dataset.facts["class_names"])
    shown = np.where(found["scores"] >= LIKELY, found["scores"], 0)
    arrays = {
        "image": _pictures(batch, dataset),
        "objects": np.where(objects[..., None], batch["boxes"], 0),
        "object_names": np.where(objects, names[np.maximum(batch["labels"], 0)], ""),
        "object_classes": batch["labels"],
        "found": np.where(shown[..., None] > 0, found["boxes"], 0),
        "found_names": _named(names[found["labels"]], shown),
        "found_classes": found["labels"],
    }
    fields = [
        {"name": "image", "kind": "image", "keys": ["image"]},
        _boxes("objects", ["objects", "object_names", "object_classes"]),
        _boxes("found", ["found", "found_names", "found_classes"]),
    ]
    for k in range(READ):
        for side, what in (("decoder", f"read for box {k + 1}"), ("encoder", "")):
            if side not in maps or k >= maps[side].shape[1]:
                continue
            key = f"{side}{k}"
            arrays[key] = maps[side][:, k].astype(np.float16)
            marks = found["boxes"] if side == "decoder" else places
            arrays[f"{key}_mark"] = marks[:, k].astype(np.float32)
            name = what or f"read by place {k + 1}"
            entry = {"name": name, "kind": "heat", "keys": [key, f"{key}_mark"]}
            fields.append({**entry, "on": "image"})
    fields.sort(key=lambda field: "place" in field["name"])  # the encoder's come last
    files.write_npz(
        directory / "examples.npz", index=np.asarray(json.dumps(fields)), **arrays
    )


def _boxes(name: str, keys: list[str]) -> dict[str, Any]:
    return {"name": name, "kind": "boxes", "keys": keys, "on": "image"}


def _named(names: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Names with probabilities in percent, "" where these are 0."""
    texts = [
        f"{name} {100 * score:.0f}" if score else ""
        for name, score in zip(names.ravel(), scores.ravel().tolist(), strict=True)
    ]
    return np.array(texts).reshape(names.shape)


def _pictures(batch: Mapping[str, np.ndarray], dataset: Dataset) -> np.ndarray:
    """The images in [0, 1], white where they are padded."""
    shown = np.stack([dataset.picture(image) for image in batch["image"]])
    if "image_mask" in batch:
        shown = np.where(batch["image_mask"][..., None], shown, 1.0)
    return shown.astype(np.float32)


def _centres(boxes: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Centres (x, y) in pixels of the first READ objects: [B, READ, 2].

    Where there are fewer, they repeat; without any it is a place near the corner.
    """
    count = np.maximum(mask.sum(axis=1), 1)
    # objects may have gaps between them, where a box has vanished
    first = np.argsort(~mask, axis=1, kind="stable")
    chosen = np.arange(READ) % count[:, None]
    chosen = np.take_along_axis(first, chosen, axis=1)
    taken = np.take_along_axis(boxes, chosen[..., None], axis=1)
    return (taken[..., :2] + taken[..., 2:]) / 2


def _paths(
    program: Program, variables: Any, batch: Mapping[str, np.ndarray]
) -> dict[str, str]:
    """The last matrices of the encoder, and of the decoder over the image."""
    _, shapes = jax.eval_shape(program.capture, variables, dict(batch))
    found = {}
    for side, slot in (("encoder", "mixer"), ("decoder", "cross")):
        paths = [
            (int(layer.removeprefix(side)), path)
            for path, record in shapes.items()
            if record.kind == KIND and path.count("/") == 2
            for layer, place, _ in [path.split("/")]
            if layer.removeprefix(side).isdecimal() and place == slot
        ]
        if paths:
            found[side] = max(paths)[1]
    return found


def _read(
    capture: Any,
    paths: Mapping[str, str],
    variables: Any,
    batch: Mapping[str, jax.Array],
    size: jax.Array,
    places: jax.Array,
) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
    """What is found, the most probable first, and maps [B, READ, h, w] by side.

    Args:
        capture: of the program.
        paths: of the attention by side.
        variables, batch: of the model.
        size: int [B, 2], height and width of the images without padding.
        places: [B, READ, 2], (x, y) in pixels, of the encoder.
    """
    outputs, maps = capture(variables, batch)
    last = {name: outputs[name][:, -1] for name in ("logits", "boxes")}
    found = detection.detected(last, size)
    order = jnp.argsort(-found["scores"], axis=1)
    image = batch["image"].shape[1:3]
    reads = {}
    for side, path in paths.items():
        values = maps[path].values.astype(jnp.float32).mean(axis=1)  # [B, T, S]
        grid = _grid(values.shape[-1], image)
        if side == "decoder":
            asks = order[:, :READ]
        else:
            row, column = (
                (places[..., axis] * (grid[1 - axis] / image[1 - axis])).astype(int)
                for axis in (1, 0)
            )
            asks = row * grid[1] + column
        taken = jnp.take_along_axis(values, asks[..., None], axis=1)
        reads[side] = taken.reshape(*taken.shape[:2], *grid)
    sort = lambda a: jnp.take_along_axis(
        a, order.reshape(*order.shape, *(1,) * (a.ndim - 2)), axis=1
    )
    return {name: sort(value) for name, value in found.items()}, reads


def _grid(places: int, image: tuple[int, int]) -> tuple[int, int]:
    """Height and width of a map of so many places, in the ratio of the image."""
    ratio = math.log(image[0] / image[1])
    heights = [h for h in range(1, places + 1) if places % h == 0]
    height = min(heights, key=lambda h: abs(math.log(h * h / places) - ratio))
    return height, places // height


def _write_areas(
    directory: pathlib.Path, program: Program, variables: Any, dataset: Dataset
) -> None:
    areas = program.compiled("query_areas", functools.partial(_areas, program.apply))
    boxes, scores, seen = [], [], 0
    with dataset.split(program.curve_split, program.eval_batch_size) as batches:
        for batch in batches:
            given = {name: batch[name] for name in program.inputs}
            found = jax.device_get(areas(variables, given))
            real = batch["weight"] > 0
            boxes.append(found[0][real])
            scores.append(found[1][real])
            seen += int(real.sum())
            if seen >= IMAGES:
                break
    files.write_npz(
        directory / "query_areas.npz",
        boxes=np.concatenate(boxes)[:IMAGES].astype(np.float16),
        scores=np.concatenate(scores)[:IMAGES].astype(np.float16),
    )


def _areas(
    apply: Any, variables: Any, batch: Mapping[str, jax.Array]
) -> tuple[jax.Array, jax.Array]:
    outputs = apply(variables, batch)
    chances = jax.nn.softmax(outputs["logits"][:, -1].astype(jnp.float32), axis=-1)
    return outputs["boxes"][:, -1], chances[..., :-1].max(axis=-1)
