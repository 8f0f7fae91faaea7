"""Made-up sweeps in the shape of published tables, as training leaves them.

`transformers` is Table 1 of the spatial-transformer paper: networks, transformers and
distortions. `reductions` is Table 10 of SENet: an error among other quantities.
"""

import json
import pathlib
from collections.abc import Sequence

import numpy as np

from tests.report import synthetic

DISTORTIONS = ("r", "rts", "p", "e")
TRANSFORMERS = ("none", "affine", "projective", "thin_plate")
PAPER = {
    ("FCN", "none"): (2.1, 5.2, 3.1, 3.2),
    ("CNN", "none"): (1.2, 0.8, 1.5, 1.4),
    ("FCN", "affine"): (1.2, 0.8, 1.5, 2.7),
    ("FCN", "projective"): (1.3, 0.9, 1.4, 2.6),
    ("FCN", "thin_plate"): (1.1, 0.8, 1.4, 2.4),
    ("CNN", "affine"): (0.7, 0.5, 0.8, 1.2),
    ("CNN", "projective"): (0.8, 0.6, 0.8, 1.3),
    ("CNN", "thin_plate"): (0.7, 0.5, 0.8, 1.1),
}
SENET = {
    "none": (23.30, 6.55, 25.6e6),
    2: (22.29, 6.00, 45.7e6),
    4: (22.25, 6.09, 35.7e6),
    8: (22.26, 5.99, 30.7e6),
    16: (22.28, 6.03, 28.1e6),
    32: (22.72, 6.20, 26.9e6),
}
SNAPSHOTS = (0, 10, 20, 40, 60, 80, 120, 160, 200, 250)


def transformers(
    root: pathlib.Path,
    networks: Sequence[str] = ("FCN", "CNN"),
    kinds: Sequence[str] = TRANSFORMERS,
    distortions: Sequence[str] = DISTORTIONS,
    seeds: int = 3,
    images: int = 8,
    snapshots: Sequence[int] = SNAPSHOTS,
) -> pathlib.Path:
    """Writes a sweep of networks with transformers and returns its directory."""
    points = []
    for network in networks:
        for kind in kinds:
            for distortion in distortions:
                for seed in range(seeds):
                    axes = {"network": network, "transformer": kind}
                    axes |= {"distortion": distortion, "seed": seed}
                    points.append(entry(axes))
                    _transformer(root / points[-1]["name"], axes, images, snapshots)
    rows = [
        {
            "axes": {"network": network, "transformer": kind},
            "values": dict(zip(DISTORTIONS, values, strict=True)),
        }
        for (network, kind), values in PAPER.items()
    ]
    describe(
        root,
        title="Spatial transformers on distorted digits",
        axes=["network", "transformer", "distortion", "seed"],
        baseline={"transformer": "none"},
        match={"by": "parameters", "budget": 400_000},
        published={
            "source": "Jaderberg et al. 2015, Table 1",
            "columns": "distortion",
            "note": "There on all of MNIST.",
            "rows": rows,
        },
        points=points,
    )
    return root


def reductions(
    root: pathlib.Path, kinds: Sequence = tuple(SENET), seeds: int = 3, images: int = 2
) -> pathlib.Path:
    """Writes a sweep over reductions of squeeze-and-excitation."""
    points = []
    for kind in kinds:
        for seed in range(seeds):
            axes = {"reduction": kind, "seed": seed}
            points.append(entry(axes))
            _reduction(root / points[-1]["name"], axes, images)
    names = ("error", "top-5 error", "parameters")
    rows = [
        {
            "axes": {"reduction": kind},
            "values": dict(zip(names, values, strict=True)),
        }
        for kind, values in SENET.items()
    ]
    describe(
        root,
        title="How far may squeeze-and-excitation be reduced?",
        axes=["reduction", "seed"],
        baseline={"reduction": "none"},
        published={"source": "Hu et al. 2018, Table 10", "rows": rows},
        points=points,
    )
    return root


def entry(axes: dict) -> dict:
    """A point as experiment.json names it."""
    return {"name": "-".join(map(str, axes.values())), "axes": axes}


def describe(root: pathlib.Path, **record) -> None:
    """Writes experiment.json."""
    root.mkdir(parents=True, exist_ok=True)
    record = {"name": root.name, "description": "Made up.", **record}
    (root / "experiment.json").write_text(json.dumps(record))


