"""Trainings in their work directories: broken off, resumed, spoilt, moved."""

import contextlib
import dataclasses
import functools
import json
import pathlib
import resource

import jax
import numpy as np
import pytest

from attn import settings
from attn.train import loop, partition, run
from attn.train.interruption import Interruption, Stopped
from attn.train.program import Program
from attn.train.store import trained
from attn.train.store.checkpoint import Checkpoints
from attn.workdir import files
from tests.train import small


class Stop(Interruption):
    """Asks to stop after one step."""

    def __init__(self, step=None):
        super().__init__()
        self._step = step

    def at(self, step):
        return step == self._step


@functools.cache
def program(**changes):
    return Program(small.config(**changes), jax.devices()[:1])


def train(directory, *, stop=None, made=None, listener=None, config=None):
    return loop.train(
        made or program(),
        config or small.config(),
        directory,
        {"attention": "none", "seed": 3},
        progress=listener or small.Listener(),
        interruption=Stop(stop),
    )


def record(directory, made=None):
    """What must not depend on interruptions: parameters, metrics, result."""
    checkpoints = Checkpoints(directory / "checkpoints", read_only=True)
    state, _, _ = checkpoints.restore((made or program()).abstract_state())
    checkpoints.close()
    result = files.read_json(directory / "result.json")
    for name in ("seconds", "ms_per_step", "examples_per_s"):
        result.pop(name)
    return state, (directory / "metrics.jsonl").read_bytes(), result


def assert_same(found, want):
    for a, b in zip(jax.tree.leaves(found[0]), jax.tree.leaves(want[0]), strict=True):
        np.testing.assert_array_equal(a, b)
    assert found[1:] == want[1:]


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    directory = tmp_path_factory.mktemp("unbroken") / "point"
    train(directory)
    return directory


def test_writes_what_a_work_directory_promises(unbroken):
    names = {path.name for path in unbroken.iterdir()}
    assert names == {
        "attention.npz",
        "checkpoints",
        "config.json",
        "environment.json",
        "gates.npz",
        "measures.json",
        "metrics.jsonl",
        "outcomes.npz",
        "result.json",
        "speed.jsonl",
        "tensorboard",
    }
    assert files.read_json(unbroken / "config.json") == small.config()
    result = files.read_json(unbroken / "result.json")
    assert result["axes"] == {"attention": "none", "seed": 3}
    assert result["steps"] == 8
    assert result["test"]["examples"] == 40
    assert result["parameters"] == program().costs["parameters"]
    assert result["ms_per_step"] > 0
    lines = (unbroken / "metrics.jsonl").read_text().splitlines()
    steps = [(line["step"], line["split"]) for line in map(json.loads, lines)]
    assert steps == [
        (2, "train"),
        (4, "train"),
        (4, "test"),
        (6, "train"),
        (8, "train"),
        (8, "test"),
    ]


def test_logged_losses_are_means_over_the_interval(unbroken):
    made, state, losses = program(), small.start(program(), 3), []
    with made.dataset.train(small.BATCH, seed=3) as batches:
        for _ in range(4):
            batch = next(batches)
            batch = {name: batch[name] for name in ("image", "label")}
            state, loss = made.train_step(state, small.fed(made, batch))
            losses.append(float(loss))
    lines = (unbroken / "metrics.jsonl").read_text().splitlines()
    found = [json.loads(line)["loss"] for line in lines[:2]]
    np.testing.assert_allclose(found, np.reshape(losses, (2, 2)).mean(1), rtol=1e-6)


@pytest.mark.parametrize("stops", [(1,), (3, 5, 6), (7,)])
def test_interrupted_and_resumed_is_bit_equal_to_unbroken(tmp_path, unbroken, stops):
    for stop in stops:
        with pytest.raises(loop.Stopped, match=f"saved at step {stop} of 8"):
            train(tmp_path, stop=stop)
        assert not (tmp_path / "result.json").exists()
    listener = small.Listener()
    train(tmp_path, listener=listener)
    assert listener.notes == [f"resumes at step {stops[-1]}"]
    assert_same(record(tmp_path), record(unbroken))


