"""The Transformer on translation: heads, keys, sizes, dropout, positions, attentions.

Vaswani et al., "Attention Is All You Need", NeurIPS 2017,
https://arxiv.org/abs/1706.03762: its Tables 2 and 3.

    python launch.py --config=experiments/transformer.py:heads            # Table 3, A
    python launch.py --config=experiments/transformer.py:key_size         # B
    python launch.py --config=experiments/transformer.py:size             # C
    python launch.py --config=experiments/transformer.py:regularisation   # D
    python launch.py --config=experiments/transformer.py:position         # E
    python launch.py --config=experiments/transformer.py:attention        # not theirs
    python launch.py --config=experiments/transformer.py:wmt              # Table 2

The small form has two layers of 128 channels on each side, and translates English
dates, intervals, lists, amounts and times into German ("babel"): real word order and
endings by rule, so that two CPU cores learn them in minutes. Its batches hold no pair
twice, so that there is nothing to regularise; that table has a thousand pairs, twenty
times over. With ",paper" it is the paper's network, of 44,101,632 parameters without
the embedding in the base model, on the 4.5 million pairs of WMT 2014.
"""

from experiments import common

TABLES = (
    "heads",
    "key_size",
    "size",
    "regularisation",
    "position",
    "attention",
    "wmt",
)
# In whichever axis a table has.
BASELINE = {"variant": "base", "network": "base"}
STEPS = 300
# Of "regularisation", where pairs come again and again.
FEW, FEW_STEPS = 1000, 700
BABEL = {"name": "babel", "language": "de", "validation": "validation"}
# A shared vocabulary of 37,000 byte pairs. A batch has about 25,000 tokens on each
# side: 200 pairs of the longest, and more of shorter ones.
WMT = {
    "name": "wmt14_translate/de-en",
    "source": "en",
    "validation": "validation",
    "vocab_size": 37_000,
    "longest": 128,
    "buckets": 8,
}
BATCH, PAPER_BATCH = 32, 200
WARMUP = 4000

# What each row of a table changes, in the small network and in the paper's, and what
# the paper has for it: perplexity, BLEU and millions of parameters.
Row = dict[str, object]
BASE = (4.92, 25.8, 65e6)
HEADS = {
    "small": {"h=1": 1, "h=2": 2, "h=8": 8, "h=16": 16},
    "paper": {"h=1": 1, "h=4": 4, "h=16": 16, "h=32": 32},
}
KEYS = {"small": {"dk=8": 8, "dk=16": 16}, "paper": {"dk=16": 16, "dk=32": 32}}
SIZES: dict[str, dict[str, Row]] = {
    "small": {
        "N=1": {"depth": 1},
        "N=4": {"depth": 4},
        "d=64": {"width": 64},
        "d=256": {"width": 256},
        "ff=128": {"mlp_dim": 128},
        "ff=512": {"mlp_dim": 512},
    },
    "paper": {
        "N=2": {"depth": 2},
        "N=4": {"depth": 4},
        "N=8": {"depth": 8},
        "d=256": {"width": 256},
        "d=1024": {"width": 1024},
        "ff=1024": {"mlp_dim": 1024},
        "ff=4096": {"mlp_dim": 4096},
        "big": {"size": "big"},
    },
}
RATES = {
    "dropout=0.0": {"model.dropout": 0.0},
    "dropout=0.2": {"model.dropout": 0.2},
    "smoothing=0.0": {"task.label_smoothing": 0.0},
    "smoothing=0.2": {"task.label_smoothing": 0.2},
}
# Sizes below the paper's base of N=6 and d=512 that are above the small one's.
UNLIKE = ("N=4", "d=256")
POSITIONS = ("none", "learned", "rotary", "alibi")
ATTENTIONS = {
    "encoder none": {"encoder.mixer": "none"},
    "encoder linear": {"encoder.mixer": "linear"},
    "encoder performer": {"encoder.mixer": "performer"},
    "encoder talking heads": {"encoder.mixer": "talking_heads"},
    "decoder none": {"decoder.self": "none"},
    "decoder linear": {"decoder.self": "linear"},
    "decoder performer": {"decoder.self": "performer"},
    "cross linear": {"decoder.cross": "linear"},
    "cross additive": {"decoder.cross": "additive_soft"},
}
PUBLISHED = {
    "heads": {
        "base": BASE,
        "h=1": (5.29, 24.9),
        "h=4": (5.00, 25.5),
        "h=16": (4.91, 25.8),
        "h=32": (5.01, 25.4),
    },
    "key_size": {
        "base": BASE,
        "dk=16": (5.16, 25.1, 58e6),
        "dk=32": (5.01, 25.4, 60e6),
    },
    "size": {
        "base": BASE,
        "N=2": (6.11, 23.7, 36e6),
        "N=4": (5.19, 25.3, 50e6),
        "N=8": (4.88, 25.5, 80e6),
        "d=256": (5.75, 24.5, 28e6),
        "d=1024": (4.66, 26.0, 168e6),
        "ff=1024": (5.12, 25.4, 53e6),
        "ff=4096": (4.75, 26.2, 90e6),
        "big": (4.33, 26.4, 213e6),
    },
    "regularisation": {
        "base": BASE,
        "dropout=0.0": (5.77, 24.6),
        "dropout=0.2": (4.95, 25.5),
        "smoothing=0.0": (4.67, 25.3),
        "smoothing=0.2": (5.47, 25.7),
    },
    "position": {"base": BASE, "learned": (4.92, 25.7)},
}
# BLEU on newstest2014, English to German and to French.
WMT_BLEU = {"base": (27.3, 38.1), "big": (28.4, 41.8)}
PAPER = "Vaswani et al. 2017, arXiv 1706.03762"
COUNTED = (
    "The printed numbers of parameters are those of a shared vocabulary of about 41,100"
    " words, not of 37,000, but for the big model."
)
LEFT_OUT = (
    "Its rows N=4 and d=256 are left out: they are smaller than its base, and ours are"
    " larger."
)


