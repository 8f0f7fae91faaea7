"""All launchers: their settings from files and flags, and what the command keeps."""

import json
import pathlib
import re
import shlex
import subprocess
import sys

import pytest

import launch as launcher
from attn import launchers, settings
from attn.launchers import base
from attn.train import ending
from tests.launchers.programs import command

ROOT = pathlib.Path(__file__).parents[2]
# Of each engine: what it needs, and for every setting a value other than the default.
CASES = {
    "slurm": (
        {},
        {"workers": 3, "nodes": 2, "partition": "p", "account": "a", "time": "1:00:00"}
        | {"memory": "8G", "gpus": 2, "cpus": 4, "grace": 60, "options": "--qos=low"}
        | {"setup": "module load x", "python": "py"},
    ),
    "ray": (
        {},
        {"address": "local", "workers": 3, "gpus": 0.5, "cpus": 2, "retries": 3}
        | {"python": "py"},
    ),
    "skypilot": (
        {"bucket": "gs://a"},
        {"accelerators": "H100:1", "infra": "gcp", "spot": True, "bucket": "gs://b"}
        | {"mount": "/m", "nodes": 2, "setup": "true", "python": "py"},
    ),
    "tpu": (
        {"zone": "z", "accelerator": "a", "version": "v"},
        {
            "zone": "y",
            "tpu_name": "n",
            "project": "p",
            "accelerator": "b",
            "version": "w",
        }
        | {"queued": True, "spot": True, "setup": "true", "directory": "d"}
        | {"python": "py"},
    ),
}
SETTINGS = [(name, key) for name, (_, others) in CASES.items() for key in others]


def test_every_launcher_has_a_case_and_every_setting_a_value():
    assert CASES.keys() == launchers.LAUNCHERS.keys()
    for name, (_, others) in CASES.items():
        assert others.keys() == launchers.LAUNCHERS[name].__dataclass_fields__.keys()


@pytest.mark.parametrize(("name", "key"), SETTINGS)
def test_every_setting_changes_what_is_rendered(name, key, tmp_path):
    needs, others = CASES[name]
    run = command(tmp_path, "--workdir=w")
    plain = launchers.LAUNCHERS[name](**needs).render(run)
    given = [(k, str(value)) for k, value in (needs | {key: others[key]}).items()]
    assert launchers.build(name, None, given).render(run) != plain


@pytest.mark.parametrize("name", CASES)
def test_flags_arrive_whole(name, tmp_path):
    flags = ["--workdir=a b", "--add=se8={'name': \"x\"}", "--config.a=$HOME @NAME"]
    text = launchers.LAUNCHERS[name](**CASES[name][0]).render(command(tmp_path, *flags))
    if name == "ray":
        rendered = json.loads(text)["command"]
    elif name == "skypilot":
        (line,) = (one for one in text.splitlines() if one.startswith("run: "))
        rendered = json.loads(line.removeprefix("run: "))
    else:
        rendered = text
        if name == "tpu":  # a command within a command
            rendered = shlex.split(text.partition("--command=")[2])[0]
        (rendered,) = (one for one in rendered.splitlines() if "launch.py" in one)
    words = shlex.split(rendered)
    start = next(k for k, word in enumerate(words) if word.endswith("launch.py"))
    assert words[start + 1 : start + 4] == flags
    assert words[start + 4 :] == ([] if name == "tpu" else ["--distributed=off"])


def test_a_way_to_join_that_is_given_is_kept(tmp_path):
    run = command(tmp_path, "--distributed=auto")
    assert "--distributed=off" not in run.here("py", alone=True)
    assert run.name == "attn-a-sweep-2"


def test_flags_go_over_the_section_of_a_file(tmp_path):
    file = tmp_path / "cluster.toml"
    file.write_text('[launch]\nto = "slurm"\nworkers = 8\npartition = "a"\n')
    given = [("partition", "7"), ("gpus", "2")]
    slurm = launchers.build(None, file, given)
    assert slurm == launchers.LAUNCHERS["slurm"](workers=8, partition="7", gpus=2)
    file.write_text("[launch]\ngpus = 2\n")
    slurm = launchers.build("slurm", file, [("gpus", "None")])
    assert slurm == launchers.LAUNCHERS["slurm"]()


