"""Trainings that start with the weights of a file, or of another training."""

import json
import shutil

import jax
import numpy as np
import pytest
from flax import traverse_util
from safetensors.numpy import save_file

from attn import interop, models, settings
from attn.interop import timm
from attn.train import loop
from attn.train.interruption import Interruption
from attn.train.program import Program
from attn.train.state import State
from attn.train.store import weights
from attn.train.store.checkpoint import Checkpoints
from attn.train.sweep import experiment_file, local
from tests import buckets
from tests.train import small

IMAGE = (28, 28, 1)
VIT = {"name": "vit", "patch_size": 14, "width": 6, "depth": 1, "num_heads": 2}
MLP = {"name": "mlp", "widths": [5], "pool": 4}


def arrays(classes=7, **settings):
    """A state dict with the names and shapes of timm's ViT for these images."""
    model = models.create(**{**VIT, "num_classes": classes, **settings})
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(
        lambda: model.init(
            jax.random.key(0), np.zeros((1, *IMAGE), np.float32), train=False
        )
    )
    sources = timm.sources(model, traverse_util.flatten_dict(shapes))
    return {
        source.name: np.float32(rng.normal(size=source.shapes[0]))
        for source in sources.values()
    }


def one(model, **changes):
    return Program(small.config(model=model, **changes), jax.devices()[:1])


def flat(variables):
    return traverse_util.flatten_dict(dict(variables), sep="/")


def start(program, seed=3):
    return flat(program.init_state(seed).variables())


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("published") / "model.safetensors"
    save_file(arrays(), path)
    return path


def test_a_file_gives_all_but_the_head_where_the_classes_differ(file):
    program = one(VIT | {"weights": str(file)})
    state = program.init_state(3)
    found, fresh = flat(state.variables()), start(one(VIT))
    whole = models.create(**VIT, num_classes=7)
    want = flat(interop.from_timm(arrays(), whole, IMAGE))
    assert found.keys() == want.keys()
    for path, value in found.items():
        expected = fresh if "classifier" in path else want
        np.testing.assert_array_equal(value, expected[path], err_msg=path)
    moved = start(program, 4)["params/classifier/kernel"]
    assert not np.array_equal(moved, found["params/classifier/kernel"])
    (note,) = program.weights.notes()
    assert note == (
        f"starts with the weights of {file}; the layer classifier is new: head.bias"
        " has shape (7,), but classifier/bias of this model, of shape (10,), needs"
        " (10,)"
    )


def test_the_head_stays_where_the_classes_are_the_same(tmp_path):
    path = tmp_path / "ten.safetensors"
    save_file(arrays(10), path)
    program = one(VIT | {"weights": str(path)}, train__average=0.9)
    want = flat(interop.from_timm(arrays(10), program.model, IMAGE))
    jax.tree.map(np.testing.assert_array_equal, start(program), want)
    assert program.weights.notes() == [f"starts with the weights of {path}"]


def test_a_published_directory_and_another_head_will_do(file, tmp_path):
    want = start(one(VIT | {"weights": str(file)}))
    found = start(one(VIT | {"weights": str(file.parent)}))
    jax.tree.map(np.testing.assert_array_equal, found, want)
    several = {**arrays(10), "head_dist.weight": np.zeros((10, 6), np.float32)}
    path = tmp_path / "deit.safetensors"
    save_file(several, path)
    with pytest.raises(settings.Invalid, match=r"has unknown head_dist.weight$"):
        one(VIT | {"weights": str(path)}).init_state(0)
    deit = one({**VIT, "name": "deit", "weights": str(path)})
    with pytest.raises(settings.Invalid, match=r"lacks dist_token$"):
        deit.init_state(0)


@pytest.fixture
def shards(tmp_path):
    """The same arrays in two files, with their index."""
    whole = arrays()
    names = sorted(whole)
    parts = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for part, some in parts.items():
        save_file({name: whole[name] for name in some}, tmp_path / part)
    places = {name: part for part, some in parts.items() for name in some}
    path = tmp_path / "model.safetensors.index.json"
    path.write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return path


def test_a_model_in_several_files_is_one(file, shards):
    want = start(one(VIT | {"weights": str(file)}))
    for path in (shards, shards.parent):
        found = start(one(VIT | {"weights": str(path)}))
        jax.tree.map(np.testing.assert_array_equal, found, want)


@pytest.mark.parametrize(
    ("index", "says"),
    [
        ("nothing", "index.json is no index of safetensors files: it needs a 'wei"),
        ('["a"]', "index.json is no index of safetensors files"),
        ('{"weight_map": {"x": "../a.safetensors"}}', "names '../a.*not lie beside"),
        ('{"weight_map": {"x": "c.safetensors"}}', "there is no file .*c.safetensors"),
        ('{"weight_map": {"x": "a.safetensors"}}', "names 'x' in a.safetensors, which"),
    ],
)
def test_what_is_wrong_with_an_index_is_one_sentence(shards, index, says):
    shards.write_text(index)
    with pytest.raises(settings.Invalid, match=f"config.model.weights: .*{says}"):
        one(VIT | {"weights": str(shards)}).weights.check()


