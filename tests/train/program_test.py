"""Programs: wrong configs in one sentence, exact costs, one program for all seeds."""

import contextlib
import dataclasses

import jax
import numpy as np
import pytest
from PIL import Image

from attn import modules, settings
from attn.tasks import classification
from attn.train import partition
from attn.train.program import SECTIONS, Program
from tests.train import small

RESNET = {"name": "resnet", "layout": "cifar", "depth": 8, "width": 4}


def one(**changes):
    return Program(small.config(**changes), jax.devices()[:1])


def test_a_detector_leaves_out_padding_where_the_data_have_some():
    scales = {"sides": (40, 61), "longest": 90, "before": (30,), "parts": (20, 40)}
    data = {"name": "digits_scene", "train": "train[:8]", "test": "test[:8]"}
    model = {"name": "detr", "backbone": RESNET | {"stem_stride": 2}, "width": 8}
    model |= {"num_heads": 2, "mlp_dim": 4, "encoder_depth": 1, "decoder_depth": 1}
    given = {"task": {"name": "detection"}, "model": {**model, "frozen_norm": False}}
    given["model"]["backbone"].pop("name")
    padded = data | {"transforms": {"multi_scale": {**scales, "shorter": 47}}}
    for made, inputs in ((data, ("image",)), (padded, ("image", "image_mask"))):
        assert one(data=made, **given).inputs == inputs


def test_the_costs_are_those_of_the_network_by_hand():
    width, classes = 8, 10
    hidden = width // 2
    conv = 25 * 1 * width
    gate = 2 * width * hidden
    parameters = conv + width + 2 * width + gate + width + hidden
    parameters += width * classes + classes
    # 28 pixels at stride 4 are 7, and SAME padding counts its zeros
    macs = 7 * 7 * conv + gate + width * classes
    assert one().costs == {"parameters": parameters, "macs": macs}


def test_the_evaluation_is_the_mean_over_the_split_by_hand():
    program = one()
    state = small.start(program, 1)
    variables = partition.fetch(state.variables())
    losses, wrong = [], []
    for batch in program.dataset.split("test", 40):
        logits = program.model.apply(variables, batch["image"], train=False)
        logits = np.asarray(logits, np.float64)
        exact = logits - np.log(np.exp(logits).sum(1, keepdims=True))
        losses += list(-exact[np.arange(40), batch["label"]])
        wrong += list(logits.argmax(1) != batch["label"])
    found = small.evaluate(program, state).values
    assert found["examples"] == 40
    assert found["error"] == pytest.approx(100 * np.mean(wrong))
    assert found["loss"] == pytest.approx(np.mean(losses), rel=1e-5)


def test_capture_gives_the_logits_and_the_maps():
    program = one()
    images = np.ones((2, *program.dataset.example()["image"].shape), np.float32)
    variables = small.start(program, 0).variables()
    logits, maps = program.capture(variables, {"image": images})
    want = program.model.apply(variables, images, train=False)
    np.testing.assert_allclose(logits, want, rtol=1e-5)
    assert [type(found) for found in maps.values()] == [modules.Map]


def folder(root, classes):
    """A config of a folder of ten images a class."""
    for label in range(classes):
        for number in range(10):
            path = root / str(label) / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("L", (28, 28), 10 * label + number).save(path)
    parts = {"train": "train[:50%]", "test": "train[50%:]"}
    return small.config(data={"name": str(root), **parts})


def test_data_of_equal_shapes_and_other_classes_share_nothing(tmp_path):
    two, three = (folder(tmp_path / str(n), n) for n in (2, 3))
    program = Program(two, jax.devices()[:1])
    other = program.with_data(three)
    assert other.example() == program.example()
    assert other.model.num_classes == 3
    assert other.train_step is not program.train_step


def test_other_data_need_the_split_by_which_the_first_selects():
    parts = {"data__train": "train[:300]", "data__validation": "train[300:340]"}
    program = one(**parts, train__select="best", train__save_every=4)
    with pytest.raises(ValueError, match="select='best' needs a validation split"):
        program.with_data(small.config(train__select="best"))


