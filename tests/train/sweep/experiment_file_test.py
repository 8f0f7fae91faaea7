"""Experiment files into points: their functions, errors, names and selections."""

import json

import pytest

from attn import settings
from attn.train.sweep import experiment_file
from tests.train import small

FILE = '''"""A title.

More about it.
"""
from tests.train import small
BASELINE = {"width": 8}

def get_config(arg):
    return small.config(train__steps=4 if arg == "short" else 8)

def sweep(arg):
    for width in (8, 4):
        for seed in (0, 1):
            yield {"width": width, "seed": seed}, {"model.width": width, "seed": seed}
'''


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "widths.py"
    path.write_text(FILE)
    return path


def test_commands_that_begin_a_description_stay_indented(path):
    command = "    python launch.py"
    path.write_text(FILE.replace("More about it.", command))
    assert experiment_file.load(path, "").description == command


def test_expands_a_file_into_points(path):
    experiment = experiment_file.load(path, "")
    assert experiment.name == "widths"
    assert experiment.title == "A title."
    assert experiment.description == "More about it."
    assert experiment.baseline == {"width": 8}
    names = [point.name for point in experiment.points]
    assert names == ["8-0", "8-1", "4-0", "4-1"]
    assert experiment.points[2].config == small.config(seed=0, model__width=4)
    short = experiment_file.load(path, "short")
    assert short.name == "widths-short"
    assert short.points[0].config["train"]["steps"] == 4


def test_an_experiment_may_name_what_is_too_small_to_matter(path):
    assert experiment_file.load(path, "").rope is None
    path.write_text(FILE + "import numpy as np\nROPE = np.float32(0.5)\n")
    assert experiment_file.load(path, "").rope == 0.5
    for wrong in ("0", "-1.0", "'much'", "True", "float('inf')"):
        path.write_text(f"{FILE}ROPE = {wrong}\n")
        with pytest.raises(settings.Invalid, match="ROPE must be a positive number"):
            experiment_file.load(path, "")


def test_an_override_beats_the_sweep_and_merges_points(path):
    experiment = experiment_file.load(path, "", [("seed", "7"), ("train.steps", "3")])
    assert [point.name for point in experiment.points] == ["8-7", "4-7"]
    assert [point.axes["seed"] for point in experiment.points] == [7, 7]
    assert {point.config["train"]["steps"] for point in experiment.points} == {3}


def test_a_seed_may_be_called_otherwise(path):
    path.write_text(
        "def get_config(arg):\n    return {'seed': 0}\n\n"
        "def sweep(arg):\n    yield {'a': 1, 'seed': 1}, {'seed': 1001}\n"
    )
    (point,) = experiment_file.load(path, "").points
    assert (point.name, point.config["seed"]) == ("1-1001", 1001)


@pytest.mark.parametrize(
    ("only", "names"),
    [
        ([], ["8-0", "8-1", "4-0", "4-1"]),
        (["4-1"], ["4-1"]),
        (["width=4"], ["4-0", "4-1"]),
        (["seed=1", "8-0"], ["8-0", "8-1", "4-1"]),
        (["8"], ["8-0", "8-1"]),
    ],
)
def test_selects_points_in_their_order(path, only, names):
    points = experiment_file.load(path, "").select(only)
    assert [point.name for point in points] == names