def changed(path, name, value):
    found = arrays()
    if value is None:
        del found[name]
    else:
        found[name] = value
    save_file(found, path)


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("norm.weight", None, r"lacks norm.weight$"),
        (
            "pos_embed",
            np.zeros((1, 10, 6), np.float32),
            r"pos_embed has shape \(1, 10, 6\), but position of this model, of shape"
            r" \(1, 5, 6\), needs \(1, 5, 6\)",
        ),
        ("more", np.zeros(3), "it has unknown more$"),
    ],
)
def test_a_file_that_does_not_fit_is_one_sentence(tmp_path, name, value, says):
    path = tmp_path / "x.safetensors"
    changed(path, name, value)
    with pytest.raises(settings.Invalid, match=f"config.model.weights: .*{says}"):
        one(VIT | {"weights": str(path)}).weights.check()


@pytest.mark.parametrize(
    ("model", "path", "says"),
    [
        (VIT, "nowhere.safetensors", r"there is no file .*nowhere.safetensors"),
        (VIT, "pickle.bin", r"pickle.bin is no safetensors file .*save_file"),
        (VIT, "empty", r"empty has neither checkpoints nor model.safetensors"),
        (
            MLP,
            "model.safetensors",
            r"MLP has no rules .* bert, cait, deit, detr, .*resnet",
        ),
    ],
)
def test_what_is_no_source_is_one_sentence(file, tmp_path, model, path, says):
    (tmp_path / "pickle.bin").write_bytes(b"PK\x03\x04 and more of it")
    (tmp_path / "empty").mkdir()
    (tmp_path / "model.safetensors").write_bytes(file.read_bytes())
    path = str(tmp_path / path)
    with pytest.raises(settings.Invalid, match=f"config.model.weights: .*{says}"):
        one(model | {"weights": path}).weights.check()
    with pytest.raises(settings.Invalid, match=r"must be the path of a file, got 3"):
        one(model | {"weights": 3})