@pytest.mark.parametrize(
    ("eval_every", "save_every", "steps", "selects"),
    [
        (2, 4, 8, True),
        (4, 2, 8, True),
        (3, 2, 8, False),  # both at step 6 alone
        (3, 2, 4, False),
        (4, 2, 4, False),  # both at the last step alone
        (3, 8, 8, True),  # there is one checkpoint to select
    ],
)
def test_the_best_is_selected_among_checkpoints_with_a_figure(
    eval_every, save_every, steps, selects
):
    every = {"train__eval_every": eval_every, "train__save_every": save_every}
    parts = {"data__train": "train[:300]", "data__validation": "train[300:340]"}
    config = small.config(**parts, **every, train__steps=steps, train__select="best")
    says = f"got save_every={save_every} and eval_every={eval_every}"
    with contextlib.nullcontext() if selects else pytest.raises(ValueError, match=says):
        Program(config)


@pytest.mark.parametrize("score_every", [None, 3, 4])
def test_what_is_scored_apart_selects_where_it_is_scored(monkeypatch, score_every):
    scored = dataclasses.replace(classification.ERROR, kind="corpus")
    monkeypatch.setattr(classification.Classification, "metrics", (scored,))
    monkeypatch.setattr(classification.Classification, "scored", True)
    parts = {"data__train": "train[:300]", "data__validation": "train[300:340]"}
    every = {"train__save_every": 4, "train__score_every": score_every}
    config = small.config(**parts, **every, train__select="best")
    says = f"save_every=4 and score_every={score_every}"
    fits = score_every == 4
    with contextlib.nullcontext() if fits else pytest.raises(ValueError, match=says):
        Program(config)


def test_batches_of_an_evaluation_are_a_multiple_of_the_devices():
    config = small.config(train__eval_batch_size=3)
    sizes = [Program(config, jax.devices()[:n]).eval_batch_size for n in (1, 8)]
    assert sizes == [3, 8]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"train__batch_size": 12}, "number of devices, 8; the nearest is 16"),
        ({"train__steps": 0}, "config.train: setting 'steps' .* a positive int, got 0"),
        ({"train__stesp": 1}, "did you mean 'steps'"),
        ({"train__partition": "pmpa"}, "must be one of 'pmap', 'mesh', got 'pmpa'"),
        ({"train__dtype": "float16"}, "must be one of 'float32', 'bfloat16'"),
        ({"train__average": 1.0}, r"must be a number in \[0, 1\) or None, got 1.0"),
        (
            {"train__average": 0.9, "train__average_last": 2},
            "config.train: one of average and average_last .* average=0.9 and",
        ),
        (
            {"train__average_last": 4},
            "config.train: average_last must be at most .* checkpoints, 3 in 8 steps"
            " with save_every=3, got 4",
        ),
        ({"task__name": "clasification"}, "config.task: .*did you mean"),
        ({"model": {"name": ["resnet"]}}, r"config.model: unknown model \['resnet'\]"),
        ({"task__label_smoothing": 1.0}, r"config.task: .* \[0, 1\), got 1.0"),
        ({"data__name": "mnist5k"}, "config.data: .*mnist_5k"),
        ({"data__distortion": "rt"}, "config.data: .*distortion 'rt'"),
        ({"model": RESNET | {"slots": {"block.residul": "cbam"}}}, "did you mean"),
        ({"model": RESNET | {"slots": {"head": "cbm"}}}, "config.model: .*'cbam'"),
        ({"model": RESNET | {"depth": 9}}, "config.model: .*9"),
        ({"schedule__peak": 0.0}, "config.schedule: .*must be a positive number"),
        ({"optimizer__momentun": 0.9}, "config.optimizer: .*did you mean 'momentum'"),
        ({"optimizer": {}}, r"config.optimizer: unknown .* \(valid: adam, adamw"),
        ({"schedule": {"peak": 1.0}}, r"config.schedule: .* \(valid: constant, cos"),
        ({"seed": -1}, "config.seed"),
        ({"extra": {}}, "unknown field of config 'extra'"),
    ],
)
def test_a_wrong_config_is_one_sentence_that_names_the_field(changes, says):
    with pytest.raises(ValueError, match=says) as caught:
        Program(small.config(**changes))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", ["cnn", None])
@pytest.mark.parametrize("name", [name for name in SECTIONS if name != "seed"])
def test_a_section_that_is_no_mapping_is_refused(name, value):
    says = f"^config.{name} must be a mapping with its settings, got {value!r}$"
    with pytest.raises(settings.Invalid, match=says):
        Program(small.config(**{name: value}))


def test_other_data_that_are_no_mapping_are_refused():
    with pytest.raises(settings.Invalid, match=r"config.data: .*, got 'mnist_5k'$"):
        one().with_data(small.config(data="mnist_5k"))
