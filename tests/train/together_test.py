"""Points that train together: each as if alone, also through kills and divergence."""

import functools
import json

import jax
import numpy as np
import pytest

from attn.train import loop
from attn.train.interruption import Interruption
from attn.train.program import Program
from attn.train.run import Diverged, Run
from attn.train.store.checkpoint import Checkpoints
from attn.workdir import files
from tests.train import small
from tests.train.loop_test import Stop

SEEDS = (3, 4, 9)
# dropout, batch norm and an average: all that could be mixed up between runs
CHANGES = {
    "model__dropout": 0.3,
    "train__average": 0.9,
    "train__snapshot_every": 3,
    "optimizer": {"name": "sgd", "momentum": 0.9},
}
WAYS = ("devices", "vmap")


@functools.cache
def program(way=None):
    devices = jax.devices()[:1] if way != "devices" else None
    return Program(small.config(**CHANGES), devices, way)


def runs(directory, seeds=SEEDS, datasets=None):
    return [
        Run(
            small.config(seed=seed, **CHANGES),
            directory / str(seed),
            {"seed": seed},
            program().dataset if datasets is None else datasets[i],
        )
        for i, seed in enumerate(seeds)
    ]


def train(directory, way, *, stop=None, seeds=SEEDS, made=None, listener=None):
    made = made or runs(directory, seeds)
    loop.Training(
        program(way),
        made,
        progress=listener or small.Listener(),
        interruption=Stop(stop),
    ).train()
    return made


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """Each seed trained by itself, on one device."""
    directory = tmp_path_factory.mktemp("alone")
    for seed in SEEDS:
        train(directory, None, seeds=[seed])
    return directory


@pytest.fixture(scope="module", params=WAYS)
def together(request, tmp_path_factory):
    directory = tmp_path_factory.mktemp(request.param)
    train(directory, request.param)
    return directory, request.param


def state(directory, step=None):
    checkpoints = Checkpoints(directory / "checkpoints", read_only=True)
    found, _, damaged = checkpoints.restore(program().abstract_state(), step)
    checkpoints.close()
    assert not damaged
    return found


def metrics(directory):
    lines = (directory / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def assert_near(found, want):
    """Two points that differ by rounding."""
    for (path, a), b in zip(
        jax.tree.leaves_with_path(state(found)),
        jax.tree.leaves(state(want)),
        strict=True,
    ):
        where = jax.tree_util.keystr(path)
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5, err_msg=where)
    for a, b in zip(metrics(found), metrics(want), strict=True):
        assert a.pop("split") == b.pop("split")
        assert a == pytest.approx(b, rel=1e-4)


def assert_same(found, want):
    """Two points that are equal to the bit."""
    pairs = zip(
        jax.tree.leaves(state(found)), jax.tree.leaves(state(want)), strict=True
    )
    for a, b in pairs:
        np.testing.assert_array_equal(a, b)
    for name in ("metrics.jsonl", "attention.npz", "gates.npz"):
        assert (found / name).read_bytes() == (want / name).read_bytes(), name
    assert snapshots(found) == snapshots(want)
    results = [files.read_json(place / "result.json") for place in (found, want)]
    for name in ("seconds", "ms_per_step", "examples_per_s"):
        assert results[0].pop(name) > 0
        results[1].pop(name)
    assert results[0] == results[1]


def snapshots(directory):
    return {path.name: path.read_bytes() for path in directory.glob("snapshots/*")}


def test_each_gives_what_it_gives_alone(alone, together):
    directory, _ = together
    for seed in SEEDS:
        assert_near(directory / str(seed), alone / str(seed))
    a, b = (state(directory / str(seed)).params for seed in SEEDS[:2])
    assert not np.allclose(a["Dense_0"]["kernel"], b["Dense_0"]["kernel"], atol=0.01)


def test_each_has_the_files_that_it_has_alone(alone, together):
    directory, _ = together
    for seed in SEEDS:
        written = lambda place: {
            str(path.relative_to(place))
            for path in place.glob("**/*")
            if "checkpoints/" not in str(path) and "tensorboard/" not in str(path)
        }
        assert written(directory / str(seed)) == written(alone / str(seed))
        config = files.read_json(directory / str(seed) / "config.json")
        assert config == small.config(seed=seed, **CHANGES)


def test_the_result_tells_how_many_trained_together(alone, together):
    directory, _ = together
    for seed in SEEDS:
        result = files.read_json(directory / str(seed) / "result.json")
        assert result["together"] == 3
        assert result["axes"] == {"seed": seed}
    result = files.read_json(alone / "3" / "result.json")
    assert result["together"] == 1


def test_the_pace_is_that_of_one_point(monkeypatch):
    now = iter(range(1000))  # each look at the clock is a second later
    monkeypatch.setattr(loop.time, "perf_counter", lambda: next(now))
    clock = loop._Clock(runs=4)
    clock.took(64)
    clock.took(128)
    assert clock.lap() == {"ms_per_step": 125.0, "examples_per_s": 192.0}
    assert clock.lap() is None
    clock.took(64)
    assert clock.lap() == {"ms_per_step": 250.0, "examples_per_s": 64.0}


@pytest.mark.parametrize("stops", [(4,), (1, 7)])
def test_stopped_and_resumed_it_is_as_if_unbroken(tmp_path, together, stops):
    directory, way = together
    for stop in stops:
        with pytest.raises(loop.Stopped, match=f"saved at step {stop} of 8"):
            train(tmp_path, way, stop=stop)
    for seed in SEEDS:
        assert int(state(tmp_path / str(seed)).step) == stops[-1]
    listener = small.Listener()
    train(tmp_path, way, listener=listener)
    assert listener.notes == [f"{s} resumes at step {stops[-1]}" for s in SEEDS]
    for seed in SEEDS:
        assert_same(tmp_path / str(seed), directory / str(seed))


