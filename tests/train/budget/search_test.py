"""The search for widths, on costs that are formulas."""

import itertools

import pytest

from attn.models.scaling import Width
from attn.train.budget import search


def mlp(inputs, classes):
    """The weights of a perceptron, by its settings."""

    def cost(settings):
        sizes = [inputs, *settings["widths"], classes]
        return sum(a * b for a, b in itertools.pairwise(sizes))

    return cost


def test_keeps_the_proportions_where_they_come_near_enough():
    widths = {"widths": Width((30, 60, 20), 1)}
    found = search.fit(widths, mlp(784, 10), 400_000, tolerance=0.01)
    assert found.within_tolerance
    first, second, third = found.settings["widths"]
    assert second / first == pytest.approx(2, rel=0.01)
    assert third / first == pytest.approx(2 / 3, rel=0.01)
    assert found.cost == mlp(784, 10)(found.settings)
    assert abs(found.cost / 400_000 - 1) <= 0.01
    # of the factors near it there is none that comes nearer
    for factor in (f / 1000 for f in range(500, 20_000)):
        sizes = [max(1, int(v * factor + 0.5)) for v in (30, 60, 20)]
        assert abs(mlp(784, 10)({"widths": sizes}) - 400_000) >= abs(
            found.cost - 400_000
        )


@pytest.mark.parametrize("budget", [3_000, 90_000, 7_000_000])
def test_shrinks_and_grows(budget):
    widths = {"widths": Width((30, 60, 20), 1)}
    found = search.fit(widths, mlp(49, 10), budget, tolerance=0.01)
    assert found.within_tolerance
    assert abs(found.cost / budget - 1) <= 0.01


def test_what_is_near_enough_stays_as_it_is():
    widths = {"widths": Width((31,), 8), "other": Width(5, 5)}
    asked = []
    cost = lambda settings: asked.append(settings) or 1000
    found = search.fit(widths, cost, 1009, tolerance=0.01)
    assert found == ({"widths": [31], "other": 5}, 1000, True)
    assert len(asked) == 1


def test_single_numbers_walk_where_rounding_misses():
    """In proportion a + b is a multiple of 200; the budget lies between."""
    widths = {"a": Width(100, 100), "b": Width((100,), 100)}
    cost = lambda settings: settings["a"] + settings["b"][0]
    found = search.fit(widths, cost, 1300, tolerance=0.01)
    assert found.within_tolerance
    assert sorted([found.settings["a"], *found.settings["b"]]) == [600, 700]


def test_two_numbers_move_where_one_does_not_help():
    """Near 70 = 7 x 10, odd steps of 10 cancel against steps of 7 only."""
    widths = {"a": Width(10, 10), "b": Width(7, 7)}
    cost = lambda settings: 1000 * (settings["a"] // 10) + 700 * (settings["b"] // 7)
    # 5 and 5 cost 8500, 5 and 6 cost 9200; 6 and 4 cost 8800
    found = search.fit(widths, cost, 8800, tolerance=0.01)
    assert found.settings == {"a": 60, "b": 28}


def test_every_width_is_a_multiple_of_its_step_and_at_least_one():
    asked = []

    def cost(settings):
        asked.append(settings)
        return settings["a"] * settings["b"]

    search.fit({"a": Width(64, 16), "b": Width(3, 1)}, cost, 5, tolerance=0.01)
    assert all(s["a"] % 16 == 0 and s["a"] >= 16 and s["b"] >= 1 for s in asked)
    keys = [tuple(s.values()) for s in asked]
    assert len(keys) == len(set(keys))


@pytest.mark.parametrize(
    ("cost", "budget", "nearest"),
    [
        (lambda s: 1000 + s["a"], 500, 1001),  # the rest alone costs more
        (lambda s: 1000, 500, 1000),  # widths do not matter
        (lambda s: min(s["a"], 300), 500, 300),  # nor do they from 300 on
        (lambda s: 100 * (s["a"] // 100), 250, 200),  # too coarse
    ],
)
def test_tells_the_nearest_where_none_is_near_enough(cost, budget, nearest):
    found = search.fit({"a": Width(128, 1)}, cost, budget, tolerance=0.01)
    assert not found.within_tolerance
    assert abs(found.cost - budget) == abs(nearest - budget)
    assert found.cost == cost(found.settings)


@pytest.mark.parametrize("a", [600, 700])
def test_impossible_settings_are_passed_over_on_the_walk(a):
    def cost(settings):
        if settings["a"] != settings["b"] and settings["a"] != a:
            raise ValueError("not for a")
        return settings["a"] + settings["b"]

    widths = {"a": Width(100, 100), "b": Width(100, 100)}
    found = search.fit(widths, cost, 1300, tolerance=0.01)
    assert found.settings == {"a": a, "b": 1300 - a}


def test_a_first_fit_takes_the_first_within_tolerance_and_stops_when_spent():
    asked = []

    def cost(settings):
        asked.append(settings["a"])
        return settings["a"] ** 2

    found = search.fit({"a": Width(10, 1)}, cost, 1e4, tolerance=0.05, first_fit=True)
    assert found.within_tolerance
    assert found.settings["a"] == asked[-1]
    assert len(asked) <= 6
    asked.clear()
    found = search.fit({"a": Width(10, 1)}, cost, 1e4 + 0.5, tolerance=0, probes=4)
    assert len(asked) == 4
    assert not found.within_tolerance
