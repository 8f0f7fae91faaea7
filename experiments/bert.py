"""BERT: what it is trained for, what masks its words, and how large it is.

Devlin, Chang, Lee and Toutanova, "BERT: Pre-training of Deep Bidirectional Transformers
for Language Understanding", NAACL 2019, https://arxiv.org/abs/1810.04805: its Tables 5,
6 and 8.

    python launch.py --config=experiments/bert.py:masking       # Table 8
    python launch.py --config=experiments/bert.py:size          # Table 6
    python launch.py --config=experiments/bert.py:objectives    # Table 5

The small form reads phrases that are each followed by their German translation, so
that what is masked in one language may be read in the other, with networks of two
layers of 128 channels and their kin. With ",paper" it is BERT-base on a text of one's
own, by --config.data.source=FILE. Rows of Tables 6 and 8 are compared by how well they
guess masked words, which are the same for all; the paper compares them after
fine-tuning too. In so few steps width tells and depth does not yet: with four layers
less is learnt than with one or two. Table 5 is of fine-tuning, from the last weights of

    python launch.py --config=experiments/bert.py:pretrain

which must lie in runs/bert-pretrain: does the German text translate the English one,
or one that stands next to it in the alphabet? With ",paper" it is MRPC, from
runs/bert-pretrain_paper. The perplexities of `pretrain` are not all of the same thing.
"masked words" and "left to right" have the same words to guess, but one sees both sides
of them, where other words are masked too, and the other sees all words before them and
none behind; and "both" has a wrong translation every other time. "left to right" is the
paper's "LTR & No NSP"; its "+ BiLSTM" is not built. In the small form all rows of both
tables pool the last token, as that one must, and not [CLS], so that they differ in what
they were trained for alone.
"""

from experiments import common

TABLES = ("masking", "size", "pretrain", "objectives")
FINE_TABLES = ("pretrain", "objectives")
BASELINE = {"masks": "80/10/10", "network": "base", "objective": "both"}
STEPS, FINE_STEPS = 800, 300
WORDS = 700  # of the small vocabulary, which fine-tuning shares
TEXT = {
    "name": "masked_text",
    "source": "babel",
    "vocab_size": WORDS,
    "validation": "validation",
}
FINE = {
    "name": "text_pairs",
    "source": "babel",
    "vocab_size": WORDS,
    "validation": "validation",
}
SMALL = {"name": "bert", "size": "tiny"}
# The paper's 256 rows of 512 tokens, of which nine tenths of the steps have 128.
PAPER_TEXT = TEXT | {"source": "docstrings", "vocab_size": 30_522, "length": 512}
PAPER_FINE = {
    "name": "text_pairs",
    "source": "glue/mrpc",
    "length": 128,
    "test": "validation",
}
PAPER_STEPS, PAPER_BATCH = 1_000_000, 256

# Percent of the masked words that become [MASK], stay, or become another word.
MASKS = (
    (80, 10, 10),
    (100, 0, 0),
    (80, 0, 20),
    (80, 20, 0),
    (0, 20, 80),
    (0, 0, 100),
)
MASKING = (  # MNLI, and named entities by fine-tuning and by features
    (84.2, 95.4, 94.9),
    (84.3, 94.9, 94.0),
    (84.1, 95.2, 94.6),
    (84.4, 95.2, 94.7),
    (83.7, 94.8, 94.6),
    (83.6, 94.9, 94.6),
)
# Layers, width and heads; perplexity, MNLI, MRPC, SST-2.
SIZES = {
    "small": {
        "base": (2, 128, 2),
        "L=1": (1, 128, 2),
        "L=4": (4, 128, 2),
        "H=64": (2, 64, 2),
        "H=32": (2, 32, 2),
    },
    "paper": {
        "base": (12, 768, 12),
        "L=3": (3, 768, 12),
        "L=6 A=3": (6, 768, 3),
        "L=6": (6, 768, 12),
        "H=1024": (12, 1024, 16),
        "large": (24, 1024, 16),
    },
}
SIZE = {
    "base": (3.99, 84.4, 86.7, 92.9),
    "L=3": (5.84, 77.9, 79.8, 88.4),
    "L=6 A=3": (5.24, 80.6, 82.2, 90.7),
    "L=6": (4.68, 81.9, 84.8, 91.3),
    "H=1024": (3.54, 85.7, 86.9, 93.3),
    "large": (3.23, 86.6, 87.8, 93.7),
}
# MNLI, QNLI, MRPC, SST-2 and SQuAD, on development sets.
OBJECTIVES = {
    "both": (84.4, 88.4, 86.7, 92.7, 88.5),
    "masked words": (83.9, 84.9, 86.5, 92.6, 87.9),
    "left to right": (82.1, 84.3, 77.5, 92.1, 77.8),
    "left to right + BiLSTM": (82.1, 84.1, 75.7, 91.6, 84.9),
}
ALONE = {
    "data.next_sentence": False,
    "task.next_sentence": False,
    "model.heads": ["masked"],
}
FROM_LEFT = {"model.causal": True, "model.pool": "last"}
PRETRAINED = {  # what each is trained on
    "both": {},
    "masked words": ALONE,
    "left to right": {**ALONE, **FROM_LEFT, "data.predict": "next"},
}
PAPER = "Devlin et al. 2019, arXiv 1810.04805"
COLUMNS = {
    "masking": ("MNLI", "NER fine-tuned", "NER features"),
    "size": ("perplexity", "MNLI", "MRPC", "SST-2"),
    "objectives": ("MNLI", "QNLI", "MRPC", "SST-2", "SQuAD F1"),
}


