"""Efficient channel attention: how many neighbouring channels make a gate.

Wang, Wu, Zhu, Li, Zuo, Hu, "ECA-Net: Efficient Channel Attention for Deep Convolutional
Neural Networks", CVPR 2020, https://arxiv.org/abs/1910.03151: its Tables 2 and 3.

    python launch.py --config=experiments/efficient_channel.py:kernel
    python launch.py --config=experiments/efficient_channel.py:imagenet

The small form asks the same of a residual network of bottlenecks, whose maps have 64
to 256 channels, on patches of photographs. With ",paper" it is ResNet-50, -101 and
-152 on ImageNet for 100 epochs.
"""

from experiments import common

TABLES = ("kernel", "imagenet")
BASELINE = {"attention": "none"}
STEPS = 400
SMALL_REDUCTION = 8  # of squeeze-and-excitation, where the paper has 16
# Adaptive sizes in it are 3, 5 and 5, in the stages of 64, 128 and 256 channels.
SMALL = common.RESNET | {"depth": 11, "block": "bottleneck"}

SE = {"name": "squeeze_excite", "bias": False}
ECA = {"name": "efficient_channel"}
DEPTHS = {"ResNet-50": 50, "ResNet-101": 101, "ResNet-152": 152}
# Sizes in the four stages of the released models, which the paper's own formula
# makes 5, 5, 5 and 7.
RELEASED = {
    "ResNet-50": (3, 5, 5, 7),
    "ResNet-101": (3, 3, 5, 7),
    "ResNet-152": (3, 3, 5, 7),
}


def mebi(count: float) -> int:
    """Parameters that are printed in units of 2^20, to two digits after the point."""
    return round(count * 2**20, -4)


# Top-1 and top-5 accuracy, parameters, multiply-adds.
KERNEL = {
    "none": (75.20, 92.25),
    "SE": (76.71, 93.38),
    "SE-Var1": (76.00, 92.90),
    "SE-Var2": (77.07, 93.31),
    "SE-Var3": (77.42, 93.64),
    "SE-GC1": (76.95, 93.47),
    "SE-GC2": (76.98, 93.31),
    "SE-GC3": (76.96, 93.38),
    "ECA-NS": (77.35, 93.61),
    "ECA k=3": (77.43, 93.65),
    "ECA adaptive": (77.48, 93.68),
    "ECA released": (77.42, 93.62),
}
IMAGENET = {
    "ResNet-50": {
        "none": (75.20, 92.52, mebi(24.37), 3.86e9),
        "SE": (76.71, 93.38, mebi(26.77), 3.87e9),
        "CBAM": (77.34, 93.69, mebi(26.77), 3.87e9),
        "A2-Nets": (77.00, 93.50, 33.00e6, 6.50e9),
        "GCNet": (77.70, 93.66, 28.08e6, 3.87e9),
        "GSoP-Net1": (77.68, 93.98, 28.05e6, 6.18e9),
        "AA-Net": (77.70, 93.80, 25.80e6, 4.15e9),
        "ECA adaptive": (77.48, 93.68, mebi(24.37), 3.86e9),
        "ECA released": (77.42, 93.62),
    },
    "ResNet-101": {
        "none": (76.83, 93.48, mebi(42.49), 7.34e9),
        "SE": (77.62, 93.93, mebi(47.01), 7.35e9),
        "CBAM": (78.49, 94.31, mebi(47.01), 7.35e9),
        "AA-Net": (78.70, 94.40, 45.40e6, 8.05e9),
        "ECA adaptive": (78.65, 94.34, mebi(42.49), 7.35e9),
    },
    "ResNet-152": {
        "none": (77.58, 93.66, mebi(57.40), 10.82e9),
        "SE": (78.43, 94.27, mebi(63.68), 10.85e9),
        "ECA adaptive": (78.92, 94.55, mebi(57.40), 10.83e9),
    },
}
PAPER = "Wang et al. 2020, arXiv 1910.03151"
SOURCES = {
    "kernel": f"{PAPER}, Table 2; adaptive of Table 3, released of BangguWu/ECANet",
    "imagenet": f"{PAPER}, Table 3; released of BangguWu/ECANet",
}
COSTS = (
    "Parameters are printed in units of 2^20, but for A2-Nets, GCNet, GSoP-Net1 and"
    " AA-Net in millions. Multiply-adds are printed for strides at the first 1x1"
    " convolution of a block; ours has them at the 3x3."
)


def get_config(arg: str = ""):
    """The config that all points of a table share."""
    choice = common.choose(arg, TABLES)
    if choice.size == "paper":
        network = {"name": "resnet", "depth": 50}
        return common.imagenet(network, epochs=100, drops=(30, 60, 90))
    return common.small(common.PHOTOS, SMALL, steps=STEPS, size=choice.size)


def sweep(arg: str = ""):
    """The rows of the table, with every seed; on ImageNet of every network."""
    choice = common.choose(arg, TABLES)
    if choice.table == "imagenet" and choice.size == "paper":
        for network, depth in DEPTHS.items():
            rows = filled(choice, network)
            for axes, fields in common.points("attention", rows, choice):
                yield {"network": network, **axes}, {"model.depth": depth, **fields}
    else:
        yield from common.points("attention", filled(choice, "ResNet-50"), choice)


def filled(choice: common.Choice, network: str):
    """The rows of a table: by the attention, the slots of `network`."""
    reduction = {} if choice.size == "paper" else {"reduction": SMALL_REDUCTION}
    specs = {"none": None, "SE": SE | reduction, "ECA adaptive": ECA}
    if choice.table == "kernel":
        specs |= {f"ECA k={k}": ECA | {"kernel_size": k} for k in (3, 5, 7, 9)}
    else:
        specs["CBAM"] = {"name": "cbam"} | reduction
    rows = common.filled(specs)
    if choice.size == "paper":
        rows["ECA released"] = {
            "model.slots": {
                f"stage{stage}/block.residual": ECA | {"kernel_size": size}
                for stage, size in enumerate(RELEASED[network], 1)
            }
        }
    return rows


def row(spec, arg: str = ""):
    """What --add names, at the end of every residual branch."""
    return {"model.slots": {"block.residual": spec}}


def published(arg: str = ""):
    """The paper's table; beside small points of `imagenet` that of ResNet-50."""
    choice = common.choose(arg, TABLES)
    if choice.table == "imagenet" and choice.size == "paper":
        rows = [
            ({"network": network, "attention": attention}, row)
            for network, table in IMAGENET.items()
            for attention, row in table.items()
        ]
    else:
        tables = {"kernel": KERNEL, "imagenet": IMAGENET["ResNet-50"]}
        rows = common.along("attention", tables[choice.table])
    note = COSTS if (choice.table, choice.size) == ("imagenet", "paper") else ""
    source = SOURCES[choice.table]
    return common.published(source, rows, choice, accuracy=True, note=note)
