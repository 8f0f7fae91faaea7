"""Which attention helps to restore the detail of photographs?

    python launch.py --config=experiments/super_resolution.py:attention

Residual blocks of EDSR (Lim et al. 2017, https://arxiv.org/abs/1707.02921) with an
attention at the end of each: none; the pixel attention of PAN (Zhao et al. 2020,
https://arxiv.org/abs/2010.01073); channel attention, squeeze-and-excitation; that of
FFA-Net for channels and then pixels (Qin et al. 2020,
https://arxiv.org/abs/1911.07559); the second-order channel attention of SAN (Dai et al.
2019, https://doi.org/10.1109/CVPR.2019.01132), as one, of first order, too.

The small form enlarges photographs twofold, which scikit-image, scikit-learn and
matplotlib carry: seven to train on, two for validation and four others to test on, all
of them whole. Four blocks of 24 channels learn what bicubic interpolation lacks, on
patches of 24 pixels. With ",paper" it is EDSR's baseline, 16 blocks of 64 channels,
fourfold on DIV2K (`data.source` is a set of TensorFlow Datasets, or a folder) with the
paper's rate and patches. No paper has this table: PAN and SAN compare attention in
networks of their own.
"""

from experiments import common

TABLES = ("attention",)
BASELINE = {"attention": "none"}
STEPS = 600
PHOTOGRAPHS = {
    "name": "degraded",
    "scale": 2,
    "train": "train",
    "validation": "validation",
    "test": "test",
    "transforms": {"patches": {"size": 24}},
}
DIV2K = {
    "name": "degraded",
    "source": "div2k/bicubic_x4",
    "scale": 4,
    "train": "train",
    "test": "validation",
    "transforms": {"patches": {"size": 48}},
}
SMALL = {"name": "edsr", "width": 24, "depth": 4, "skip": "bicubic"}
REDUCTION = {"small": 4, "tiny": 4, "paper": 16}
PAPER_STEPS, HALVED = 300_000, 200_000


def get_config(arg: str = ""):
    """The config that all points share."""
    choice = common.choose(arg, TABLES)
    paper = choice.size == "paper"
    data, model = (DIV2K, {"name": "edsr"}) if paper else (PHOTOGRAPHS, SMALL)
    steps = PAPER_STEPS if paper else STEPS
    config = common.small(data, model, steps=steps, peak=1e-3)
    config.task = {"name": "restoration"}
    config.optimizer = {"name": "adam"}
    config.train.update(batch_size=16, eval_batch_size=1)
    if paper:
        config.schedule = {
            "name": "step",
            "peak": 1e-4,
            "warmup": 0,
            "boundaries": [HALVED],
            "factor": 0.5,
        }
        config.train.update(eval_every=1000, save_every=1000, log_every=100)
    if choice.size == "tiny":
        config.data.update(train="train[:2]", test="test[:1]", validation="")
        config.data.scale = 4
        config.schedule.warmup = 1
        config.train.update(steps=4, batch_size=2, log_every=2, eval_every=4)
    return config


def sweep(arg: str = ""):
    """The rows of the table, with every seed."""
    choice = common.choose(arg, TABLES)
    narrow = {"reduction": REDUCTION[choice.size]}
    channel = {"name": "squeeze_excite", **narrow}
    rows = {
        "none": None,
        "pixel_attention": {"name": "pixel_attention"},
        "squeeze_excite": channel,
        "second_order_channel": {"name": "second_order_channel", **narrow},
    }
    if choice.size == "paper":
        pixel = {"name": "pixel_attention", "variant": "ffa"}
        rows["channel, then pixel"] = [channel | {"reduction": 8}, pixel]
    return common.points("attention", common.filled(rows), choice)


def row(spec, arg: str = ""):
    """What --add names, at the end of every residual branch."""
    return {"model.slots": {"block.residual": spec}}
