"""Non-local blocks: which pairwise function, in which stage, and how many.

The ablations of Wang, Girshick, Gupta, He, "Non-local Neural Networks", CVPR 2018,
https://arxiv.org/abs/1711.07971: its Table 2, parts a, b and c.

    python launch.py --config=experiments/non_local.py:instantiation
    python launch.py --config=experiments/non_local.py:stage
    python launch.py --config=experiments/non_local.py:number

The paper classifies videos of Kinetics with C2D, a ResNet that sees each frame by
itself. Here is what corresponds to it for images: with ",paper" ResNet-50 on ImageNet,
and in the small form a residual network of 20 layers on patches of photographs.
"""

from experiments import common

TABLES = ("instantiation", "stage", "number")
AXES = {"instantiation": "pairwise", "stage": "stage", "number": "number"}
# The network without any block, in whichever axis a table has.
BASELINE = {"pairwise": "none", "stage": "none", "number": "none"}
STEPS = 400

# Blocks in the stages of each network. The paper calls its stages res2 to res5.
BLOCKS = {"small": (3, 3, 3), "ResNet-50": (3, 4, 6, 3), "ResNet-101": (3, 4, 23, 3)}
STAGES = ("res2", "res3", "res4", "res5")
PAIRWISE = ("gaussian", "embedded_gaussian", "dot_product", "concatenation")
NUMBERS = ("one", "every other", "every")

# Top-1 and top-5 accuracy on Kinetics.
C2D = (71.8, 89.7)
INSTANTIATION = {
    "none": C2D,
    "gaussian": (72.5, 90.2),
    "embedded_gaussian": (72.7, 90.5),
    "dot_product": (72.9, 90.3),
    "concatenation": (72.8, 90.5),
}
STAGE = {
    "none": C2D,
    "res2": (72.7, 90.3),
    "res3": (72.9, 90.4),
    "res4": (72.7, 90.5),
    "res5": (72.3, 90.1),
}
NUMBER = {
    "ResNet-50": {
        "none": C2D,
        "one": (72.7, 90.5),
        "every other": (73.8, 91.0),
        "every": (74.3, 91.2),
    },
    "ResNet-101": {
        "none": (73.1, 91.0),
        "one": (74.3, 91.3),
        "every other": (75.1, 91.7),
        "every": (75.1, 91.6),
    },
}
PAPER = "Wang et al. 2018, arXiv 1711.07971, Table 2"
NOTE = (
    "Published for videos of Kinetics, where a block reads all frames; ours are images,"
    " so that orders can be compared, and errors cannot."
)


def get_config(arg: str = ""):
    """The config that all points of a table share."""
    choice = common.choose(arg, TABLES)
    if choice.size == "paper":
        return common.imagenet({"name": "resnet", "depth": 50})
    network = common.RESNET | {"depth": 20}
    return common.small(common.PHOTOS, network, steps=STEPS, size=choice.size)


def sweep(arg: str = ""):
    """The rows of the table, with every seed; of `number` for every network."""
    choice = common.choose(arg, TABLES)
    if choice.table != "number" or choice.size != "paper":
        network = "ResNet-50" if choice.size == "paper" else "small"
        rows = filled(choice, network)
        yield from common.points(AXES[choice.table], rows, choice)
        return
    for network, depth in (("ResNet-50", 50), ("ResNet-101", 101)):
        rows = filled(choice, network)
        for axes, fields in common.points("number", rows, choice):
            yield {"network": network, **axes}, {"model.depth": depth, **fields}


def filled(choice: common.Choice, network: str):
    """The rows of a table: by the value of its axis, the slots of `network`."""
    if choice.table == "instantiation":
        where = inside(network, 2 if network == "small" else 3)
        slots = {kind: {where: block(choice, kind)} for kind in PAIRWISE}
    elif choice.table == "stage":
        slots = {
            name: {inside(network, number): block(choice)}
            for number, name in enumerate(STAGES[: len(BLOCKS[network])], 1)
        }
    else:
        slots = {
            number: {place: block(choice) for place in places(network, number)}
            for number in NUMBERS
            # Where the paper puts ten blocks into ResNet-101, it does not say.
            if (network, number) != ("ResNet-101", "every")
        }
    return {name: {"model.slots": fill} for name, fill in {"none": {}, **slots}.items()}


def block(choice: common.Choice, pairwise: str = "embedded_gaussian"):
    """One non-local block; sources are pooled 2x2 in the paper, on maps of 56 to 7."""
    subsample = "projected" if choice.size == "paper" else "none"
    return {"name": "non_local", "pairwise": pairwise, "subsample": subsample}


def inside(network: str, stage: int) -> str:
    """The slot before the last residual block of a stage, counted from 1."""
    return f"stage{stage}/block{BLOCKS[network][stage - 1] - 2}/block.post"


def places(network: str, number: str) -> list[str]:
    """The slots of table c: one in res4, or after blocks of res3 and of res4.

    "every other" block has an odd index; of the 23 of ResNet-101's res4 it is every
    seventh, as in the released code. Small networks have no res5, and their one block
    is in res3.
    """
    if number == "one":
        return [inside(network, 2 if network == "small" else 3)]
    steps = {2: 2, 3: 7 if network == "ResNet-101" else 2}
    return [
        f"stage{stage}/block{index}/block.post"
        for stage, step in steps.items()
        for index in range(BLOCKS[network][stage - 1])
        if number == "every" or index % step == step - 1
    ]


def published(arg: str = ""):
    """The paper's table; beside small points of `number` that of ResNet-50."""
    choice = common.choose(arg, TABLES)
    if choice.table == "number" and choice.size == "paper":
        rows = [
            ({"network": network, "number": number}, row)
            for network, table in NUMBER.items()
            for number, row in table.items()
        ]
    else:
        tables = {"instantiation": INSTANTIATION, "stage": STAGE}
        table = tables.get(choice.table, NUMBER["ResNet-50"])
        rows = common.along(AXES[choice.table], table)
    part = "abc"[TABLES.index(choice.table)]
    return common.published(f"{PAPER}{part}", rows, choice, accuracy=True, note=NOTE)
