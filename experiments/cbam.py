"""CBAM: how to pool channels, how to see places, and which gate comes first.

The ablations of Woo, Park, Lee, Kweon, "CBAM: Convolutional Block Attention Module",
ECCV 2018, https://arxiv.org/abs/1807.06521: its Tables 1 to 4.

    python launch.py --config=experiments/cbam.py:channel_pooling
    python launch.py --config=experiments/cbam.py:spatial
    python launch.py --config=experiments/cbam.py:order
    python launch.py --config=experiments/cbam.py:imagenet

The small form asks the same of a residual network of 14 layers on patches of
photographs; with ",paper" it is ResNet-50 and its kin on ImageNet for 90 epochs.
"""

from experiments import common

TABLES = ("channel_pooling", "spatial", "order", "imagenet")
AXES = {"channel_pooling": "pooling", "spatial": "spatial", "order": "order"}
# The plain network, in whichever axis a table has.
BASELINE = {"pooling": "none", "spatial": "none", "order": "none", "attention": "none"}

STEPS = 400
SMALL_REDUCTION = 4  # where the paper has 16, for maps of 16 to 64 channels
SE = {"name": "squeeze_excite"}
CBAM = {"name": "cbam"}
ROWS = {
    "channel_pooling": {
        "none": None,
        "avg": CBAM | {"spatial": "none", "channel_pool": "avg"},
        "max": CBAM | {"spatial": "none", "channel_pool": "max"},
        "avg_max": CBAM | {"spatial": "none", "channel_pool": "avg_max"},
    },
    "spatial": {
        "none": None,
        "squeeze_excite": SE,
        "channel": CBAM | {"spatial": "none"},
        "conv1x1 k=3": CBAM | {"spatial": "conv1x1", "kernel_size": 3},
        "conv1x1 k=7": CBAM | {"spatial": "conv1x1", "kernel_size": 7},
        "avg_max k=3": CBAM | {"spatial": "avg_max", "kernel_size": 3},
        "avg_max k=7": CBAM | {"spatial": "avg_max", "kernel_size": 7},
    },
    "order": {
        "none": None,
        "squeeze_excite": SE,
        "channel_spatial": CBAM | {"order": "channel_spatial"},
        "spatial_channel": CBAM | {"order": "spatial_channel"},
        "parallel": CBAM | {"order": "parallel"},
    },
    "imagenet": {"none": None, "squeeze_excite": SE, "cbam": CBAM},
}
NEXT = {"model.cardinality": 32, "model.group_width": 4}
NETWORKS = {
    "ResNet-18": {"model.depth": 18},
    "ResNet-34": {"model.depth": 34},
    "ResNet-50": {"model.depth": 50},
    "ResNet-101": {"model.depth": 101},
    # wider stages behind the stem of 64 channels, which the printed parameters tell
    "WRN-18 x1.5": {"model.depth": 18, "model.widths": [64, 96, 192, 384, 768]},
    "WRN-18 x2.0": {"model.depth": 18, "model.widths": [64, 128, 256, 512, 1024]},
    "ResNeXt-50": {"model.depth": 50, **NEXT},
    "ResNeXt-101": {"model.depth": 101, **NEXT},
}

