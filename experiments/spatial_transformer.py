"""Does a spatial transformer undo distortions, and find the digit in the clutter?

Jaderberg, Simonyan, Zisserman, Kavukcuoglu, "Spatial Transformer Networks", NIPS 2015,
https://arxiv.org/abs/1506.02025: its Tables 1 to 4.

    python launch.py --config=experiments/spatial_transformer.py:table1
    python launch.py --config=experiments/spatial_transformer.py:cluttered
    python launch.py --config=experiments/spatial_transformer.py:addition   # Table 4
    python launch.py --config=experiments/spatial_transformer.py:svhn       # Table 2
    python launch.py --config=experiments/spatial_transformer.py:cub        # Table 3

All networks of a table on digits have about the same number of parameters, 400,000.
The small form has 4,000 digits to learn from where the paper has 60,000, and 128,000
draws of them where it has 38 million; all of MNIST by --config.data.name=mnist. With
",paper" it is the paper's data, sizes and schedule.
"""

from experiments import common

TABLES = ("table1", "cluttered", "addition", "svhn", "cub")
BASELINE = {"transformer": "none"}
BUDGET = 400_000  # parameters of every network on digits

# The names of the paper: affine, projective, and a thin-plate spline of 16 points.
TRANSFORMS = {"Aff": "affine", "Proj": "projective", "TPS": "thin_plate"}
DISTORTIONS = ("r", "rts", "p", "e")
# Images that are pooled by 2 behind the transformer. Without one they stay whole; only
# the small form pools those of the tables beside the first, or they would take hours.
POOLED = {"paper": ("rts", "tc"), "small": ("rts", "tc", "addition")}
# Units of the two linear layers of the CNN, by images and pooling, so that the budget
# leaves its convolutions nearly as they are; on whole RTS images, whose last map is
# large, they become 23 and 41 filters.
UNITS = {("rts", 1): 320, ("rts", 2): 480, ("tc", 1): 40, ("tc", 2): 320}

# Errors in percent on R, RTS, P and E.
TABLE1 = {
    ("FCN", "none"): (2.1, 5.2, 3.1, 3.2),
    ("FCN", "Aff"): (1.2, 0.8, 1.5, 2.7),
    ("FCN", "Proj"): (1.3, 0.9, 1.4, 2.6),
    ("FCN", "TPS"): (1.1, 0.8, 1.4, 2.4),
    ("CNN", "none"): (1.2, 0.8, 1.5, 1.4),
    ("CNN", "Aff"): (0.7, 0.5, 0.8, 1.2),
    ("CNN", "Proj"): (0.8, 0.6, 0.8, 1.3),
    ("CNN", "TPS"): (0.7, 0.5, 0.8, 1.1),
}
CLUTTERED = {
    ("FCN", "none"): 13.2,
    ("FCN", "Aff"): 2.0,
    ("CNN", "none"): 3.5,
    ("CNN", "Aff"): 1.7,
}
ADDITION = {
    ("FCN", "none"): 47.7,
    ("FCN", "Aff"): 22.6,
    ("FCN", "Proj"): 18.5,
    ("FCN", "TPS"): 19.1,
    ("FCN", "2x Aff"): 9.0,
    ("FCN", "2x Proj"): 5.9,
    ("FCN", "2x TPS"): 5.8,
    ("CNN", "none"): 14.7,
}
# Errors of whole numbers in percent, from 64x64 and 128x128 pixels.
SVHN = {
    "Maxout": (4.0,),
    "none": (4.0, 5.6),
    "DRAM": (3.9, 4.5),
    "Single": (3.7, 3.9),
    "Multi": (3.6, 3.9),
}
# Accuracies in percent.
CUB = {
    "Cimpoi 2015": 66.7,
    "Zhang 2014": 74.9,
    "Branson 2014": 75.7,
    "Lin 2015": 80.9,
    "Simon 2015": 81.0,
    "none": 82.3,
    "2x 224": 83.1,
    "2x 448": 83.9,
    "4x 448": 84.1,
}
PAPER = "Jaderberg et al. 2015, arXiv 1506.02025"
QUOTED = "as quoted from it"


def get_config(arg: str = ""):
    """The config that all points of a table share."""
    choice = common.choose(arg, TABLES)
    return {"svhn": _numbers, "cub": _birds}.get(choice.table, _digits)(choice)


def _digits(choice: common.Choice):
    """Adam for 2,000 batches of 64, or the paper's 150,000 of 256 by SGD."""
    data = {"name": "mnist_5k"}
    if choice.table == "addition":
        data["composition"] = "addition"
    config = common.small(data, {}, steps=2000, peak=0.002, size=choice.size)
    config.optimizer.weight_decay = 0.01
    if choice.size == "small":
        config.train.update(batch_size=64, log_every=100, snapshot_every=200)
    elif choice.size == "paper":
        config.data.name = "mnist"
        _sgd(config, steps=150_000, drop_every=50_000, batch_size=256)
    return config


