"""Writes sweep directories as training leaves them, with made-up but likely content.

Curves fall, attentions differ a little, seeds shift all of them together, and the
maps follow the images: turned digits, drawn with a font.
"""

import json
import pathlib
from collections.abc import Iterable, Sequence

import numpy as np
import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont

from attn.report.read import results

STEPS = 250
# name -> final error in percent, parameters, MACs, milliseconds a step
ATTENTIONS = {
    "none": (9.6, 77_850, 5_271_936, 50.1),
    "squeeze_excite": (8.9, 79_004, 5_277_888, 53.9),
    "cbam": (8.7, 79_442, 5_431_110, 71.3),
    "pixel_attention": (9.1, 83_266, 6_275_456, 58.2),
    "non_local": (9.3, 88_602, 9_412_992, 88.0),
    "spatial_transformer": (6.2, 98_520, 7_012_352, 67.5),
}
BLOCKS = {"stage1/block0": (14, 16), "stage2/block0": (7, 32), "stage3/block0": (4, 64)}


def sweep(
    root: pathlib.Path,
    attentions: Sequence[str] = tuple(ATTENTIONS),
    seeds: int = 3,
    images: int = 8,
) -> pathlib.Path:
    """Writes a whole sweep and returns its directory."""
    points = [
        {"name": f"{attention}-{seed}", "axes": {"attention": attention, "seed": seed}}
        for attention in attentions
        for seed in range(seeds)
    ]
    experiment = {
        "name": "attention_sweep",
        "title": "Which attention helps on rotated digits?",
        "description": "A small ResNet on mnist_5k, digits turned by up to 90 degrees.",
        "axes": ["attention", "seed"],
        "baseline": {"attention": "none"},
        "points": points,
    }
    root.mkdir(parents=True, exist_ok=True)
    (root / "experiment.json").write_text(json.dumps(experiment))
    for entry in points:
        point(root / entry["name"], images=images, **entry["axes"])
    return root


def bare(
    root: pathlib.Path,
    axes: Sequence[str],
    points: Sequence[dict],
    errors: Iterable[float | None],
    **record,
) -> results.Sweep:
    """Writes and reads a sweep with nothing but errors; None is not finished."""
    entries = [{"name": f"p{i}", "axes": point} for i, point in enumerate(points)]
    record = {"name": "s", "axes": list(axes), "points": entries, **record}
    root.mkdir(parents=True, exist_ok=True)
    _dump(root / "experiment.json", record)
    for entry, error in zip(entries, errors, strict=True):
        (root / entry["name"]).mkdir()
        if error is not None:
            _dump(root / entry["name"] / "result.json", {"test": {"error": error}})
    return results.read(root)


def point(
    directory: pathlib.Path, *, attention: str, seed: int, images: int = 8
) -> pathlib.Path:
    """Writes one finished point and returns its directory."""
    error, parameters, macs, ms = ATTENTIONS[attention]
    rng = np.random.default_rng([seed, *attention.encode()])
    final = error + 0.8 * (seed - 1) + rng.normal(0, 0.25)
    slots = {} if attention == "none" else {"block.residual": attention}
    finished(
        directory,
        {"attention": attention, "seed": seed},
        config(slots, seed),
        final,
        {"parameters": parameters, "macs": macs, "ms_per_step": ms},
        rng,
    )
    maps(directory / "attention.npz", attention, images, rng)
    return directory


def finished(
    directory: pathlib.Path,
    axes: dict,
    settings: dict,
    final: float,
    costs: dict,
    rng: np.random.Generator,
) -> None:
    """Writes the files of a finished point, all but its pictures."""
    directory.mkdir(parents=True, exist_ok=True)
    _dump(directory / "config.json", settings)
    _dump(directory / "environment.json", environment())
    lines = list(curve(final, rng))
    (directory / "metrics.jsonl").write_text(
        "".join(f"{json.dumps(x)}\n" for x in lines)
    )
    test = {name: lines[-1][name] for name in ("loss", "error")}
    ms = costs["ms_per_step"] * (1 + rng.normal(0, 0.02))
    times = {
        "ms_per_step": ms,
        "images_per_s": 128_000 / ms,
        "seconds": STEPS * ms / 1000 + 6,
    }
    result = {"axes": axes, "steps": STEPS, "test": {**test, "examples": 1000}}
    _dump(directory / "result.json", {**result, **costs, **times})


