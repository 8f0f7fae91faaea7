"""Plans: which points train together, from shapes and machines alone."""

import dataclasses

import pytest

from attn import settings
from attn.train.sweep.plan import Machines, Part, Shape, check, plan

GPU = Machines(1, "gpu", 1)
FOUR = Machines(1, "gpu", 4)
CPU = Machines(1, "cpu", 4)
PRODUCTS = Shape(0, (40,), 1000, products=True, one_shape=True)
CONVOLUTIONS = dataclasses.replace(PRODUCTS, products=False)
LARGE = dataclasses.replace(PRODUCTS, parameters=10_800_000)
UNLIKE = dataclasses.replace(PRODUCTS, one_shape=False)


@pytest.mark.parametrize(
    ("machines", "shape", "count", "mode"),
    [
        (GPU, PRODUCTS, 2, "vmap"),
        (GPU, CONVOLUTIONS, 2, None),
        (GPU, PRODUCTS, 1, None),
        (GPU, LARGE, 2, None),
        (FOUR, PRODUCTS, 2, "devices"),
        (FOUR, CONVOLUTIONS, 2, "devices"),
        (FOUR, LARGE, 2, None),
        (GPU, UNLIKE, 2, None),
        (FOUR, UNLIKE, 2, None),
        (Machines(2, "gpu", 4), CONVOLUTIONS, 2, None),
        (CPU, PRODUCTS, 2, None),
    ],
)
def test_the_rule(machines, shape, count, mode):
    together = [Part(count, mode)] if mode else [Part(1, None)] * count
    assert plan([shape] * count, "auto", machines) == together
    assert plan([shape] * count, "off", machines) == [Part(1, None)] * count


def test_neighbours_that_share_a_step_and_sizes_train_together():
    other = dataclasses.replace(PRODUCTS, step=1)
    larger = dataclasses.replace(PRODUCTS, sizes=(80,))
    shapes = [PRODUCTS, PRODUCTS, other, larger, UNLIKE, *[PRODUCTS] * 3]
    found = plan(shapes, "vmap", CPU)
    assert found == [Part(2, "vmap"), *[Part(1, None)] * 3, Part(3, "vmap")]


@pytest.mark.parametrize(
    ("parallel", "count", "counts"),
    [
        ("devices", 4, [4]),
        ("devices", 7, [3, 4]),
        ("devices", 9, [3, 3, 3]),
        ("vmap", 8, [8]),
        ("vmap", 9, [4, 5]),
    ],
)
def test_many_are_cut_into_equal_parts(parallel, count, counts):
    found = plan([PRODUCTS] * count, parallel, CPU)
    assert [part.count for part in found] == counts


def test_a_part_of_one_trains_alone():
    one = Machines(1, "cpu", 1)
    assert plan([PRODUCTS] * 2, "devices", one) == [Part(1, None)] * 2


def test_a_name_that_is_none_is_an_error():
    with pytest.raises(settings.Invalid, match=r"'vmpa'; did you mean 'vmap'"):
        plan([PRODUCTS], "vmpa", CPU)


def test_several_machines_are_refused_where_it_was_asked_for():
    two = Machines(2, "cpu", 4)
    check("auto", two)
    with pytest.raises(settings.Invalid, match="single machine, and there are 2"):
        check("devices", two)
