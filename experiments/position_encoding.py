"""Which position encoding helps a small Vision Transformer?

Every encoding that there is, `attn.modules.position.POSITIONS`, against none at all.
The Vision Transformer is that of Dosovitskiy et al., "An Image is Worth 16x16 Words",
ICLR 2021, https://arxiv.org/abs/2010.11929; the encodings name their papers.

    python launch.py --config=experiments/position_encoding.py

The small form has four layers and 49 patches of a digit turned by up to 90 degrees.
With ",paper" it is ViT-B/16 from scratch on ImageNet, as in Table 3 of that paper.
"""

from attn.modules import position
from experiments import common

TABLES = ("encoding",)
BASELINE = {"position": "none"}
STEPS = 400


def get_config(arg: str = ""):
    """The config that all points share."""
    choice = common.choose(arg, TABLES)
    if choice.size != "paper":
        return common.small(
            common.DIGITS, common.VIT, steps=STEPS, peak=0.002, size=choice.size
        )
    network = {"name": "vit", "size": "base", "patch_size": 16, "dropout": 0.1}
    config = common.imagenet(network, epochs=300, batch_size=4096)
    config.optimizer = {"name": "adamw", "weight_decay": 0.3, "clip": 1.0}
    config.schedule = {"name": "cosine", "peak": 3e-3, "warmup": 10_000}
    return config


def sweep(arg: str = ""):
    """Every encoding with every seed."""
    choice = common.choose(arg, TABLES)
    names = ["none", *(name for name in position.POSITIONS if name != "none")]
    rows = {name: {"model.position": name} for name in names}
    yield from common.points("position", rows, choice)


def row(spec, arg: str = ""):
    """The encoding that --add names."""
    return {"model.position": spec}


def published(arg: str = ""):
    """No paper compares these encodings in one network."""
    common.choose(arg, TABLES)
