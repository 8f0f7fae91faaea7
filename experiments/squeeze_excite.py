"""Squeeze-and-excitation: how to squeeze, how to excite, where, and how narrow.

Hu, Shen, Albanie, Sun, Wu, "Squeeze-and-Excitation Networks", CVPR 2018,
https://arxiv.org/abs/1709.01507v4: its Tables 2, 4, 5 and 10 to 16.

    python launch.py --config=experiments/squeeze_excite.py:reduction     # Table 10
    python launch.py --config=experiments/squeeze_excite.py:squeeze       # Table 11
    python launch.py --config=experiments/squeeze_excite.py:excitation    # Table 12
    python launch.py --config=experiments/squeeze_excite.py:stage         # Table 13
    python launch.py --config=experiments/squeeze_excite.py:integration   # 14 and 15
    python launch.py --config=experiments/squeeze_excite.py:no_squeeze    # Table 16
    python launch.py --config=experiments/squeeze_excite.py:imagenet      # Table 2
    python launch.py --config=experiments/squeeze_excite.py:cifar         # 4 and 5

The small form asks the same of a residual network of 8 layers that looks for the odd
one of four digits, or, for Tables 4 and 5, names a photograph by a patch of it. With
",paper" it is ResNet-50 and its kin on ImageNet, or ResNet-110 and -164 on CIFAR, and
the ablations have exactly the paper's parameters.
"""

from experiments import common

TABLES = (
    "reduction",
    "squeeze",
    "excitation",
    "stage",
    "integration",
    "no_squeeze",
    "imagenet",
    "cifar",
)
# The plain network, in whichever axis a table has.
BASELINE = {"variant": "ResNet", "attention": "none"}
STEPS = 600
# One basic block in each of three stages of 16, 32 and 64 channels.
SMALL = common.RESNET | {"depth": 8}
SMALL_REDUCTION = 4  # where the paper has 16, for maps of 16 to 64 channels

# The ablations leave the biases out; the networks of Tables 2, 4 and 5 have them.
ABLATED = {"name": "squeeze_excite", "bias": False}
RELEASED = {"name": "squeeze_excite"}
# What the paper calls stages 2, 3 and 4, of 56x56, 28x28 and 14x14 pixels.
STAGES = {"SE_Stage_2": "stage1/", "SE_Stage_3": "stage2/", "SE_Stage_4": "stage3/"}
PLACES = {
    "SE": "block.residual",
    "SE-PRE": "block.pre",
    "SE-POST": "block.post",
    "SE-Identity": "block.identity",
}
# Of bottlenecks alone: in basic blocks it is where "SE" is.
INSIDE = {"SE_3x3": "block.after_conv2"}
NETWORKS = {
    "ResNet-50": {"depth": 50},
    "ResNet-101": {"depth": 101},
    "ResNet-152": {"depth": 152},
    "ResNeXt-50": {"depth": 50, "cardinality": 32, "group_width": 4},
    "ResNeXt-101": {"depth": 101, "cardinality": 32, "group_width": 4},
    # As of those networks the table counts batch normalisation.
    "VGG-16": {"name": "vgg", "depth": 16, "norm": True},
}
CIFAR_NETWORKS = {
    "ResNet-110": {"depth": 110},
    "ResNet-164": {"depth": 164, "block": "bottleneck"},
}
CIFAR_DATA = {"paper": ("cifar10", "cifar100"), "small": ("photos",)}

