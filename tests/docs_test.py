"""The examples of docs/extending.md, run as a reader would: each of its files saved."""

import pathlib
import re
import sys

import numpy as np
import pytest

DOCS = pathlib.Path(__file__).parents[1] / "docs" / "extending.md"


def section(title):
    """The text under a heading, up to the next of its kind."""
    return DOCS.read_text().partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def blocks(title):
    """The examples of a section: (file to which it is saved or None, code)."""
    before, *rest = section(title).split("```python\n")
    for text in rest:
        code, _, after = text.partition("```")
        name = re.findall(r"`(\w+\.py)`", before)
        yield (name[-1] if name else None), code
        before = after


@pytest.fixture
def example(tmp_path, monkeypatch):
    """Runs the examples of a section in a directory of their own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    saved = []

    def run(title, **names):
        for file, code in blocks(title):
            if file:
                pathlib.Path(file).write_text(code)
                saved.append(file.removesuffix(".py"))
            else:
                exec(code, names)
        return names

    yield run
    for name in saved:
        sys.modules.pop(name, None)


def test_a_data_set(example):
    from attn import data

    names = example("A data set", data=data)
    dataset, batch = names["dataset"], names["batch"]
    assert dataset.facts["num_classes"] == 4
    assert [dataset.size(s) for s in ("train", "validation", "test")] == [
        2000,
        200,
        500,
    ]
    waves = batch["image"][:, 0, :, 0]
    assert waves.shape == (32, 64)
    # the strongest frequency is the one that the label names
    strength = np.abs(np.fft.rfft(waves))[:, 1:5]
    assert (strength.argmax(axis=1) == batch["label"]).mean() > 0.9


def test_a_transform(example, tmp_path):
    from attn import data

    names = example("A transform", data=data)
    with names["dataset"].train(16, seed=0) as batches:
        image = next(batches)["image"]
    picture = names["dataset"].picture(image)[..., 0]
    entries = names["config"]["transforms"]
    del entries["erase"]
    with data.open(names["config"]).train(16, seed=0) as batches:
        whole = names["dataset"].picture(next(batches)["image"])[..., 0]
    changed = picture != whole
    assert changed.any() and (picture[changed] < 1e-6).all()
    for mask in changed[changed.any(axis=(1, 2))]:
        rows, columns = np.nonzero(mask)
        assert max(np.ptp(rows), np.ptp(columns)) < 10


def test_a_task_and_a_model(example, tmp_path):
    """The detector of the example trains, is evaluated, and finds digits at last."""
    import jax

    from attn.train.program import Program
    from attn.train.sweep import experiment_file
    from tests.train import small

    example("A task")
    experiment = experiment_file.load(pathlib.Path("find_digits.py"), "")
    assert [point.name for point in experiment.points][::3] == [
        "none-0",
        "squeeze_excite-0",
        "cbam-0",
    ]
    config = experiment.points[3].config
    config["train"] |= {"steps": 60, "batch_size": 16, "eval_batch_size": 50}
    config["data"] |= {"train": "train[:500]", "test": "test[:50]"}
    program = Program(config, jax.devices()[:1])
    state = small.start(program, 0)
    before = small.evaluate(program, state, "test").values
    with program.dataset.train(16, seed=0) as batches:
        for _ in range(60):
            state, _ = program.train_step(state, small.fed(program, next(batches)))
    found = small.evaluate(program, state, "test")
    assert found.values["loss"] < 0.7 * before["loss"]
    digits = found.outcomes["iou"].weight
    assert set(digits) <= {3, 4, 5}  # each example weighs as many as it has


def test_overlaps_of_boxes(example):
    example("A task")
    from detection import _iou

    unit = np.array([1.0, 1.0, 1.0, 1.0])
    assert _iou(unit, unit) == 1
    assert _iou(unit, np.array([1.0, 1.0, 0.0, 1.0])) == pytest.approx(1 / 2)
    assert _iou(unit, 2 * unit) == pytest.approx(4 / 16)


def test_a_probe(example, tmp_path):
    import jax

    from attn.train import probes
    from attn.train.program import Program
    from tests.train import small

    example("A probe")
    write = probes.find("brightness:write")
    program = Program(small.config(), jax.devices()[:1])
    (measure,) = write(tmp_path, program, None, program.dataset)
    assert measure["value"] == pytest.approx(np.load("brightness.npy").mean())


def test_a_probe_of_examples(example, tmp_path):
    import jax

    from attn.report.sections import examples
    from attn.train import probes
    from attn.train.program import Program
    from tests.train import small

    example("A probe")
    program = Program(small.config(), jax.devices()[:1])
    variables = small.start(program, 0).variables()
    probes.find("answers:write")(tmp_path, program, variables, program.dataset)
    image, right, said = examples.read(tmp_path / examples.FILE).values()
    assert image.arrays[0].shape[:1] == (6,)
    assert said.expected == right.name
    assert {*right.arrays[0], *said.arrays[0]} <= {
        *program.dataset.facts["class_names"]
    }
