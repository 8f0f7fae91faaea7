"""Selection by the validation split; the test split is read once, at the end."""

import dataclasses
import itertools
import json

import jax
import numpy as np
import pytest

from attn.data import Dataset
from attn.train import evaluation, loop
from attn.train.interruption import Interruption
from attn.train.program import Program
from attn.train.store.checkpoint import Checkpoints
from attn.workdir import files
from tests.train import small
from tests.train.loop_test import Stop

VALIDATION = {
    "data__train": "train[:300]",
    "data__validation": "train[300:340]",
    "schedule": {"name": "constant", "peak": 2.0},  # so that it gets worse again
    "train__steps": 12,
    "train__eval_every": 2,
    "train__save_every": 2,
}


def train(config, directory, interruption=None):
    program = Program(config, jax.devices()[:1])
    return loop.train(
        program,
        config,
        directory,
        {},
        progress=small.Listener(),
        interruption=interruption or Interruption(),
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run, its result, and the splits that were read, in their order."""
    directory, read = tmp_path_factory.mktemp("selection") / "point", []
    split = Dataset.split

    def noted(self, name, *arguments, **options):
        read.append(name)
        return split(self, name, *arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Dataset, "split", noted)
        config = small.config(**VALIDATION, train__select="best")
        result = train(config, directory)
    return directory, result, read


def lines(directory, split):
    text = (directory / "metrics.jsonl").read_text().splitlines()
    return [line for line in map(json.loads, text) if line["split"] == split]


def test_curves_are_of_the_validation_split_and_the_test_split_is_read_once(trained):
    directory, result, read = trained
    assert [line["step"] for line in lines(directory, "validation")] == [
        2,
        4,
        6,
        8,
        10,
        12,
    ]
    assert not lines(directory, "test")
    assert read.count("test") == 1
    assert result["test"]["examples"] == result["validation"]["examples"] == 40


def test_the_best_checkpoint_by_validation_is_tested(trained):
    directory, result, _ = trained
    curve = {line["step"]: line["error"] for line in lines(directory, "validation")}
    best = min(curve.values())
    assert curve[12] > best  # or the test shows nothing
    assert result["validation"]["error"] == best
    checkpoints = Checkpoints(directory / "checkpoints", read_only=True)
    assert curve[checkpoints.best()] == best
    checkpoints.close()
    _, step, values = evaluation.evaluate_checkpoint(directory, "best")
    assert curve[step] == best
    assert values == pytest.approx(result["test"])


def test_a_checkpoint_has_the_figure_of_its_own_step_or_none(tmp_path, monkeypatch):
    figures, save = {}, Checkpoints.save

    def noted(self, state, *, notes, figure=None):
        figures[int(state.step)] = figure
        save(self, state, notes=notes, figure=figure)

    monkeypatch.setattr(Checkpoints, "save", noted)
    every = {"train__steps": 8, "train__eval_every": 4, "train__save_every": 3}
    result = train(small.config(**VALIDATION | every), tmp_path)
    assert figures == {3: None, 6: None, 8: result["validation"]["error"]}


@pytest.mark.parametrize("lost", [float("nan"), float("inf")])
def test_a_figure_that_is_not_finite_selects_nothing(tmp_path, monkeypatch, lost):
    """Orbax takes NaN for the best, and would drop the best there was."""
    evaluate = evaluation.evaluate

    def evaluated(program, variables, datasets, split, **how):
        (found,) = evaluate(program, variables, datasets, split, **how)
        values = {**found.values, "error": next(errors)}
        return [dataclasses.replace(found, values=values)]

    errors = itertools.chain([10.0, 20.0], itertools.repeat(lost))
    monkeypatch.setattr(evaluation, "evaluate", evaluated)
    config = small.config(**VALIDATION)
    with pytest.raises(loop.Failed, match="the test's error is no longer finite"):
        train(config, tmp_path)
    checkpoints = Checkpoints(tmp_path / "checkpoints", read_only=True)
    best = checkpoints.best()
    checkpoints.close()
    assert best == 2


def test_a_state_that_only_a_stop_saved_is_not_selected(trained, tmp_path):
    """It is stopped at the best step, and unbroken only the last would be saved."""
    curve = {line["step"]: line["error"] for line in lines(trained[0], "validation")}
    config = small.config(**VALIDATION | {"train__save_every": 12})
    config["train"]["select"] = "best"
    with pytest.raises(loop.Stopped):
        train(config, tmp_path, Stop(min(curve, key=curve.get)))
    assert train(config, tmp_path)["validation"]["error"] == curve[12]


def test_outcomes_of_the_examples_have_the_result_as_their_mean(trained):
    directory, result, _ = trained
    with np.load(directory / "outcomes.npz") as found:
        arrays = dict(found)
    for name in ("error", "loss"):
        total, weight = arrays[f"{name}.total"], arrays[f"{name}.weight"]
        assert total.sum() / weight.sum() == pytest.approx(result["test"][name])
    np.testing.assert_array_equal(arrays["index"], np.arange(40))


def test_without_validation_nothing_is_selected(tmp_path):
    with pytest.raises(ValueError, match=r"select='best' needs a validation split"):
        Program(small.config(train__select="best"))
    files.write_json(tmp_path / "config.json", small.config())
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(ValueError, match="without a validation split") as caught:
        evaluation.evaluate_checkpoint(tmp_path, "best")
    assert "\n" not in str(caught.value)


def test_a_figure_that_is_not_finite_is_no_result(tmp_path):
    config = small.config(
        schedule={"name": "constant", "peak": 1e-30}, data__train="train[:64]"
    )
    program = Program(config, jax.devices()[:1])
    run_ = loop.Run(config, tmp_path, {}, program.dataset)
    state = program.init_state(0)
    test = evaluation.Evaluation({"error": 1.0, "loss": float("nan")}, {}, np.zeros(0))
    with pytest.raises(loop.Failed, match="the test's loss is no longer finite"):
        run_.end(program, state, test, None, seconds=0.0, together=1)
    assert not (tmp_path / "result.json").exists()


def test_a_model_of_other_classes_than_the_data_is_refused():
    with pytest.raises(ValueError, match=r"config.task: .* 5 logits for 10 classes"):
        Program(small.config(model__num_classes=5))


def test_data_without_a_field_that_is_read_are_refused():
    config = small.config(model={"name": "tests.user_code.copying:Copier"})
    config["model"] |= {"vocab_size": 4, "max_length": 4}
    with pytest.raises(ValueError, match="the model reads the field 'source'"):
        Program(config)
