"""Does it pay to learn where to look?

Mnih, Heess, Graves, Kavukcuoglu, "Recurrent Models of Visual Attention", NIPS 2014,
https://arxiv.org/abs/1406.6247: its Tables 1 and 2.

    python launch.py --config=experiments/recurrent_attention.py:glimpses
    python launch.py --config=experiments/recurrent_attention.py:translated
    python launch.py --config=experiments/recurrent_attention.py:cluttered

Beside the paper's rows there are a soft attention that reads the same patches on a
grid, in as many steps, and a spatial transformer before a CNN. The small form has 4,000
digits to learn from. There each place is rewarded by how much the right answer gained
by it, compared with the other draws for the same image, as REINFORCE with one reward
at the end learns too slowly for a few thousand steps. With ",paper" it is the paper's
reward, baseline, sizes, optimizer and batches of 20; how long it trained it does not
say, and it searched for the learning rate and the deviation of places.
"""

from experiments import common

TABLES = ("glimpses", "translated", "cluttered")
BASELINE = {"network": "CNN"}

# Errors in percent, by the number of glimpses.
CENTRED = {2: 3.79, 3: 1.51, 4: 1.54, 5: 1.34, 6: 1.12, 7: 1.07}
TRANSLATED = {4: 1.54, 6: 1.22, 8: 1.20}
CLUTTERED = {4: 4.96, 6: 4.08, 8: 4.04}
OTHERS = {
    "glimpses": {"FC 256": 1.69, "CNN": 1.21},
    "translated": {"FC 64": 6.42, "FC 256": 2.63, "CNN": 1.62},
    "cluttered": {
        "FC 64": 28.58,
        "FC 256": 11.96,
        "CNN": 8.09,
        "random, 8 glimpses": 14.4,
    },
}
RAM = {"glimpses": CENTRED, "translated": TRANSLATED, "cluttered": CLUTTERED}
SOURCE = "Mnih et al. 2014, arXiv 1406.6247, {}, as quoted from it"
WHERE = {"glimpses": "Table 1", "translated": "Table 2a", "cluttered": "Table 2b"}

# 8 filters of 10x10 pixels at a stride of 5, and 256 units.
CNN = {"filters": (8,), "kernel_sizes": 10, "strides": 5, "pools": (), "dense": (256,)}
TRANSFORMED = {
    "name": "cnn",
    "filters": (32, 64),
    "dense": (320, 320),
    "pool": 2,
    "slots": {"input": "spatial_transformer"},
}


def get_config(arg: str = ""):
    """Adam for 3,000 batches of 64; or SGD for 300,000 of 20, our guess."""
    choice = common.choose(arg, TABLES)
    data = {"name": "mnist_5k"}
    if choice.table != "glimpses":
        data["distortion"] = choice.table
    config = common.small(data, {}, steps=3000, peak=0.003, size=choice.size)
    config.task = {"name": "classification"}
    config.optimizer.weight_decay = 0.01
    if choice.size == "small":
        config.train.update(batch_size=64, log_every=100, eval_every=500)
    elif choice.size == "paper":
        config.data.name = "mnist"
        config.optimizer = {"name": "sgd", "momentum": 0.9}
        config.schedule = {"name": "cosine", "peak": 0.01, "warmup": 0}
        config.train.update(
            steps=300_000,
            batch_size=20,
            log_every=500,
            eval_every=15_000,
            save_every=15_000,
        )
    return config


def sweep(arg: str = ""):
    """The rows of the table, with every seed."""
    choice = common.choose(arg, TABLES)
    rows = {"CNN": {"model": {"name": "cnn", **CNN, "slots": {}}}}
    for name, model in _glimpsing(choice).items():
        rows[name] = {"model": model, "task": _task(choice)}
    rows |= {name: {"model": model} for name, model in _plain(choice).items()}
    yield from common.points("network", rows, choice)


def _plain(choice: common.Choice):
    """The other networks that see the whole image."""
    widths = (256,) if choice.table == "glimpses" else (64, 256)
    found = {
        f"FC {width}": {"name": "mlp", "widths": (width, width), "slots": {}}
        for width in widths
    }
    if choice.table != "glimpses":
        found["spatial transformer"] = TRANSFORMED
    return found


def _glimpsing(choice: common.Choice):
    """Networks that see it by glimpses."""
    small = choice.size != "paper"
    model = {"name": "recurrent_attention", "size": 8, "scales": 1, "slots": {}}
    if choice.table != "glimpses":
        model |= {"size": 12, "scales": 3}
    if small:
        model |= {"samples": 4, "width": 128, "place_width": 32}
    learnt, most = RAM[choice.table], 6 if small else 8
    if choice.table != "glimpses":
        learnt = [most] if small else learnt
    found = {f"RAM, {n} glimpses": {**model, "glimpses": n} for n in learnt}
    if choice.table == "glimpses":
        most = 6
    found[f"random, {most} glimpses"] = model | {
        "glimpses": most,
        "locations": "random",
    }
    grid = {"grid": "additive_soft"}
    found[f"soft, {most} glimpses"] = model | {"glimpses": most, "slots": grid}
    return found


def _task(choice: common.Choice):
    if choice.size == "paper":
        return {"name": "recurrent_attention"}
    return {
        "name": "recurrent_attention",
        "answers": "every",
        "reward": "gain",
        "baseline": "others",
    }


def published(arg: str = ""):
    """The paper's table."""
    choice = common.choose(arg, TABLES)
    errors = dict(OTHERS[choice.table])
    errors |= {f"RAM, {n} glimpses": error for n, error in RAM[choice.table].items()}
    rows = [({"network": name}, (error,)) for name, error in errors.items()]
    note = ""
    if choice.table == "cluttered":
        note = (
            "The paper's random places are taken to be of 8 glimpses, the most of its"
            " rows."
        )
    return common.published(SOURCE.format(WHERE[choice.table]), rows, choice, note=note)