# Top-1 and top-5 error, parameters, multiply-adds.
PLAIN = (24.56, 7.50, 25.56e6, 3.858e9)
ABLATIONS = {
    "channel_pooling": {
        "none": (24.56, 7.50),
        "avg": (23.14, 6.70),
        "max": (23.20, 6.83),
        "avg_max": (22.80, 6.52),
    },
    "spatial": {
        "none": PLAIN,
        "squeeze_excite": (23.14, 6.70, 28.09e6, 3.860e9),
        "channel": (22.80, 6.52, 28.09e6, 3.860e9),
        "conv1x1 k=3": (22.96, 6.64, 28.10e6, 3.862e9),
        "conv1x1 k=7": (22.90, 6.47, 28.10e6, 3.869e9),
        "avg_max k=3": (22.68, 6.41, 28.09e6, 3.863e9),
        "avg_max k=7": (22.66, 6.31, 28.09e6, 3.864e9),
    },
    "order": {
        "none": PLAIN,
        "squeeze_excite": (23.14, 6.70),
        "channel_spatial": (22.66, 6.31),
        "spatial_channel": (22.78, 6.42),
        "parallel": (22.95, 6.59),
    },
}
IMAGENET = {
    "ResNet-18": {
        "none": (29.60, 10.55, 11.69e6, 1.814e9),
        "squeeze_excite": (29.41, 10.22, 11.78e6, 1.814e9),
        "cbam": (29.27, 10.09, 11.78e6, 1.815e9),
    },
    "ResNet-34": {
        "none": (26.69, 8.60, 21.80e6, 3.664e9),
        "squeeze_excite": (26.13, 8.35, 21.96e6, 3.664e9),
        "cbam": (25.99, 8.24, 21.96e6, 3.665e9),
    },
    "ResNet-50": {
        "none": PLAIN,
        "squeeze_excite": (23.14, 6.70, 28.09e6, 3.860e9),
        "cbam": (22.66, 6.31, 28.09e6, 3.864e9),
    },
    "ResNet-101": {
        "none": (23.38, 6.88, 44.55e6, 7.570e9),
        "squeeze_excite": (22.35, 6.19, 49.33e6, 7.575e9),
        "cbam": (21.51, 5.69, 49.33e6, 7.581e9),
    },
    "WRN-18 x1.5": {
        "none": (26.85, 8.88, 25.88e6, 3.866e9),
        "squeeze_excite": (26.21, 8.47, 26.07e6, 3.867e9),
        "cbam": (26.10, 8.43, 26.08e6, 3.868e9),
    },
    "WRN-18 x2.0": {
        "none": (25.63, 8.20, 45.62e6, 6.696e9),
        "squeeze_excite": (24.93, 7.65, 45.97e6, 6.696e9),
        "cbam": (24.84, 7.63, 45.97e6, 6.697e9),
    },
    "ResNeXt-50": {
        "none": (22.85, 6.48, 25.03e6, 3.768e9),
        "squeeze_excite": (21.91, 6.04, 27.56e6, 3.771e9),
        "cbam": (21.92, 5.91, 27.56e6, 3.774e9),
    },
    "ResNeXt-101": {
        "none": (21.54, 5.75, 44.18e6, 7.508e9),
        "squeeze_excite": (21.17, 5.66, 48.96e6, 7.512e9),
        "cbam": (21.07, 5.59, 48.96e6, 7.519e9),
    },
}
PAPER = "Woo et al. 2018, arXiv 1807.06521"
SOURCES = {
    "channel_pooling": "Table 1; errors as quoted from it",
    "spatial": "Table 2; errors as quoted from it, costs from memory",
    "order": "Table 3; errors as quoted from it",
    "imagenet": (
        "Table 4; ResNet-50 as quoted from it, ResNet-101 with CBAM as in the paper of"
        " ECA-Net, arXiv 1910.03151, the rest from memory"
    ),
}
NOTES = {
    "channel_pooling": "avg is squeeze-and-excitation.",
    "spatial": "The plain network is that of Table 1.",
    "order": "The plain network is that of Table 1.",
    "imagenet": "",
}
STRIDE = (
    "Multiply-adds are printed for a network with strides at the first 1x1 convolution"
    " of a block; ours has them at the 3x3, as the released code."
)


def get_config(arg: str = ""):
    """The config that all points of a table share."""
    choice = common.choose(arg, TABLES)
    if choice.size == "paper":
        return common.imagenet({"name": "resnet", "depth": 50})
    return common.small(common.PHOTOS, common.RESNET, steps=STEPS, size=choice.size)


def sweep(arg: str = ""):
    """The rows of the table, with every seed; on ImageNet of every network."""
    choice = common.choose(arg, TABLES)
    reduction = {} if choice.size == "paper" else {"reduction": SMALL_REDUCTION}
    specs = {
        value: spec and spec | reduction for value, spec in ROWS[choice.table].items()
    }
    rows = common.filled(specs)
    if choice.table != "imagenet":
        yield from common.points(AXES[choice.table], rows, choice)
    elif choice.size != "paper":
        yield from common.points("attention", rows, choice)
    else:
        for network, changes in NETWORKS.items():
            for axes, fields in common.points("attention", rows, choice):
                yield {"network": network, **axes}, {**changes, **fields}


def row(spec, arg: str = ""):
    """What --add names, at the end of every residual branch."""
    return {"model.slots": {"block.residual": spec}}


def published(arg: str = ""):
    """The paper's table; beside small points that of Table 4's ResNet-50."""
    choice = common.choose(arg, TABLES)
    if choice.table != "imagenet":
        rows = common.along(AXES[choice.table], ABLATIONS[choice.table])
    elif choice.size != "paper":
        rows = common.along("attention", IMAGENET["ResNet-50"])
    else:
        rows = [
            ({"network": network, "attention": attention}, row)
            for network, table in IMAGENET.items()
            for attention, row in table.items()
        ]
    note = f"{NOTES[choice.table]} {STRIDE if choice.size == 'paper' else ''}".strip()
    source = f"{PAPER}, {SOURCES[choice.table]}"
    return common.published(source, rows, choice, note=note)
