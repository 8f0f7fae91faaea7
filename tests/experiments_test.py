"""Every experiment expands, each of its points can be built, and tables are aligned."""

import collections
import collections.abc
import functools
import importlib
import json
import pathlib
import re

import jax
import jax.numpy as jnp
import pytest

from attn import data, models, modules, settings, tasks
from attn.models import cost, slots
from attn.train import optimizer, program
from attn.train.sweep import experiment_file, local

ROOT = pathlib.Path(__file__).parents[1]
NAMES = sorted(
    path.stem
    for path in ROOT.glob("experiments/*.py")
    if path.stem not in ("__init__", "common")
)
TABLES = [
    (name, table)
    for name in NAMES
    for table in getattr(importlib.import_module(f"experiments.{name}"), "TABLES", [""])
]
PAPER = [(name, table) for name, table in TABLES if table]
# Parameters of networks on ImageNet: the authors' code or its ports, counted.
SE = 28_071_976  # ResNet-50 with reduction 16, without biases
EXACT = {
    ("squeeze_excite", "reduction"): {
        "ResNet-0": 25_557_032,
        "r=2-0": 45_676_584,
        "r=4-0": 35_616_808,
        "r=8-0": 30_586_920,
        "r=16-0": SE,
        "r=32-0": 26_814_504,
    },
    ("squeeze_excite", "squeeze"): {"Max-0": SE, "Avg-0": SE},
    ("squeeze_excite", "excitation"): {"ReLU-0": SE, "Tanh-0": SE, "Sigmoid-0": SE},
    ("squeeze_excite", "stage"): {
        "SE_Stage_2-0": 25_581_608,
        "SE_Stage_3-0": 25_688_104,
        "SE_Stage_4-0": 26_343_464,
        "SE_All-0": SE,
    },
    ("squeeze_excite", "integration"): {
        "SE-0": SE,
        "SE-PRE-0": 27_548_200,
        "SE-POST-0": SE,
        "SE-Identity-0": SE,
        "SE_3x3-0": 25_714_216,
    },
    ("squeeze_excite", "no_squeeze"): {"NoSqueeze-0": SE},
    ("squeeze_excite", "imagenet"): {
        "ResNet-50-SE-0": 28_088_024,
        "ResNeXt-50-SE-0": 27_559_896,
    },
    ("cbam", "imagenet"): {
        "ResNet-18-none-0": 11_689_512,
        "ResNet-18-squeeze_excite-0": 11_778_592,
        "ResNet-18-cbam-0": 11_779_392,
        "ResNet-34-cbam-0": 21_960_468,
        "ResNet-50-none-0": 25_557_032,
        "ResNet-50-squeeze_excite-0": 28_088_024,
        "ResNet-50-cbam-0": 28_089_624,
        "ResNet-101-cbam-0": 49_330_172,
    },
    ("efficient_channel", "kernel"): {
        "ECA_adaptive-0": 25_557_118,
        "ECA_k=3-0": 25_557_032 + 16 * 3,
        "SE-0": 28_071_976,
    },
    ("efficient_channel", "imagenet"): {
        "ResNet-50-ECA_released-0": 25_557_112,
        "ResNet-101-ECA_released-0": 44_549_317,
        "ResNet-152-ECA_released-0": 60_193_042,
    },
    # One block has 2 C^2 + 9 C / 2 parameters: C is 256, 512 and 1,024.
    ("non_local", "stage"): {
        "res2-0": 25_557_032 + 132_224,
        "res4-0": 27_658_792,
    },
    ("non_local", "number"): {
        "ResNet-50-every_other-0": 25_557_032 + 2 * 526_592 + 3 * 2_101_760,
        "ResNet-50-every-0": 25_557_032 + 4 * 526_592 + 6 * 2_101_760,
    },
}
EXACT[("second_order", "pooling")] = {"root__5_iterations-0": 56_929_832}
EXACT[("second_order", "gsop")] = {
    "squeeze_excite-0": 28_088_024,
    "channel-0": 28_054_440,
}
# Table 3 of the Transformer; the rest of it stands in tests/models.
EXACT[("transformer", "size")] = {
    "base-0": 63_045_632,
    "N=8-0": 77_746_176,
    "d=1024-0": 163_815_424,
    "big-0": 214_171_648,
}
# What all have but the layer on patches: places, both to the glimpse, both of the core.
# Here patches have three colours, and there are 1,000 classes.
HEADS = 128 + 256 + 2 * 128 * 256 + 512 + 2 * 256**2 + 512 + 128
EXACT[("recurrent_attention", "glimpses")] = {
    "RAM__2_glimpses-0": 64 * 3 * 128 + HEADS + 514 + 257 + 257_000,
}
EXACT[("recurrent_attention", "cluttered")] = {
    "RAM__8_glimpses-0": 432 * 3 * 128 + HEADS + 514 + 257 + 257_000,
    "random__8_glimpses-0": 432 * 3 * 128 + HEADS + 257_000,
}
# All parameters of DETR, with 91 classes; the paper's are those that are trained.
EXACT[("detr", "encoder")] = {
    "none-0": 33_411_936 + 222_400,
    "half-0": 37_357_152 + 222_400,
    "full-0": 41_524_768,
    "double-0": 49_192_800 + 222_400,
}
EXACT[("bert", "size")] = {"base-0": 110_106_428, "large-0": 336_226_108}
# What data sets tell models and tasks, and the inputs of models.
FACTS = {"vocab_size": 37_000, "max_length": 512, "start": 1, "end": 2}
FACTS["num_joints"] = 17
CLASSES = dict.fromkeys(("classification", "sequence", "recurrent_attention"), 1000)
CLASSES["detection"] = 91
INPUTS = {"image": ((1, 64, 64, 3), jnp.float32)} | {
    name: ((1, 8), jnp.int32)
    for name in (
        *("source", "target_in", "tokens", "segments", "places"),
        *("first", "second"),
    )
}
INPUTS |= {
    name: ((1, 8), bool)
    for name in ("source_mask", "tokens_mask", "first_mask", "second_mask")
}
INPUTS["image_mask"] = ((1, 64, 64), bool)


