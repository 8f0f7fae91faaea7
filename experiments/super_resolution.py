"""Which attention helps to restore the detail of photographs?

    python launch.py --config=experiments/super_resolution.py:attention
    python launch.py --config=experiments/super_resolution.py:pan
    python launch.py --config=experiments/super_resolution.py:san

"attention": residual blocks of EDSR (Lim et al. 2017, https://arxiv.org/abs/1707.02921)
with an attention at the end of each: none; the pixel attention of PAN (Zhao et al.
2020, https://arxiv.org/abs/2010.01073); channel attention, squeeze-and-excitation;
spatial attention, CBAM's (Woo et al. 2018, https://arxiv.org/abs/1807.06521) without
its gate of channels, and all of CBAM; the second-order channel attention of SAN (Dai et
al. 2019, https://doi.org/10.1109/CVPR.2019.01132); that of FFA-Net for channels and
then pixels (Qin et al. 2020, https://arxiv.org/abs/1911.07559); and, once after all
blocks, a non-local block (Wang et al. 2018, https://arxiv.org/abs/1711.07971).

"pan": PAN without its gates of pixels, with those of its blocks, with those behind each
enlargement, and with both.

"san": SAN whose groups end without attention, with one of first order
(squeeze-and-excitation) and with its own of second order.

The small form enlarges photographs twofold, which scikit-image, scikit-learn and
matplotlib carry: seven to train on, two for validation and four others to test on, all
of them whole. Small networks learn what interpolation lacks, on patches of 24 pixels;
that of SAN is without its non-local attention. With ",paper" they are EDSR's baseline,
16 blocks of 64 channels, PAN and SAN, fourfold on DIV2K (`data.source` is a set of
TensorFlow Datasets, or a folder), with EDSR's rate and patches. What the papers print
of such tables has not been read, so that none is beside ours.
"""

from experiments import common

TABLES = ("attention", "pan", "san")
BASELINE = {"attention": "none", "gates": "none", "order": "none"}  # as tables have
AXES = {"attention": "attention", "pan": "gates", "san": "order"}
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
SMALL = {
    "attention": {"name": "edsr", "width": 24, "depth": 4, "skip": "bicubic"},
    "pan": {"name": "pan", "width": 24, "enlarged_width": 16, "depth": 4},
    "san": {"name": "san", "width": 16, "groups": 2, "depth": 2},
}
PAPER = {"attention": "edsr", "pan": "pan", "san": "san"}
REDUCTION = {"small": 4, "tiny": 4, "paper": 16}
PAPER_STEPS, HALVED = 300_000, 200_000


def get_config(arg: str = ""):
    """The config that all points share."""
    choice = common.choose(arg, TABLES)
    paper = choice.size == "paper"
    data = DIV2K if paper else PHOTOGRAPHS
    model = {"name": PAPER[choice.table]} if paper else SMALL[choice.table]
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
    rows = {"attention": _attentions, "pan": _gates, "san": _orders}[choice.table]
    return common.points(AXES[choice.table], rows(choice), choice)


def _attentions(choice: common.Choice):
    narrow = {"reduction": REDUCTION[choice.size]}
    channel = {"name": "squeeze_excite", **narrow}
    pixel = {"name": "pixel_attention", "variant": "ffa"}
    cbam = {"name": "cbam", **narrow}
    rows = {
        "none": None,
        "pixel_attention": {"name": "pixel_attention"},
        "squeeze_excite": channel,
        "spatial": cbam | {"channel_pool": "none"},
        "cbam": cbam,
        "second_order_channel": {"name": "second_order_channel", **narrow},
        "channel, then pixel": [channel | {"reduction": 8}, pixel],
    }
    non_local = {"name": "non_local", "norm": "none"}
    return common.filled(rows) | common.filled({"non_local": non_local}, "body.end")


def _gates(choice: common.Choice):
    del choice
    return {
        name: {
            "model.gated": gated,
            "model.slots": {"enlarge.gate": "pixel_attention" if enlarged else "none"},
        }
        for name, gated, enlarged in (
            ("none", False, False),
            ("blocks", True, False),
            ("enlarging", False, True),
            ("both", True, True),
        )
    }


def _orders(choice: common.Choice):
    narrow = {"reduction": REDUCTION[choice.size]}
    return {
        name: {"model.slots": {"group.end": end, **_region(choice)}}
        for name, end in (
            ("none", "none"),
            ("first", {"name": "squeeze_excite", **narrow}),
            ("second", {"name": "second_order_channel", **narrow}),
        )
    }


def _region(choice: common.Choice):
    """SAN's non-local attention of quarters, which the small form leaves out."""
    return {} if choice.size == "paper" else {"region": "none"}


def row(spec, arg: str = ""):
    """What --add names, and nothing else that attends.

    It is at the end of residual branches, or of the groups of SAN.
    """
    choice = common.choose(arg, TABLES)
    if choice.table == "san":
        return {"model.slots": {"group.end": spec, **_region(choice)}}
    filled = {"model.slots": {"block.residual": spec}}
    if choice.table == "pan":
        filled["model.slots"]["enlarge.gate"] = "none"
        filled["model.gated"] = False
    return filled
