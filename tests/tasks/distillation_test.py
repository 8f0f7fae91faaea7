"""Distillation against float64 NumPy, and a student with the run that teaches it."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attn import settings, tasks
from attn.train import loop
from attn.train.interruption import Interruption
from attn.train.program import Program
from attn.train.store import trained
from tests.train import small

RANDOM = np.random.default_rng(0)
OWN, OTHER, TEACHER = 3 * RANDOM.normal(size=(3, 6, 9)).astype(np.float32)
BATCH = {
    "label": np.asarray([0, 8, 2, 1, 1, 3], np.int32),
    "image": TEACHER.reshape(6, 3, 3, 1),
}
FACTS = {"num_classes": 9, "class_names": tuple("abcdefghi")}
HEADS = {"logits": OWN, "distilled": OTHER}


class Says(nn.Module):
    """A teacher whose logits are its images."""

    @nn.compact
    def __call__(self, x, *, train):
        assert not train
        return self.variable("params", "scale", jnp.ones, ()).value * x.reshape(-1, 9)


def task(**more):
    made = tasks.create({"name": "distillation", "teacher": "there", **more})

    def found(directory):
        assert directory == "there"
        return Says(), {"params": {"scale": jnp.ones(())}}

    return made.attach(found)


def log_softmax(logits):
    logits = logits.astype(np.float64)
    return logits - np.log(np.exp(logits).sum(1, keepdims=True))


def cross_entropy(logits, label):
    return -log_softmax(logits)[np.arange(6), label]


@pytest.mark.parametrize("heads", [True, False])
@pytest.mark.parametrize("weight", [None, 0.3])
def test_hard_learns_what_the_teacher_decides(heads, weight):
    made = task(**({} if weight is None else {"weight": weight}))
    found = jax.jit(made.loss)(HEADS if heads else OWN, BATCH)
    labels = cross_entropy(OWN, BATCH["label"])
    teacher = cross_entropy(OTHER if heads else OWN, TEACHER.argmax(1))
    share = 0.5 if weight is None else weight
    means = tasks.divide(jax.device_get(found))
    want = (1 - share) * labels.mean() + share * teacher.mean()
    assert means["loss"] == pytest.approx(want, rel=1e-5)
    assert means["label_loss"] == pytest.approx(labels.mean(), rel=1e-5)
    assert means["teacher_loss"] == pytest.approx(teacher.mean(), rel=1e-5)
    both = (OWN + OTHER) / 2 if heads else OWN
    wrong = both.argmax(1) != BATCH["label"]
    assert means["error"] == pytest.approx(100 * wrong.mean())


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_soft_learns_how_sure_the_teacher_is(temperature):
    made = task(kind="soft", temperature=temperature, label_smoothing=0.1)
    means = tasks.divide(jax.device_get(jax.jit(made.loss)(HEADS, BATCH)))
    said, own = log_softmax(TEACHER / temperature), log_softmax(OTHER / temperature)
    teacher = temperature**2 * (np.exp(said) * (said - own)).sum(1)
    target = np.full((6, 9), 0.1 / 9)
    target[np.arange(6), BATCH["label"]] += 0.9
    labels = -(target * log_softmax(OWN)).sum(1)
    want = 0.9 * labels.mean() + 0.1 * teacher.mean()
    assert means["loss"] == pytest.approx(want, rel=1e-5)


def test_the_teacher_gets_no_gradient():
    made = task(kind="soft")
    loss = lambda batch: jnp.sum(made.loss(HEADS, batch)["loss"].total)
    image = jnp.asarray(BATCH["image"])
    moved = jax.grad(lambda image: loss({**BATCH, "image": image}))(image)
    np.testing.assert_array_equal(moved, 0)


def test_what_cannot_be_is_refused():
    for wrong in ({"weight": 1.5}, {"temperature": 0.0}, {"kind": "firm"}):
        with pytest.raises(settings.Invalid):
            task(**wrong)
    with pytest.raises(settings.Invalid, match="needs the setting 'teacher'"):
        tasks.create({"name": "distillation"})
    outputs = jax.ShapeDtypeStruct((1, 8), np.float32)
    example = {
        "label": jax.ShapeDtypeStruct((1,), np.int32),
        "image": jax.ShapeDtypeStruct((1, 3, 3, 1), np.float32),
    }
    with pytest.raises(settings.Invalid, match=r"teacher has logits of shape \(1, 9\)"):
        task().check(outputs, example, {**FACTS, "num_classes": 8})


class SaysMore(nn.Module):
    """A teacher of another task."""

    @nn.compact
    def __call__(self, x, *, train):
        key = self.make_rng("sample")  # as models that draw do
        return {"boxes": x + jax.random.normal(key, x.shape)}


def test_a_teacher_without_logits_is_refused():
    made = tasks.create({"name": "distillation", "teacher": "there"})
    taught = made.attach(lambda directory: (SaysMore(), {}))
    shapes = jax.eval_shape(lambda: (OWN[:1], {n: a[:1] for n, a in BATCH.items()}))
    with pytest.raises(settings.Invalid, match="logits of shape none, but dict"):
        taught.check(*shapes, FACTS)


def test_a_student_is_taught_by_the_last_checkpoint_of_a_run(tmp_path):
    one = jax.devices()[:1]
    plain = small.config(train__steps=3)
    teacher = Program(plain, one)
    axes = {"attention": "none", "seed": 3}
    place = tmp_path / "teacher"
    loop.train(
        teacher,
        plain,
        place,
        axes,
        progress=small.Listener(),
        interruption=Interruption(),
    )
    deit = {
        "name": "deit",
        "distilled_training": True,
        "patch_size": 7,
        "width": 12,
        "depth": 1,
        "num_heads": 3,
    }
    with pytest.raises(settings.Invalid, match=r"config.task: teacher: .*gone' is not"):
        Program(small.config(task={"name": "distillation", "teacher": "gone"}), one)
    config = small.config(
        task={"name": "distillation", "teacher": str(place)}, model=deit
    )
    program = Program(config, one)
    state = small.start(program, 3)
    batch = next(iter(program.dataset.train(small.BATCH, seed=3)))
    fed = small.fed(program, batch)
    state, _ = program.train_step(state, fed)
    (one_run,) = program.partition.unstack(state)
    means = tasks.divide(jax.device_get(one_run.totals))
    # What the teacher says of these images, by its own state.
    variables = trained.state(place, teacher).variables()
    logits = teacher.model.apply(variables, batch["image"], train=False)
    start = program.init_state(3).variables()
    heads = program.model.apply(start, batch["image"], train=True)
    said = cross_entropy_of(heads["distilled"], np.argmax(logits, axis=1))
    assert means["teacher_loss"] == pytest.approx(said, rel=1e-4)
    assert np.isfinite(small.evaluate(program, state).values["error"])


def cross_entropy_of(logits, label):
    return float(-jax.nn.log_softmax(logits)[np.arange(len(label)), label].mean())
