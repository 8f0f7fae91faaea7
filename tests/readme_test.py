"""The README tells the truth: its examples run, and its table is that of the cards."""

import importlib
import os
import pathlib
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest

import attn
from attn.report import catalogue
from attn.report.formats import markdown
from attn.report.read import saved
from attn.train.sweep import experiment_file, local
from attn.workdir import files

ROOT = pathlib.Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def example(name):
    """The code of the block that is marked with a file's name."""
    found = re.search(rf"<!-- example: {name} -->\n```python\n(.*?)```", README, re.S)
    return found.group(1)


def between(mark):
    return re.search(rf"<!-- {mark} -->\n(.*?)<!-- end of {mark} -->", README, re.S)[1]


@pytest.fixture
def channel_scale(tmp_path, monkeypatch):
    """The README's module, in a file on the path."""
    (tmp_path / "channel_scale.py").write_text(example("channel_scale.py"))
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    return tmp_path


def test_the_module_is_short_and_does_what_it_says(channel_scale):
    assert len(example("channel_scale.py").splitlines()) < 30
    module = attn.create("channel_scale:ChannelScale", start=2.0)
    x = jax.random.normal(jax.random.key(0), (2, 3, 4, 5))
    variables = {"params": {"a": jnp.arange(5.0), "b": jnp.full(5, 0.5)}}
    y, maps = attn.capture(module, variables, x)
    gate = jax.nn.sigmoid(jnp.arange(5.0)[None] * x.mean((1, 2)) + 0.5)
    assert jnp.allclose(y, x * gate[:, None, None, :], atol=1e-6)
    assert jnp.allclose(maps["channel_gate"].values, gate, atol=1e-6)


def test_the_module_runs_in_the_default_experiment(channel_scale):
    command = re.search(r"launch.py (--add=channel_scale.*runs/mine)", README, re.S)
    words = command.group(1).replace("\\", "").split()
    short = ["--config=experiments/attention_sweep.py:tiny", "--only=ChannelScale"]
    environment = os.environ | {"XLA_FLAGS": "", "PYTHONPATH": str(channel_scale)}
    run = subprocess.run(
        [sys.executable, "launch.py", *words, *short, f"--workdir={channel_scale}/w"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=1000,
    )
    assert run.returncode == 0, run.stderr
    config = files.read_json(channel_scale / "w" / "ChannelScale-0" / "config.json")
    slots = config["model"]["slots"]
    assert slots == {"block": {"residual": "channel_scale:ChannelScale"}}
    page = (channel_scale / "w" / "report.html").read_text()
    assert "channel_scale:ChannelScale" in page


@pytest.mark.parametrize(
    "flag",
    re.findall(r"--config\.[\w.]+=[^` ]+|--add=[^` ]\w+ |--add=\"[^`]+\"", README),
)
def test_what_the_readme_sets_fits_the_default_experiment(flag, channel_scale):
    name, _, value = flag.strip().removeprefix("--").partition("=")
    value = value.strip('"')
    overrides = [] if name == "add" else [(name.removeprefix("config."), value)]
    experiment = experiment_file.load(
        ROOT / "experiments" / "attention_sweep.py",
        "",
        overrides,
        add=[value] if name == "add" else [],
    )
    local.check(experiment.points)


def test_the_experiment_expands_and_builds(tmp_path):
    path = tmp_path / "where.py"
    path.write_text(example("where.py"))
    experiment = experiment_file.load(path, "")
    assert len(experiment.points) == 15
    local.check(experiment.points)


def test_the_library_example_runs():
    code = README.split("## The library")[1].split("```python\n")[1].split("```")[0]
    names = {"x": jnp.ones((1, 4, 6, 32))}
    exec(code, names)
    assert names["maps"]["channel_gate"].values.shape == (1, 32)


def test_the_host_example_builds():
    code = README.split("```python\nfrom attn import models")[1].split("```")[0]
    exec("from attn import models" + code, {})


def test_the_table_of_modules_is_that_of_the_cards():
    assert between("modules").strip() == catalogue.markdown().strip()


@pytest.mark.parametrize("page", ["README.md", "docs/papers.md"])
def test_the_tables_of_results_are_those_of_the_records(page):
    text = (ROOT / page).read_text()
    marks = re.findall(r"<!-- results: (\S+) -->", text)
    assert marks
    for name in marks:
        shown = re.search(
            rf"<!-- results: {name} -->\n(.*?)<!-- end of results: {name} -->",
            text,
            re.S,
        )[1]
        kept = saved.read(ROOT / "experiments" / "results" / f"{name}.json")
        assert shown.strip() == markdown.text(kept).strip()


@pytest.mark.parametrize("path", sorted(ROOT.glob("experiments/results/*.json")))
def test_a_record_is_of_an_experiment_that_is_there(path):
    kept = saved.read(path)
    file, _, table = kept.name.partition("-")
    now = experiment_file.load(ROOT / "experiments" / f"{file}.py", table)
    assert path.stem == kept.name == now.name
    rows = lambda points: {str({**p.axes, "seed": None}) for p in points}
    assert rows(kept.points) == rows(now.points)  # the whole table
    assert len(kept.points) == len(now.points)  # with all seeds
    assert all(point.result for point in kept.points)
    # of code that was committed
    codes = [code for point in kept.points for code in point.codes or ("+",)]
    assert not any(code.endswith("+") for code in codes)


def test_pictures_are_there():
    for path in re.findall(r"!\[[^]]*\]\(([^)]+)\)", README):
        assert (ROOT / path).stat().st_size > 1000
