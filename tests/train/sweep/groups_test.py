"""Which points train side by side, and the sweep that trains them so."""

import pytest

from attn import settings
from attn.train import run as runs
from attn.train.interruption import Interruption
from attn.train.program import Program
from attn.train.sweep import experiment_file, groups, local
from attn.train.sweep.plan import Machines
from attn.workdir import files
from tests.train import small


def points(*axes, **changes):
    """Points of (width, distortion, seed)."""
    return [
        experiment_file.Point(
            f"{width}-{distortion}-{seed}",
            {"width": width, "distortion": distortion, "seed": seed},
            small.config(
                seed=seed, model__width=width, data__distortion=distortion, **changes
            ),
        )
        for width, distortion, seed in axes
    ]


SEEDS = points((8, "r", 0), (8, "r", 1), (8, "r", 2), (4, "r", 0), (4, "r", 1))


def cut(found):
    return [[point.name for point in group.points] for group in found]


def test_neighbours_that_differ_in_the_seed_train_together():
    found = list(groups.groups(SEEDS, "vmap"))
    assert cut(found) == [["8-r-0", "8-r-1", "8-r-2"], ["4-r-0", "4-r-1"]]
    assert [group.mode for group in found] == ["vmap", "vmap"]
    assert [group.name for group in found] == [
        "8-r (3 seeds together)",
        "4-r (2 seeds together)",
    ]
    assert found[0].program.partition.most == 8
    assert {id(dataset) for dataset in found[0].datasets} == {id(found[0].datasets[0])}


def test_those_that_differ_in_data_of_equal_shapes_do_too():
    made = points((8, "r", 0), (8, "p", 0), (8, "p", 1), (8, "rts", 0))
    found = list(groups.groups(made, "vmap"))  # rts is larger
    assert cut(found) == [["8-r-0", "8-p-0", "8-p-1"], ["8-rts-0"]]
    assert found[0].name == "8 (3 points together)"
    a, b, c = found[0].datasets
    assert b is c is not a
    assert pixels(a) != pixels(b)
    assert found[1].mode is None
    assert found[1].name == "8-rts-0"
    assert found[1].program.dataset.example()["image"].shape == (42, 42, 1)


def pixels(dataset):
    with dataset.split("test", 2) as batches:
        return next(batches)["image"].tobytes()


def test_what_is_compiled_is_shared_between_data_of_equal_shapes():
    made = points((8, "r", 0), (8, "p", 0), (8, "rts", 0))
    (_, a), (_, b), (_, c) = groups.programs(made)
    assert a is not b
    assert pixels(a.dataset) != pixels(b.dataset)
    assert a.train_step is b.train_step
    assert a.capture is b.capture
    assert c.train_step is not b.train_step
    traced = len(small.TRACES)
    for program in (a, b):
        with program.dataset.train(small.BATCH, seed=0) as batches:
            batch = next(batches)
        batch = {name: batch[name] for name in ("image", "label")}
        program.train_step(small.start(program, 0), small.fed(program, batch))
    assert len(small.TRACES) == traced + 1


@pytest.mark.parametrize("parallel", ["off", "auto"])  # auto: this is a CPU
def test_each_alone(parallel):
    found = list(groups.groups(SEEDS, parallel))
    assert cut(found) == [[point.name] for point in SEEDS]
    assert found[0].program is found[1].program
    assert {group.mode for group in found} == {None}


def test_groups_are_cut_to_the_number_of_devices():
    three = Machines(1, "cpu", 3)
    made = points(*[(8, "r", seed) for seed in range(7)])
    found = list(groups.groups(made, "devices", three))
    assert [len(group.points) for group in found] == [2, 2, 3]
    assert found[0].program is found[2].program
    found = list(groups.groups(made[:4], "devices", three))
    assert [len(group.points) for group in found] == [2, 2]


def sequences(**data):
    """Two seeds of a model of sequences."""
    changes = {
        "data": {"name": "sequences", "test": "test[:40]", **data},
        "model": {"name": "tests.user_code.copying:Copier"},
        "task": {"name": "tests.user_code.copying:Copying"},
    }
    return [
        experiment_file.Point(str(n), {"seed": n}, small.config(seed=n, **changes))
        for n in (0, 1)
    ]


