"""Captions of images: soft against hard attention, and against none.

Xu et al., "Show, Attend and Tell", ICML 2015, https://arxiv.org/abs/1502.03044: its
Table 1.

    python launch.py --config=experiments/show_attend_tell.py:attention
    python launch.py --config=experiments/show_attend_tell.py:penalty   # equation 14
    python launch.py --config=experiments/show_attend_tell.py:decoder   # not theirs

The small form describes scenes of three to five digits ("digits_scene"): which is the
large one, and how it lies to each of the others, which may be told in any order. Their
grammar tells whether a caption is true. The map has 8x8 places, which are told to the
decoder by sinusoids, as its convolutions see little more than one digit; the paper's
14x14 come from a network that sees most of the image. With ",paper" it is COCO, a
vocabulary of 10,000 words, a VGG-19 that stays as it was trained before, and the sizes
of the code that the authors published. The VGG starts with weights of ImageNet by

    --config.model.weights=FILE

torchvision's or timm's, as `attn.interop` reads them.
"""

from experiments import common

TABLES = ("attention", "penalty", "decoder")
# In whichever axis a table has.
BASELINE = {"attention": "soft", "penalty": 1.0, "decoder": "lstm"}
STEPS, BATCH = 3000, 32
SCENES = {
    "name": "digits_scene",
    "train": "train[:90%]",
    "validation": "train[90%:]",
    "test": "test",
}
# Two basic blocks in each of three stages: maps of 8x8 places of 64 channels.
BACKBONE = {"layout": "cifar", "depth": 14, "stem_stride": 2}
MODEL = {
    "name": "captioner",
    "width": 128,
    "embedding": 64,
    "dropout": 0.1,
    "backbone": BACKBONE,
    "position": "sine",
}
# 82,783 images with five captions each, in the splits of Karpathy and Li; an epoch is
# once through the images.
COCO = {
    "name": "coco_captions/2014",
    "train": "train",
    "validation": "val",
    "test": "test",
    "vocab_size": 10_000,
    "longest": 50,
    "image_size": 224,
}
EPOCH = 82_783 // 64
HIDDEN = 512  # of its scores, as wide as the map

SOFT = {"name": "additive_soft", "bias": True}
HARD = {"name": "hard_attention", "bias": True}
GUMBEL = {**HARD, "estimator": "gumbel", "expectation": 0.0}
# A caption is worth some 50 nats at first. More of that and its noise drowns what is
# learnt where the expectation is read.
REWARD = 0.002
# Not the paper's: each draw is paid by its own word, over what the model expected.
BY_WORD = {"task.credit": "word", "task.baseline": "learnt", "model.baseline": True}
# The paper's closes at words whose place is not known yet (docs/papers.md).
OPEN = {"name": "gated_soft", "gate_bias": 2.0}
cross = lambda spec: {"model.slots": {"decoder.cross": spec}}
ATTENTIONS = {
    "soft": cross(SOFT),
    "gated soft": cross({"name": "gated_soft"}),
    "open gated soft": cross(OPEN),
    "hard": cross(HARD) | {"task.penalty": 0.0, "task.reward": REWARD},
    "hard, by the word": cross(HARD)
    | {"task.penalty": 0.0, "task.reward": 0.1, **BY_WORD},
    "hard, Gumbel": cross(GUMBEL) | {"task.penalty": 0.0},
    "mean": cross("none") | {"task.penalty": 0.0},
    "first word": cross("none") | {"task.penalty": 0.0, "model.pool": "first"},
}
PENALTIES = {value: {"task.penalty": value} for value in (1.0, 0.0)}
TEXT = {"small": (128, 2, 4, 256, 0.1), "paper": (512, 6, 8, 2048, 0.1)}
# BLEU-1 to 4; the paper's soft attention has the gate.
PUBLISHED = {"gated soft": (70.7, 49.2, 34.4, 24.3), "hard": (71.8, 50.4, 35.7, 25.0)}


def get_config(arg: str = ""):
    """The config that all points of a table share."""
    choice = common.choose(arg, TABLES)
    if choice.size == "paper":
        return _paper()
    config = common.small(SCENES, MODEL, steps=STEPS, peak=2e-3, size=choice.size)
    config.model.slots = {"decoder": {"cross": SOFT}}
    config.task = {"name": "captioning", "penalty": 1.0, "beams": 1}
    config.optimizer = {"name": "adamw", "weight_decay": 0.01, "clip": 5.0}
    if choice.size != "tiny":
        config.train.batch_size = BATCH
    return config


def _paper():
    """The paper stops early by BLEU, which would be decoded at every evaluation."""
    vgg = {"name": "vgg", "depth": 19}  # maps of 14x14 places of 512 channels
    config = common.imagenet({"name": "captioner", "backbone": vgg})
    config.model.update(width=1800, embedding=512, dropout=0.5, frozen=True)
    config.model.slots = {"decoder": {"cross": {**SOFT, "hidden": HIDDEN}}}
    config.data = dict(COCO)
    config.task = {"name": "captioning", "penalty": 1.0}
    config.optimizer = {"name": "adam"}
    config.schedule = {"name": "constant", "peak": 4e-4, "warmup": 0}
    config.train.update(
        steps=30 * EPOCH,
        batch_size=64,
        eval_batch_size=64,
        eval_every=EPOCH,
        save_every=EPOCH,
        select="best",
    )
    return config


def sweep(arg: str = ""):
    """The rows of the table, with every seed."""
    choice = common.choose(arg, TABLES)
    names = ("width", "depth", "num_heads", "mlp_dim", "dropout")
    sizes = dict(zip(names, TEXT.get(choice.size, TEXT["small"]), strict=True))
    text = {"model.decoder": "transformer", "model.slots": {}}
    text |= {f"model.{name}": value for name, value in sizes.items()}
    attentions = ATTENTIONS
    if choice.size == "paper":
        attentions = {name: _widened(one) for name, one in ATTENTIONS.items()}
    rows = {
        "attention": attentions,
        "penalty": PENALTIES,
        "decoder": {"lstm": {}, "transformer": text},
    }
    return common.points(choice.table, rows[choice.table], choice)


def _widened(one):
    """A row whose attention has scores of the paper's width."""
    spec = one["model.slots"]["decoder.cross"]
    return one if spec == "none" else one | cross({**spec, "hidden": HIDDEN})


def row(spec, arg: str = ""):
    """What --add names, as what each word reads of the map."""
    return cross(spec)


def published(arg: str = ""):
    """The paper's scores on COCO, of the rows that it has."""
    choice = common.choose(arg, TABLES)
    if choice.table != "attention":
        return None
    rows = [
        ({"attention": name}, {f"bleu{n}": s for n, s in enumerate(scores, 1)})
        for name, scores in PUBLISHED.items()
    ]
    return {
        "source": "Xu et al. 2015, arXiv 1502.03044, Table 1, COCO",
        "rows": rows,
        "note": "The paper's BLEU is of the splits and words of its authors.",
    }