def test_interruptions_add_no_checkpoint_to_an_average_of_the_last(tmp_path):
    """Those of steps 3, 6 and 8 are averaged; it is stopped at 5 and 7."""
    changes = {"train__average_last": 3}
    kinds = {"made": program(**changes), "config": small.config(**changes)}
    train(tmp_path / "whole", **kinds)
    for stop in (5, 7):
        with pytest.raises(loop.Stopped):
            train(tmp_path / "parts", stop=stop, **kinds)
    train(tmp_path / "parts", **kinds)
    parts, whole = (
        record(tmp_path / name, kinds["made"]) for name in ("parts", "whole")
    )
    assert_same(parts, whole)
    assert np.abs(ravelled(whole[0].average[0]) - ravelled(whole[0].params)).max() > 0


@pytest.mark.parametrize("machines", [1, 2])
def test_the_examples_are_those_that_the_steps_took(tmp_path, monkeypatch, machines):
    """Batches of a bucket of shorter sequences have more of them."""
    config = small.config(
        data={"name": "sequences", "low": 1, "high": 15, "buckets": 3},
        model={"name": "tests.user_code.copying:Copier"},
        task={"name": "tests.user_code.copying:Copying"},
        train__steps=20,
        train__eval_every=20,
    )
    made, counted = program_of(config), []
    made.partition.shard = (0, machines)
    monkeypatch.setattr(loop._Clock, "took", lambda _, count: counted.append(count))
    with pytest.raises(loop.Stopped):
        train(tmp_path, stop=9, made=made, config=config)
    with made.dataset.train(small.BATCH, seed=3) as batches:
        sizes = [len(next(batches)["index"]) for _ in range(9)]
    assert counted == sizes[1:]  # the first step compiles
    assert len({*counted}) > 1


def ravelled(tree):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])


def test_a_resumed_run_adds_to_the_seconds_that_it_took_before(tmp_path):
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    state = partition.fetch(small.start(program(), 3)).replace(step=np.int32(1))
    checkpoints.save(state, notes={"seconds": 1e6})
    checkpoints.close()
    with pytest.raises(loop.Stopped):
        train(tmp_path, stop=2)
    assert 1e6 < train(tmp_path)["seconds"] < 2e6


def test_a_damaged_checkpoint_falls_back_to_the_one_before(tmp_path, unbroken):
    with pytest.raises(loop.Stopped):
        train(tmp_path, stop=7)
    (tmp_path / "checkpoints" / "7" / "state" / "_METADATA").write_text("{")
    listener = small.Listener()
    train(tmp_path, listener=listener)
    assert "checkpoint 7 is damaged" in listener.notes[0]
    assert listener.notes[0].endswith("going back to step 6")
    assert_same(record(tmp_path), record(unbroken))


def test_a_damaged_checkpoint_is_not_evaluated_nor_an_earlier_one(tmp_path):
    train(tmp_path)
    *others, last = sorted(int(p.name) for p in (tmp_path / "checkpoints").iterdir())
    (tmp_path / "checkpoints" / f"{last}" / "state" / "_METADATA").write_text("{")
    for which in "last", f"{last}":
        with pytest.raises(settings.Invalid) as caught:
            trained.state(tmp_path, program(), which)
        assert f"checkpoint {last} is damaged" in str(caught.value)
        assert f"(others: {', '.join(map(str, others))})" in str(caught.value)
    assert int(trained.state(tmp_path, program(), f"{others[0]}").step) == others[0]


def test_killed_after_the_last_checkpoint_only_the_result_is_made(tmp_path, unbroken):
    train(tmp_path)
    (tmp_path / "result.json").unlink()
    (tmp_path / "attention.npz").unlink()
    train(tmp_path)
    assert (tmp_path / "attention.npz").exists()
    assert_same(record(tmp_path), record(unbroken))


@pytest.mark.parametrize("order", [(8, 1), (1, 8)])
def test_a_checkpoint_moves_between_device_counts(tmp_path, unbroken, order):
    made = {1: program(), 8: Program(small.config(), jax.devices())}
    with pytest.raises(loop.Stopped):
        train(tmp_path, stop=4, made=made[order[0]])
    train(tmp_path, made=made[order[1]])
    found, want = record(tmp_path), record(unbroken)
    for a, b in zip(jax.tree.leaves(found[0]), jax.tree.leaves(want[0]), strict=True):
        assert a.shape == b.shape
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_checkpoint(tmp_path):
    with pytest.raises(loop.Stopped):
        train(tmp_path, stop=3)
    schedule = {"name": "constant", "peak": 1e30}
    config = small.config(schedule=schedule)
    with pytest.raises(run.Diverged, match=r"no longer finite at step [4-8]; the"):
        train(tmp_path, made=program_of(config), config=config)
    assert not (tmp_path / "result.json").exists()
    train(tmp_path)  # with the config it was begun with