def _numbers(choice: common.Choice):
    """House numbers, composed of digits: the full numbers of SVHN are not in TFDS."""
    data = {"name": "mnist_5k", "composition": "number", "canvas": 64}
    small = {
        "name": "cnn",
        "heads": 5,
        "filters": (16, 32, 48, 64),
        "kernel_sizes": 5,
        "padding": "SAME",
        "pools": (1, 2, 3, 4),
        "dense": (256,),
        "pool": 2,
    }
    config = common.small(data, small, steps=2000, peak=0.001, size=choice.size)
    config.task = {"name": "sequence"}
    if choice.size == "small":
        config.train.update(batch_size=64, log_every=100, snapshot_every=200)
    elif choice.size == "paper":
        config.data.name = "mnist"
        config.model = {
            "name": "cnn",
            "heads": 5,
            "filters": (48, 64, 128, 160, 192, 192, 192, 192),
            "kernel_sizes": 5,
            "padding": "SAME",
            "pools": (1, 3, 5, 7),
            "dense": (3072, 3072),
            "dropout": 0.5,
            "slots": {},
        }
        _sgd(config, steps=400_000, drop_every=80_000, batch_size=128)
        config.optimizer.weight_decay = 5e-4
    return config


def _birds(choice: common.Choice):
    """Birds, or for two CPU cores scenes whose largest digit is to be named."""
    if choice.size == "paper":
        config = common.imagenet({"name": "resnet", "depth": 50})
        config.data = {
            "name": "caltech_birds2011",
            "train": "train",
            "test": "test",
            "image_size": 224,
        }
        config.task.top5 = False
        _sgd(config, steps=30_000, drop_every=10_000, batch_size=256)
        config.schedule.update(peak=0.1, boundaries=(10_000, 20_000, 25_000))
        config.optimizer.weight_decay = 1e-5
        return config
    data = {"name": "digits_scene"}
    return common.small(data, common.RESNET, steps=600, size=choice.size)


def _sgd(config, *, steps: int, drop_every: int, batch_size: int):
    """The paper's schedule; it names no momentum."""
    config.optimizer = {"name": "sgd", "momentum": 0.9}
    config.schedule = {
        "name": "step",
        "peak": 0.01,
        "warmup": 0,
        "boundaries": tuple(range(drop_every, steps, drop_every)),
    }
    config.train.update(
        steps=steps,
        batch_size=batch_size,
        eval_batch_size=batch_size,
        log_every=100,
        eval_every=5_000,
        save_every=5_000,
        snapshot_every=steps // 10,
    )