@pytest.mark.parametrize(
    ("engine", "text", "given", "says"),
    [
        (None, None, [], "submit needs --to=ENGINE (valid: ray, skypilot, slurm, tpu)"),
        ("slrm", None, [], "unknown launcher 'slrm'; did you mean 'slurm'?"),
        ("slurm", None, [("gpu", "1")], "did you mean 'gpus'?"),
        ("slurm", None, [("workers", "0")], "must be a positive int, got 0"),
        ("slurm", None, [("workers", "many")], "must be a positive int, got 'many'"),
        ("tpu", None, [], "launcher 'tpu' needs the setting 'zone'"),
        ("tpu", "[launch]\nzone='z'\nspot=true", [], "needs 'accelerator' and"),
        ("tpu", "[launch]\nzone='z'\nversion='v'", [], "together, got '' and 'v'"),
        ("slurm", "[start]\n", [], "has no section [launch]"),
        (None, "[launch]\nto=['slurm']", [], "unknown launcher ['slurm']"),
        ("slurm", "launch = 3", [], "must be a section, got 3"),
        ("slurm", "[launch", [], "is no TOML"),
        ("slurm", "", None, "cannot be read: No such file"),
    ],
)
def test_mistakes_are_one_sentence(engine, text, given, says, tmp_path):
    file = None if text is None else tmp_path / "launch.toml"
    if text:
        file.write_text(text)
    if text == "":
        file, given = tmp_path / "absent.toml", []
    with pytest.raises(settings.Invalid) as error:
        launchers.build(engine, file, given)
    assert says in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "program"), [("slurm", "sbatch"), ("tpu", "gcloud"), ("skypilot", "sky")]
)
def test_a_program_that_is_missing_is_named(name, program, programs, tmp_path):
    made = launchers.LAUNCHERS[name](**CASES[name][0])
    with pytest.raises(settings.Invalid, match=f"--to={name} needs the .* {program},"):
        made.submit(command(tmp_path))


def submit(*words, cwd=ROOT):
    line = [sys.executable, str(ROOT / "launch.py"), "submit", *words]
    return subprocess.run(line, capture_output=True, text=True, cwd=cwd, timeout=1000)


def test_the_command_line_keeps_the_flags_of_the_run_only(tmp_path):
    add = "--add=se8={'name': 'squeeze_excite', 'reduction': 8}"
    run = submit(
        *("--to=slurm", "--launch.partition=gpu", "--dry_run", "--workdir", "runs/x"),
        *(add, "--add=efficient_channel", "--only=none,se8", "--config.seed", "7"),
        cwd=tmp_path,
    )
    assert run.returncode == 0, run.stderr
    assert f"#SBATCH --chdir={tmp_path}\n" in run.stdout
    assert "#SBATCH --partition=gpu\n" in run.stdout
    (line,) = (line for line in run.stdout.splitlines() if line.startswith("srun "))
    words = shlex.split(line)
    program = words.index(str(ROOT / "launch.py"))
    assert set(words[program + 1 :]) == {
        *("--workdir=runs/x", add, "--add=efficient_channel", "--only=none,se8"),
        *("--config.seed=7", "--distributed=off"),
    }


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--config.trian.steps=3"], "did you mean 'config.train.steps'"),
        (["--only=nothing"], "nothing"),
        (["--config.train.stepz=3"], "config.train: unknown setting"),
        (["--config.data.depth=9"], "config.data: unknown setting"),
        (["--config.optimizer.name=sdg"], "did you mean 'sgd'"),
        (["--match=mac"], "did you mean 'macs'"),
        (["--parallel=on"], "unknown parallel mode 'on'"),
        (["--stop_on=TREM"], "--stop_on must be names of signals"),
        (["--log_to=wand"], "did you mean 'wandb'"),
        (["--distributed=on"], "--distributed must be auto, off or"),
    ],
)
def test_a_mistake_in_the_run_is_found_before_it_waits_in_a_queue(words, says):
    run = submit("--to=slurm", "--dry_run", *words)
    assert run.returncode == 2 and says in run.stderr and run.stdout == ""
    assert run.stderr.count("\n") == 1


def test_settings_of_an_engine_are_for_submit_only(capsys, monkeypatch):
    with pytest.raises(SystemExit) as caught:
        launcher.main(["launch.py", "report", "--launch.gpus=1"])
    assert caught.value.code == 2
    assert "--launch.gpus is for submit only" in capsys.readouterr().err


def test_a_stopped_run_has_one_status():
    assert ending.STOPPED == base.STOPPED


def test_a_run_that_was_submitted_refuses_a_directory_that_is_not_shared(
    programs, tmp_path
):
    programs.add("sbatch", 'cat > "$NOTES"')
    start = [sys.executable, str(ROOT / "launch.py")]
    flags = ["--config=experiments/attention_sweep.py:tiny", f"--workdir={tmp_path}/w"]
    subprocess.run([*start, "submit", "--to=slurm", *flags], cwd=ROOT, check=True)
    (token,) = re.findall(r"--token=\w+", programs.notes("sbatch"))
    (tmp_path / "w").rename(tmp_path / "elsewhere")
    run = subprocess.run([*start, *flags, token], cwd=ROOT, capture_output=True)
    assert run.returncode == 2
    (line,) = run.stderr.decode().splitlines()
    assert f"workdir {tmp_path}/w is not on" in line
    assert not (tmp_path / "w").exists()