@functools.cache
def load(name, arg):
    return experiment_file.load(ROOT / "experiments" / f"{name}.py", arg)


def argument(table, size):
    return ",".join(filter(None, (table, size)))


def without_seed(axes):
    return {axis: value for axis, value in axes.items() if axis != "seed"}


def first_seeds(experiment):
    return [point for point in experiment.points if point.axes.get("seed", 0) == 0]


def model_of(point):
    """A point's model, told what a data set would tell."""
    section = {k: v for k, v in point.config["model"].items() if k != "weights"}
    classes = CLASSES.get(point.config["task"]["name"])
    facts = FACTS | {"vocab_size": point.config["data"].get("vocab_size", 1000)}
    facts |= {"num_classes": classes} if classes else {}
    scale = point.config["data"].get("scale")
    facts |= {"scale": scale} if scale else {}
    fields = models.find(section["name"]).__dataclass_fields__
    return models.create(**{k: v for k, v in facts.items() if k in fields} | section)


def parameters(point):
    """How many a point's network has, without making it."""
    model = model_of(point)
    init = functools.partial(model.init, train=False)
    inputs = [jax.ShapeDtypeStruct(*INPUTS[name]) for name in model.inputs]
    return cost.parameters(jax.eval_shape(init, jax.random.key(0), *inputs))


def printed(experiment, point):
    """The parameters that the paper prints for a point; None if it prints none."""
    rows = [(row["axes"], row["values"]) for row in experiment.published["rows"]]
    found = [values for axes, values in rows if axes == without_seed(point.axes)]
    return found[0].get("parameters") if found else None


@pytest.mark.parametrize("size", ["", "paper", "tiny"])
@pytest.mark.parametrize(("name", "table"), TABLES)
def test_expands(name, table, size):
    if size == "paper" and not table:
        pytest.skip("has no paper")
    experiment = load(name, argument(table, size))
    module = importlib.import_module(f"experiments.{name}")
    assert experiment.title
    # none is lost, because it was called as another or is another
    assert len(experiment.points) == len(list(module.sweep(argument(table, size))))
    configs = {json.dumps(point.config, sort_keys=True) for point in experiment.points}
    assert len(configs) == len(experiment.points)
    found = [point.axes for point in experiment.points]
    assert any(axes.items() >= experiment.baseline.items() for axes in found)
    if size == "tiny":
        assert len(experiment.points) <= 12
        assert all(point.config["train"]["steps"] <= 10 for point in experiment.points)
    else:
        counts = collections.Counter(str(without_seed(axes)) for axes in found)
        assert len(set(counts.values())) == 1  # each has as many seeds