def config(slots: dict, seed: int) -> dict:
    return {
        "seed": seed,
        "data": {"name": "mnist_5k", "distortion": "r", "batch": 128},
        "model": {"name": "resnet", "widths": [16, 32, 64], "slots": slots},
        "train": {"steps": STEPS, "optimizer": {"name": "adamw", "peak": 0.003}},
    }


def environment(commit: str = "4be1c07") -> dict:
    return {
        "commit": commit,
        "python": "3.11.7",
        "versions": {"jax": "0.10.2", "flax": "0.12.8", "optax": "0.2.8"},
        "machine": {"platform": "cpu", "devices": 1, "cores": 2},
        "started": "2026-11-22T10:02:11",
    }


def curve(final: float, rng: np.random.Generator):
    """The lines of metrics.jsonl: errors fall from 90 % to `final`."""
    for step in range(10, STEPS + 1, 10):
        left = np.exp(-step / 45)
        noisy = (final * 0.8 + (88 - final) * left) * (1 + rng.normal(0, 0.06))
        yield {"step": step, "split": "train", "loss": noisy / 38, "error": noisy}
        if step % 50 == 0:
            error = round(final + (88 - final) * left, 1)
            yield {"step": step, "split": "test", "loss": error / 33, "error": error}


def digits(count: int, side: int = 28) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images [n, side, side, 1] of turned digits, their labels, the angles (rad)."""
    font = PIL.ImageFont.load_default(size=22)
    labels = (np.arange(count) * 3 + 7) % 10
    angles = np.deg2rad(np.linspace(-80, 80, count))
    images = []
    for label, angle in zip(labels, angles, strict=True):
        canvas = PIL.Image.new("L", (side, side))
        pen = PIL.ImageDraw.Draw(canvas)
        pen.text((side / 2, side / 2), str(label), 255, font=font, anchor="mm")
        turned = canvas.rotate(np.rad2deg(angle), PIL.Image.Resampling.BILINEAR)
        images.append(np.asarray(turned, np.float32)[..., None] / 255)
    return np.stack(images), labels, angles


def turning_grid(angles: np.ndarray, side: int) -> np.ndarray:
    """Grids [n, side, side, 2] that read digits turned by `angles` upright."""
    line = (2 * np.arange(side) + 1) / side - 1
    y, x = np.meshgrid(line, line, indexing="ij")
    cos, sin = (f(angles)[:, None, None] for f in (np.cos, np.sin))
    return 0.85 * np.stack([cos * x + sin * y, cos * y - sin * x], axis=-1)


def _shrunk(images: np.ndarray, side: int) -> np.ndarray:
    """Images [n, H, W, 1] as maps [n, side, side]."""
    resize = lambda image: PIL.Image.fromarray(image).resize(
        (side, side), PIL.Image.Resampling.BOX
    )
    return np.stack([np.asarray(resize(image[..., 0])) for image in images])


def maps(
    path: pathlib.Path, attention: str, count: int, rng: np.random.Generator
) -> None:
    """Writes attention.npz with the kinds of maps that `attention` records."""
    images, labels, angles = digits(count)
    arrays, index = {}, []

    def add(where: str, kind: str, *values: np.ndarray, grid=None) -> None:
        keys = [f"map{len(arrays) + i}" for i in range(len(values))]
        arrays.update(zip(keys, (v.astype(np.float32) for v in values), strict=True))
        index.append({"path": where, "kind": kind, "grid": grid, "keys": keys})

    for block, (side, channels) in BLOCKS.items():
        where, body = f"{block}/residual", _shrunk(images, side)
        if attention in ("squeeze_excite", "cbam"):
            gates = rng.normal(0, 1.2, channels) + rng.normal(0, 0.4, (count, channels))
            add(f"{where}/channel_gate", "channel_gate", 1 / (1 + np.exp(-gates)))
        if attention == "cbam":
            spatial = 1 / (1 + np.exp(2 - 5 * body - rng.normal(0, 0.3, body.shape)))
            add(f"{where}/spatial_map", "spatial_map", spatial)
        if attention == "pixel_attention":
            noise = rng.normal(0, 0.6, (*body.shape, channels))
            pixel = 1 / (1 + np.exp(1 - 3 * body[..., None] + noise))
            add(f"{where}/pixel_gate", "pixel_gate", pixel)
        if attention == "non_local":
            add(
                f"{where}/token_matrix",
                "token_matrix",
                _matrix(body),
                grid=[side, side],
            )
            left, right = _factors(body, rng)
            add(f"{where}/factors", "factors", left, right, grid=[side, side])
    if attention == "spatial_transformer":
        add("stem/sampling_grid", "sampling_grid", turning_grid(angles, 28))
    predictions = labels.copy()
    predictions[rng.integers(count)] = (labels[0] + 1) % 10
    np.savez_compressed(
        path,
        images=images,
        labels=labels,
        predictions=predictions,
        classes=np.array([str(i) for i in range(10)]),
        index=json.dumps(index),
        **arrays,
    )


def _matrix(body: np.ndarray) -> np.ndarray:
    """Matrices [n, 2, T, T]: places read the digit, and more what is near."""
    count, side, _ = body.shape
    place = np.stack(np.divmod(np.arange(side * side), side), axis=-1) / side
    near = -8 * ((place[:, None] - place[None]) ** 2).sum(axis=-1)
    logits = (
        near + 4 * body.reshape(count, 1, 1, -1) * np.array([0.5, 1.5])[:, None, None]
    )
    weights = np.exp(logits)
    return weights / weights.sum(axis=-1, keepdims=True)


def _factors(
    body: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Two factors [n, 1, T, 4] and [n, 1, 4, T] whose product has rows of sum 1."""
    count, side, _ = body.shape
    left = rng.dirichlet(np.ones(4), (count, 1, side * side))
    right = rng.gamma(1, 1, (count, 1, 4, side * side)) * (
        0.05 + body.reshape(count, 1, 1, -1)
    )
    return left, right / right.sum(axis=-1, keepdims=True)