def test_a_selection_of_nothing_is_an_error(path):
    with pytest.raises(ValueError, match=r"unknown point '8-3'.*valid: .*8-0"):
        experiment_file.load(path, "").select(["8-3"])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("def get_config(arg): return {", r"widths.py, line \d+: SyntaxError"),
        ("import nothing_of_this_name", "line 1: ModuleNotFoundError: No module"),
        ("x = 1", r"has no get_config\(arg\)"),
        ("def get_config(arg):\n    return 1 / 0", "line 2: ZeroDivisionError"),
        ("def get_config(arg):\n    raise ValueError('no such arg')", "no such arg"),
        ("def get_config(arg):\n    pass", "get_config must return a config, got None"),
        (
            "BASELINE = 'none'\n" + FILE.replace("BASELINE", "OTHER"),
            "BASELINE must be a",
        ),
        (
            "def get_config(arg):\n    return {}\n\n"
            "def sweep(arg):\n    yield {'seed': 0}, {}\n",
            "config.seed is missing",
        ),
        (
            "def get_config(arg):\n    return {'seed': 0}\n\n"
            "def sweep(arg):\n    yield {'a': 1, 'seed': 7}, {}\n",
            "is called seed 7 and has config.seed 0; yield 'seed' among its changes",
        ),
        (
            FILE.replace('"model.width": width, ', "").replace("8 if", "7 if")
            + "\n\ndef sweep(arg):\n    yield {'a': 1}, {'seed': 0}\n"
            "    yield {'a': 1}, {'seed': 1}\n",
            "two different points are both called '1'",
        ),
    ],
)
def test_a_wrong_file_is_one_sentence_with_its_line(path, text, says):
    path.write_text(text)
    with pytest.raises(ValueError, match=says) as caught:
        experiment_file.load(path, "")
    assert "\n" not in str(caught.value)


def test_a_missing_file_names_those_there_are(path):
    with pytest.raises(ValueError, match=r"did you mean '.*widths.py'"):
        experiment_file.load(path.with_name("width.py"), "")


def set_to(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


@pytest.mark.parametrize("field", ["model.width", "model", "model.width.inner"])
def test_a_field_that_the_sweep_sets_cannot_be_overridden(path, field):
    """Every row would train with it under the names that the sweep gave."""
    says = rf"config.{field} cannot be set: the sweep sets this field, in 4 of its 4"
    with pytest.raises(settings.Invalid, match=says):
        experiment_file.load(path, "", [(field, "16")])


def test_neighbours_of_a_field_that_the_sweep_sets_can(path):
    experiment = experiment_file.load(path, "", [("model.widthwise", "16")])
    assert {point.config["model"]["widthwise"] for point in experiment.points} == {16}


def test_numbers_of_numpy_are_numbers(path):
    set_to(path, "for width in (8, 4)", "for width in np.array([8, 4])")
    set_to(path, "for seed in (0, 1)", "for seed in np.arange(2)")
    set_to(path, "from tests", "import numpy as np\nfrom tests")
    set_to(path, '{"width": 8}', '{"width": np.int64(8)}')
    experiment = experiment_file.load(path, "")
    assert [point.name for point in experiment.points] == ["8-0", "8-1", "4-0", "4-1"]
    point = experiment.points[2]
    assert (point.axes, point.config["model"]["width"]) == ({"width": 4, "seed": 0}, 4)
    for value in (*point.axes.values(), point.config["seed"], experiment.baseline):
        assert json.loads(json.dumps(value)) == value


@pytest.mark.parametrize("value", ["object()", "print", "float('nan')", "{1, 2}"])
def test_what_is_no_plain_data_is_refused(path, value):
    set_to(path, '"model.width": width', f'"model.width": {value}')
    with pytest.raises(settings.Invalid, match="hold texts, numbers, None, lists"):
        experiment_file.load(path, "")


def test_long_names_are_shortened_and_stay_apart(path, tmp_path):
    set_to(path, "for width in (8, 4)", 'for width in ("é" * 300, "é" * 299 + "x")')
    set_to(path, '"model.width": width, ', "")
    names = [point.name for point in experiment_file.load(path, "").points]
    assert len(set(names)) == 4
    for name in names:
        assert len(name.encode()) <= experiment_file.LONGEST
        (tmp_path / name).mkdir()
    again = [point.name for point in experiment_file.load(path, "").points]
    assert again == names
    experiment = experiment_file.load(path, "x" * 300)
    assert len(experiment.name) <= experiment_file.LONGEST


@pytest.mark.parametrize("value", ["..", ".", ".hidden"])
def test_no_point_is_called_like_a_hidden_file_or_another_directory(value):
    assert experiment_file.name_of({"a": value}) == f"_{value}"


def test_a_file_may_have_dataclasses_and_quoted_types(path):
    path.write_text(
        '"""A title."""\nfrom __future__ import annotations\nimport dataclasses\n'
        "from tests.train import small\n\n"
        "@dataclasses.dataclass\nclass Recipe:\n    steps: int = 5\n\n"
        "def get_config(arg):\n    return small.config(train__steps=Recipe().steps)\n"
    )
    experiment = experiment_file.load(path, "")
    assert experiment.points[0].config["train"]["steps"] == 5


def test_functions_may_take_no_argument(path):
    set_to(path, "get_config(arg)", "get_config()")
    set_to(path, '4 if arg == "short" else 8', "4")
    set_to(path, "def sweep(arg)", "def sweep()")
    assert len(experiment_file.load(path, "").points) == 4
    with pytest.raises(settings.Invalid, match="get_config takes no argument, got 'a'"):
        experiment_file.load(path, "a")


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ("def published(arg):\n    return {'source': 'a'}", "published.arg. must"),
        ("def published(arg):\n    return {'rows': [1]}", "published.arg. must return"),
        ("def published(arg):\n    return 1 / 0", r"line \d+: ZeroDivisionError"),
        ("def match(arg):\n    return 'flops'", "match.arg. must be one of"),
        ("def sweep(arg):\n    yield 1", "sweep.arg. must yield pairs"),
        ("def sweep(arg):\n    return []", "sweep.arg. must yield pairs"),
        ("def sweep(arg):\n    yield {}, {}\n    1 / 0", r"line \d+: ZeroDivisionErr"),
    ],
)
def test_what_a_function_must_return_is_one_sentence(path, more, says):
    path.write_text(f"{FILE}\n\n{more}\n")
    with pytest.raises(settings.Invalid, match=says) as caught:
        experiment_file.load(path, "")
    assert "\n" not in str(caught.value)
    assert "line 0" not in str(caught.value)


