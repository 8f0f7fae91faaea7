"""Matching: budgets of whom, counted by hand, kept in a file, said when impossible."""

import dataclasses
import itertools
import json

import pytest

from attn.models.scaling import Width
from attn.train.budget import match
from attn.train.interruption import Interruption
from attn.train.program import Program
from attn.train.sweep import local
from attn.train.sweep import step_time as paces
from attn.train.sweep.experiment_file import Experiment, Point
from attn.workdir import files
from tests.train import small

PIXELS = 28 * 28


class Coarse(small.Net):
    """A model whose width moves in steps too coarse for a budget."""

    def width_settings(self):
        return {"width": Width(self.width, 8)}


def config(seed=0, distortion="none", **model):
    return small.config(
        seed=seed,
        data={"name": "mnist_5k", "test": "test[:40]", "distortion": distortion},
        model={"name": "mlp", **model},
    )


def point(name, axes, **fields):
    return Point(name, axes, config(**fields))


def experiment(points, by="parameters", baseline=None, **budget):
    wanted = {"by": by, **budget}
    return Experiment("e", "E", "", baseline or {}, points, match=wanted)


def matched(made, directory, points=None):
    listener = small.Listener()
    found = match.match(made, points or made.points, directory, progress=listener)
    return *found, listener


def of_mlp(widths, inputs=PIXELS):
    sizes = [inputs, *widths, 10]
    return sum((a + 1) * b for a, b in itertools.pairwise(sizes))


WIDE = {"widths": [30, 20]}
SLIM = {"widths": [5, 9]}


def test_points_get_the_parameters_of_the_baseline_of_their_own_data(tmp_path):
    """By the formula of a perceptron; the canvas of "rts" has 42 x 42 pixels."""
    points = [
        Point(f"{net}-{data}", {"net": net, "data": data}, config(0, data, **widths))
        for data in ("none", "rts")
        for net, widths in (("slim", SLIM), ("wide", WIDE))
    ]
    made = experiment(points, baseline={"net": "wide"})
    after, found, listener = matched(made, tmp_path)
    by_name = {p.name: p for p in found}
    assert [p.config for p in after.points] == [p.config for p in found]
    for data, inputs in (("none", PIXELS), ("rts", 42 * 42)):
        assert by_name[f"wide-{data}"] == points[1 if data == "none" else 3]
        widths = by_name[f"slim-{data}"].config["model"]["widths"]
        budget = of_mlp(WIDE["widths"], inputs)
        assert of_mlp(widths, inputs) == pytest.approx(budget, rel=0.01)
        assert widths[1] / widths[0] == pytest.approx(9 / 5, rel=0.51)
        entry = after.matching["points"][f"slim-{data}"]
        assert entry["settings"] == {"widths": widths}
        assert entry["budget"] == budget
        assert entry["parameters"] == of_mlp(widths, inputs)
        assert entry["macs"] == entry["parameters"] - sum(widths) - 10
        assert entry["before"]["parameters"] == of_mlp(SLIM["widths"], inputs)
        assert after.matching["points"][f"wide-{data}"]["settings"] == {}
    assert len(listener.notes) == 4
    assert any("matched slim-rts: " in note for note in listener.notes)
    assert points[0].config["model"]["widths"] == [5, 9]  # the input is left alone
    assert not list(tmp_path.iterdir())


def test_a_given_budget_holds_for_the_baseline_too_and_for_multiply_adds(tmp_path):
    points = [point("slim", {"net": 1}, **SLIM), point("wide", {"net": 2}, **WIDE)]
    made = experiment(points, by="macs", baseline={"net": 2}, budget=50_000)
    _, found, _ = matched(made, tmp_path)
    for one in found:
        sizes = [PIXELS, *one.config["model"]["widths"], 10]
        products = sum(a * b for a, b in itertools.pairwise(sizes))
        assert products == pytest.approx(50_000, rel=0.01)


def test_seeds_share_a_matching_and_a_selection_needs_no_baseline(tmp_path):
    points = [
        point(f"{net}-{seed}", {"net": net, "seed": seed}, seed=seed, **widths)
        for net, widths in (("wide", WIDE), ("slim", SLIM))
        for seed in (0, 1)
    ]
    made = experiment(points, baseline={"net": "wide"})
    after, found, listener = matched(made, tmp_path, points[2:])
    assert len(listener.notes) == 1
    assert [p.name for p in found] == ["slim-0", "slim-1"]
    assert [p.config["seed"] for p in found] == [0, 1]
    assert found[0].config["model"] == found[1].config["model"]
    assert of_mlp(found[0].config["model"]["widths"]) == pytest.approx(
        of_mlp(WIDE["widths"]), rel=0.01
    )
    assert after.points[0] == points[0]
    assert list(after.matching["points"]) == ["slim-0", "slim-1"]


def test_what_was_found_is_used_again_for_the_same_config_only(tmp_path):
    points = [point("slim", {"net": 1}, **SLIM), point("wide", {"net": 2}, **WIDE)]
    made = experiment(points, baseline={"net": 2})
    after, _, _ = matched(made, tmp_path)
    record = json.loads(json.dumps(after.matching))
    record["points"]["slim"]["settings"] = {"widths": [33, 44]}  # to be told apart
    files.write_json(tmp_path / "match.json", record)
    again, found, listener = matched(made, tmp_path)
    assert found[0].config["model"]["widths"] == [33, 44]
    assert again.matching == record
    assert listener.notes == []

    others = [
        experiment([point("slim", {"net": 1}, widths=[6, 9]), points[1]]),
        experiment([points[0], point("wide", {"net": 2}, widths=[31, 20])]),
        experiment(points, by="macs"),
        experiment(points, budget=20_000),
    ]
    others = [dataclasses.replace(other, baseline={"net": 2}) for other in others]
    for other in others:
        _, found, _ = matched(other, tmp_path)
        assert found[0].config["model"]["widths"] != [33, 44]


