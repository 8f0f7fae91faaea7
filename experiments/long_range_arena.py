"""Long Range Arena: which attention reads long sequences, at equal parameters?

Tay et al., "Long Range Arena: A Benchmark for Efficient Transformers", ICLR 2021,
https://arxiv.org/abs/2011.04006, Table 1: nested operations on lists of digits, texts
and pairs of texts byte by byte, and images pixel by pixel, each to be classified by an
encoder whose only difference is its attention.

    python launch.py --config=experiments/long_range_arena.py:listops
    python launch.py --config=experiments/long_range_arena.py:text
    python launch.py --config=experiments/long_range_arena.py:retrieval
    python launch.py --config=experiments/long_range_arena.py:image
    python launch.py --config=experiments/long_range_arena.py:pathfinder

The small form has short expressions, the first 256 bytes of docstrings (of which
package?), the first 128 of two of them (of the same package? Naive Bayes on runs of up
to four letters is right in 67 % of the pairs), digits of 14x14 pixels, and paths on
16x16. With ",paper" it has the sizes and steps of the benchmark's code, whose "text" is
the films of "imdb_reviews" and whose images are those of CIFAR-10; its paths are drawn
by rules of our own. Its pairs, papers of the ACL Anthology Network, are no set of
TensorFlow Datasets: they come from the benchmark's own files, by
--config.data.source=FOLDER. Each of two texts is encoded by itself; their vectors are
compared as [x, y, x * y, x - y], as the paper says, where the training script of its
code has [x, y] (--config.model.compare=plain). Queries and keys are as wide as the
network, where the code halves them on images and paths, and attentions have no dropout
of their own, which not all of them know. Paths on 128x128 pixels are not built.
"""

from experiments import common

TABLES = ("listops", "text", "retrieval", "image", "pathfinder")
BASELINE = {"mixer": "multi_head"}
STEPS = 800
NETWORK = {"name": "bert", "segments": 0, "pool": "class", "attention_dropout": 0.0}
SMALL = NETWORK | {"width": 64, "depth": 2, "num_heads": 4, "mlp_dim": 128}
PAIRS = {"retrieval": {"compare": "nli"}}
DATA = {
    "listops": {
        "name": "listops",
        "depth": 3,
        "arguments": 4,
        "low": 10,
        "high": 64,
        "train_size": 20_000,
        "eval_size": 2000,
        "validation": "validation",
    },
    "text": {
        "name": "labelled_text",
        "source": "docstrings",
        "units": "bytes",
        "length": 256,
        "validation": "validation",
    },
    "retrieval": {
        "name": "text_pairs",
        "source": "docstrings",
        "form": "apart",
        "units": "bytes",
        "length": 128,
        "validation": "validation",
    },
    "image": {
        "name": "pixels",
        "source": "mnist_5k",
        "shrink": 2,
        "train": "train[:90%]",
        "validation": "train[90%:]",
    },
    "pathfinder": {
        "name": "pathfinder",
        "side": 16,
        "dashes": 3,
        "others": 2,
        "validation": "validation",
    },
}
PAPER_DATA = {
    "listops": {
        "name": "listops",
        "depth": 10,
        "arguments": 10,
        "low": 501,
        "high": 1999,
        "train_size": 96_000,
        "eval_size": 2000,
        "validation": "validation",
    },
    "text": {
        "name": "labelled_text",
        "source": "imdb_reviews",
        "units": "bytes",
        "length": 4000,
    },
    "retrieval": {
        "name": "text_pairs",
        "source": "./lra_release/tsv_data",
        "form": "apart",
        "units": "bytes",
        "length": 4000,
        "validation": "validation",
    },
    "image": {
        "name": "pixels",
        "source": "cifar10",
        "train": "train[:90%]",
        "validation": "train[90%:]",
    },
    "pathfinder": {
        "name": "pathfinder",
        "train_size": 160_000,
        "eval_size": 20_000,
        "validation": "validation",
    },
}
# Width, layers, heads and hidden width; steps, batch, highest rate and warm-up.
PAPER_SIZES = {
    "listops": ((512, 4, 8, 1024), (5000, 32, 0.05 / 1000**0.5, 1000)),
    "text": ((256, 4, 4, 1024), (20_000, 32, 0.05 / 8000**0.5, 8000)),
    # Its warm-up of 8,000 steps does not end: the rate is still rising at the last.
    "retrieval": ((128, 4, 4, 512), (5000, 32, 5 / 8 * 0.05 / 8000**0.5, 4999)),
    "image": ((128, 1, 8, 128), (200 * 175, 256, 5e-4, 175)),
    "pathfinder": ((32, 4, 4, 32), (200 * 312, 512, 1e-3, 312)),
}
PAPER_NETWORKS = {
    "retrieval": PAIRS["retrieval"],
    "image": {"dropout": 0.3},
    "pathfinder": {"dropout": 0.2, "pool": "mean"},
}
# What depends on the number of tokens.
SETTINGS = {
    "small": {"linformer": {"rank": 16}, "performer": {"num_features": 32}},
    "paper": {"linformer": {"rank": 16}, "performer": {"num_features": 256}},
}
MIXERS = (
    "multi_head",
    "linear",
    "performer",
    "linformer",
    "cross_covariance",
    "talking_heads",
)
# Accuracies, in the order of TABLES.
PUBLISHED = {
    "multi_head": (36.37, 64.27, 57.46, 42.44, 71.40),
    "Local Attention": (15.82, 52.98, 53.39, 41.46, 66.63),
    "Sparse Transformer": (17.07, 63.58, 59.59, 44.24, 71.71),
    "Longformer": (35.63, 62.85, 56.89, 42.22, 69.71),
    "linformer": (35.70, 53.94, 52.27, 38.56, 76.34),
    "Reformer": (37.27, 56.10, 53.40, 38.07, 68.50),
    "Sinkhorn Transformer": (33.67, 61.20, 53.83, 41.23, 67.45),
    "Synthesizer": (36.99, 61.68, 54.67, 41.61, 69.45),
    "BigBird": (36.05, 64.02, 59.29, 40.83, 74.87),
    "linear": (16.13, 65.90, 53.09, 42.34, 75.30),
    "performer": (18.01, 65.40, 53.82, 42.77, 77.05),
}