@pytest.mark.parametrize("size", ["", "paper"])
@pytest.mark.parametrize(("name", "table"), PAPER)
def test_the_published_table_has_the_rows_of_ours(name, table, size):
    experiment = load(name, argument(table, size))
    if experiment.published is None:
        return
    assert experiment.published["source"]
    column = experiment.published.get("columns")
    found = [without_seed(point.axes) for point in experiment.points]
    ours = [{a: v for a, v in axes.items() if a != column} for axes in found]
    theirs = [row["axes"] for row in experiment.published["rows"]]
    assert len({json.dumps(axes, sort_keys=True) for axes in theirs}) == len(theirs)
    for axes in theirs:
        assert axes.keys() == ours[0].keys()
    # the small form of a table of networks may have networks of its own
    assert size != "paper" or sum(axes in ours for axes in theirs) >= 2
    for row in experiment.published["rows"]:
        values = row["values"]
        figures = [v for k, v in values.items() if k not in ("parameters", "macs")]
        assert figures
        assert all(0 < figure < 100 for figure in figures)
        assert values.get("top-5 error", 0) < values.get("error", 100)


@pytest.mark.parametrize("size", ["", "paper"])
@pytest.mark.parametrize(
    ("name", "table"),
    [(n, t) for n, t in PAPER if n in ("cbam", "non_local", "efficient_channel")],
)
def test_the_plain_network_and_two_more_are_in_both_tables(name, table, size):
    experiment = load(name, argument(table, size))
    theirs = [row["axes"] for row in experiment.published["rows"]]
    found = [without_seed(point.axes) for point in first_seeds(experiment)]
    both = [axes for axes in theirs if axes in found]
    assert len(both) >= 3
    assert any(axes.items() >= experiment.baseline.items() for axes in both)


@pytest.mark.parametrize("name", NAMES)
def test_small_points_can_be_built(name):
    """All but what they take of trainings, which need not be there."""
    tables = [table for other, table in TABLES if other == name]
    points = {
        json.dumps(point.config, sort_keys=True): point
        for table in tables
        for point in first_seeds(load(name, table))
    }
    for point in points.values():
        point.config["model"].pop("weights", None)
        point.config["task"].pop("parallel", None)
    local.check(list(points.values()))


@pytest.mark.parametrize(("name", "table"), PAPER)
def test_paper_points_can_be_built(name, table):
    """All but their data, which need not be there."""
    for point in load(name, argument(table, "paper")).points:
        config = point.config
        model_of(point)
        tasks.create(config["task"], FACTS)
        train = settings.build(program.Train, "section", "train", config["train"])
        rate = optimizer.schedule(config["schedule"], train.steps)
        optimizer.create(config["optimizer"], rate)
        data.check(config["data"])


@pytest.mark.parametrize(("name", "table"), EXACT)
def test_paper_points_have_the_published_parameters(name, table):
    experiment = load(name, argument(table, "paper"))
    points = {point.name: point for point in experiment.points}
    for point, expected in EXACT[name, table].items():
        assert parameters(points[point]) == expected
        rounded = printed(experiment, points[point])
        # SENet's count the statistics of batch norms, others are rounded; those of the
        # Transformer are of another vocabulary, those of DETR are what is trained
        share = {"transformer": 0.04, "detr": 0.007}.get(name, 0.005)
        assert rounded is None or rounded == pytest.approx(expected, rel=share)


@pytest.mark.parametrize(
    ("name", "network", "digit"),
    [
        ("cbam", "WRN-18 x1.5", 1e4),
        ("cbam", "WRN-18 x2.0", 1e4),
        ("cbam", "ResNeXt-50", 1e4),
        ("efficient_channel", "ResNet-50", 0.02 * 2**20),  # CBAM without biases
    ],
)
def test_printed_parameters_are_ours(name, network, digit):
    """To their last digit."""
    experiment = load(name, "imagenet,paper")
    chosen = [p for p in experiment.points if p.axes["network"] == network]
    pairs = [(point, printed(experiment, point)) for point in chosen]
    assert [rounded for _, rounded in pairs].count(None) <= 1
    for point, rounded in pairs:
        if rounded is not None:
            assert abs(parameters(point) - rounded) < digit


