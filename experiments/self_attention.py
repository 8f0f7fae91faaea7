"""Which self-attention mixes the tokens of a small Vision Transformer best?

Token attentions as the mixer of the same network, widths scaled so that all have the
parameters of softmax attention. Tay et al., "Long Range Arena", ICLR 2021,
https://arxiv.org/abs/2011.04006, compared some of them on images as sequences of
pixels.

    python launch.py --config=experiments/self_attention.py

The small form has 49 patches of a digit turned by up to 90 degrees. With ",paper" it
is the Image task of Long Range Arena: one layer of 128 channels on the 1,024 pixels of
an image of CIFAR-10, 200 epochs.
"""

from experiments import common

TABLES = ("mixer",)
BASELINE = {"mixer": "multi_head"}
STEPS = 400
# Images without class token: windows and neighbourhoods know no token off the grid.
SMALL = common.VIT | {"pool": "mean"}
PIXELS = {
    "name": "vit",
    "pool": "mean",
    "patch_size": 1,
    "width": 128,
    "depth": 1,
    "num_heads": 8,
    "mlp_ratio": 1.0,
    "dropout": 0.3,
}
EXAMPLES, EPOCHS, BATCH = 45_000, 200, 256

# What depends on the number of tokens, 49 and 1,024. The arena's local attention has
# blocks of 64 tokens, and its Linformer a rank of 16.
SETTINGS = {
    "small": {"window": 4, "kernel": 3, "rank": 16, "num_features": 32},
    "paper": {"window": 8, "kernel": 7, "rank": 16, "num_features": 256},
}
IMAGE = {
    "multi_head": (42.44,),
    "window": (41.46,),
    "linformer": (38.56,),
    "linear": (42.34,),
    "performer": (42.77,),
}


def get_config(arg: str = ""):
    """The config that all points share."""
    choice = common.choose(arg, TABLES)
    if choice.size != "paper":
        return common.small(
            common.DIGITS, SMALL, steps=STEPS, peak=0.002, size=choice.size
        )
    epoch = EXAMPLES // BATCH
    config = common.small({"name": "cifar10"}, PIXELS, steps=EPOCHS * epoch, peak=5e-4)
    config.data.train = f"train[:{EXAMPLES}]"
    config.optimizer.weight_decay = 0.0
    config.schedule.warmup = epoch
    config.train.update(batch_size=BATCH, eval_every=10 * epoch, save_every=10 * epoch)
    return config


def sweep(arg: str = ""):
    """Every attention with every seed."""
    choice = common.choose(arg, TABLES)
    given = SETTINGS["paper" if choice.size == "paper" else "small"]
    window = {"window": given["window"]}
    specs = {
        "multi_head": {},
        "none": None,
        "linear": {},
        "window": window,
        "neighborhood": {"window": given["kernel"]},
        "linformer": {"rank": given["rank"]},
        "performer": {"num_features": given["num_features"]},
        "cross_covariance": {},
        "talking_heads": {},
    }
    rows = {
        name: {"model.slots": {"mixer": "none" if s is None else {"name": name, **s}}}
        for name, s in specs.items()
    }
    if choice.size != "paper":  # the arena's network has a single layer
        shifted = {"mixer": {"name": "window", **window}}
        for block in range(1, SMALL["depth"], 2):
            shifted[f"block{block}/mixer"] = {"name": "shifted_window", **window}
        rows["shifted_window"] = {"model.slots": shifted}
    yield from common.points("mixer", rows, choice)


def row(spec, arg: str = ""):
    """What --add names, as the mixer of every block."""
    return {"model.slots": {"mixer": spec}}


def match(arg: str = ""):
    """Widths are scaled so that all have the parameters of the baseline."""
    return "parameters"


def published(arg: str = ""):
    """The Image column of Long Range Arena, of the attentions that are here."""
    choice = common.choose(arg, TABLES)
    return common.published(
        "Tay et al. 2021, arXiv 2011.04006, Table 1, column Image; as quoted from it",
        common.along("mixer", IMAGE),
        choice,
        accuracy=True,
        note=(
            "Published for the 1,024 grey pixels of CIFAR-10 as a sequence, each"
            " attention with widths and pooling of its own; ours see colours and a"
            " grid, and all have as many parameters. Local Attention, in blocks of the"
            " sequence, stands beside windows of the grid."
        ),
    )