# Top-1 and top-5 error, parameters, multiply-adds.
PLAIN = (23.30, 6.55, 25.6e6, 3.86e9)
SE = (22.28, 6.03, 28.1e6, 3.87e9)
ABLATIONS = {
    "reduction": {
        "ResNet": PLAIN[:3],
        "r=2": (22.29, 6.00, 45.7e6),
        "r=4": (22.25, 6.09, 35.7e6),
        "r=8": (22.26, 5.99, 30.7e6),
        "r=16": (22.28, 6.03, 28.1e6),
        "r=32": (22.72, 6.20, 26.9e6),
    },
    "squeeze": {"Max": (22.57, 6.09), "Avg": SE[:2]},
    "excitation": {"ReLU": (23.47, 6.98), "Tanh": (23.00, 6.38), "Sigmoid": SE[:2]},
    "stage": {
        "ResNet": PLAIN,
        "SE_Stage_2": (23.03, 6.48, 25.6e6, 3.86e9),
        "SE_Stage_3": (23.04, 6.32, 25.7e6, 3.86e9),
        "SE_Stage_4": (22.68, 6.22, 26.4e6, 3.86e9),
        "SE_All": SE,
    },
    "integration": {
        "SE": SE,
        "SE-PRE": (22.23, 6.00),
        "SE-POST": (22.78, 6.35),
        "SE-Identity": (22.20, 6.15),
        "SE_3x3": (22.48, 6.02, 25.8e6, 3.86e9),
    },
    "no_squeeze": {
        "ResNet": PLAIN,
        "NoSqueeze": (22.93, 6.39, 28.1e6, 4.27e9),
        "SE": SE,
    },
}
# Of the re-implementation and of its SENet: top-1 and top-5 error, multiply-adds.
IMAGENET = {
    "ResNet-50": ((24.80, 7.48, 3.86e9), (23.29, 6.62, 3.87e9)),
    "ResNet-101": ((23.17, 6.52, 7.58e9), (22.38, 6.07, 7.60e9)),
    "ResNet-152": ((22.42, 6.34, 11.30e9), (21.57, 5.73, 11.32e9)),
    "ResNeXt-50": ((22.11, 5.90, 4.24e9), (21.10, 5.49, 4.25e9)),
    "ResNeXt-101": ((21.18, 5.57, 7.99e9), (20.70, 5.01, 8.00e9)),
    "VGG-16": ((27.02, 8.81, 15.47e9), (25.22, 7.70, 15.48e9)),
    "BN-Inception": ((25.38, 7.89, 2.03e9), (24.23, 7.14, 2.04e9)),
    "Inception-ResNet-v2": ((20.37, 5.21, 11.75e9), (19.80, 4.79, 11.76e9)),
}
# Errors on CIFAR-10 and CIFAR-100, plain and with SE.
CIFAR = {
    "ResNet-110": ((6.37, 26.88), (5.21, 23.85)),
    "ResNet-164": ((5.46, 24.33), (4.39, 21.31)),
    "WRN-16-8": ((4.27, 20.43), (3.88, 19.14)),
}
PAPER = "Hu et al. 2018, arXiv 1709.01507v4"
SOURCES = {
    "reduction": "Table 10",
    "squeeze": "Table 11",
    "excitation": "Table 12",
    "stage": "Table 13",
    "integration": "Tables 14 and 15",
    "no_squeeze": "Table 16",
    "imagenet": "Table 2, re-implementation and SENet",
    "cifar": "Tables 4 and 5",
}
STATISTICS = (
    "The paper counts running means and variances of batch norms as parameters, 53,120"
    " in ResNet-50; ours are trained numbers."
)


def get_config(arg: str = ""):
    """The config that all points of a table share."""
    choice = common.choose(arg, TABLES)
    if choice.size != "paper":
        data = common.PHOTOS if choice.table == "cifar" else common.ODD_ONE_OUT
        config = common.small(data, SMALL, steps=STEPS, size=choice.size)
        if choice.size == "small":
            config.train.batch_size = 64
        return config
    if choice.table == "cifar":
        return cifar()
    # Strides as in the original models: multiply-adds are then those of the paper.
    model = {"name": "resnet", "depth": 50, "stride_at": "conv1"}
    if choice.table == "imagenet":
        return common.imagenet(
            model, epochs=100, drops=(30, 60, 90), batch_size=1024, rate=0.6
        )
    # The longer of the paper's schedules; the other waits for a plateau.
    return common.imagenet(
        model, epochs=270, drops=(125, 200, 250), label_smoothing=0.1
    )


