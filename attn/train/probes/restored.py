"""Restored photographs: what a model was given, what it made of it, and the truth."""

import json
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np

from attn import ops
from attn.data import Dataset
from attn.modules import Map
from attn.train.program import Program
from attn.workdir import files

EXAMPLES = 6
DETAIL = 96  # side of the square of a target that is shown, pixels
STRIDE = 8  # between squares that are looked at
KINDS = ("pixel_gate", "spatial_map")  # of attention that is shown
BYTES = 2**27  # of all attention of an image, beyond which none is made


def write(
    directory: pathlib.Path, program: Program, variables: Any, dataset: Dataset
) -> list[Any]:
    """Writes `examples.npz`, in the form of `attn.report.sections.examples`.

    Of the first images of the split that curves are of there is the square where the
    input is farthest from the truth: "degraded" as the model reads it, "bicubic" if it
    is enlarged, "restored", and the truth beside it; PSNR of the whole image; and, if
    the model gates pixels, the last such gate, its mean over channels, on the square,
    unless all attention of one of the images is larger than BYTES.
    """
    found: dict[int, dict[str, Any]] = {}
    count = min(EXAMPLES, dataset.size(program.curve_split))
    with dataset.split(program.curve_split, 1) as batches:
        for batch in batches:
            row = int(batch["index"][0])
            if row < count:
                found[row] = _seen(program, variables, batch, dataset)
            if len(found) == count:
                break
    sides = min(len(one["truth"]) for one in found.values())
    rows = [found[row] for row in sorted(found)]
    if any(len(one["truth"]) != sides for one in rows):
        return []  # photographs that are too small for a square of one size
    # the maps of a photograph that is too large are missing, and those of all then
    shown = [name for name in rows[0] if all(name in one for one in rows)]
    arrays = {name: np.stack([one[name] for one in rows]) for name in shown}
    files.write_npz(
        directory / "examples.npz",
        index=np.asarray(json.dumps(list(_fields(arrays)))),
        **arrays,
    )
    return []


def _fields(arrays: Mapping[str, np.ndarray]) -> Iterator[dict[str, Any]]:
    for name in ("degraded", "bicubic"):
        if name in arrays:
            yield {"name": name, "kind": "image", "keys": [name]}
    yield {"name": "restored, truth", "kind": "pair", "keys": ["restored", "truth"]}
    if "gate" in arrays:
        keys = ["gate", "place"]
        yield {"name": "truth", "kind": "image", "keys": ["truth"]}
        yield {"name": "last gate", "kind": "heat", "keys": keys, "on": "truth"}
    yield {"name": "PSNR", "kind": "text", "keys": ["psnr"]}


def _seen(
    program: Program,
    variables: Any,
    batch: Mapping[str, np.ndarray],
    dataset: Dataset,
) -> dict[str, Any]:
    """What is shown of a batch of one image."""
    batch = {name: batch[name] for name in program.fields}
    outputs, maps = _restored(program, variables, batch)
    evaluate = program.compiled("restored", program.task.evaluate)
    means = evaluate(outputs, batch)
    psnr = {name: float(mean.total[0] / mean.weight[0]) for name, mean in means.items()}
    image, target = batch["image"][0], batch["target"][0]
    scale = len(target) // len(image)
    truth = target / 255 if target.dtype == np.uint8 else target
    larger = image if scale == 1 else ops.imresize(image, scale)
    square = _square(larger, truth, batch, scale)
    low = tuple(slice(s.start // scale, s.stop // scale) for s in square)
    shown = {
        "degraded": dataset.picture(image)[low],
        "restored": np.asarray(outputs[0])[square],
        "truth": truth[square],
    }
    if scale > 1:
        shown["bicubic"] = larger[square]
    shown = {name: np.clip(one, 0, 1).astype(np.float32) for name, one in shown.items()}
    text = f"{psnr['input_psnr']:.2f} to {psnr['psnr']:.2f} dB"
    gate = _gate(maps, image.shape[:2], low)
    if gate is not None:
        side = len(shown["truth"])
        shown |= {"gate": gate, "place": np.array([0, 0, side, side], np.float32)}
    return shown | {"psnr": np.array(text)}


def _restored(
    program: Program, variables: Any, batch: Mapping[str, np.ndarray]
) -> tuple[np.ndarray, dict[str, Map]]:
    """The outputs, and the attention maps unless they are too large."""
    given = {name: batch[name] for name in program.inputs}
    _, shapes = jax.eval_shape(program.capture, variables, given)
    if 4 * sum(leaf.size for leaf in jax.tree.leaves(shapes)) > BYTES:
        apply = program.compiled("apply", program.apply)
        return jax.device_get(apply(variables, given)), {}
    return jax.device_get(program.capture(variables, given))


def _gate(
    maps: Mapping[str, Map], size: tuple[int, int], square: tuple[slice, slice]
) -> np.ndarray | None:
    """The last gate of pixels on the map of an image, in a square of it: [h, w]."""
    found = [
        one.values[0].reshape(*one.values.shape[1:3], -1).mean(axis=-1)
        for one in maps.values()
        if one.kind in KINDS and one.values.shape[1:3] == size
    ]
    return found[-1][square].astype(np.float16) if found else None


def _square(
    image: np.ndarray, truth: np.ndarray, batch: Mapping[str, np.ndarray], scale: int
) -> tuple[slice, slice]:
    """Where the image is farthest from the truth, a square that the scale divides."""
    height, width = truth.shape[:2]
    if "image_mask" in batch:
        mask = batch["image_mask"][0]
        height, width = (scale * int(mask.any(axis=a).sum()) for a in (1, 0))
    side = min(DETAIL, height, width) // scale * scale
    error = np.square(image - truth)[:height, :width].mean(axis=-1)
    total = np.pad(error.cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0)))
    step = -(-STRIDE // scale) * scale
    rows, columns = (np.arange(0, n - side + 1, step) for n in (height, width))
    above, left = rows[:, None], columns[None]
    below, right = above + side, left + side
    sums = total[below, right] - total[above, right]
    sums += total[above, left] - total[below, left]
    row, column = np.unravel_index(np.argmax(sums), sums.shape)
    top, start = int(rows[row]), int(columns[column])
    return slice(top, top + side), slice(start, start + side)
