"""AlphaPose: does a pair of spatial transformers mend the boxes of a detector?

The symmetric transformer and the parallel branch of Fang, Xie, Tai, Lu, "RMPE: Regional
Multi-Person Pose Estimation", ICCV 2017, https://arxiv.org/abs/1612.00137: Table 3.

    python launch.py --config=experiments/alpha_pose.py:single
    python launch.py --config=experiments/alpha_pose.py:pair

"single" trains the pose network by itself on boxes that are right and on those of a
detector. The first of these trainings is the frozen parallel branch of "pair", which
looks for it in runs/alpha_pose-single (with ",paper" in runs/alpha_pose-single_paper),
where "single" is kept without a --workdir. "pair" asks what the transformers bring
where boxes err: without them; with them; and with the parallel branch too, which shows
them in training where a person in the middle would be.

The small form has stick figures of 14 joints in boxes of 64x48 pixels ("skeletons"). A
detector moves a box by up to a fifth of its sides, and makes it up to 1.6 times too
large or too small. The pose network is a ResNet of 8 layers with one transposed
convolution, its maps 16x12. With ",paper" they are persons of COCO, from the folder
`data.path`, in boxes enlarged by 30 %, a stacked hourglass of eight stacks, a parallel
one of four and a ResNet-18 as localiser, as in the paper, whose data are MPII's. Rate
and batch are those of Newell et al. 2016, https://arxiv.org/abs/1603.06937, with Adam.
"""

from experiments import common

TABLES = ("single", "pair")
BASELINE = {"boxes": "detected", "transformer": "none"}  # as tables have
AXES = {"single": "boxes", "pair": "transformer"}
STEPS = 1200
SHIFT, SCALE = 0.2, 0.6
SKELETONS = {
    "name": "skeletons",
    "train": "train",
    "validation": "validation",
    "test": "test",
}
COCO = {
    "name": "coco_keypoints",
    "path": "coco",
    "size": (256, 256),
    "margin": 0.3,
    "train": "train",
    "validation": "validation",
    "test": "test",
}
RIGHT = {"data.shift": 0.0, "data.scale": 0.0}  # of a detector that does not err
POSE = {
    "name": "pose_resnet",
    "backbone": {"depth": 8, "layout": "cifar", "stem_stride": 2},
    "deconvolutions": 1,
    "width": 64,
}
LOCALISER = {"name": "resnet", "layout": "cifar", "depth": 8, "stem_stride": 2}
HOURGLASS = {"name": "hourglass", "stacks": 8}
FOUR_STACKS = {"model.stacks": 4}
PAPER_STEPS, PAPER_BATCH, PAPER_RATE = 500_000, 6, 2.5e-4
FOLDER = "runs/alpha_pose-single"

# PCKh of MPII's kinds of joints in the order of FIGURES; the total is their own mean.
PUBLISHED = {
    "none": (89.0, 86.9, 82.8, 73.5, 77.1, 73.3, 65.0, 78.2),
    "SSTN": (89.9, 88.0, 83.4, 74.7, 77.8, 74.0, 65.8, 79.1),
    "SSTN and parallel": (90.7, 89.7, 84.1, 75.4, 80.4, 75.5, 67.3, 80.8),
}
KINDS = ("head", "shoulder", "elbow", "wrist", "hip", "knee", "ankle")
FIGURES = (*(f"pckh_{kind}" for kind in KINDS), "pckh")
SOURCE = "Fang et al. 2017, arXiv 1612.00137, Table 3, MPII validation"
NOTE = "Printed is the average precision of MPII's multi-person protocol."


def get_config(arg: str = ""):
    """The config that all points of a table share."""
    choice = common.choose(arg, TABLES)
    if choice.size == "paper":
        config = common.small(COCO, HOURGLASS, steps=PAPER_STEPS, peak=PAPER_RATE)
        config.optimizer = {"name": "adam"}
        config.train.update(batch_size=PAPER_BATCH, eval_batch_size=PAPER_BATCH)
    else:
        data = SKELETONS | {"shift": SHIFT, "scale": SCALE}
        config = common.small(data, POSE, steps=STEPS, peak=2e-3, size=choice.size)
        config.optimizer = {"name": "adamw", "weight_decay": 1e-4}
        config.train.batch_size = min(config.train.batch_size, 32)
    config.task = {"name": "keypoints"}
    return config


def sweep(arg: str = ""):
    """The rows of the table, with every seed."""
    choice = common.choose(arg, TABLES)
    rows = {"single": _boxes, "pair": _transformers}[choice.table](choice)
    return common.points(AXES[choice.table], rows, choice)


def _boxes(choice: common.Choice):
    fewer = FOUR_STACKS if choice.size == "paper" else {}
    return {"right": RIGHT | fewer, "detected": {}}


def _transformers(choice: common.Choice):
    paper = choice.size == "paper"
    pose, localiser = (HOURGLASS, {}) if paper else (POSE, {"localiser": LOCALISER})
    pair = {"model": {"name": "alpha_pose", "pose": pose, **localiser}}
    folder = f"{FOLDER}_{choice.size}".removesuffix("_small")
    return {
        "none": {},
        "SSTN": pair,
        "SSTN and parallel": pair | {"task.parallel": f"{folder}/right-0"},
    }


def published(arg: str = ""):
    """The paper's table; it has none of a pose network by itself."""
    choice = common.choose(arg, TABLES)
    if choice.table != "pair":
        return None
    rows = [
        (axes, dict(zip(FIGURES, values, strict=True)))
        for axes, values in common.along("transformer", PUBLISHED)
    ]
    return {"source": SOURCE, "rows": rows, "note": NOTE}