def test_a_safetensors_file_in_an_object_store_is_refused():
    address = f"{buckets.new()}/model.safetensors"
    with pytest.raises(settings.Invalid, match=f"{address} is in an object store"):
        one(VIT | {"weights": address}).weights.check()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A short training of an MLP, with an average, and its directory."""
    directory = tmp_path_factory.mktemp("run") / "point"
    config = small.config(model=MLP, train__average=0.5, train__steps=4)
    program = Program(config, jax.devices()[:1])
    loop.train(
        program,
        config,
        directory,
        {},
        progress=small.Listener(),
        interruption=Interruption(),
    )
    return directory


def kept(run, step):
    """The averaged parameters in a checkpoint, as orbax gives them."""
    checkpoints = Checkpoints(run / "checkpoints", read_only=True)
    found = checkpoints.arrays(step)
    checkpoints.close()
    beginning = "average.0."
    return {
        f"params/{name.removeprefix(beginning).replace('.', '/')}": value
        for name, value in found.items()
        if name.startswith(beginning)
    }


@pytest.mark.parametrize("step", [None, "3"])
def test_a_run_gives_its_averaged_variables(run, step):
    path = run if step is None else run / "checkpoints" / step
    program = one(MLP | {"weights": str(path)})
    jax.tree.map(np.testing.assert_array_equal, start(program), kept(run, step))
    assert int(program.init_state(0).step) == 0
    drawn = start(one(MLP), 0)
    assert not np.array_equal(
        drawn["params/classifier/kernel"], kept(run, step)["params/classifier/kernel"]
    )


def test_a_run_of_another_model_and_no_checkpoint_are_refused(run):
    wider = one(MLP | {"widths": [6], "weights": str(run)})
    with pytest.raises(settings.Invalid, match=r"has shape \(5,\).*\(6,\)"):
        wider.weights.check()
    deeper = one(MLP | {"widths": [5, 5], "weights": str(run)})
    with pytest.raises(settings.Invalid, match=r"it lacks params/dense1/bias, par"):
        deeper.weights.check()
    path = run / "checkpoints" / "2"
    path.mkdir()
    with pytest.raises(settings.Invalid, match=r"checkpoint 2 .* is damaged"):
        one(MLP | {"weights": str(path)}).weights.check()
    path.rmdir()


def test_a_run_on_longer_texts_gives_its_first_places(tmp_path):
    shapes = {"token_position": {"position": (1, 9, 6)}, "classifier": {"bias": (4,)}}
    draw = np.random.default_rng(0).normal
    is_shape = lambda node: isinstance(node, tuple)
    params = jax.tree.map(lambda shape: draw(size=shape), shapes, is_leaf=is_shape)
    state = State(np.int32(7), np.uint32(0), params, {}, {}, None, {})
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    checkpoints.save(state, notes={})
    checkpoints.close()
    wanted = {
        "token_position": {"position": jax.ShapeDtypeStruct((1, 7, 6), np.float32)},
        "classifier": {"bias": jax.ShapeDtypeStruct((4,), np.float32)},
    }
    bert = models.create("bert", size="tiny", vocab_size=5, max_length=7)
    found = weights.Weights(str(tmp_path), bert, {"params": wanted}).read()
    position = params["token_position"]["position"][:, :7]
    np.testing.assert_array_equal(
        found["params/token_position/position"], np.float32(position)
    )
    vit = models.create("vit", size="tiny", num_classes=4)  # of images, not of texts
    with pytest.raises(settings.Invalid, match=r"position has shape \(1, 9, 6\)"):
        weights.Weights(str(tmp_path), vit, {"params": wanted}).check()


def test_what_a_task_keeps_is_no_weight(tmp_path):
    params = {"dense0": {"bias": np.arange(5.0)}}
    extras = {
        "batch_stats": {"norm": {"mean": np.ones(5)}},
        "task": {"seen": np.ones(())},
    }
    state = State(np.int32(7), np.uint32(0), params, extras, {}, None, {})
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    checkpoints.save(state, notes={})
    checkpoints.close()
    like = jax.ShapeDtypeStruct((5,), np.float32)
    wanted = {
        "params": {"dense0": {"bias": like}},
        "batch_stats": {"norm": {"mean": like}},
    }
    mlp = models.create(**MLP, num_classes=4)
    found = weights.Weights(str(tmp_path), mlp, wanted).read()
    assert set(found) == {"params/dense0/bias", "batch_stats/norm/mean"}


FILE = '''"""From another training, in a sweep of one point."""
from tests.train import small

def get_config(arg):
    return small.config(model=%s | {"weights": arg}, train__steps=4)
'''


def test_a_sweep_needs_its_weights_to_start_and_not_to_go_on(run, tmp_path):
    source = tmp_path / "source"
    path = tmp_path / "fine.py"
    path.write_text(FILE % MLP)
    experiment = experiment_file.load(path, str(source), [])

    def sweep():
        listener, asked = small.Listener(), Interruption()
        local.run(
            experiment,
            experiment.points,
            tmp_path / "runs",
            progress=listener,
            interruption=asked,
        )
        return listener.notes

    with pytest.raises(settings.Invalid, match="there is no file"):
        sweep()
    shutil.copytree(run, source)
    assert sweep()[0] == f"starts with the weights of {source}"
    shutil.rmtree(source)
    assert sweep() == ["1 of 1 points are done already"]
    (result,) = (tmp_path / "runs").glob("*/result.json")
    result.unlink()
    assert sweep()[0] == "resumes at step 4"


RESNET = {"layout": "cifar", "depth": 8, "width": 4}
IMAGES = np.zeros((1, 16, 24, 3), np.float32)
HOSTS = {
    "pose_resnet": {"num_joints": 3, "deconvolutions": 1, "width": 6},
    "detr": {"num_classes": 3, "width": 8, "num_heads": 2, "frozen_norm": True}
    | {"encoder_depth": 1, "decoder_depth": 1, "mlp_dim": 6, "num_queries": 2},
}


def shapes_of(model):
    init = lambda: model.init(jax.random.key(0), IMAGES, train=False)
    return jax.eval_shape(init)


@pytest.fixture(scope="module")
def resnet(tmp_path_factory):
    """The directory of a checkpoint of a ResNet, and its variables by their path."""
    shapes = shapes_of(models.create("resnet", num_classes=5, **RESNET))
    draw = np.random.default_rng(1).normal
    drawn = jax.tree.map(lambda x: np.float32(draw(size=x.shape)), shapes)
    place = tmp_path_factory.mktemp("resnet")
    rest = {"batch_stats": drawn["batch_stats"]}
    state = State(np.int32(7), np.uint32(0), drawn["params"], rest, {}, None, {})
    checkpoints = Checkpoints(place / "checkpoints")
    checkpoints.save(state, notes={})
    checkpoints.close()
    return place, flat(drawn)


@pytest.mark.parametrize("name", HOSTS)
def test_a_run_of_a_resnet_gives_the_backbone_of_another_model(resnet, name):
    place, drawn = resnet
    model = models.create(name, backbone=RESNET, **HOSTS[name])
    made = weights.Weights(str(place), model, shapes_of(model))
    found = made.read()
    inside = [path for path in flat(shapes_of(model)) if "/backbone/" in path]
    assert set(found) == set(inside) and len(inside) > 30
    for path, value in found.items():
        kind, own = path.split("/backbone/")
        known = drawn.get(f"{kind}/{own}", drawn.get(f"params/{own}"))
        np.testing.assert_array_equal(value, known, err_msg=path)
    (note,) = made.notes()
    assert note.endswith("left out: params/classifier")
    assert "new" in note and "backbone" not in note


def test_a_resnet_that_is_not_that_of_the_model_is_one_sentence(resnet):
    place, _ = resnet
    for backbone, says in (
        ({**RESNET, "width": 5}, r"has shape .* backbone/\S+ of this model, of shape"),
        ({**RESNET, "depth": 14}, r"it lacks \w+/stage1/block1/"),
    ):
        model = models.create("pose_resnet", backbone=backbone, **HOSTS["pose_resnet"])
        with pytest.raises(settings.Invalid, match=f"config.model.weights: .*{says}"):
            weights.Weights(str(place), model, shapes_of(model)).check()
