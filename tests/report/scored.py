"""Sweeps of tasks other than classification, as training leaves them.

`restoration` is scored in dB, higher is better, on a validation split too, and has
measures of its attention; `translation` by a score of the whole split and a share of
examples.
"""

import json
import pathlib
from collections.abc import Mapping, Sequence

from attn.report.read import results
from tests.report import papers

PSNR = {
    "name": "psnr",
    "label": "PSNR",
    "unit": "dB",
    "better": "higher",
    "digits": 1,
    "kind": "mean",
}
SSIM = {
    "name": "ssim",
    "label": "SSIM",
    "unit": "",
    "better": "higher",
    "digits": 3,
    "kind": "mean",
}
BLEU = {
    "name": "bleu",
    "label": "BLEU",
    "unit": "",
    "better": "higher",
    "digits": 1,
    "kind": "corpus",
    "note": "nrefs:1|case:mixed",
}
EXACT = {
    "name": "exact",
    "label": "exact match",
    "unit": "%",
    "better": "higher",
    "digits": 2,
    "kind": "share",
}
INSIDE = {
    "name": "inside",
    "label": "mass inside",
    "unit": "%",
    "better": "higher",
    "digits": 1,
}
STEPS = 100
BASE = {"attention": "none"}


def restoration(
    root: pathlib.Path,
    values: Mapping[str, Sequence[float | None]],
    **record,
) -> results.Sweep:
    """Writes and reads a sweep over `attention`: of each the dB of its seeds.

    None is a point that is not finished.
    """
    points = []
    for kind, seeds in values.items():
        for seed, value in enumerate(seeds):
            axes = {"attention": kind, "seed": seed}
            points.append(papers.entry(axes))
            place = root / points[-1]["name"]
            place.mkdir(parents=True, exist_ok=True)
            _curves(place, 30.0 if value is None else value)
            if value is None:
                continue
            measures = [{**INSIDE, "value": 40.0 + value}] if kind != "none" else []
            finished(place, [PSNR, SSIM], [value, value / 40], measures)
    axes = ["attention", "seed"]
    papers.describe(root, axes=axes, baseline=BASE, points=points, **record)
    return results.read(root)


def translation(
    root: pathlib.Path, values: Mapping[str, Sequence[tuple[float, float]]], **record
) -> results.Sweep:
    """Writes and reads a sweep over `attention`: of each (BLEU, exact) of its seeds."""
    points = []
    for kind, seeds in values.items():
        for seed, pair in enumerate(seeds):
            axes = {"attention": kind, "seed": seed}
            points.append(papers.entry(axes))
            place = root / points[-1]["name"]
            place.mkdir(parents=True, exist_ok=True)
            finished(place, [BLEU, EXACT], pair, [])
    axes = ["attention", "seed"]
    papers.describe(root, axes=axes, baseline=BASE, points=points, **record)
    return results.read(root)


def finished(
    place: pathlib.Path,
    metrics: Sequence[dict],
    values: Sequence[float],
    measures: Sequence[dict],
) -> None:
    """Writes result.json."""
    named = dict(zip((m["name"] for m in metrics), values, strict=True))
    record = {
        "steps": STEPS,
        "metrics": metrics,
        "test": {**named, "loss": 0.25, "examples": 1000},
        "validation": {name: value + 1 for name, value in named.items()},
        "measures": measures,
        "parameters": 1234,
        "macs": 56_000,
        "ms_per_step": 7.0 + 3 * len(measures),
        "seconds": 3.0,
    }
    (place / "result.json").write_text(json.dumps(record))


def _curves(place: pathlib.Path, final: float) -> None:
    """Writes metrics.jsonl: PSNR rises on the validation split, at half the steps."""
    lines = []
    for step in range(10, STEPS + 1, 10):
        lines.append({"step": step, "split": "train", "loss": 10 / step})
        if step % 20 == 0:
            psnr = final * step / STEPS
            line = {"step": step, "split": "validation", "examples": 500}
            lines.append(line | {"loss": 1, "psnr": psnr})
    text = "".join(f"{json.dumps(line)}\n" for line in lines)
    (place / "metrics.jsonl").write_text(text)