def _transformer(
    directory: pathlib.Path, axes: dict, images: int, snapshots: Sequence[int]
) -> None:
    network, kind, distortion, seed = axes.values()
    rng = np.random.default_rng([seed, *"".join(map(str, axes.values())).encode()])
    error = PAPER[network, kind][DISTORTIONS.index(distortion)]
    width = {"r": 90, "rts": 40, "p": 88, "e": 86}[distortion]
    slots = {} if kind == "none" else {"input": "spatial_transformer"}
    config = synthetic.config(slots, seed)
    config["data"]["distortion"] = distortion
    config["model"] = {"name": network.lower(), "widths": [width, 64], "slots": slots}
    synthetic.finished(
        directory,
        axes,
        config,
        3 * error + 1.5 + 0.5 * seed + rng.normal(0, 0.3),
        {
            "parameters": 400_000 + int(rng.integers(-900, 900)),
            "macs": (5_000_000 if network == "CNN" else 400_000) + 9000 * len(kind),
            "ms_per_step": 12.0 + 2 * len(kind),
            "together": 3,
        },
        rng,
    )
    digits, labels, angles = synthetic.digits(images)
    if distortion == "rts":  # on a larger canvas
        digits = np.pad(digits, ((0, 0), (7, 7), (7, 7), (0, 0)))
    side = digits.shape[1]
    grids = synthetic.turning_grid(angles, side)
    where = "input/sampling_grid"
    found = [] if kind == "none" else [(where, "sampling_grid", grids)]
    write_maps(directory / "attention.npz", digits, labels, found)
    if kind != "none" and seed == 0:
        (directory / "snapshots").mkdir(exist_ok=True)
        for step in snapshots:
            turned = synthetic.turning_grid(angles * step / synthetic.STEPS, side)
            grid = [(where, "sampling_grid", turned)]
            path = directory / "snapshots" / f"{step}.npz"
            write_maps(
                path, digits[:4], labels[:4], [(w, k, g[:4]) for w, k, g in grid]
            )


def _reduction(directory: pathlib.Path, axes: dict, images: int) -> None:
    kind, seed = axes.values()
    rng = np.random.default_rng([seed, *str(kind).encode()])
    extra = 0 if kind == "none" else 4096 // int(kind)
    slots = {} if kind == "none" else {"block.residual": "squeeze_excite"}
    synthetic.finished(
        directory,
        axes,
        synthetic.config(slots, seed),
        SENET[kind][0] - 14 + 0.6 * seed + rng.normal(0, 0.15),
        {
            "parameters": 77_850 + extra,
            "macs": 5_271_936 + extra,
            "ms_per_step": 50.0 + extra / 400,
        },
        rng,
    )
    digits, labels, _ = synthetic.digits(images)
    write_maps(directory / "attention.npz", digits, labels, [])
    if kind != "none":
        gates(directory / "gates.npz", rng)


def write_maps(
    path: pathlib.Path,
    images: np.ndarray,
    labels: np.ndarray,
    maps: Sequence[tuple[str, str, np.ndarray]],
    classes: Sequence[str] = tuple("0123456789"),
) -> None:
    """Writes a file in the form of attention.npz, with one array a map."""
    index = [
        {"path": where, "kind": kind, "grid": None, "keys": [f"map{i}"]}
        for i, (where, kind, _) in enumerate(maps)
    ]
    np.savez_compressed(
        path,
        images=images,
        labels=labels,
        predictions=labels,
        classes=np.array(classes),
        index=json.dumps(index),
        **{f"map{i}": values.astype(np.float16) for i, (*_, values) in enumerate(maps)},
    )


def gates(path: pathlib.Path, rng: np.random.Generator, blocks: int = 9) -> None:
    """Writes gates.npz: the deeper, the more the classes differ."""
    arrays, index = {}, []
    for i in range(blocks):
        channels = 16 * 2 ** (i // 3)
        usual = rng.normal(0, 1.0, channels)
        logits = usual + 0.15 * i * rng.normal(0, 1.0, (10, channels))
        arrays[f"mean{i}"] = 1 / (1 + np.exp(-logits))
        where = f"stage{i // 3 + 1}/block{i % 3}/residual/channel_gate"
        index.append({"path": where, "key": f"mean{i}", "channels": channels})
    np.savez_compressed(
        path,
        classes=np.array([str(i) for i in range(10)]),
        index=json.dumps(index),
        **arrays,
    )
