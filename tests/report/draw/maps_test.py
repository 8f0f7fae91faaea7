"""Kinds of attention cut down to strips, against sums written out."""

import json

import numpy as np
import pytest

from attn.report.draw import maps
from attn.report.draw.maps import Attention, Map
from attn.report.read import results
from tests.report import synthetic

RNG = np.random.default_rng(0)


def strips(kind, *arrays, grid=None, path="stage1/block0"):
    images = np.zeros((len(arrays[0]), 8, 8, 3), np.float32)
    captions = (("1", False),) * len(images)
    entry = Map(path, kind, grid, arrays)
    return maps.strips(Attention(images, True, captions, (entry,)))


def test_channel_gates_are_sorted_alike_for_all_images():
    gates = RNG.uniform(size=(3, 5))
    (strip,), remarks = strips("channel_gate", gates)
    assert strip.form == "bars"
    assert np.all(np.diff(strip.values.mean(axis=0)) >= 0)
    np.testing.assert_array_equal(np.sort(strip.values), np.sort(gates))
    assert remarks == []


def test_pixel_gates_are_averaged_over_channels():
    gates = RNG.uniform(size=(2, 3, 4, 6))
    (strip,), _ = strips("pixel_gate", gates)
    np.testing.assert_allclose(strip.values, gates.sum(axis=3) / 6)
    assert "3\N{MULTIPLICATION SIGN}4, mean over 6 channels" in strip.what


def test_token_rows_are_those_of_the_ringed_places():
    height, width = 4, 6
    matrix = RNG.uniform(size=(2, 3, 24, 24))
    (centre, corner), _ = strips("token_matrix", matrix, grid=(height, width))
    for strip, (row, column) in ((centre, (2, 3)), (corner, (1, 1))):
        wanted = matrix[:, :, row * width + column].mean(axis=1)
        np.testing.assert_allclose(strip.values, wanted.reshape(2, height, width))
        assert strip.query == ((row + 0.5) / height, (column + 0.5) / width)
    assert "mean over 3 heads" in centre.what


def test_a_class_token_is_a_query_and_no_source():
    matrix = RNG.uniform(size=(1, 2, 7, 7))
    (token, centre), _ = strips("token_matrix", matrix, grid=(2, 3))
    mean = matrix.mean(axis=1)
    np.testing.assert_allclose(token.values, mean[:, 0, 1:].reshape(1, 2, 3))
    np.testing.assert_allclose(centre.values, mean[:, 1 + 4, 1:].reshape(1, 2, 3))
    assert (token.query, centre.query) == (None, (0.75, 0.5))