def test_latency_is_counted_in_steps_of_the_reference(tmp_path, monkeypatch):
    """A clock on which a step takes as long as the first layer is wide, and drifts."""
    now = [1.0]

    def seconds(pace, steps):
        now[0] *= 1.3  # the machine gets busier and busier
        return steps * pace.width * 1e-3 * now[0]

    def opened(pace, program, points=1):
        pace.width = program.model.widths[0]

    monkeypatch.setattr(paces.StepTime, "__init__", opened)
    monkeypatch.setattr(paces.StepTime, "seconds", seconds)
    points = [point("slim", {"net": 1}, **SLIM), point("wide", {"net": 2}, **WIDE)]
    made = experiment(points, by="latency", baseline={"net": 2})
    after, found, listener = matched(made, tmp_path)
    entry = after.matching["points"]["slim"]
    first = found[0].config["model"]["widths"][0]
    # each step of the candidate is taken 1.3 times as late as the reference's
    assert first * 1.3 == pytest.approx(30, rel=0.05)
    assert entry["ms_per_step"] == pytest.approx(entry["budget"], rel=0.05)
    wide = after.matching["points"]["wide"]
    assert entry["budget"] == wide["ms_per_step"] == wide["before"]["ms_per_step"]
    assert entry["before"]["ms_per_step"] < entry["ms_per_step"]
    assert listener.notes[0] == "matching slim"


def test_the_pace_of_a_program_is_that_of_steps_that_are_taken():
    program = Program(small.config(model={"name": "tests.train.small:Net"}))
    taken = []
    update = program.train_step
    program.__dict__["train_step"] = lambda *a: taken.append(1) or update(*a)
    pace = paces.StepTime(program)
    assert pace.seconds(3) > 0
    assert len(taken) == 1 + 3


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"baseline": {}}, "needs a BASELINE in the experiment file, or a budget"),
        ({"baseline": {"net": 3}}, "slim cannot be matched .* no point net=3 to set"),
        ({"budget": -3}, "budget of a match must be a positive number, got -3"),
        ({"budget": "big"}, "must be a positive number, got 'big'"),
        ({"budget": 700}, "to 700 parameters within 1 %: the nearest is 807 "),
    ],
)
def test_says_what_cannot_be_matched(tmp_path, changes, says):
    points = [point("slim", {"net": 1}, **SLIM), point("wide", {"net": 2}, **WIDE)]
    made = experiment(points, **{"baseline": {"net": 2}, **changes})
    with pytest.raises(ValueError, match=says) as caught:
        matched(made, tmp_path)
    assert "\n" not in str(caught.value)


def test_says_how_near_a_coarse_model_comes_and_which_has_no_widths(
    tmp_path,
):
    coarse = small.config(model={"name": "tests.train.budget.match_test:Coarse"})
    bare = small.config()
    made = experiment([Point("coarse", {"a": 1}, coarse)], budget=1_000)
    # by the formula of the small network: 42 w + w^2 + 10 w + ... at multiples of 8
    with pytest.raises(
        ValueError,
        match=r"coarse cannot be matched to 1,000 parameters within 1 %: the nearest"
        r" is [\d,]+ parameters \([+-][\d.]+ %\) with width=(8|16)",
    ):
        matched(made, tmp_path)
    made = experiment([Point("bare", {"a": 1}, bare)], budget=1_000)
    with pytest.raises(
        ValueError, match=r"bare .* model 'tests.train.small:Net' has no"
    ):
        matched(made, tmp_path)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("parameters", {"by": "parameters"}),
        ("macs=2e6", {"by": "macs", "budget": 2e6}),
        ("none", None),
    ],
)
def test_reads_the_flag(text, found):
    assert match.parse(text) == found


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("flops", r"unknown match 'flops' .*parameters, macs, latency, none"),
        ("macs=many", "budget of --match=macs must be a number, got 'many'"),
        ("none=3", "unknown match 'none'"),
        ("macs=-5", "budget of a match must be a positive number, got -5.0"),
        ("latency=inf", "budget of a match must be a positive number, got inf"),
        ("macs=nan", "budget of a match must be a positive number, got nan"),
    ],
)
def test_says_what_is_wrong_with_the_flag(text, says):
    with pytest.raises(ValueError, match=says):
        match.parse(text)


def test_a_sweep_trains_what_was_matched_and_keeps_the_record(tmp_path):
    points = [point("slim", {"net": 1}, **SLIM), point("wide", {"net": 2}, **WIDE)]
    for one in points:
        one.config["train"] |= {"steps": 2, "eval_every": 2, "save_every": 2}
        one.config["schedule"]["warmup"] = 0
    made = experiment(points, baseline={"net": 2})
    after, found, _ = matched(made, tmp_path / "w")
    run = lambda made, points: local.run(
        made,
        points,
        tmp_path / "w",
        progress=small.Listener(),
        interruption=Interruption(),
    )
    run(after, found[:1])
    result = files.read_json(tmp_path / "w" / "slim" / "result.json")
    assert result["parameters"] == after.matching["points"]["slim"]["parameters"]
    assert files.read_json(tmp_path / "w" / "match.json") == after.matching
    assert files.read_json(tmp_path / "w" / "experiment.json")["match"] == made.match
    with pytest.raises(ValueError, match=r"for slim: model.widths: \[\d+, \d+\] -> "):
        run(dataclasses.replace(made, match=None), points[:1])