def get_config(arg: str = ""):
    """The config that all points of a table share."""
    choice = common.choose(arg, TABLES)
    if choice.size == "paper":
        return _paper(choice)
    network = SMALL | PAIRS.get(choice.table, {})
    config = common.small(
        DATA[choice.table], network, steps=STEPS, peak=2e-3, size=choice.size
    )
    config.train.batch_size = 64
    if choice.size == "tiny":
        config.train.batch_size = 16
        config.data.update(_few(choice.table))
    return config


def _few(table: str) -> dict[str, object]:
    """Data of which a test makes little."""
    if table in ("listops", "pathfinder"):
        return {"train_size": 64, "eval_size": 32, "validation": "validation"}
    if table in ("text", "retrieval"):
        return {"most": 200, "validation": "validation[:16]", "test": "test[:16]"}
    return {}


def _paper(choice: common.Choice):
    network, training = PAPER_SIZES[choice.table]
    width, depth, num_heads, mlp_dim = network
    steps, batch_size, peak, warmup = training
    sized = NETWORK | PAPER_NETWORKS.get(choice.table, {})
    sized |= {"width": width, "depth": depth, "num_heads": num_heads}
    sized["mlp_dim"] = mlp_dim
    config = common.small(PAPER_DATA[choice.table], sized, steps=steps, peak=peak)
    on_images = choice.table in ("image", "pathfinder")
    decay = 0.0 if on_images else 0.1
    config.optimizer = {"name": "adamw", "weight_decay": decay, "b2": 0.98}
    kind = "cosine" if on_images else "inverse_sqrt"
    config.schedule = {"name": kind, "peak": peak, "warmup": warmup}
    config.train.update(batch_size=batch_size, eval_batch_size=batch_size)
    return config


def sweep(arg: str = ""):
    """Every attention with every seed."""
    choice = common.choose(arg, TABLES)
    settings = SETTINGS["paper" if choice.size == "paper" else "small"]
    specs = {name: {"name": name, **settings.get(name, {})} for name in MIXERS}
    yield from common.points("mixer", common.filled(specs, "mixer"), choice)


def row(spec, arg: str = ""):
    """What --add names, as the mixer of every block."""
    return {"model.slots": {"mixer": spec}}


def match(arg: str = ""):
    """Widths are scaled so that all have the parameters of the baseline."""
    return "parameters"


def published(arg: str = ""):
    """The benchmark's column, all of its attentions."""
    choice = common.choose(arg, TABLES)
    column = TABLES.index(choice.table)
    rows = common.along(
        "mixer", {n: row[column : column + 1] for n, row in PUBLISHED.items()}
    )
    return common.published(
        f"Tay et al. 2021, arXiv 2011.04006, Table 1, column {choice.table}",
        rows,
        choice,
        accuracy=True,
        note="There each has widths of its own; here all have as many parameters.",
    )
