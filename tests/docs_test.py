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
    for mask in changed:
        rows, columns = np.nonzero(mask)
        assert max(np.ptp(rows), np.ptp(columns), 0) < 10 if len(rows) else True
