"""Checkpoints: what comes back, which are kept, and what damage does."""

import errno
import pathlib
import shutil

import jax
import numpy as np
import optax
import pytest

from attn.train.state import State
from attn.train.store.checkpoint import Checkpoints, Mismatch, digest


def state(step, width=3):
    rng = np.random.default_rng(step)
    params = {
        "a": {"kernel": rng.normal(size=(40, width)).astype(np.float32)},
        "b": rng.normal(size=width).astype(np.float32),
    }
    return State(
        step=np.int32(step),
        seed=np.uint32(7),
        params=params,
        extras={"batch_stats": {"mean": np.float32(rng.normal(size=5))}},
        opt_state=jax.tree.map(np.asarray, optax.adam(0.1).init(params)),
        average=None,
        totals={"loss": np.float32(0.5)},
    )


def saved(directory, errors):
    """A directory in which the steps of `errors` were saved."""
    checkpoints = Checkpoints(directory)
    for step, error in errors.items():
        checkpoints.save(state(step), notes={"seconds": step / 10}, figure=error)
    checkpoints.close()


def assert_equal(found, want):
    assert jax.tree.structure(found) == jax.tree.structure(want)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(want), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


def test_a_state_comes_back_bit_equal(tmp_path):
    saved(tmp_path, {3: None, 5: None})
    checkpoints = Checkpoints(tmp_path)
    found, notes, damaged = checkpoints.restore(state(0))
    assert_equal(found, state(5))
    assert notes == {"seconds": 0.5}
    assert damaged == []
    assert_equal(checkpoints.restore(state(0), 3)[0], state(3))
    checkpoints.close()


def test_nothing_there_is_no_error(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.restore(state(0)) is None
    checkpoints.close()


def test_keeps_the_last_two_and_the_best(tmp_path):
    saved(tmp_path, {1: 9.0, 2: 3.0, 3: 4.0, 4: None, 5: 5.0, 6: None})
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.steps() == [2, 5, 6]
    assert checkpoints.best() == 2
    checkpoints.save(state(7), notes={}, figure=1.0)
    checkpoints.wait()
    assert checkpoints.steps() == [6, 7]
    assert checkpoints.best() == 7
    checkpoints.close()


def damage(path: pathlib.Path, kind: str) -> None:
    data = bytearray(path.read_bytes())
    if kind == "truncated":
        path.write_bytes(data[: len(data) // 2])
    elif kind == "removed":
        path.unlink()
    else:
        for i in range(len(data) // 3, min(len(data), len(data) // 3 + 8)):
            data[i] ^= 0xFF
        path.write_bytes(data)


@pytest.mark.parametrize("kind", ["truncated", "removed", "overwritten"])
def test_whichever_file_is_damaged_a_sound_state_comes_back(tmp_path, kind):
    pristine = tmp_path / "pristine"
    saved(pristine, {1: 4.0, 2: 3.0})
    fallen_back = 0
    for number, path in enumerate(sorted(pristine.glob("2/**/*"))):
        if not path.is_file() or not path.stat().st_size:
            continue
        directory = tmp_path / str(number)
        shutil.copytree(pristine, directory)
        damage(directory / path.relative_to(pristine), kind)
        checkpoints = Checkpoints(directory)
        found, _, damaged = checkpoints.restore(state(0))
        step = int(found.step)
        assert step in (1, 2), path
        assert_equal(found, state(step))
        if step == 1:
            fallen_back += 1
            # damage to orbax's own marks makes it overlook the checkpoint itself
            assert not damaged or damaged[0].startswith("checkpoint 2 is damaged")
            checkpoints.save(state(2), notes={"seconds": 0.0}, figure=3.0)
            checkpoints.wait()
            assert_equal(checkpoints.restore(state(0))[0], state(2))
        checkpoints.close()
    assert fallen_back >= 4


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EMFILE, "Too many open files"),
        OSError(errno.ESTALE, "Stale file handle"),
        ValueError("Error opening: [OS error 24: EMFILE Too many open files]"),
        MemoryError(),
    ],
)
def test_what_the_machine_cannot_read_just_now_is_not_damaged(
    tmp_path, monkeypatch, error
):
    saved(tmp_path, {1: None, 2: None})
    checkpoints = Checkpoints(tmp_path)
    read = checkpoints._read

    def fails_at_first(like, step):
        if step == 2:
            raise error
        return read(like, step)

    monkeypatch.setattr(checkpoints, "_read", fails_at_first)
    with pytest.raises(type(error)):
        checkpoints.restore(state(0))
    assert checkpoints.steps() == [1, 2]
    checkpoints.close()


def test_no_sound_checkpoint_is_an_error_and_loses_nothing(tmp_path):
    saved(tmp_path, {1: None})
    damage(tmp_path / "1" / "state" / "_METADATA", "truncated")
    checkpoints = Checkpoints(tmp_path)
    with pytest.raises(ValueError, match="no sound checkpoint in"):
        checkpoints.restore(state(0))
    assert checkpoints.steps() == [1]
    checkpoints.close()


def test_another_model_is_refused_with_the_difference(tmp_path):
    saved(tmp_path, {1: None})
    checkpoints = Checkpoints(tmp_path)
    says = r"params\.a\.kernel|float32\[40, 3\] in the checkpoint and float32\[40, 4\]"
    with pytest.raises(Mismatch, match=says):
        checkpoints.restore(state(0, width=4))
    checkpoints.close()


def test_what_a_kill_left_half_written_is_swept_away(tmp_path):
    saved(tmp_path, {1: None})
    half = tmp_path / "2.orbax-checkpoint-tmp"
    half.mkdir()
    (half / "rest").write_text("half")
    checkpoints = Checkpoints(tmp_path)
    assert int(checkpoints.restore(state(0))[0].step) == 1
    checkpoints.save(state(2), notes={}, figure=None)
    checkpoints.wait()
    assert int(checkpoints.restore(state(0))[0].step) == 2
    checkpoints.close()


def test_reading_only_leaves_the_directory_alone(tmp_path):
    saved(tmp_path, {1: None})
    (tmp_path / "2.orbax-checkpoint-tmp").mkdir()
    before = sorted(tmp_path.glob("**/*"))
    checkpoints = Checkpoints(tmp_path, read_only=True)
    checkpoints.restore(state(0))
    checkpoints.close()
    assert sorted(tmp_path.glob("**/*")) == before


def test_the_digest_notices_any_change():
    tree = {"a": np.zeros((2, 3), np.float32), "b": np.ones(2, np.int32)}
    first = digest(tree)
    assert first == digest({"b": np.ones(2, np.int32), "a": np.zeros((2, 3), "f4")})
    assert first != digest(tree | {"a": np.zeros((3, 2), np.float32)})
    assert first != digest(tree | {"b": np.ones(2, np.float32)})
    changed = np.zeros((2, 3), np.float32)
    changed[1, 2] = 1e-30
    assert first != digest(tree | {"a": changed})