def program_of(config):
    return Program(config, jax.devices()[:1])


@contextlib.contextmanager
def files_of_at_most(size):
    """Lets no file grow beyond `size` bytes, as a full disk would."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("size", [0, 1500])  # no metrics; metrics but no checkpoint
def test_a_full_disk_is_one_sentence_and_nothing_is_lost(tmp_path, unbroken, size):
    with pytest.raises(loop.Stopped):
        train(tmp_path, stop=3)
    says = "is full; free some space and run"
    with files_of_at_most(size), pytest.raises(run.Failed, match=says):
        train(tmp_path)
    train(tmp_path)
    assert_same(record(tmp_path), record(unbroken))


def test_a_checkpoint_of_another_model_is_refused_and_kept(tmp_path):
    with pytest.raises(loop.Stopped):
        train(tmp_path, stop=3)
    config = small.config(model__width=4)
    with pytest.raises(ValueError, match="checkpoint 3 does not fit the config"):
        train(tmp_path, made=program_of(config), config=config)
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    assert checkpoints.steps() == [3]
    checkpoints.close()


def test_the_pictures_are_of_the_first_test_images(unbroken):
    with np.load(unbroken / "attention.npz") as file:
        arrays = dict(file)
    with program().dataset.split("test", 8) as batches:
        batch = next(batches)
    assert arrays["images"].min() >= 0
    assert arrays["images"].max() <= 1
    index = json.loads(str(arrays["index"]))
    assert [entry["kind"] for entry in index] == ["channel_gate"]
    (gates,) = (arrays[key] for key in index[0]["keys"])
    assert gates.shape == (8, 8)
    state, _, _ = record(unbroken)
    logits, maps = program().capture(state.variables(), batch)
    pairs = list(zip(batch["label"], np.argmax(logits, -1), strict=True))
    captions = [f"{own} \N{RIGHTWARDS ARROW} {said}" for own, said in pairs]
    assert arrays["captions"].tolist() == captions
    assert arrays["wrong"].tolist() == [own != said for own, said in pairs]
    (gate,) = maps.values()
    np.testing.assert_allclose(gates, gate.values, atol=1e-3)


def test_fetched_arrays_are_copies():
    made = program()
    state = small.start(made, 0)
    held = partition.fetch(state)
    before = jax.tree.map(np.copy, held.params)
    batch = {
        "image": np.ones((small.BATCH, 28, 28, 1), np.float32),
        "label": np.zeros(small.BATCH, np.int32),
    }
    for _ in range(3):
        state, _ = made.train_step(state, small.fed(made, batch))
    jax.block_until_ready(state)
    jax.tree.map(np.testing.assert_array_equal, held.params, before)


def test_a_directory_that_cannot_be_made_is_an_os_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        train(pathlib.Path(tmp_path / "file" / "point"))


def begin(directory, **contents):
    """Begins or goes on with a run of data that have files."""
    made = program()
    found = {f"{name}.json": content for name, content in contents.items()}
    kept = dataclasses.replace(made.dataset.sources["train"], files=found)
    dataset = dataclasses.replace(
        made.dataset, sources={**made.dataset.sources, "train": kept}
    )
    one = run.Run(small.config(), directory, {}, dataset)
    with one.open(made.task.metrics[0]):
        return one.begin(made)


def test_files_of_the_data_are_written_beside_the_config(tmp_path):
    begin(tmp_path / "point", tokenizer=b"{}\n\xff")
    assert (tmp_path / "point" / "tokenizer.json").read_bytes() == b"{}\n\xff"
    assert (tmp_path / "point" / "config.json").exists()


def test_a_run_goes_on_with_the_words_it_began_with(tmp_path):
    directory = tmp_path / "point"
    with pytest.raises(Stopped):
        train(directory, stop=2)
    begin(directory, vocabulary=b"[1]", data=b"{}")
    _, said = begin(directory, vocabulary=b"[1]", data=b"{1}")
    assert said == ["resumes at step 2"]
    with pytest.raises(
        settings.Invalid, match=r"another vocabulary\.json than .*point"
    ):
        begin(directory, vocabulary=b"[2]", data=b"{1}")
    assert (directory / "vocabulary.json").read_bytes() == b"[1]"
