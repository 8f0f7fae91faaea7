"""Sweeps: files into points, overrides, selections, and a run of several points."""

import ml_collections
import pytest

from attn.train import loop
from attn.train.interruption import Interruption
from attn.train.sweep import experiment_file, local, override
from attn.workdir import files
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


def test_configs_may_be_config_dicts_and_keys_may_have_dots():
    config = ml_collections.ConfigDict({"a": {"b": (1, 2)}})
    assert override.plain(config) == {"a": {"b": [1, 2]}}
    assert override.plain({"a.b": {"c.d": 1}}) == {"a": {"b": {"c": {"d": 1}}}}


def test_an_override_beats_the_sweep_and_merges_points(path):
    experiment = experiment_file.load(path, "", [("seed", "7"), ("train.steps", "3")])
    assert [point.name for point in experiment.points] == ["8-7", "4-7"]
    assert [point.axes["seed"] for point in experiment.points] == [7, 7]
    assert {point.config["train"]["steps"] for point in experiment.points} == {3}


@pytest.mark.parametrize(
    ("field", "text", "value"),
    [
        ("train.steps", "5", 5),
        ("schedule.peak", "1", 1.0),
        ("schedule.peak", "3e-4", 3e-4),
        ("data.name", "12", "12"),
        ("train.average", "0.9", 0.9),
        ("train.eval_batch_size", "none", None),
        ("schedule.boundaries", "(2,3)", [2, 3]),
        ("model.slots.head", "cbam", "cbam"),
        ("model.slots.stage2/block.post.reduction", "4", 4),
        ("optimizer.nesterov", "true", True),
    ],
)
def test_overrides_take_the_type_of_the_field(field, text, value):
    config = small.config()
    override.override(config, field, text)
    for level in field.split("."):
        config = config[level]
    assert config == value
    assert type(config) is type(value)


def test_settings_may_be_given_to_an_attention_named_alone():
    config = small.config(model__slots={"block": {"post": "cbam"}})
    override.override(config, "model.slots.block.post.reduction", "4")
    assert config["model"]["slots"]["block"]["post"] == {"name": "cbam", "reduction": 4}


@pytest.mark.parametrize(
    ("field", "text", "says"),
    [
        ("train.steps", "many", "config.train.steps must be int, got 'many'"),
        ("train.steps", "2.5", "config.train.steps must be int, got '2.5'"),
        ("schedule.peak", "true", "config.schedule.peak must be float, got 'true'"),
        ("trian.steps", "1", "unknown field 'config.trian.steps'; did you mean"),
        ("seed.a", "1", "unknown field 'config.seed.a'"),
        ("train", "1", "unknown field 'config.train'"),
    ],
)
def test_overrides_that_do_not_fit_are_one_sentence(field, text, says):
    with pytest.raises(ValueError, match=says):
        override.override(small.config(), field, text)


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


def test_neighbours_that_differ_in_the_seed_share_a_program(path):
    pairs = list(local.programs(experiment_file.load(path, "").points))
    programs = [program for _, program in pairs]
    assert programs[0] is programs[1]
    assert programs[2] is programs[3]
    assert programs[0] is not programs[2]


def run(path, directory, *, arg="short", only=(), overrides=()):
    experiment = experiment_file.load(path, arg, overrides)
    listener = small.Listener()
    local.run(
        experiment,
        experiment.select(only),
        directory,
        progress=listener,
        interruption=Interruption(),
    )
    return listener


def test_runs_points_once_and_says_so(path, tmp_path):
    directory = tmp_path / "runs" / "w"
    first = run(path, directory, only=["8"])
    assert first.points == [(1, 2, "8-0"), (2, 2, "8-1")]
    assert "8-0: test error" in first.notes[0]
    described = files.read_json(directory / "experiment.json")
    assert described["axes"] == ["width", "seed"]
    assert [point["name"] for point in described["points"]] == [
        "8-0",
        "8-1",
        "4-0",
        "4-1",
    ]
    result = (directory / "8-0" / "result.json").read_bytes()
    second = run(path, directory, only=["8"])
    assert second.notes == ["2 of 2 points are done already"]
    assert second.points == []
    assert (directory / "8-0" / "result.json").read_bytes() == result

    with pytest.raises(ValueError, match=r"for 8-0: train.steps: 4 -> 5; name another"):
        run(path, directory, overrides=[("train.steps", "5")])
    assert not (directory / "4-0").exists()


def test_a_wrong_point_is_found_before_anything_is_written(path, tmp_path):
    directory = tmp_path / "runs" / "w"
    with pytest.raises(ValueError, match=r"config.optimizer: .*did you mean 'sgd'"):
        run(path, directory, overrides=[("optimizer.name", "sdg")])
    assert not directory.exists()


def test_a_point_that_diverges_leaves_the_others_alone(path, tmp_path):
    text = path.read_text().replace('"model.width": width', '"schedule.peak": peak')
    text = text.replace("for width in (8, 4)", "for peak in (1e30, 0.1)")
    path.write_text(text.replace('{"width": width, ', '{"peak": peak, '))
    experiment = experiment_file.load(path, "short", [("seed", "0")])
    listener = small.Listener()
    diverged = local.run(
        experiment,
        experiment.points,
        tmp_path / "w",
        progress=listener,
        interruption=Interruption(),
    )
    assert list(diverged) == ["1e+30-0"]
    assert "no longer finite" in diverged["1e+30-0"]
    assert not (tmp_path / "w" / "1e+30-0" / "result.json").exists()
    assert (tmp_path / "w" / "0.1-0" / "result.json").exists()


def test_a_request_to_stop_leaves_the_rest_for_later(path, tmp_path):
    experiment = experiment_file.load(path, "short")
    interruption = Interruption()
    interruption.ask()
    with pytest.raises(loop.Stopped, match="saved at step 1 of 4"):
        local.run(
            experiment,
            experiment.points,
            tmp_path / "w",
            progress=small.Listener(),
            interruption=interruption,
        )
    listener = run(path, tmp_path / "w", only=["8-0"])
    assert listener.notes[0] == "resumes at step 1"
