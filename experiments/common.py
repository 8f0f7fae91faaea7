"""What experiments share: their arguments, base configs, and points of one axis."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import ml_collections

SIZES = ("small", "paper", "tiny")
TINY_ROWS = 3
# What papers print of a network on ImageNet.
COLUMNS = ("error", "top-5 error", "parameters", "macs")
# Photographs cut into patches; the label says which photograph.
PHOTOS = {"name": "photos", "transforms": {"pad_crop_flip": {}}}
# Digits turned by up to 90 degrees, another angle each time one is drawn.
DIGITS = {"name": "mnist_5k", "distortion": "r"}
# Four digits on a canvas of 36x36 pixels, of which one is odd. A tenth of the training
# digits is for validation.
ODD_ONE_OUT = {
    "name": "mnist_5k",
    "composition": "odd_one_out",
    "train": "train[:90%]",
    "validation": "train[90%:]",
    "test": "test",
}
# Two basic blocks in each of three stages of 16, 32 and 64 channels.
RESNET = {"name": "resnet", "layout": "cifar", "depth": 14, "stem_stride": 2}
# Four layers on 49 patches of a digit.
VIT = {"name": "vit", "patch_size": 4, "width": 64, "depth": 4, "num_heads": 4}
IMAGENET_EXAMPLES = 1_281_167


def parse(arg: str, **defaults: Any) -> dict[str, Any]:
    """Reads "a=1,b" over `defaults`; a bare name means True.

    Values take the type of their default.

    Raises:
        ValueError: an unknown name, or a value of another type.
    """
    values = dict(defaults)
    for item in filter(None, arg.split(",")):
        name, _, text = item.partition("=")
        if name not in defaults:
            known = ", ".join(defaults) or "none"
            raise ValueError(f"unknown argument {name!r} (valid: {known})")
        kind = type(defaults[name])
        try:
            if kind is bool:
                values[name] = {"": True, "true": True, "false": False}[text.lower()]
            else:
                values[name] = kind(text)
        except (KeyError, ValueError):
            message = f"argument {name} must be {kind.__name__}, got {text!r}"
            raise ValueError(message) from None
    return values


class Choice(NamedTuple):
    """What the argument of an experiment with several tables asks for.

    table: one of its TABLES.
    size: "small" runs on two CPU cores, with embedded data; "paper" is the paper's
        data, network and schedule; "tiny" takes a few steps of the first rows of
        "small", for tests.
    seeds: how many trainings each row gets.
    """

    table: str
    size: str
    seeds: int


def choose(arg: str, tables: Sequence[str]) -> Choice:
    """Reads "TABLE", "TABLE,paper", "TABLE,tiny", and any of them with "seeds=N".

    Without a table it is the first one. A row gets three seeds when it is small, and
    one otherwise, as in the papers.

    Raises:
        ValueError: another word, two tables or two sizes, or fewer than one seed.
    """
    flags = dict.fromkeys((*tables, *SIZES), False)
    values = parse(arg, **flags, seeds=0)
    sizes = [size for size in SIZES if values[size]]
    named = [table for table in tables if values[table]]
    for kind, found in (("table", named), ("size", sizes)):
        if len(found) > 1:
            raise ValueError(f"one {kind} at a time, got {' and '.join(found)}")
    size = sizes[0] if sizes else "small"
    if "seeds=" in arg and values["seeds"] < 1:
        raise ValueError(f"seeds must be at least 1, got {values['seeds']}")
    seeds = values["seeds"] or (3 if size == "small" else 1)
    return Choice(named[0] if named else tables[0], size, seeds)


def points(
    axis: str, rows: Mapping[Any, Mapping[str, Any]], choice: Choice
) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """The sweep over one axis, and seeds.

    Args:
        axis: what the rows differ in.
        rows: by the value of the axis, the fields that a row sets, by dotted path.
        choice: tells the seeds; a "tiny" sweep has the first TINY_ROWS rows.
    """
    chosen = list(rows.items())[: TINY_ROWS if choice.size == "tiny" else None]
    for value, changes in chosen:
        for seed in range(choice.seeds):
            yield {axis: value, "seed": seed}, {**changes, "seed": seed}


def filled(specs: Mapping[Any, Any], slot: str = "block.residual") -> dict[Any, Any]:
    """The rows of attentions in one slot: what `points` takes.

    Args:
        specs: by the value of the axis, what fills the slot; None leaves it empty.
        slot: the place.
    """
    return {
        value: {"model.slots": {} if spec is None else {slot: spec}}
        for value, spec in specs.items()
    }


Axes = Mapping[str, Any]


def along(axis: str, rows: Mapping[Any, Any]) -> list[tuple[Axes, Any]]:
    """The rows of a table with one axis, as `published` takes them."""
    return [({axis: value}, row) for value, row in rows.items()]


def published(
    source: str,
    rows: Iterable[tuple[Axes, Sequence[float | None]]],
    choice: Choice,
    *,
    accuracy: bool = False,
    note: str = "",
) -> dict[str, Any]:
    """A paper's table, as `published(arg)` of an experiment returns it.

    Args:
        source: paper, number of the table, and whence its numbers were taken.
        rows: axes, and the numbers as printed, in the order of COLUMNS: top-1 and
            top-5 in percent, parameters, multiply-adds. There is None, or nothing at
            the end, where the paper says nothing.
        choice: only a "paper" sweep has the paper's networks, to which the last two
            numbers belong.
        accuracy: whether top-1 and top-5 are printed as accuracy, not as error.
        note: what else a reader should know.
    """
    if accuracy:
        note = f"Printed as accuracy; here 100 - accuracy. {note}".strip()
    table = []
    for axes, row in rows:
        top, costs = row[:2], row[2:] if choice.size == "paper" else ()
        if accuracy:
            top = [None if share is None else round(100 - share, 2) for share in top]
        numbers = (*top, *(cost and round(cost) for cost in costs))
        named = zip(COLUMNS, numbers, strict=False)
        table.append((axes, {name: n for name, n in named if n is not None}))
    return {"source": source, "rows": table} | ({"note": note} if note else {})


def small(
    data: Mapping[str, Any],
    model: Mapping[str, Any],
    *,
    steps: int,
    peak: float = 0.01,
    size: str = "small",
) -> ml_collections.ConfigDict:
    """A config for two CPU cores: AdamW, a cosine, batches of 128.

    Args:
        data: PHOTOS, DIGITS, or other fields of the section `data`.
        model: the host, with its settings.
        steps: of training.
        peak: the highest learning rate.
        size: "tiny" takes 4 steps with a few examples instead.
    """
    config = ml_collections.ConfigDict()
    config.seed = 0
    splits = {"train": "train", "test": "test"}
    config.data = {**splits, **data}
    config.model = {"slots": {}, **model}
    config.task = {"name": "classification", "label_smoothing": 0.0}
    config.optimizer = {"name": "adamw", "weight_decay": 0.05}
    config.schedule = {"name": "cosine", "peak": peak, "warmup": steps // 20}
    config.train = {
        "steps": steps,
        "batch_size": 128,
        "eval_batch_size": 256,
        "log_every": 20,
        "eval_every": max(1, steps // 4),
        "save_every": max(1, steps // 2),
        "accumulate": 1,
        "dtype": "float32",
        "partition": "pmap",
    }
    if size == "tiny":
        config.data.update(train="train[:64]", test="test[:32]")
        if "validation" in config.data:
            config.data.validation = "train[64:96]"
        config.schedule.warmup = 1
        config.train.update(
            steps=4,
            batch_size=16,
            eval_batch_size=16,
            log_every=2,
            eval_every=4,
            save_every=2,
        )
    return config


def imagenet(
    model: Mapping[str, Any],
    *,
    epochs: int = 90,
    drops: Sequence[int] = (30, 60),
    batch_size: int = 256,
    rate: float = 0.1,
    label_smoothing: float = 0.0,
) -> ml_collections.ConfigDict:
    """The recipe of ResNets on ImageNet: SGD, a rate that drops tenfold, 224 pixels.

    As He et al. 2015 and torchvision train: momentum 0.9, weight decay 1e-4 on all
    parameters, random crops and mirror images, and one centre crop for the test.

    Args:
        model: the host, with its settings.
        epochs: passes over the training images.
        drops: the epochs after which the rate drops.
        batch_size: over all devices.
        rate: the learning rate at the beginning.
        label_smoothing: share of the target spread over all classes.
    """
    epoch = IMAGENET_EXAMPLES / batch_size
    config = ml_collections.ConfigDict()
    config.seed = 0
    config.data = {
        "name": "imagenet2012",
        "train": "train",
        "test": "validation",
        "transforms": {"random_resized_crop_flip": {"size": 224}},
    }
    config.model = {"slots": {}, **model}
    task = {"name": "classification", "label_smoothing": label_smoothing, "top5": True}
    config.task = task
    config.optimizer = {"name": "sgd", "weight_decay": 1e-4, "decay": "all"}
    config.schedule = {
        "name": "step",
        "peak": rate,
        "warmup": 0,
        "boundaries": [round(drop * epoch) for drop in drops],
        "factor": 0.1,
    }
    config.train = {
        "steps": round(epochs * epoch),
        "batch_size": batch_size,
        "eval_batch_size": batch_size,
        "log_every": 100,
        "eval_every": round(epoch),
        "save_every": round(epoch),
        "accumulate": 1,
        "dtype": "float32",
        "partition": "pmap",
    }
    return config
