"""The package: its dependencies, types and licence."""

import pathlib
import subprocess
import sys
import tomllib

ROOT = pathlib.Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# What the library must do without; the others of requirements.txt come with flax.
TRAINING = (
    *("grain", "jinja2", "matplotlib", "ml_collections", "mlxtend", "PIL", "skimage"),
    *("sklearn", "tensorboardX", "tensorflow_datasets", "babel", "tokenizers"),
    "safetensors",
)


def test_the_librarys_dependencies_are_among_those_of_training():
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    wanted = {line.split("#")[0].strip() for line in lines}
    assert set(PROJECT["dependencies"]) <= wanted


def test_mechanisms_and_models_need_nothing_of_training():
    code = (
        "import sys\n"
        f"for name in {TRAINING}: sys.modules[name] = None\n"
        "import attn, attn.interop, attn.ops, attn.models, jax\n"
        "module = attn.create('squeeze_excite', reduction=2)\n"
        "x = jax.numpy.ones((1, 3, 4, 4))\n"
        "print(module.init(jax.random.key(0), x, train=False).keys())\n"
    )
    command = [sys.executable, "-c", code]
    run = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert run.returncode == 0, run.stderr
    assert "params" in run.stdout


def test_it_has_types_a_licence_and_a_citation():
    assert (ROOT / "attn" / "py.typed").exists()
    assert "Apache License" in (ROOT / "LICENSE").read_text()
    assert PROJECT["license"] == "Apache-2.0"
    assert f"version: {PROJECT['version']}" in (ROOT / "CITATION.cff").read_text()