def test_points_whose_batches_differ_in_shape_train_alone():
    two = Machines(1, "gpu", 2)
    assert cut(groups.groups(sequences(buckets=1), "auto", two)) == [["0", "1"]]
    assert cut(groups.groups(sequences(), "auto", two)) == [["0"], ["1"]]


@pytest.mark.parametrize("parallel", ["devices", "vmap"])
def test_batches_that_differ_in_shape_are_refused_where_it_was_asked_for(parallel):
    says = f"{parallel}' needs training batches of one shape, and those of 0 differ"
    with pytest.raises(settings.Invalid, match=says):
        groups.shapes(sequences(), parallel, Machines.here())


VIT = {
    "name": "vit",
    "width": 8,
    "depth": 1,
    "num_heads": 2,
    "patch_size": 7,
    "mlp_ratio": 1.0,
}


def test_only_a_convolution_that_cuts_patches_is_a_product():
    made = {
        name: Program(small.config(model=small.config()["model"] | model))
        for name, model in (("vit", VIT), ("net", {}))
    }
    assert groups.made_of_products(made["vit"])
    assert not groups.made_of_products(made["net"])


def test_models_are_looked_into_where_the_plan_depends_on_it():
    made = points((8, "r", 0), (8, "r", 1), (8, "rts", 1), (4, "r", 0))
    found = groups.shapes(made, "auto", Machines(1, "gpu", 1))
    assert [shape.step for shape in found] == [1, 1, 2, 3]
    assert found[0] == found[1]
    assert found[0].sizes == (40,)
    assert found[0].parameters > found[3].parameters > 0
    found = groups.shapes(made, "off", Machines(1, "gpu", 1))
    assert [shape.step for shape in found] == [1, 1, 2, 3]
    assert {shape.parameters for shape in found} == {0}


def test_a_sweep_trains_groups_and_tells_so(tmp_path):
    experiment = experiment_file.Experiment("e", "E", "", {}, SEEDS)
    directory, listener = tmp_path / "w", small.Listener()

    def run(selected):
        return local.run(
            experiment,
            selected,
            directory,
            progress=listener,
            interruption=Interruption(),
            parallel="vmap",
        )

    assert run(SEEDS[1:2]) == {}
    assert listener.points == [(1, 1, "8-r-1")]
    listener.points.clear()
    diverge_at_once = runs.Run.log
    assert run(SEEDS) == {}
    assert runs.Run.log is diverge_at_once
    assert listener.points == [
        (1, 5, "8-r (2 seeds together)", 3),
        (4, 5, "4-r (2 seeds together)", 5),
    ]
    together = [
        files.read_json(directory / point.name / "result.json")["together"]
        for point in SEEDS
    ]
    assert together == [2, 1, 2, 2, 2]
    assert [n.split(":")[0] for n in listener.notes if "test error" in n] == [
        "8-r-1",
        "8-r-0",
        "8-r-2",
        "4-r-0",
        "4-r-1",
    ]


def test_a_sweep_records_a_member_that_diverges(tmp_path, monkeypatch):
    log = runs.Run.log

    def spoilt(self, step, totals):
        if self.axes["seed"] == 1:
            raise runs.Diverged("the loss is no longer finite")
        return log(self, step, totals)

    monkeypatch.setattr(runs.Run, "log", spoilt)
    listener = small.Listener()
    diverged = local.run(
        experiment_file.Experiment("e", "E", "", {}, SEEDS[:3]),
        SEEDS[:3],
        tmp_path / "w",
        progress=listener,
        interruption=Interruption(),
        parallel="vmap",
    )
    assert diverged == {"8-r-1": "the loss is no longer finite"}
    assert [(tmp_path / "w" / p.name / "result.json").exists() for p in SEEDS[:3]] == [
        True,
        False,
        True,
    ]
    assert "8-r-1 diverged: the loss" in listener.notes[1]