def cifar():
    """The recipe of He et al. 2015 for CIFAR: 64,000 steps, padded crops, flips.

    Without its warm-up of 400 steps at a tenth of the rate, for 110 layers.
    """
    model = {"name": "resnet", "layout": "cifar", "depth": 110}
    config = common.imagenet(model)
    epoch = 50_000 / 128
    config.data = {
        "name": "cifar10",
        "train": "train",
        "test": "test",
        "transforms": {"pad_crop_flip": {}},
    }
    config.task.top5 = False
    config.schedule.boundaries = [32_000, 48_000]
    config.train.update(
        steps=64_000,
        batch_size=128,
        eval_batch_size=200,
        eval_every=round(10 * epoch),
        save_every=round(10 * epoch),
    )
    return config


def sweep(arg: str = ""):
    """The rows of the table, with every seed."""
    choice = common.choose(arg, TABLES)
    if choice.table == "imagenet":
        networks = NETWORKS if choice.size == "paper" else {}
        yield from _with_and_without(choice, networks)
    elif choice.table == "cifar":
        size = "paper" if choice.size == "paper" else "small"
        for data in CIFAR_DATA[size]:
            networks = CIFAR_NETWORKS if size == "paper" else {}
            for axes, fields in _with_and_without(choice, networks):
                yield {"data": data, **axes}, {"data.name": data, **fields}
    else:
        rows = _rows(choice)
        yield from common.points("variant", rows, choice)


def _with_and_without(choice: common.Choice, networks):
    """Each network plain and with SE; without networks, that of the config."""
    specs = {"none": None, "SE": RELEASED | _narrow(choice)}
    for network, settings in networks.items() or [("ResNet-8", {})]:
        changes = {f"model.{name}": value for name, value in settings.items()}
        rows = common.filled(specs)
        if "name" in settings:  # no ResNet: SE is after each non-linearity
            changes, rows = {"model": settings}, common.filled(specs, "block.post")
        for axes, fields in common.points("attention", rows, choice):
            yield {"network": network, **axes}, {**changes, **fields}


def _rows(choice: common.Choice):
    """The slots of an ablation, by the name of the row; the plain network first."""
    se = ABLATED | _narrow(choice)
    specs: dict[str, dict] = {
        "reduction": {f"r={r}": se | {"reduction": r} for r in (2, 4, 8, 16, 32)},
        "squeeze": {"Max": se | {"squeeze": "max"}, "Avg": se},
        "excitation": {
            name: se | {"excitation": name.lower()}
            for name in ("ReLU", "Tanh", "Sigmoid")
        },
        "no_squeeze": {"NoSqueeze": se | {"squeeze": "none"}, "SE": se},
    }
    if choice.table in specs:
        return common.filled({"ResNet": None, **specs[choice.table]})
    if choice.table == "stage":
        scopes = STAGES | {"SE_All": ""}
        places = {name: f"{scope}block.residual" for name, scope in scopes.items()}
    else:
        places = PLACES | (INSIDE if choice.size == "paper" else {})
    rows = {name: {"model.slots": {place: se}} for name, place in places.items()}
    return {"ResNet": {"model.slots": {}}, **rows}


def _narrow(choice: common.Choice):
    return {} if choice.size == "paper" else {"reduction": SMALL_REDUCTION}


def published(arg: str = ""):
    """The paper's table; beside small points of Tables 2, 4 and 5 one like theirs."""
    choice = common.choose(arg, TABLES)
    source = f"{PAPER}, {SOURCES[choice.table]}"
    if choice.table == "imagenet":
        rows = [
            ({"network": network, "attention": attention}, (top1, top5, None, macs))
            for network, pair in IMAGENET.items()
            for attention, (top1, top5, macs) in zip(("none", "SE"), pair, strict=True)
        ]
        return common.published(source, rows, choice)
    if choice.table == "cifar":
        rows = [
            (
                {"network": network, "attention": attention},
                dict(zip(("cifar10", "cifar100"), errors, strict=True)),
            )
            for network, pair in CIFAR.items()
            for attention, errors in zip(("none", "SE"), pair, strict=True)
        ]
        return {"source": source, "columns": "data", "rows": rows}
    rows = common.along("variant", ABLATIONS[choice.table])
    note = STATISTICS if choice.size == "paper" else ""
    return common.published(source, rows, choice, note=note)