@pytest.mark.parametrize(
    ("network", "number", "blocks"),
    [
        ("ResNet-50", "one", 1),
        ("ResNet-50", "every other", 5),
        ("ResNet-50", "every", 10),
        ("ResNet-101", "one", 1),
        ("ResNet-101", "every other", 5),
    ],
)
def test_as_many_non_local_blocks_as_in_the_paper(network, number, blocks):
    wanted = {"network": network, "number": number}
    found = load("non_local", "number,paper").points
    (point,) = (p for p in found if without_seed(p.axes) == wanted)
    assert len(point.config["model"]["slots"]) == blocks


def test_imagenet_is_trained_as_torchvision_does():
    config = load("cbam", "channel_pooling,paper").points[0].config
    assert config["train"]["batch_size"] == 256
    assert config["train"]["steps"] == round(90 * 1_281_167 / 256)
    rate = optimizer.schedule(config["schedule"], config["train"]["steps"])
    epoch = 1_281_167 / 256
    at = [float(rate(int(epoch * k))) for k in (0, 29.9, 30.1, 59.9, 60.1, 89)]
    assert at == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001, 0.001])


def test_both_places_of_a_basic_block_are_one_row_of_integration():
    """A block's end is after its second convolution, unless it is a bottleneck."""
    rows = lambda size: {p.axes["variant"] for p in load(*size).points}
    small = rows(("squeeze_excite", "integration"))
    paper = rows(("squeeze_excite", "integration,paper"))
    assert paper - small == {"SE_3x3"} and small < paper


@pytest.mark.parametrize("size", ["", "paper"])
def test_sizes_of_one_label_lie_on_one_side_of_the_base(size):
    """Of the Transformer; the base of the paper has N=6 and d=512, the small one 2."""
    experiment = load("transformer", argument("size", size))
    theirs = {row["axes"]["variant"] for row in experiment.published["rows"]}
    shared = theirs & {point.axes["variant"] for point in experiment.points}
    if size == "paper":
        assert shared == theirs
    else:
        assert shared == {"base"} and {"N=2", "d=1024"} < theirs


def test_the_rate_of_a_transformer_follows_its_width():
    points = load("transformer", "size,paper").points
    peaks = {p.axes["variant"]: p.config["schedule"]["peak"] for p in points}
    for name, width in {"base": 512, "d=256": 256, "d=1024": 1024, "big": 1024}.items():
        assert peaks[name] == pytest.approx((width * 4000) ** -0.5)
    small = {p.config["schedule"]["peak"] for p in load("transformer", "size").points}
    assert small == {2e-3}


def test_rounded_parameters_are_shown_as_rounded():
    rows = load("efficient_channel", "imagenet,paper").published["rows"]
    counts = [row["values"].get("parameters") for row in rows]
    assert all(count is None or count % 10_000 == 0 for count in counts)
    assert counts[0] == 25_550_000


def test_scores_of_captions_are_as_wide_as_the_map_in_the_paper_form():
    points = first_seeds(load("show_attend_tell", "attention,paper"))
    fills = [slots.flatten(point.config["model"]["slots"]) for point in points]
    specs = [spec for fill in fills for spec in fill["decoder.cross"]]
    assert len(specs) == len(points) - 2
    assert {spec["hidden"] for spec in specs} == {512}


def test_the_default_sweeps_one_attention_of_each_kind_at_the_same_cost():
    experiment = load("attention_sweep", "")
    names = list(dict.fromkeys(point.axes["attention"] for point in experiment.points))
    kinds = [modules.card(name).family for name in names if name != "none"]
    assert names[0] == experiment.baseline["attention"] == "none"
    assert kinds == ["channel", "mixed", "pixel", "non_local", "token"]
    assert len(experiment.points) == 4 * 6
    assert experiment.match == {"by": "macs"}


@pytest.mark.parametrize("arg", ["", "tiny"])
def test_the_default_keeps_digits_apart_for_validation(arg):
    config = load("attention_sweep", arg).points[0].config
    opened = data.open(config["data"])
    assert opened.splits == ("validation", "test")
    assert opened.size("train") == 3600 and opened.size("validation") == 400
    assert opened.example()["image"].shape == (36, 36, 1)


