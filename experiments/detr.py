"""DETR: encoder, positions, losses, decoder, and which attention helps a detector.

Carion, Massa, Synnaeve, Usunier, Kirillov, Zagoruyko, "End-to-End Object Detection with
Transformers", ECCV 2020, https://arxiv.org/abs/2005.12872: its Tables 2, 3 and 4, and
the layers of the decoder of its Figure 4.

    python launch.py --config=experiments/detr.py:position             # Table 3
    python launch.py --config=experiments/detr.py:encoder              # Table 2
    python launch.py --config=experiments/detr.py:loss                 # Table 4
    python launch.py --config=experiments/detr.py:decoder              # Figure 4
    python launch.py --config=experiments/detr.py:backbone_attention

The small form finds three to five digits of two sizes on a coloured texture
("digits_scene"). Its backbone is a ResNet of seven convolutions of 3x3 and a stride of
8, trained from scratch; the Transformer has two layers of 64 channels on each side and
10 queries. No dropout, a constant weight decay and clipping as in the paper, and ten
times its rate, with a warm-up; as there it drops to a tenth towards the end, after
3,200 of 4,000 steps. Digits are told apart late, between 1,000 and 3,000 steps. Images
are of 64 pixels, but for the table of positions, which has 128 and is work for an
accelerator: on 64 a detector did about as well without positions in an earlier version,
maybe because most places of the map see the padding beyond the border, which tells them
where they are (docs/papers.md). Objects are small in COCO's sense, so that there is no
AP of others, but for the largest on 128.

With ",paper" it is DETR with ResNet-50 on COCO for 300 epochs, as in the paper's
ablations, each on 16 GPUs for days. Its backbone starts with weights of ImageNet by

    --config.model.weights=FILE

a file of all its weights, or of a ResNet-50 alone, as `attn.interop` reads them.
"""

from experiments import common

TABLES = ("position", "encoder", "loss", "decoder", "backbone_attention")
# In whichever axis a table has.
BASELINE = {
    "position": "sine at attention",
    "encoder": "full",
    "loss": "all",
    "losses": "every layer",
    "attention": "none",
}
STEPS = 4000
CANVAS = 128  # side of the images of the table of positions, pixels
DEPTH = 2  # layers of encoder and decoder in the small form
SCENES = {
    "name": "digits_scene",
    "train": "train[:90%]",
    "validation": "train[90%:]",
}
SMALL = {
    "name": "detr",
    "backbone": {"depth": 8, "layout": "cifar", "stem_stride": 2},
    "frozen_norm": False,
    "width": 64,
    "num_heads": 4,
    "encoder_depth": DEPTH,
    "decoder_depth": DEPTH,
    "mlp_dim": 128,
    "num_queries": 10,
    "dropout": 0.0,
}
COCO = {
    "name": "coco/2017",
    "train": "train",
    "test": "validation",
    "transforms": {"flip": {"order": 1}, "multi_scale": {"order": 2}},
}
COCO_EXAMPLES, PAPER_BATCH, PAPER_DEPTH = 118_287, 64, 6
EPOCHS, DROP = 300, 200

# Encoder and decoder each; "none" adds the object queries at the input too.
POSITIONS = {
    "sine at attention": {},
    "none": {"model.position": "none", "model.position_at": "input"},
    "sine at input": {"model.position_at": "input"},
    "learned at attention": {"model.position": "learned"},
    "none / sine at attention": {"model.encoder_position": "none"},
}
ENCODERS = {"none": 0, "half": 1 / 2, "full": 1, "double": 2}
LOSSES = {
    "class + L1": {"task.giou_weight": 0.0},
    "class + GIoU": {"task.l1_weight": 0.0},
    "all": {},
}
# In the paper's Figure 4 the last layer has 8.2 AP and 9.5 AP50 more than the first.
AUXILIARY = {"every layer": {}, "last layer": {"task.auxiliary": False}}

# As printed; of a table, the metrics in their order.
PUBLISHED = {
    "position": {
        "none": (32.8, 55.2),
        "sine at input": (39.2, 60.0),
        "learned at attention": (39.6, 60.7),
        "none / sine at attention": (39.3, 60.3),
        "sine at attention": (40.6, 61.6),
    },
    "encoder": {
        "none": (36.7, 57.4, 16.8, 39.6, 54.2, 33.4e6),
        "half": (40.1, 60.6, 18.5, 43.8, 58.6, 37.4e6),
        "full": (40.6, 61.6, 19.9, 44.3, 60.2, 41.3e6),
        "double": (41.6, 62.1, 19.8, 44.9, 61.9, 49.2e6),
    },
    "loss": {
        "class + L1": (35.8, 57.3, 13.7, 39.8, 57.9),
        "class + GIoU": (39.9, 61.6, 19.9, 43.2, 57.9),
        "all": (40.6, 61.6, 19.9, 44.3, 60.2),
    },
}
FIGURES = ("ap", "ap50", "ap_small", "ap_medium", "ap_large", "parameters")
AXES = {
    "position": "position",
    "encoder": "encoder",
    "loss": "loss",
    "decoder": "losses",
    "backbone_attention": "attention",
}
PARTS = {"position": 3, "encoder": 2, "loss": 4}
PAPER = "Carion et al. 2020, arXiv 2005.12872"
COUNTED = "The paper counts parameters that are trained, 222,400 fewer than all."


