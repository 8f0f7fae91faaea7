"""Every experiment expands, and every one of its points can be built."""

import pathlib

import pytest

from attn.train import sweep

ROOT = pathlib.Path(__file__).parents[1]
NAMES = sorted(
    path.stem
    for path in ROOT.glob("experiments/*.py")
    if path.stem not in ("__init__", "common")
)


@pytest.mark.parametrize("name", NAMES)
def test_expands_and_builds(name):
    experiment = sweep.load(ROOT / "experiments" / f"{name}.py", "")
    assert experiment.title
    assert experiment.points
    for axis, value in experiment.baseline.items():
        assert any(point.axes[axis] == value for point in experiment.points)
    sweep.check(experiment.points)


def test_the_default_sweeps_six_attentions_and_three_seeds():
    experiment = sweep.load(ROOT / "experiments" / "attention_sweep.py", "")
    attentions = {point.axes["attention"] for point in experiment.points}
    assert attentions == {
        "none",
        "squeeze_excite",
        "cbam",
        "pixel_attention",
        "non_local",
        "spatial_transformer",
    }
    assert len(experiment.points) == 18
    assert experiment.points[0].config["data"]["distortion"] == "r"


@pytest.mark.parametrize(
    ("arg", "says"),
    [("tniy", "unknown argument 'tniy'"), ("tiny=3", "tiny must be bool, got '3'")],
)
def test_an_argument_that_does_not_exist_is_one_sentence(arg, says):
    with pytest.raises(ValueError, match=says):
        sweep.load(ROOT / "experiments" / "attention_sweep.py", arg)