def get_config(arg: str = ""):
    """The config that all points of a table share."""
    choice = common.choose(arg, TABLES)
    if choice.size == "paper":
        return _paper(choice)
    fine = choice.table == "objectives"
    config = common.small(
        FINE if fine else TEXT,
        SMALL | ({"pool": "last"} if choice.table in FINE_TABLES else {}),
        steps=FINE_STEPS if fine else STEPS,
        peak=5e-4 if fine else 2e-3,
        size=choice.size,
    )
    if not fine:
        config.task = {"name": "masked_language", "next_sentence": True}
    config.optimizer = {"name": "adamw", "weight_decay": 0.01}
    config.schedule.name = "linear"
    config.train.batch_size = 32
    if choice.size == "tiny":
        config.data.update(validation="validation[:16]", test="test[:16]")
        config.train.batch_size = 16
    return config


def _paper(choice: common.Choice):
    """A million steps at 1e-4; three epochs of fine-tuning at 2e-5, as at most."""
    fine = choice.table == "objectives"
    steps = 345 if fine else PAPER_STEPS  # of 3,668 pairs
    network = {"name": "bert", "size": "base"}
    data = PAPER_FINE if fine else PAPER_TEXT
    config = common.small(data, network, steps=steps, peak=2e-5 if fine else 1e-4)
    if not fine:
        config.task = {"name": "masked_language", "next_sentence": True}
    config.optimizer = {"name": "adamw", "weight_decay": 0.01}
    config.schedule = {"name": "linear", "peak": config.schedule.peak}
    config.schedule.warmup = steps // 10 if fine else 10_000
    config.train.batch_size = 32 if fine else PAPER_BATCH
    return config


def sweep(arg: str = ""):
    """The rows of the table, with every seed."""
    choice = common.choose(arg, TABLES)
    if choice.table == "masking":
        shares = {_masks(row): row for row in MASKS}
        rows = {
            name: {"data.mask": mask / 100, "data.random": random / 100}
            for name, (mask, _, random) in shares.items()
        }
        return common.points("masks", rows, choice)
    if choice.table == "size":
        sizes = SIZES["paper" if choice.size == "paper" else "small"]
        names = ("model.depth", "model.width", "model.num_heads")
        rows = {name: dict(zip(names, row, strict=True)) for name, row in sizes.items()}
        return common.points("network", rows, choice)
    if choice.table == "pretrain":
        return common.points("objective", PRETRAINED, choice)
    return _fine(choice)


def _fine(choice: common.Choice):
    """Each objective of pre-training, from the weights of the same seed, and none."""
    from_left = {"left to right": FROM_LEFT}
    rows = {name: from_left.get(name, {}) for name in PRETRAINED}
    if choice.size != "paper":
        rows["no pre-training"] = {}
    folder = f"runs/bert-pretrain_{choice.size}".removesuffix("_small")
    for axes, changes in common.points("objective", rows, choice):
        if axes["objective"] in PRETRAINED:
            point = f"{folder}/{axes['objective'].replace(' ', '_')}-{axes['seed']}"
            changes = {**changes, "model.weights": point}
            if choice.size == "paper":
                changes["data.tokenizer"] = f"{point}/tokenizer.json"
        yield axes, changes


def _masks(row: tuple[int, int, int]) -> str:
    """The name of a row, as the paper orders them: [MASK], the same, another word."""
    return "/".join(map(str, row))


def published(arg: str = ""):
    """The paper's table, which is of tasks that follow, but for perplexities."""
    choice = common.choose(arg, TABLES)
    if choice.table == "pretrain":
        return None
    axis, table = {
        "masking": ("masks", dict(zip(map(_masks, MASKS), MASKING, strict=True))),
        "size": ("network", SIZE),
        "objectives": ("objective", OBJECTIVES),
    }[choice.table]
    number = {"masking": 8, "size": 6, "objectives": 5}[choice.table]
    names = COLUMNS[choice.table]
    rows = [
        ({axis: name}, dict(zip(names, row, strict=True)))
        for name, row in table.items()
    ]
    found = {"source": f"{PAPER}, Table {number}", "rows": rows}
    if choice.table == "objectives":
        for _, values in rows:
            values["error"] = round(100 - values.pop("MRPC"), 1)
        found["note"] = "The error is that of MRPC, pairs too; printed as accuracy."
    return found
