"""Second-order statistics: in place of an average, and in gates.

    python launch.py --config=experiments/second_order.py:pooling
    python launch.py --config=experiments/second_order.py:gsop
    python launch.py --config=experiments/second_order.py:order

"pooling" is iSQRT-COV: Li, Xie, Wang, Gao, "Towards Faster Training of Global
Covariance Pooling Networks by Iterative Matrix Square Root Normalization", CVPR 2018,
https://arxiv.org/abs/1712.01034: what is read of the last map, its average or the
square root of its covariance, by how many iterations. "gsop" is Gao, Xie, Wang, Li,
"Global Second-order Pooling Convolutional Networks", CVPR 2019,
https://arxiv.org/abs/1811.12006. "order" is the degree of the polynomials in the
attention of Chen, Deng, Hu, "Mixed High-Order Attention Network for Person
Re-Identification", ICCV 2019, https://arxiv.org/abs/1908.05819.

The small form asks the first of a residual network of 8 layers that names a photograph
by a patch of it, and the others of one that looks for the odd one of four digits. With
",paper" it is ResNet-50 on ImageNet for 90 epochs; high-order attention, whose paper
recognises persons, stands at the end of its second stage, as there.
"""

from experiments import common

TABLES = ("pooling", "gsop", "order")
BASELINE = {"pooling": "average", "attention": "none", "order": "none"}
STEPS = {"pooling": 160, "gsop": 600, "order": 600}
DATA = {
    "pooling": common.PHOTOS,
    "gsop": common.ODD_ONE_OUT,
    "order": common.ODD_ONE_OUT,
}
# One basic block in each of three stages of 16, 32 and 64 channels.
SMALL = common.RESNET | {"depth": 8}
# Of ResNet-50, behind which GSoP-Net1 has its blocks, and of the small one.
LAST = {
    "paper": ("stage2/block3", "stage3/block5", "stage4/block2"),
    "small": ("stage1/block0", "stage2/block0", "stage3/block0"),
}
GSOP = {"name": "global_second_order"}
SMALL_GSOP = {"channels": 16, "side": 4}  # where the paper has 128 and 8
ORDERS = (1, 2, 3, 4)
ITERATIONS = (0, 1, 3, 5)

# Top-1 and top-5 error, parameters, multiply-adds.
PLAIN = (24.80, 7.48)
PUBLISHED = {
    "pooling": {"average": PLAIN, "root, 5 iterations": (22.14, 6.22, 56.93e6)},
    "gsop": {
        "none": PLAIN,
        "squeeze_excite": (23.29, 6.62),
        "channel": (22.32, 6.02, 28.05e6, 6.18e9),
    },
}
SOURCES = {
    "pooling": (
        "Li et al. 2018, arXiv 1712.01034, as their code's page says; the plain network"
        " as in Table 3 of ECA-Net, arXiv 1910.03151"
    ),
    "gsop": (
        "Gao et al. 2019, arXiv 1811.12006, and others, as in Table 3 of ECA-Net, arXiv"
        " 1910.03151"
    ),
}


def get_config(arg: str = ""):
    """The config that all points of a table share."""
    choice = common.choose(arg, TABLES)
    if choice.size == "paper":
        return common.imagenet({"name": "resnet", "depth": 50})
    steps = STEPS[choice.table]
    model = SMALL | ({"last_stride": 1} if choice.table == "pooling" else {})
    return common.small(DATA[choice.table], model, steps=steps, size=choice.size)


def sweep(arg: str = ""):
    """The rows of the table, with every seed."""
    choice = common.choose(arg, TABLES)
    make = {"pooling": pooling, "gsop": gsop, "order": order}[choice.table]
    axis = {"gsop": "attention"}.get(choice.table, choice.table)
    yield from common.points(axis, make(choice), choice)


def pooling(choice: common.Choice):
    """By what is read of the last map, the fields of a row."""
    fewer = {} if choice.size == "paper" else {"model.pooled_channels": 32}
    fields = {"model.pooling": "covariance", **fewer}
    rows = {
        f"root, {count} iterations": fields | {"model.iterations": count}
        for count in ITERATIONS
    }
    return {"average": {}, **rows}


def gsop(choice: common.Choice):
    """By what the gates are of, the fields of a row."""
    paper = choice.size == "paper"
    reduction = {} if paper else {"reduction": 4}
    specs = {"squeeze_excite": {"name": "squeeze_excite", **reduction}}
    rows = {"none": {}, **common.filled(specs)}
    places = LAST["paper" if paper else "small"]
    for along in ("channel", "spatial", "both"):
        spec = GSOP | {"along": along} | ({} if paper else SMALL_GSOP)
        slots = {f"{place}/block.residual": spec for place in places}
        rows[along] = {"model.slots": slots}
        if paper:
            rows[along]["model.last_stride"] = 1
    return rows


def order(choice: common.Choice):
    """By the highest degree, the fields of a row."""
    place = "stage2/stage.end" if choice.size == "paper" else "block.residual"
    specs = {str(top): {"name": "mixed_high_order", "order": top} for top in ORDERS}
    return {"none": {}, **common.filled(specs, place)}


def published(arg: str = ""):
    """The papers' numbers, where they are of ImageNet."""
    choice = common.choose(arg, TABLES)
    if choice.table not in PUBLISHED:
        return None
    axis = {"gsop": "attention"}.get(choice.table, choice.table)
    rows = common.along(axis, PUBLISHED[choice.table])
    return common.published(SOURCES[choice.table], rows, choice)