def forget(directory, step):
    """Removes what a kill between the saves of two runs would have kept off."""
    checkpoints = Checkpoints(directory / "checkpoints")
    checkpoints.drop_after(step)
    checkpoints.close()


def test_a_kill_between_two_saves_leaves_no_trace(tmp_path, together):
    directory, way = together
    with pytest.raises(loop.Stopped):
        train(tmp_path, way, stop=6)
    forget(tmp_path / "4", 3)
    listener = small.Listener()
    with pytest.raises(loop.Stopped):
        train(tmp_path, way, listener=listener, stop=4)
    assert listener.notes[-2:] == ["3 goes back to step 3", "9 goes back to step 3"]
    for seed in SEEDS:  # what was ahead is gone: its metrics are, too
        assert int(state(tmp_path / str(seed)).step) == 4
    train(tmp_path, way)
    for seed in SEEDS:
        assert_same(tmp_path / str(seed), directory / str(seed))


@pytest.mark.parametrize(("step", "seconds"), [(3, 31.0), (0, 1.0)])
def test_a_run_that_goes_back_forgets_the_seconds_since(tmp_path, step, seconds):
    headline, held = program().task.metrics[0], program().init_state(3)
    held = jax.tree.map(np.asarray, held)
    (first,), (again,) = (runs(tmp_path, SEEDS[:1]) for _ in range(2))
    with first.open(headline):
        for saved in (3, 6):
            first.save(held.replace(step=np.int32(saved)), None, 10.0 * saved)
    with again.open(headline):
        again.begin(program())
        again.back(program(), step)
        again.save(held.replace(step=np.int32(step + 1)), None, 1.0)
    checkpoints = Checkpoints(again.directory / "checkpoints", read_only=True)
    _, notes, _ = checkpoints.restore(program().abstract_state())
    checkpoints.close()
    assert notes == {"seconds": seconds}


def test_a_kill_during_the_first_save_leaves_no_trace(tmp_path, together):
    directory, way = together
    with pytest.raises(loop.Stopped):
        train(tmp_path, way, stop=2)
    forget(tmp_path / "9", 0)
    train(tmp_path, way)
    for seed in SEEDS:
        assert_same(tmp_path / str(seed), directory / str(seed))


def test_those_far_apart_go_on_by_themselves(tmp_path, alone):
    with pytest.raises(loop.Stopped):
        train(tmp_path, "vmap", stop=7, seeds=SEEDS[:2])
    with pytest.raises(loop.Stopped):
        train(tmp_path, None, stop=1, seeds=SEEDS[2:])
    train(tmp_path, "vmap")
    found = {
        seed: files.read_json(tmp_path / str(seed) / "result.json")["together"]
        for seed in SEEDS
    }
    assert found == {3: 2, 4: 2, 9: 1}
    for seed in SEEDS:
        assert_near(tmp_path / str(seed), alone / str(seed))


@pytest.mark.parametrize("way", WAYS)
def test_one_that_diverges_leaves_the_others_alone(tmp_path, alone, way):
    made = runs(tmp_path)
    begin = made[1].begin

    def spoilt(program):
        found, said = begin(program)
        nan = jax.tree.map(lambda a: np.full(a.shape, np.nan, a.dtype), found.params)
        return found.replace(params=nan), said

    made[1].begin = spoilt
    train(tmp_path, way, made=made)
    assert "no longer finite at step 2" in str(made[1].diverged)
    assert made[1].result is None
    assert not (tmp_path / "4" / "result.json").exists()
    assert metrics(tmp_path / "4") == []
    for seed in (3, 9):
        assert_near(tmp_path / str(seed), alone / str(seed))


def test_where_all_diverge_the_training_ends(tmp_path):
    made = runs(tmp_path)
    for run in made:
        run.log = functools.partial(_diverge, run)
    listener = small.Listener()
    train(tmp_path, "vmap", made=made, listener=listener)
    assert all(run.diverged for run in made)
    assert listener.updates == []
    assert list(tmp_path.glob("*/checkpoints/[0-9]*")) == []


def _diverge(run, step, totals):
    raise Diverged("the loss")


def test_points_on_other_data_train_together(tmp_path):
    """Each on its own, in training and in evaluation."""
    other = Program(
        small.config(data__distortion="p", **CHANGES), jax.devices()[:1]
    ).dataset
    datasets = [program().dataset, other]
    made = runs(tmp_path / "both", seeds=(3, 4), datasets=datasets)
    train(tmp_path, "vmap", made=made)
    for i, seed in enumerate((3, 4)):
        single = runs(tmp_path / "alone", seeds=(seed,), datasets=[datasets[i]])
        train(tmp_path, None, made=single)
        assert_near(tmp_path / "both" / str(seed), tmp_path / "alone" / str(seed))
    assert metrics(tmp_path / "both" / "3") != metrics(tmp_path / "both" / "4")


def test_a_request_to_stop_saves_all(tmp_path):
    asked = Interruption()
    asked.ask()
    with pytest.raises(loop.Stopped, match="saved at step 1 of 8"):
        loop.Training(
            program("vmap"),
            runs(tmp_path),
            progress=small.Listener(),
            interruption=asked,
        ).train()
    for seed in SEEDS:
        assert int(state(tmp_path / str(seed)).step) == 1