def _dump(path: pathlib.Path, value: dict) -> None:
    path.write_text(json.dumps(value))


def outcomes(
    root: pathlib.Path,
    errors: dict[str, float],
    *,
    seeds: int = 3,
    count: int = 400,
    **record,
) -> results.Sweep:
    """Writes and reads a sweep over `kind` with what each test example got.

    `errors` are by kind, percent. What is hard is so for all kinds; the record's
    baseline is "none".
    """
    rng = np.random.default_rng(0)
    entries = [
        {"name": f"{kind}-{seed}", "axes": {"kind": kind, "seed": seed}}
        for kind in errors
        for seed in range(seeds)
    ]
    root.mkdir(parents=True, exist_ok=True)
    base = {"name": "s", "axes": ["kind", "seed"], "baseline": {"kind": "none"}}
    _dump(root / "experiment.json", {**base, "points": entries, **record})
    hard = rng.permutation(count) / count
    for entry in entries:
        place = root / entry["name"]
        place.mkdir()
        skill = 1 - errors[entry["axes"]["kind"]] / 100
        wrong = 100.0 * (hard + rng.normal(0, 0.02, count) > skill)
        test = {"error": float(wrong.mean()), "examples": count}
        _dump(place / "result.json", {"test": test})
        np.savez(
            place / "outcomes.npz",
            index=np.arange(count),
            **{"error.total": np.float32(wrong), "error.weight": np.ones(count)},
        )
    return results.read(root)