ROW = """

def row(spec, arg):
    return {"model.width": spec}
"""


def test_adds_a_row_with_the_seeds_of_the_baseline(path):
    path.write_text(FILE + ROW)
    given = ["mine:Module", "two={'name': 'cbam', 'reduction': 2}"]
    experiment = experiment_file.load(path, "", add=given)
    names = [point.name for point in experiment.points[4:]]
    assert names == ["Module-0", "Module-1", "two-0", "two-1"]
    points = {point.name: point for point in experiment.points}
    assert points["Module-1"].axes == {"width": "Module", "seed": 1}
    assert points["Module-1"].config["seed"] == 1
    assert points["Module-1"].config["model"]["width"] == "mine:Module"
    assert points["two-0"].config["model"]["width"] == {"name": "cbam", "reduction": 2}
    assert experiment.points[:4] == experiment_file.load(path, "").points


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("8=cbam", "there is a row width=8 already; .* --add=NAME=cbam"),
        ("a b", r"--add takes a module, or NAME=MODULE, .* got 'a b'"),
        ("a={'reduction': 2}", "--add takes a module"),
        ("a={'name': ", "--add takes a module"),
        ("", "--add takes a module"),
    ],
)
def test_a_row_that_cannot_be_added(path, text, says):
    path.write_text(FILE + ROW)
    with pytest.raises(settings.Invalid, match=says):
        experiment_file.load(path, "", add=[text])


def test_a_file_must_say_what_an_added_row_sets(path):
    with pytest.raises(settings.Invalid, match=r"widths.py has no row\(spec, arg\)"):
        experiment_file.load(path, "", add=["cbam"])
    path.write_text(FILE.replace('{"width": 8}', "{}", 1) + ROW)
    with pytest.raises(settings.Invalid, match="needs a BASELINE of one axis"):
        experiment_file.load(path, "", add=["cbam"])