def sweep(arg: str = ""):
    """The rows of the table, with every seed."""
    choice = common.choose(arg, TABLES)
    rows = list(ROWS[choice.table](choice))
    if choice.size == "tiny":  # a few, from the first to the last
        rows = rows[:: -(-len(rows) // common.TINY_ROWS)]
    for axes, changes in rows:
        for seed in range(choice.seeds):
            yield {**axes, "seed": seed}, {**changes, "seed": seed}


def _table1(choice: common.Choice):
    # by distortion last: what has one size of image and one network goes together
    for network, transformer in TABLE1:
        for distortion in DISTORTIONS:
            model = _network(network, transformer, distortion, choice)
            axes = {"network": network, "transformer": transformer}
            yield (
                axes | {"distortion": distortion},
                {"data.distortion": distortion, "model": model},
            )


def _cluttered(choice: common.Choice):
    for network, transformer in CLUTTERED:
        model = _network(network, transformer, "tc", choice)
        axes = {"network": network, "transformer": transformer}
        changes = {"data.distortion": "tc", "model": model}
        if transformer != "none" and choice.size != "paper":
            # At the full rate one of three looked beside the image before it had
            # learnt anything, and where there is nothing there is no gradient back.
            changes["optimizer.rates"] = {"input": 0.1}
        yield axes, changes


def _addition(choice: common.Choice):
    for network, transformer in ADDITION:
        model = _network(network, transformer, "addition", choice)
        yield {"network": network, "transformer": transformer}, {"model": model}


def _network(network: str, transformer: str, images: str, choice: common.Choice):
    """A network of appendix A.4, for one kind of images."""
    size = "paper" if choice.size == "paper" else "small"
    pool = 2 if images in POOLED[size] else 1
    if transformer == "none" and (size == "paper" or images == "rts"):
        pool = 1
    if network == "FCN":
        model = {"name": "mlp", "widths": (256, 256)}
    else:
        units = UNITS.get((images, pool), 400)
        model = {"name": "cnn", "filters": (32, 64), "dense": (units, units)}
    if images in POOLED["small"]:
        model["pool"] = pool
    if transformer == "none":
        return model | {"slots": {}}
    count, _, transform = transformer.rpartition("x ")
    spec = {"name": "spatial_transformer", "transform": TRANSFORMS[transform]}
    if network == "FCN":
        spec["localisation"] = "dense"
    if count:
        spec["count"] = int(count)
    return model | {"slots": {"input": spec}}


def _svhn(choice: common.Choice):
    paper = choice.size == "paper"
    affine = {"name": "spatial_transformer", "kernel_padding": "SAME"}
    single = affine | {"widths": (32, 32, 32), "downsample": 1}
    multi = affine | {"localisation": "dense", "widths": (32, 32)}
    before = ("conv1", "conv2", "conv3", "conv4")
    slots = {
        "none": {},
        "Single": {"input": single if paper else affine},
        "Multi": dict.fromkeys(before, multi),
    }
    # the paper's localisation networks learn at a tenth of the rate
    slow = {"Single": {"input": 0.1}, "Multi": dict.fromkeys(before, 0.1)}
    for transformer, filled in slots.items():
        for side in (64, 128) if paper else (64,):
            changes = {"data.canvas": side, "model.slots": filled}
            if paper and transformer in slow:
                changes["optimizer.rates"] = slow[transformer]
            yield {"transformer": transformer, "pixels": side}, changes


def _cub(choice: common.Choice):
    yield {"transformer": "none"}, {}
    small = {"name": "resnet", "layout": "cifar", "depth": 8, "stem_stride": 2}
    for parts, side in ((2, 224), (2, 448), (4, 448)):
        model = {"name": "part_stn", "parts": parts, "slots": {}}
        changes = {"data.image_size": side, "model": model}
        if choice.size != "paper":
            model |= {"crop": 32, "tower": small, "localiser": small}
            model |= {"downsample": 2, "widths": (32, 32)}
            changes = {"model": model}
        else:
            kinds = ("", "_conv", "_dense", "_theta")
            changes["optimizer.rates"] = {f"localiser{kind}": 1e-4 for kind in kinds}
            model |= {"dropout": 0.7, "downsample": side // 224}
        if choice.size == "paper" or side == 448:
            yield {"transformer": f"{parts}x {side}"}, changes


ROWS = {
    "table1": _table1,
    "cluttered": _cluttered,
    "addition": _addition,
    "svhn": _svhn,
    "cub": _cub,
}


def match(arg: str = ""):
    """All networks on digits get the same number of parameters."""
    table = common.choose(arg, TABLES).table
    digits = {"by": "parameters", "budget": BUDGET}
    return None if table in ("svhn", "cub") else digits


def published(arg: str = ""):
    """The paper's table."""
    choice = common.choose(arg, TABLES)
    pair = lambda key: {"network": key[0], "transformer": key[1]}
    if choice.table == "table1":
        rows = [
            (pair(key), dict(zip(DISTORTIONS, errors, strict=True)))
            for key, errors in TABLE1.items()
        ]
        source = f"{PAPER}, Table 1, {QUOTED}"
        return {"source": source, "columns": "distortion", "rows": rows}
    if choice.table == "svhn":
        rows = [
            ({"transformer": name}, dict(zip((64, 128), errors, strict=False)))
            for name, errors in SVHN.items()
        ]
        note = (
            "The paper reads photographs of house numbers; TFDS has them only cut into"
            " digits, so that ours are composed of MNIST's."
        )
        source = f"{PAPER}, Table 2, {QUOTED}"
        return {"source": source, "columns": "pixels", "rows": rows, "note": note}
    if choice.table == "cub":
        rows = [({"transformer": name}, (value,)) for name, value in CUB.items()]
        note = (
            "The paper's towers are Inceptions trained on ImageNet before; ours are"
            " ResNets from scratch."
        )
        source = f"{PAPER}, Table 3, {QUOTED}"
        return common.published(source, rows, choice, accuracy=True, note=note)
    table, where = {
        "cluttered": (CLUTTERED, "section 4.1"),
        "addition": (ADDITION, f"Table 4, {QUOTED}"),
    }[choice.table]
    rows = [(pair(key), (error,)) for key, error in table.items()]
    note = ""
    if choice.table == "cluttered":
        note = "The paper does not say which transform; affine stands for it."
    return common.published(f"{PAPER}, {where}", rows, choice, note=note)