def get_config(arg: str = ""):
    """The config that all points of a table share."""
    choice = common.choose(arg, TABLES)
    if choice.size == "paper":
        return _paper(choice)
    few = choice.table == "regularisation"
    data = BABEL | {"train_size": FEW} if few else BABEL
    steps = FEW_STEPS if few else STEPS
    model = {"name": "transformer", "size": "small"}
    config = common.small(data, model, steps=steps, size=choice.size)
    config.task = {"name": "translation", "label_smoothing": 0.1}
    config.optimizer = {"name": "adam", "b2": 0.98, "eps": 1e-9}
    config.schedule = {"name": "inverse_sqrt", "peak": 2e-3, "warmup": steps // 5}
    config.train.batch_size = BATCH
    if choice.size == "tiny":
        config.data.update(train="train[:64]", validation="validation[:16]")
        config.data.update(test="test[:16]", train_size=64, eval_size=16)
        config.schedule.warmup = 1
        config.train.batch_size = 16
    return config


def _paper(choice: common.Choice):
    """100,000 steps, 300,000 of the big model, at d^-0.5 min(s^-0.5, s w^-1.5)."""
    config = common.imagenet({"name": "transformer", "size": "base"})
    config.data = {**WMT, "train": "train", "test": "test"}
    config.task = {"name": "translation", "label_smoothing": 0.1}
    config.optimizer = {"name": "adam", "b2": 0.98, "eps": 1e-9}
    config.schedule = {"name": "inverse_sqrt", "peak": _peak(512), "warmup": WARMUP}
    config.train.update(
        steps=100_000,
        batch_size=PAPER_BATCH,
        eval_batch_size=PAPER_BATCH,
        eval_every=5000,
        save_every=1500,
    )
    return config


def _peak(width: int) -> float:
    """The highest rate, that at the end of the warm-up."""
    return width**-0.5 * WARMUP**-0.5


def sweep(arg: str = ""):
    """The rows of the table, with every seed; the base model first."""
    choice = common.choose(arg, TABLES)
    if choice.table == "wmt":
        return _wmt(choice)
    return common.points("variant", _rows(choice), choice)


def _rows(choice: common.Choice):
    size = "paper" if choice.size == "paper" else "small"
    changes = {
        "heads": {n: {"model.num_heads": h} for n, h in HEADS[size].items()},
        "key_size": {n: {"model.key_dim": k} for n, k in KEYS[size].items()},
        "size": {n: _sized(row, size) for n, row in SIZES[size].items()},
        "regularisation": RATES,
        "position": {name: {"model.position": name} for name in POSITIONS},
        "attention": {n: {"model.slots": fill} for n, fill in ATTENTIONS.items()},
    }
    return {"base": {}, **changes[choice.table]}


def _wmt(choice: common.Choice):
    """Two networks, each with both languages; the small form has them as well.

    For this table the paper tests the mean of the last checkpoints, and gives the big
    model less dropout for French.
    """
    last = "train.average_last"
    networks = {"base": {last: 5}, "big": _sized({"size": "big"}) | {last: 20}}
    french = {"data.name": "wmt14_translate/fr-en", "data.vocab_size": 32_000}
    if choice.size != "paper":
        networks = {"base": {}, "big": {"model.width": 256, "model.mlp_dim": 512}}
        french = {"data.language": "fr"}
    for language, change in (("de", {}), ("fr", french)):
        rows = {name: fields | change for name, fields in networks.items()}
        if language == "fr" and choice.size == "paper":
            rows["big"]["model.dropout"] = 0.1
        for axes, fields in common.points("network", rows, choice):
            yield {"language": language, **axes}, fields


def _sized(row: Row, size: str = "paper") -> dict[str, object]:
    """The fields of a size, in the paper with its rate; the big one trains longer."""
    fields = {f"model.{name}": value for name, value in row.items()}
    big = row.get("size") == "big"
    if big:
        fields |= {"train.steps": 300_000}
    width = 1024 if big else row.get("width")
    if width and size == "paper":
        fields |= {"schedule.peak": _peak(width)}
    return fields


def row(spec, arg: str = ""):
    """What --add names, as self-attention of the encoder."""
    return {"model.slots": {"encoder.mixer": spec}}


def published(arg: str = ""):
    """The paper's table; it has none of attentions."""
    choice = common.choose(arg, TABLES)
    if choice.table == "attention":
        return None
    if choice.table == "wmt":
        rows = [
            ({"language": language, "network": network}, {"bleu": score})
            for network, scores in WMT_BLEU.items()
            for language, score in zip(("de", "fr"), scores, strict=True)
        ]
        return {"source": f"{PAPER}, Table 2, newstest2014", "rows": rows}
    names = ("perplexity", "bleu", "parameters")
    rows = [
        ({"variant": name}, dict(zip(names, values, strict=False)))
        for name, values in PUBLISHED[choice.table].items()
    ]
    found = {"source": f"{PAPER}, Table 3, newstest2013", "rows": rows}
    if choice.size == "paper":
        return found | {"note": COUNTED}
    for _, values in rows:
        values.pop("parameters", None)
    if choice.table != "size":
        return found
    alike = [row for row in rows if row[0]["variant"] not in UNLIKE]
    return found | {"rows": alike, "note": LEFT_OUT}
