"""Which kind of attention finds the digit that is unlike the others?

Three real digits of one class and one of another on a canvas; the label is the class of
the odd one. Which digit is odd depends on the other three, so that places far apart
must be compared. One small residual network without attention and with five kinds of
it, all scaled to the same multiply-adds. It needs no download.

The training is short: without attention the network is still near chance, 90 %, at its
end. So the table tells which attention finds the comparison soonest, and not what each
would come to.

    python launch.py
    python launch.py --config=experiments/attention_sweep.py:tiny   # 3 points, a test
"""

import ml_collections

from experiments import common

# One of each kind, where its paper has it: gates at the end of every residual branch;
# the non-local block once, after the second stage; self-attention instead of the last
# 3x3 convolution, as in BoTNet. The sixth kind, spatial transformers, has an experiment
# of its own: here is nothing to be warped.
ATTENTIONS = {
    "none": {},
    "squeeze_excite": {"block.residual": {"name": "squeeze_excite", "reduction": 4}},
    "cbam": {"block.residual": {"name": "cbam", "reduction": 4}},
    "pixel_attention": {"block.residual": "pixel_attention"},
    "non_local": {"stage2/stage.end": "non_local"},
    "multi_head": {"stage3/block.conv2": {"name": "multi_head", "num_heads": 4}},
}
BASELINE = {"attention": "none"}
SEEDS = 4
STEPS = 460


def get_config(arg: str = "") -> ml_collections.ConfigDict:
    """The config that all points share; `arg` may be "tiny"."""
    tiny = common.parse(arg, tiny=False)["tiny"]
    config = ml_collections.ConfigDict()
    config.seed = 0
    # Four hundred of the 4,000 training digits are for validation. Three canvases
    # around each of the 1,000 test digits leave less of an error to luck.
    config.data = {
        **common.ODD_ONE_OUT,
        "distortion": "none",
        "test_draws": 3,
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
    config.schedule = {"name": "cosine", "peak": 0.01, "warmup": STEPS // 20}
    config.train = {
        "steps": STEPS,
        "batch_size": 64,
        "eval_batch_size": 256,
        "log_every": 20,
        "eval_every": STEPS // 4,
        "save_every": STEPS // 2,
        "accumulate": 1,
        "dtype": "float32",
        "partition": "pmap",
    }
    if tiny:
        config.data.test_draws = 1
        config.schedule.warmup = 1
        config.train.update(steps=4, log_every=2, eval_every=4, save_every=2)
    return config


def sweep(arg: str = ""):
    """Every attention with every seed."""
    tiny = common.parse(arg, tiny=False)["tiny"]
    names = ["none", "cbam", "multi_head"] if tiny else ATTENTIONS
    for attention in names:
        for seed in range(1 if tiny else SEEDS):
            fields = {"model.slots": ATTENTIONS[attention], "seed": seed}
            yield {"attention": attention, "seed": seed}, fields


def match(arg: str = ""):
    """Widths are scaled so that all have the multiply-adds of the baseline."""
    return "macs"


def row(spec, arg: str = ""):
    """What --add names, at the end of every residual branch."""
    return {"model.slots": {"block.residual": spec}}
