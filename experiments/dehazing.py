"""Which attention helps to see through haze?

    python launch.py --config=experiments/dehazing.py:attention

FFA-Net (Qin et al. 2020, https://arxiv.org/abs/1911.07559) with the gates of its
blocks, of channels and then of pixels, with one of them, and without.

The small form has photographs that scikit-image, scikit-learn and matplotlib carry,
seven to train on and four others to test on, all of them whole, with haze that is
drawn by the model of scattering, equally dense everywhere in an image, eight times for
each test photograph. How dense it is and how bright are to be seen from the whole
image: one map of colours for all images cannot undo it, the right one for each can. One
group of four blocks of 16 channels is trained on patches of 48 pixels.

With ",paper" it is the paper's network, of 3 groups of 19 blocks of 64 channels, on
patches of 240 pixels of the photographs of a folder, with the paper's rate and steps.
Its sets (RESIDE) have measured depths and are not read here; haze is denser towards the
top of each image instead, so that its numbers are not comparable.
"""

from experiments import common

TABLES = ("attention",)
BASELINE = {"attention": "none"}
STEPS = 600
PAPER_STEPS = 500_000
SMALL = {"name": "ffa", "width": 16, "groups": 1, "depth": 4, "skip": "image"}
EVEN = {"depth": "constant", "beta": (0.3, 0.9)}  # haze of the small form
DRAWS = 8  # of haze for each of its test photographs


def get_config(arg: str = ""):
    """The config that all points share."""
    choice = common.choose(arg, TABLES)
    paper = choice.size == "paper"
    data = {
        "name": "degraded",
        "train": "train",
        "validation": "validation",
        "test": "test",
        "transforms": {
            "haze": {"order": 1, **({} if paper else EVEN)},
            "patches": {"size": 240 if paper else 48, "order": 2},
        },
    }
    model = {"name": "ffa"} if paper else SMALL
    steps = PAPER_STEPS if paper else STEPS
    config = common.small(data, model, steps=steps, peak=1e-4 if paper else 2e-3)
    config.task = {"name": "restoration", "luma": False}
    config.optimizer = {"name": "adam"}
    config.train.update(batch_size=2 if paper else 8, eval_batch_size=1)
    if paper:
        config.schedule.warmup = 0
        config.train.update(eval_every=5000, save_every=5000, log_every=100)
    else:
        config.data.test_draws = DRAWS
    if choice.size == "tiny":
        config.data.update(train="train[:2]", test="test[:1]", validation="")
        config.schedule.warmup = 1
        config.train.update(steps=4, batch_size=2, log_every=2, eval_every=4)
    return config


def sweep(arg: str = ""):
    """The rows of the table, with every seed."""
    choice = common.choose(arg, TABLES)
    channel = {"name": "squeeze_excite", "reduction": 8}
    pixel = {"name": "pixel_attention", "variant": "ffa", "reduction": 8}
    rows = {
        "none": {"block.residual": "none", "fused": "none"},
        "channel": {"block.residual": channel, "fused": "none"},
        "pixel": {"block.residual": pixel, "fused": pixel},
        "channel, then pixel": {"block.residual": [channel, pixel], "fused": pixel},
    }
    rows = {name: {"model.slots": slots} for name, slots in rows.items()}
    return common.points("attention", rows, choice)


def row(spec, arg: str = ""):
    """What --add names, at the end of every residual branch."""
    return {"model.slots": {"block.residual": spec, "fused": "none"}}