def get_config(arg: str = ""):
    """The config that all points of a table share."""
    choice = common.choose(arg, TABLES)
    if choice.size == "paper":
        config = _paper()
    else:
        config = common.small(SCENES, SMALL, steps=STEPS, peak=1e-3, size=choice.size)
        config.train.score_every = config.train.eval_every
        tiny = choice.size == "tiny"
        config.schedule = {
            "name": "step",
            "peak": 1e-3,
            "warmup": 1 if tiny else 200,
            "boundaries": [] if tiny else [4 * STEPS // 5],
            "factor": 0.1,
        }
        config.train.batch_size = min(config.train.batch_size, 32)
        if choice.table == "position":
            config.data.canvas = CANVAS
    config.task = {"name": "detection"}
    config.optimizer = {"name": "adamw", "weight_decay": 1e-4, "clip": 0.1}
    if choice.size == "paper":
        config.optimizer.decay = "all"
        # the stem and the first stage stay as they are
        stages = {"backbone/stem_conv": 0.0, "backbone/stage1": 0.0, "backbone": 0.1}
        config.optimizer.rates = stages
    if choice.table == "decoder":
        depth = PAPER_DEPTH if choice.size == "paper" else DEPTH
        config.task.layers = depth - 1
    return config


def _paper():
    """300 epochs at 1e-4, ten times less for the backbone and after 200 epochs."""
    epoch = COCO_EXAMPLES / PAPER_BATCH
    config = common.imagenet({"name": "detr"}, batch_size=PAPER_BATCH)
    config.data = COCO
    config.schedule = {
        "name": "step",
        "peak": 1e-4,
        "warmup": 0,
        "boundaries": [round(DROP * epoch)],
        "factor": 0.1,
    }
    every = round(10 * epoch)
    config.train.update(
        steps=round(EPOCHS * epoch), eval_every=every, save_every=round(epoch)
    )
    config.train.score_every = every
    return config


def sweep(arg: str = ""):
    """The rows of the table, with every seed."""
    choice = common.choose(arg, TABLES)
    depth = PAPER_DEPTH if choice.size == "paper" else DEPTH
    rows = {
        "position": POSITIONS,
        "encoder": {
            name: {"model.encoder_depth": round(share * depth)}
            for name, share in ENCODERS.items()
        },
        "loss": LOSSES,
        "decoder": AUXILIARY,
        "backbone_attention": {
            name: {"model.slots": fill} for name, fill in _attentions(choice).items()
        },
    }
    return common.points(AXES[choice.table], rows[choice.table], choice)


def _attentions(choice: common.Choice):
    """Slots of the backbone: gates in every block, others where maps are small."""
    small = choice.size != "paper"
    gates = {"reduction": 4} if small else {}
    end = "backbone/stage2/stage.end" if small else "backbone/stage3/stage.end"
    return {
        "none": {},
        "squeeze_excite": {
            "backbone/block.residual": {"name": "squeeze_excite", **gates}
        },
        "efficient_channel": {"backbone/block.residual": "efficient_channel"},
        "cbam": {"backbone/block.residual": {"name": "cbam", **gates}},
        "global_context": {"backbone/block.residual": "global_context"},
        "non_local": {end: "non_local"},
    }


def match(arg: str = ""):
    """Widths that make the detectors with attention as expensive as that without."""
    choice = common.choose(arg, TABLES)
    return "macs" if choice.table == "backbone_attention" else None


def row(spec, arg: str = ""):
    """What --add names, at the end of every residual branch of the backbone."""
    return {"model.slots": {"backbone/block.residual": spec}}


def published(arg: str = ""):
    """The paper's table; it has a figure for the decoder, and no attentions."""
    choice = common.choose(arg, TABLES)
    table = PUBLISHED.get(choice.table)
    if table is None:
        return None
    rows = [
        ({AXES[choice.table]: name}, dict(zip(FIGURES, values, strict=False)))
        for name, values in table.items()
    ]
    found = {"source": f"{PAPER}, Table {PARTS[choice.table]}, COCO 2017 validation"}
    if choice.size != "paper":
        for _, values in rows:
            values.pop("parameters", None)
    elif choice.table == "encoder":
        found["note"] = COUNTED
    return {**found, "rows": rows}
