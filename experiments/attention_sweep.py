"""Which attention helps a small ResNet read rotated digits?

One small residual network, six attentions, three seeds each, on 5,000 real MNIST
digits turned by up to 90 degrees: the distortion `r` of the spatial-transformer
paper (Jaderberg et al. 2015, arXiv 1506.02025). It needs no download.

    python launch.py
    python launch.py --config=experiments/attention_sweep.py:tiny   # 3 points, a test
"""

import ml_collections

from experiments import common

# Where each attention sits: gates at the end of every residual branch, as their
# papers put them; the non-local block once, after the second stage, as its paper
# does on deep networks; the spatial transformer before everything.
ATTENTIONS = {
    "none": {},
    "squeeze_excite": {"block.residual": {"name": "squeeze_excite", "reduction": 4}},
    "cbam": {"block.residual": {"name": "cbam", "reduction": 4}},
    "pixel_attention": {"block.residual": "pixel_attention"},
    "non_local": {"stage2/stage.end": "non_local"},
    "spatial_transformer": {"input": "spatial_transformer"},
}
BASELINE = {"attention": "none"}
SEEDS = 3


def get_config(arg: str = "") -> ml_collections.ConfigDict:
    """The config that all points share; `arg` may be "tiny"."""
    tiny = common.parse(arg, tiny=False)["tiny"]
    config = ml_collections.ConfigDict()
    config.seed = 0
    config.data = {
        "name": "mnist_5k",
        "train": "train",
        "test": "test",
        "distortion": "r",
    }
    # three residual blocks of 16, 32 and 64 channels behind a stem of stride 2
    config.model = {
        "name": "resnet",
        "layout": "cifar",
        "depth": 8,
        "stem_stride": 2,
        "slots": {},
    }
    config.task = {"name": "classification", "label_smoothing": 0.0}
    config.optimizer = {"name": "adamw", "weight_decay": 0.01}
    config.schedule = {"name": "cosine", "peak": 0.01, "warmup": 25}
    config.train = {
        "steps": 400,
        "batch_size": 128,
        "eval_batch_size": 256,
        "log_every": 20,
        "eval_every": 100,
        "save_every": 200,
        "accumulate": 1,
        "dtype": "float32",
        "partition": "pmap",
    }
    if tiny:
        config.schedule.warmup = 1
        config.train.update(steps=4, log_every=2, eval_every=4, save_every=2)
    return config


def sweep(arg: str = ""):
    """Every attention with every seed."""
    tiny = common.parse(arg, tiny=False)["tiny"]
    names = ["none", "cbam", "spatial_transformer"] if tiny else ATTENTIONS
    for attention in names:
        for seed in range(1 if tiny else SEEDS):
            axes = {"attention": attention, "seed": seed}
            yield axes, {"model.slots": ATTENTIONS[attention], "seed": seed}


def row(spec, arg: str = ""):
    """What --add names, at the end of every residual branch."""
    return {"model.slots": {"block.residual": spec}}
