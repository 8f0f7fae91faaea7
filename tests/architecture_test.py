"""The rooms of the house: who may import whom, and which library has which door."""

import ast
import functools
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parents[1]
BELOW = {
    "ops": set(),
    "modules": {"ops"},
    "models": {"ops", "modules"},
    "data": {"ops"},
    "explain": {"ops", "modules", "models", "data"},
    "interop": {"ops", "modules", "models"},
    "tasks": {"ops", "modules", "models", "data", "explain"},
    "workdir": set(),
    "train": {
        *("ops", "modules", "models", "interop"),
        *("data", "tasks", "explain", "workdir"),
    },
    "report": {"modules", "workdir"},
    "launchers": set(),
}
BELOW["commands"] = BELOW.keys() - {"launchers"}
# The rooms within report, which reads files and never computes: each may import
# those before it.
REPORT = ("read", "analyse", "draw", "sections", "formats")
# A library, and the files or rooms that may import it.
DOORS = {
    "safetensors": ["attn/interop/safetensors.py"],
    "orbax": ["attn/train/store/checkpoint.py"],
    "tensorflow_datasets": ["attn/data/"],
    "grain": ["attn/data/"],
    "tokenizers": ["attn/data/text/tokenizer.py"],
    "babel": ["attn/data/text/babel.py", "attn/data/text/phrases.py"],
    "tensorboardX": ["attn/train/store/writers.py"],
    "wandb": ["attn/train/store/tracking/wandb.py"],
    "mlflow": ["attn/train/store/tracking/mlflow.py"],
    "rich": [
        *("attn/report/formats/console.py", "attn/report/formats/terminal.py"),
        *("attn/report/live.py", "attn/report/standings.py"),
    ],
    "etils": ["attn/workdir/stores.py"],
    "fsspec": ["attn/workdir/stores.py"],
    "matplotlib": ["attn/report/"],
    "sacrebleu": ["attn/tasks/bleu.py"],
    "pycocotools": ["attn/tasks/coco.py"],
    "jinja2": ["attn/report/"],
    "absl.flags": ["launch.py"],
    "ml_collections": ["experiments/"],
    "ray": ["attn/launchers/ray.py"],
    "jax.sharding": ["attn/train/partition.py"],
}
OPS = {"jax", "numpy", "einops", "attn.ops"}
FILES = sorted([*ROOT.glob("attn/**/*.py"), *ROOT.glob("experiments/*.py")])
FILES.append(ROOT / "launch.py")


@functools.cache
def imported(path):
    """The full names of what a file imports."""
    names = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return names


def inside(name, package):
    return name == package or name.startswith(f"{package}.")


@pytest.mark.parametrize("room", BELOW)
def test_a_room_imports_only_rooms_below_it(room):
    files = list(ROOT.glob(f"attn/{room}/**/*.py"))
    assert files
    others = BELOW.keys() - BELOW[room] - {room}
    for path in files:
        for name in imported(path):
            for other in others:
                assert not inside(name, f"attn.{other}"), f"{path} imports {name}"


@pytest.mark.parametrize("place", range(len(REPORT)))
def test_a_room_of_the_report_imports_only_those_before_it(place):
    files = list(ROOT.glob(f"attn/report/{REPORT[place]}/*.py"))
    assert files
    for path in files:
        for name in imported(path):
            for later in REPORT[place + 1 :]:
                assert not inside(name, f"attn.report.{later}"), f"{path}: {name}"


def test_a_report_reads_files_and_needs_no_jax():
    allowed = (
        "attn.report",
        "attn.settings",
        "attn.workdir.diff",
        "attn.workdir.files",
        "attn.workdir.standing",
    )
    for path in ROOT.glob("attn/report/**/*.py"):
        for name in imported(path):
            assert not inside(name, "jax"), path
            assert not inside(name, "flax"), path
            ours = inside(name, "attn") and path.name != "catalogue.py"
            assert not ours or any(inside(name, one) for one in allowed), (path, name)


def test_every_folder_is_a_room():
    folders = {
        p.name for p in (ROOT / "attn").iterdir() if (p / "__init__.py").exists()
    }
    assert folders == BELOW.keys()


def test_ops_need_jax_numpy_and_einops_only():
    for path in ROOT.glob("attn/ops/**/*.py"):
        for name in imported(path):
            third = name.split(".")[0] in ("flax", "optax", "scipy", "orbax", "attn")
            allowed = any(inside(name, package) for package in OPS)
            assert allowed or not third, f"{path} imports {name}"


@pytest.mark.parametrize("library", DOORS)
def test_a_library_has_one_door(library):
    found = [
        str(path.relative_to(ROOT))
        for path in FILES
        if any(inside(name, library) for name in imported(path))
    ]
    assert found, f"nobody imports {library}"
    for path in found:
        assert any(path.startswith(door) for door in DOORS[library]), path


def test_only_the_partition_speaks_of_pmap():
    for path in FILES:
        words = {
            node.attr
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Attribute)
        }
        if words & {"pmap", "shard_map", "NamedSharding"}:
            assert path == ROOT / "attn/train/partition.py", path


def _opened(path):
    """How a file reaches for paths other than by `attn.workdir.files`."""
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Call):
            continue
        name, first = ast.unparse(node.func), (*map(ast.unparse, node.args), "")[0]
        room, _, last = name.rpartition(".")
        made = name == "pathlib.Path" and not re.match("$|f?'/proc|.*__file__", first)
        moved = room in ("os", "shutil") and last in MOVES
        asked = re.match(r"os\.(path|[a-z]*dirs?$)", name)
        written = room != "files" and last in WRITES
        opened = name == "open" or (last == "open" and re.match("'.*[wax+]", first))
        if made or moved or asked or written or opened:
            yield name if room in ("os", "shutil", "os.path") else last


MOVES = {"open", "remove", "rename", "replace", "stat", "walk", "scandir", "rmtree"}
WRITES = {"write_text", "write_bytes", "mkdir", "unlink", "touch", "rename", "rmdir"}
LOCAL = {  # what never is in an object store
    "attn/commands/workers.py": {"open"},
    "attn/train/store/checkpoint.py": {"mkdir", "shutil.rmtree"},
    "attn/train/sweep/estimate.py": {"shutil.rmtree"},
    "launch.py": {"os.path.join", "os.path.expanduser", "os.open"},
}


def test_files_are_the_one_door_of_paths():
    rooms = ("attn/train/", "attn/report/", "attn/workdir/", "attn/commands/", "launch")
    doors = ("attn/workdir/files.py", "attn/workdir/stores.py")
    for path in FILES:
        name = str(path.relative_to(ROOT))
        if name.startswith(rooms) and name not in doors:
            assert {*_opened(path)} <= LOCAL.get(name, set()), name


def test_no_file_is_a_drawer_for_odds_and_ends():
    names = {path.stem for path in ROOT.glob("attn/**/*.py")}
    assert not names & {"utils", "helpers", "misc", "common"}