@pytest.mark.parametrize(
    ("name", "arg", "says"),
    [
        ("attention_sweep", "tniy", "unknown argument 'tniy'"),
        ("attention_sweep", "tiny=3", "tiny must be bool, got '3'"),
        ("cbam", "ordre", "'ordre' .valid: channel_pooling, spatial, order, imagenet,"),
        ("cbam", "order,spatial", "one table at a time, got spatial and order"),
        ("cbam", "order,tiny,paper", "one size at a time, got paper and tiny"),
        ("cbam", "order,seeds=0", "seeds must be at least 1, got 0"),
    ],
)
def test_an_argument_that_does_not_exist_is_one_sentence(name, arg, says):
    with pytest.raises(ValueError, match=says):
        experiment_file.load(ROOT / "experiments" / f"{name}.py", arg)


@pytest.mark.parametrize(
    ("arg", "rows", "seeds"),
    [("", 4, 3), ("order", 5, 3), ("order,seeds=2", 5, 2), ("order,paper", 5, 1)],
)
def test_an_argument_chooses_table_size_and_seeds(arg, rows, seeds):
    points = load("cbam", arg).points
    assert len(points) == rows * seeds
    assert {point.axes["seed"] for point in points} == set(range(seeds))


def test_commands_in_the_readme_and_in_the_files_name_tables_that_exist():
    texts = [ROOT / "README.md", *(ROOT / f"experiments/{name}.py" for name in NAMES)]
    found = set()
    for path in texts:
        commands = r"--config=experiments/([a-z_]+)\.py(?::([a-z0-9_,=]+))?"
        found |= set(re.findall(commands, path.read_text()))
    assert {name for name, _ in PAPER} <= {name for name, _ in found}
    for name, arg in found:
        assert load(name, arg.strip(",")).points


@pytest.mark.parametrize(
    ("name", "table", "spec", "like"),
    [
        ("attention_sweep", "", "pixel_attention", "pixel_attention"),
        ("cbam", "imagenet", "{'name': 'cbam', 'reduction': 4}", "cbam"),
        ("self_attention", "", "{'name': 'linear'}", "linear"),
        ("position_encoding", "", "rotary", "rotary"),
        ("efficient_channel", "", "{'name': 'efficient_channel'}", "ECA adaptive"),
    ],
)
def test_an_added_row_is_one_like_those_that_are_there(name, table, spec, like):
    path = ROOT / "experiments" / f"{name}.py"
    points = experiment_file.load(path, table, add=[f"again={spec}"]).points
    axis = next(axis for axis, value in points[-1].axes.items() if value == "again")
    rows = {
        value: [point.config for point in points if point.axes[axis] == value]
        for value in ("again", like)
    }
    assert rows["again"] == rows[like]
    assert len(rows[like]) >= 3


def settled(config):
    """A config as text, its slots as the model fills them, the seed left out."""
    whole = {k: v for k, v in json.loads(json.dumps(config)).items() if k != "seed"}
    model = whole["model"]
    usual = getattr(models.find(model["name"]), "usual_fill", {})
    usual = usual if isinstance(usual, collections.abc.Mapping) else {}
    fill = {**slots.flatten(dict(usual)), **slots.flatten(model.get("slots"))}
    model["slots"] = {place: list(map(dict, specs)) for place, specs in fill.items()}
    return json.dumps(whole, sort_keys=True)


@pytest.mark.parametrize(("name", "table"), TABLES)
@pytest.mark.parametrize("size", ["", ",paper"])
def test_no_two_rows_are_one(name, table, size):
    if size and not table:
        pytest.skip("it has no paper's size")
    path = ROOT / "experiments" / f"{name}.py"
    points = experiment_file.load(path, f"{table}{size}").points
    rows = [settled(p.config) for p in points if p.axes["seed"] == 0]
    assert len(set(rows)) == len(rows) > 0


@pytest.mark.parametrize(
    ("name", "table"), [("super_resolution", "pan"), ("super_resolution", "san")]
)
def test_an_added_row_differs_from_that_without_attention_by_itself_alone(name, table):
    path = ROOT / "experiments" / f"{name}.py"
    points = experiment_file.load(path, table, add=["again=squeeze_excite"]).points
    (none,), (again,) = (
        [p.config for p in points if value in p.axes.values() and p.axes["seed"] == 0]
        for value in ("none", "again")
    )
    made = [
        dict(models.create(**{"scale": 2, **config["model"]}).fill)
        for config in (none, again)
    ]
    assert [key for key in made[1] if made[0].get(key, ()) != made[1][key]] == [
        {"pan": "block.residual", "san": "group.end"}[table]
    ]
    plain = [
        {k: v for k, v in c["model"].items() if k != "slots"} for c in (none, again)
    ]
    assert plain[0] == plain[1]