@pytest.mark.parametrize("targets", [24, 7])
def test_targets_that_are_not_the_sources_have_no_ring_and_no_class_token(targets):
    matrix = RNG.uniform(size=(2, 3, targets, 6))
    found, _ = strips("token_matrix", matrix, grid=(2, 3))
    for strip, target in zip(found, (0, targets // 2), strict=True):
        assert strip.what.startswith(f"what query {target} of {targets} reads")
        assert strip.query is None
        wanted = matrix[:, :, target].mean(axis=1).reshape(2, 2, 3)
        np.testing.assert_allclose(strip.values, wanted)


def test_one_pooled_query_has_one_row_and_no_ring():
    matrix = RNG.uniform(size=(2, 1, 1, 6))
    (strip,), _ = strips("token_matrix", matrix, grid=(2, 3))
    np.testing.assert_allclose(strip.values, matrix.reshape(2, 2, 3))
    assert strip.query is None


def test_factors_show_the_rows_of_their_product():
    left, right = RNG.uniform(size=(2, 3, 12, 4)), RNG.uniform(size=(2, 3, 4, 12))
    (centre, _), _ = strips("factors", left, right, grid=(3, 4))
    product = (left @ right).mean(axis=1)
    wanted = product[:, 1 * 4 + 2].reshape(2, 3, 4)
    np.testing.assert_allclose(centre.values, wanted)


@pytest.mark.parametrize(("heads", "down"), [(1, 1), (2, 1), (3, 1), (4, 2), (6, 2)])
def test_matrices_of_channels_lie_beside_each_other_head_by_head(heads, down):
    matrix = RNG.uniform(size=(2, heads, 5, 5))
    (strip,), remarks = strips("channel_matrix", matrix)
    assert (strip.form, remarks) == ("matrix", [])
    assert strip.values.shape == (2, 5 * down, 5 * heads // down)
    for head in range(heads):
        row, column = divmod(head, heads // down)
        block = strip.values[:, 5 * row : 5 * row + 5, 5 * column : 5 * column + 5]
        np.testing.assert_array_equal(block, matrix[:, head])


def test_a_covariance_is_shown_before_and_after_its_root():
    both = RNG.normal(size=(2, 3, 5, 5))
    found, remarks = strips("covariance", *both)
    assert [strip.form for strip in found] == ["matrix", "matrix"]
    assert "of 5 channels" in found[0].what
    assert remarks == []
    for strip, values in zip(found, both, strict=True):
        np.testing.assert_array_equal(strip.values, values)


def test_tokens_without_a_grid_are_shown_as_a_matrix():
    matrix = RNG.uniform(size=(2, 2, 3, 5))
    (strip,), _ = strips("token_matrix", matrix)
    assert strip.form == "matrix"
    np.testing.assert_allclose(strip.values, matrix.mean(axis=1))


def test_a_deep_network_shows_some_maps_from_first_to_last():
    images = np.zeros((1, 8, 8, 3), np.float32)
    entries = tuple(
        Map(f"block{i}", "spatial_map", None, (np.full((1, 2, 2), i),))
        for i in range(9)
    )
    found, remarks = maps.strips(Attention(images, True, (("1", False),), entries))
    shown = [strip.path for strip in found]
    assert len(shown) == maps.MOST_OF_A_KIND
    assert (shown[0], shown[-1]) == ("block0", "block8")
    assert remarks == ["spatial map: 4 of 9 shown"]


@pytest.mark.parametrize(
    ("kind", "shape", "reason"),
    [
        ("halo", (2, 3), "a kind without a picture"),
        ("spatial_map", (2, 3), "its shape (2, 3) is not n H W"),
    ],
)
def test_what_cannot_be_shown_is_said(kind, shape, reason):
    found, (remark,) = strips(kind, np.zeros(shape))
    assert found == []
    assert reason in remark


def test_a_map_that_is_not_one_an_example_is_not_shown():
    images = np.zeros((2, 8, 8, 3), np.float32)
    entry = Map("b", "spatial_map", None, (np.zeros((8, 3, 3)),))
    found, (remark,) = maps.strips(
        Attention(images, True, (("1", False),) * 2, (entry,))
    )
    assert found == []
    assert "not one map for each example" in remark


def test_files_are_read_up_to_the_wanted_examples(tmp_path):
    root = synthetic.sweep(tmp_path / "s", ["cbam"], seeds=1, images=3)
    (point,) = results.read(root).points
    attention, problem = maps.load(point.directory / "attention.npz", 2)
    assert problem is None
    assert attention.images.shape == (2, 28, 28, 3)
    assert [text[:3] for text, _ in attention.captions] == ["7 →", "0 →"]
    assert [len(entry.arrays[0]) for entry in attention.maps] == [2] * 6
    assert attention.maps[0].path == "stage1/block0/residual"


@pytest.mark.parametrize("damage", ["missing", "cut", "no index", "empty"])
def test_a_damaged_file_is_said_and_no_error(tmp_path, damage):
    root = synthetic.sweep(tmp_path / "s", ["cbam"], seeds=1, images=2)
    (point,) = results.read(root).points
    path = point.directory / "attention.npz"
    if damage == "missing":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:3000])
    elif damage == "empty":
        path.write_bytes(b"")
    else:
        with np.load(path) as archive:
            arrays = dict(archive)
        np.savez(path, **(arrays | {"index": json.dumps([{"path": 1}])}))
    attention, problem = maps.load(point.directory / "attention.npz", 2)
    assert attention is None
    assert "attention.npz" in problem
