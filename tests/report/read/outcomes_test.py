"""Outcomes of examples: weighted means, files, and what a file of results keeps."""

import json

import numpy as np
import pytest

from attn.report.analyse import comparison
from attn.report.read import outcomes


def test_weighted_outcomes_have_the_ratio_of_their_sums():
    totals = np.array([[30.0, 0.0, 10.0], [20.0, 5.0, 9.0]])
    weights = np.array([[3.0, 4.0, 1.0], [3.0, 4.0, 1.0]])
    found = outcomes.of(totals, weights)
    assert found.values == pytest.approx([40 / 8, 34 / 8])
    first = 3 * (totals[0] - 5 * weights[0]) / 8
    second = 3 * (totals[1] - 4.25 * weights[1]) / 8
    assert found.means == pytest.approx((first + second) / 2)
    # two rows of residuals +-(first - second) / 2 over 1 x 2 degrees of freedom
    assert found.interaction == pytest.approx(((first - second) ** 2).sum() / 4)


def write(directory, totals, index, name="error", **more):
    directory.mkdir(parents=True)
    arrays = {f"{name}.total": totals, f"{name}.weight": np.ones_like(totals)}
    np.savez(directory / outcomes.FILE, index=index, **(arrays | more))
    return directory


def test_files_are_read_by_the_index_of_their_examples(tmp_path):
    rng = np.random.default_rng(0)
    totals = 100.0 * (rng.random((3, 50)) < 0.2)
    orders = [rng.permutation(50) for _ in range(3)]
    places = [
        write(tmp_path / str(s), totals[s][order].astype(np.float32), order + 7)
        for s, order in enumerate(orders)
    ]
    values = totals.mean(1)
    found = outcomes.read(places, "error", values)
    wanted = outcomes.of(totals, np.ones_like(totals))
    assert found.values == pytest.approx(wanted.values)
    assert found.means == pytest.approx(wanted.means)
    assert found.interaction == pytest.approx(wanted.interaction)
    assert list(found.index) == list(range(7, 57))


def test_an_example_that_is_tested_twice_counts_once(tmp_path):
    index = np.array([4, 2, 4, 2, 9, 9])
    totals = np.array([100.0, 0.0, 100.0, 100.0, 0.0, 0.0], np.float32)
    places = [write(tmp_path / str(s), totals, index) for s in range(2)]
    found = outcomes.read(places, "error", [50.0, 50.0])
    assert list(found.index) == [2, 4, 9]
    # 50, 100 and 0 less their mean
    assert found.means == pytest.approx([0.0, 50.0, -50.0])


@pytest.mark.parametrize(
    "what", ["none", "other", "metric", "nan", "value", "cut", "empty"]
)
def test_what_does_not_fit_is_not_used(tmp_path, what):
    totals = np.array([0.0, 100.0, 0.0, 0.0], np.float32)
    index = np.arange(4)
    first = write(tmp_path / "0", totals, index)
    values = [25.0, 25.0]
    assert outcomes.read([first], "error", values[:1]) is not None
    if what == "none":
        second = tmp_path / "1"
    else:
        second = write(
            tmp_path / "1",
            totals * np.nan if what == "nan" else totals,
            index + 1 if what == "other" else index,
            "loss" if what == "metric" else "error",
        )
    if what == "value":
        values = [25.0, 30.0]
    if what == "cut":
        path = second / outcomes.FILE
        path.write_bytes(path.read_bytes()[:300])
    if what == "empty":
        (second / outcomes.FILE).write_bytes(b"")
    assert outcomes.read([first, second], "error", values) is None
    assert outcomes.read([], "error", []) is None


@pytest.mark.parametrize(("rows", "pack"), [(4, np.savez_compressed), (2000, np.savez)])
def test_whatever_is_damaged_in_a_file_it_is_not_used(tmp_path, rows, pack):
    totals = np.arange(rows) % 4 == 1.0
    place = write(tmp_path / "0", totals.astype(np.float64), np.arange(rows))
    path = place / outcomes.FILE
    with np.load(path) as file:
        pack(path, **file)
    whole, lost = bytearray(path.read_bytes()), 0
    for bit in range(0, min(8 * len(whole), 8 * 800), 11):  # heads, where there is more
        whole[bit // 8] ^= 1 << bit % 8
        path.write_bytes(whole)
        lost += outcomes.read([place], "error", [0.25]) is None
        whole[bit // 8] ^= 1 << bit % 8
    assert lost > 50


def test_a_file_of_results_keeps_what_differences_need():
    rng = np.random.default_rng(1)
    hard = rng.normal(size=400)
    rows = {
        k: outcomes.of(rng.normal(size=(3, 400)) + hard + 0.1 * k, np.ones((3, 400)))
        for k in (0, 2, 3)
    }
    rows[5] = outcomes.of(rng.normal(size=(2, 30)), np.ones((2, 30)))
    rows[6] = outcomes.of(rng.normal(size=(2, 30)), np.ones((2, 30)), np.arange(30) + 9)
    kept = json.loads(json.dumps(outcomes.pack(rows)))
    assert [group["rows"] for group in kept] == [[0, 2, 3], [5], [6]]
    assert len(json.dumps(kept)) < 700
    back = outcomes.unpack(kept, {k: row.values for k, row in rows.items()})
    for one, other in ((0, 2), (0, 3), (2, 3)):
        now = comparison.shared(back[one], back[other])
        then = comparison.shared(rows[one], rows[other])
        assert now == pytest.approx(then, rel=1e-3)
    assert not back[5].comparable(back[6])
    assert not back[0].comparable(back[5])
