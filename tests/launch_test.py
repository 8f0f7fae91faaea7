"""The command line as a person meets it, in processes of its own."""

import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import types

import pytest
from absl import flags

import launch as launcher
from attn import settings
from attn.commands import predict
from attn.tasks import detection
from attn.train import evaluation

ROOT = pathlib.Path(__file__).parents[1]
FILE = """'''A small sweep.'''
from tests.train import small

BASELINE = {"width": 8}

def get_config(arg):
    return small.config(train__steps=4, train__eval_every=4, train__save_every=2)

def sweep(arg):
    for width in (8, 4):
        for seed in (0, 1):
            yield {"width": width, "seed": seed}, {"model.width": width, "seed": seed}
"""


def launch(*arguments, devices=1, cwd=ROOT, path=ROOT):
    flags = f"--xla_force_host_platform_device_count={devices}"
    environment = os.environ | {"XLA_FLAGS": flags, "PYTHONPATH": str(path)}
    cache = os.environ["JAX_COMPILATION_CACHE_DIR"]
    command = [sys.executable, str(ROOT / "launch.py"), *map(str, arguments)]
    if not {"--help", "modules"} & set(command):
        command.append(f"--compilation_cache={cache}")
    return subprocess.run(
        command, env=environment, cwd=cwd, capture_output=True, text=True, timeout=1000
    )


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = tmp_path_factory.mktemp("launch")
    (place / "widths.py").write_text(FILE)
    return place


@pytest.fixture(scope="module")
def done(place):
    """A finished sweep: its directory, and what the command said."""
    directory = place / "runs"
    run = launch(f"--config={place}/widths.py", f"--workdir={directory}")
    assert run.returncode == 0, run.stderr
    return directory, run.stdout


def test_a_run_tells_its_points_and_ends_with_a_table_and_a_page(done):
    directory, said = done
    assert "[1/4] 8-0: test error" in said
    assert "[4/4] 4-1: test error" in said
    assert "A small sweep." in said
    assert "baseline" in said
    assert f"report: {directory / 'report.html'}" in said
    page = (directory / "report.html").read_text()
    assert page.count("<html") == 1
    assert "A small sweep." in page


def test_again_skips_what_is_done(done, place):
    directory, _ = done
    run = launch(f"--config={place}/widths.py", f"--workdir={directory}")
    assert run.returncode == 0
    assert "4 of 4 points are done already" in run.stdout


def test_a_changed_config_is_refused_with_the_difference(done, place):
    directory, _ = done
    result = (directory / "8-0" / "result.json").read_bytes()
    run = launch(
        f"--config={place}/widths.py",
        f"--workdir={directory}",
        "--config.train.steps=5",
        "--config.schedule.peak=1",
    )
    assert_one_line(run, "schedule.peak: 0.1 -> 1.0; train.steps: 4 -> 5")
    assert (directory / "8-0" / "result.json").read_bytes() == result


def test_seeds_train_together_where_it_is_asked_for(done, place, tmp_path):
    directory = tmp_path / "runs"
    arguments = [f"--config={place}/widths.py", f"--workdir={directory}"]
    run = launch(*arguments, "--only=8", "--parallel=devices", devices=2)
    assert run.returncode == 0, run.stderr
    assert "[2/2] 8-1: test error" in run.stdout
    for name in ("8-0", "8-1"):
        result = json.loads((directory / name / "result.json").read_text())
        assert result["together"] == 2
        alone = json.loads((done[0] / name / "result.json").read_text())
        assert alone["together"] == 1
        assert result["test"]["loss"] == pytest.approx(alone["test"]["loss"], rel=1e-4)


def test_evaluates_checkpoints(done):
    directory, _ = done
    run = launch("evaluate", f"--workdir={directory}", "--only=8-0,seed=1")
    assert run.returncode == 0, run.stderr
    result = json.loads((directory / "8-0" / "result.json").read_text())
    error = result["test"]["error"]
    assert f"8-0: step 4, error {error:.2f} %" in run.stdout
    names = [line.partition(":")[0] for line in run.stdout.splitlines()]
    assert names == ["8-0", "8-1", "4-1"]

    run = launch(
        "evaluate",
        f"--workdir={directory / '8-0'}",
        "--checkpoint=2",
        "--config.data.test=test[:24]",
        devices=8,
    )
    assert run.returncode == 0, run.stderr
    assert "8-0: step 2" in run.stdout
    assert "24 examples" in run.stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--checkpoint=3"], "has no checkpoint '3' (valid: last, best, 2, 4)"),
        (["--config.model.width=6", "--only=8-0"], "does not fit the config"),
        (["--only=8-5"], "unknown point '8-5'; did you mean"),
    ],
)
def test_evaluate_says_what_does_not_fit(done, arguments, says):
    assert_one_line(launch("evaluate", f"--workdir={done[0]}", *arguments), says)


def test_evaluate_leaves_out_what_no_example_has(monkeypatch, capsys):
    """Such as the average precision of large objects where there are none."""
    task = detection.Detection()
    values = {"ap": 12.5, "ap50": 25.0, "ap_small": 12.5, "loss": 3.0, "examples": 4}
    found = types.SimpleNamespace(task=task), 40, values
    given = types.SimpleNamespace(workdir="w", only=[], checkpoint="last")
    monkeypatch.setattr(launcher, "FLAGS", given)
    monkeypatch.setattr(launcher, "begin", lambda: None)
    monkeypatch.setattr(
        predict, "with_checkpoint", lambda *_: [pathlib.Path("w/point")]
    )
    monkeypatch.setattr(evaluation, "evaluate_checkpoint", lambda *_: found)
    launcher.evaluate([])
    assert capsys.readouterr().out == (
        "point: step 40, AP 12.50 %, AP50 25.00 %, APS 12.50 %,"
        " loss 3.0000, 4 examples\n"
    )


def test_evaluates_the_points_that_have_a_checkpoint(tmp_path, capsys):
    points = [{"name": name, "axes": {"seed": 0}} for name in ("a", "b", "c")]
    (tmp_path / "experiment.json").write_text(json.dumps({"points": points}))
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
    with pytest.raises(settings.Invalid, match=f"no point of {tmp_path} has a checkpo"):
        predict.with_checkpoint(str(tmp_path), [])
    (tmp_path / "b" / "checkpoints" / "2").mkdir(parents=True)
    assert predict.with_checkpoint(str(tmp_path), []) == [tmp_path / "b"]
    assert capsys.readouterr().err == "a: no checkpoint yet\n"
    # what is asked for by name is an error without one
    assert predict.with_checkpoint(str(tmp_path), ["a"]) == [tmp_path / "a"]
    assert predict.with_checkpoint(str(tmp_path), ["seed=0"]) == [tmp_path / "b"]


def test_writes_a_report_from_work_directories(done, tmp_path):
    run = launch("report", f"--workdir={done[0]}", f"--output={tmp_path}/page.html")
    assert run.returncode == 0, run.stderr
    assert "A small sweep." in (tmp_path / "page.html").read_text()
    run = launch("report", f"--workdir={tmp_path}")
    assert_one_line(run, str(tmp_path))


def test_results_are_saved_compared_and_quoted(done, tmp_path):
    file, page = tmp_path / "results.json", f"--output={tmp_path}/page.html"
    run = launch("report", f"--workdir={done[0]}", page, f"--save={file}")
    assert run.returncode == 0, run.stderr
    assert f"results: {file}" in run.stdout
    run = launch("report", f"--workdir={done[0]}", page, f"--against={file}")
    assert run.returncode == 0, run.stderr
    assert "2 the same" in run.stdout
    assert "Against results.json" in (tmp_path / "page.html").read_text()
    run = launch("report", f"--results={file}", "--markdown")
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith("| width | test error, % |")
    assert_one_line(
        launch("report", f"--workdir={done[0]}", f"--against={tmp_path}/page.html"),
        "page.html is not a results file",
    )


def test_a_dry_run_trains_and_writes_nothing(place, tmp_path):
    run = launch(
        f"--config={place}/widths.py", f"--workdir={tmp_path}/new", "--dry_run"
    )
    assert run.returncode == 0, run.stderr
    for name in ("8-0", "8-1", "4-0", "4-1", "parameters", "MACs"):
        assert name in run.stdout
    assert not list(tmp_path.iterdir())


def test_a_dry_run_shows_the_widths_that_cost_the_same(place, tmp_path):
    text = FILE.replace("small.config(", "small.config(model__name='mlp', ")
    text = text.replace('"model.width": width', '"model.widths": (width, 16)')
    (place / "layers.py").write_text(text)
    run = launch(
        f"--config={place}/layers.py",
        f"--workdir={tmp_path}/new",
        "--only=seed=0",
        "--match=parameters",
        "--dry_run",
    )
    assert run.returncode == 0, run.stderr
    # 785 x 8 + 9 x 16 + 17 x 10
    assert "matched 8-0: 6,594 parameters (+0.0 %) as it is" in run.stdout
    assert re.search(r"matched 4-0: 6,\d\d\d parameters \(.0.. %\) with", run.stdout)
    assert not list(tmp_path.iterdir())


def test_rows_are_tuned_and_the_report_says_so(place, tmp_path):
    directory = tmp_path / "new"
    arguments = [
        f"--config={place}/widths.py",
        f"--workdir={directory}",
        "--config.data.validation=test[40:80]",
        "--tune=schedule.peak=0.1,0.05",
        "--only=8-0",
    ]
    dry = launch(*arguments, "--dry_run")
    assert dry.returncode == 0, dry.stderr
    assert "2 trials and 1 point" in dry.stdout
    assert not list(tmp_path.iterdir())
    run = launch(*arguments)
    assert run.returncode == 0, run.stderr
    chosen = json.loads((directory / "tune.json").read_text())["rows"][0]["chosen"]
    said = " ".join(run.stdout.split())
    assert f"tuned 8: schedule.peak={chosen['schedule.peak']}" in said
    assert "each row had 2 trials of schedule.peak on the validation split" in said
    assert "schedule.peak" in (directory / "report.html").read_text()
    trials = launch("report", f"--workdir={directory}/trials")
    assert trials.returncode == 0, trials.stderr
    assert "Trials of: A small sweep." in trials.stdout


def test_help_can_be_read():
    run = launch("--help")
    assert run.returncode == 0
    for word in ("evaluate", "report", "modules", "--workdir", "--dry_run", "75"):
        assert word in run.stdout
    assert max(map(len, run.stdout.splitlines())) <= 100
    assert len(run.stdout.splitlines()) < 110


def test_shows_the_modules():
    run = launch("modules")
    assert run.returncode == 0, run.stderr
    assert "squeeze_excite" in run.stdout
    run = launch("modules", "--markdown")
    assert "| `cbam` | mixed |" in run.stdout


def assert_one_line(run, says):
    assert run.returncode == 2, run.stdout + run.stderr
    assert says in run.stderr
    assert len(run.stderr.splitlines()) == 1
    assert "Traceback" not in run.stderr + run.stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--config.train.stesp=3"], "did you mean 'steps'"),
        (["--config.train.steps=soon"], "config.train.steps must be int, got 'soon'"),
        (["--config.trian.steps=3"], "unknown field 'config.trian.steps'"),
        (["--config.train.batch_size=12"], "number of devices, 8; the nearest is 16"),
        (["--config.data.name=minst_5k"], "did you mean 'mnist_5k'"),
        (["--config.data.distortion=rst"], "did you mean 'rts'"),
        (["--config.data.name=kmnist"], "prepare"),
        (["--config.model.name=resnt"], "did you mean 'resnet'"),
        (["--config=experiments/none.py"], "unknown experiment file"),
        (["--config=experiments/attention_sweep.py:x"], "unknown argument 'x'"),
        (["--only=cbm"], "did you mean 'cbam'"),
        (["--workdri=x"], "Unknown command line flag 'workdri'"),
        (["--dry_run=perhaps"], "dry_run"),
        (["--match=flops"], "unknown match 'flops'"),
        (["--config.train.steps", "--dry_run"], "--config.train.steps needs a value"),
        (
            ["trian"],
            "unknown command 'trian' (valid: run, status, evaluate, predict, report",
        ),
        (["predict", "a", "b", "--workdir=x"], "predict reads one file, got a, b"),
        (["evaluate"], "evaluate needs --workdir"),
        (["report"], "report needs --workdir"),
        (["--distributed=here"], "--distributed must be auto, off or"),
        (["--workdir=s4://bucket/x"], "unknown kind of store 's4://'"),
        (["--config.model.slots.head=cbam"], "the sweep sets this field"),
        (["--add=no such"], "--add takes a module"),
        (["--add={{'name': 'cbam'}}"], "--add takes a module"),
        (["--stale=inf"], "--stale must be a number in 1..9223372036, got inf"),
        (["--stale=nan"], "--stale must be a number in 1..9223372036, got nan"),
        (["--workdir=" + "x" * 300], "cannot be written: File name too long"),
        (["status", "--workdir=" + "x" * 300], "cannot be read: File name too long"),
        (["evaluate", f"--workdir={__file__}"], "is not the work directory of a sweep"),
        (["status", f"--workdir={__file__}"], "holds no sweep"),
        (["--config=" + "x" * 300], "unknown experiment file"),
        (["--config=gs://bucket/exp.py:tiny"], "gs://bucket/exp.py is in an object"),
        (["--flagfile=none.txt"], "none.txt"),
        (["--parallel=vmpa"], "'vmpa'; did you mean 'vmap'"),
        (["--noreport=true"], "--noreport=true does not take an argument"),
        (["--save=x.json"], "run takes no --save, which is for report"),
        (["status", "--only=none"], "status takes no --only, which is for run, submit"),
        (["modules", "--workdir=x"], "modules takes no --workdir"),
        (
            ["predict", "--workdir=x", "--watch"],
            "takes no --watch, which is for status",
        ),
    ],
)
def test_a_mistake_is_one_line_with_status_2_and_nothing_written(
    tmp_path, arguments, says
):
    if not any(argument.startswith("--config=") for argument in arguments):
        arguments = [*arguments, f"--config={ROOT}/experiments/attention_sweep.py"]
    elif "none.py" not in arguments[0]:
        arguments = [arguments[0].replace("experiments/", f"{ROOT}/experiments/")]
    run = launch(*arguments, devices=8, cwd=tmp_path)
    assert_one_line(run, says)
    assert not list(tmp_path.iterdir())


OWN = """import flax.linen as nn


class Broken(nn.Module):
    def __call__(self, x, *, train):
        raise ValueError("a mistake of my own")
"""


def test_an_error_in_a_module_of_ones_own_keeps_its_trace(place, tmp_path):
    (place / "own.py").write_text(OWN)
    run = launch(
        f"--config={ROOT}/experiments/attention_sweep.py:tiny",
        f"--workdir={tmp_path}/new",
        "--add=own:Broken",
        "--only=Broken",
        path=place,
    )
    assert run.returncode == 1
    assert "ValueError: a mistake of my own" in run.stderr
    assert re.search(r'own.py", line 6', run.stderr)
    assert not list(tmp_path.iterdir())


def test_flags_in_a_file_may_set_fields(place, tmp_path):
    file = tmp_path / "flags.txt"
    file.write_text("# a comment\n--config.train.stesp=3\n")
    run = launch(f"--config={place}/widths.py", f"--flagfile={file}", cwd=tmp_path)
    assert_one_line(run, "did you mean 'steps'")


def test_the_default_experiment_is_found_from_elsewhere(tmp_path):
    run = launch("--config.train.stesp=3", cwd=tmp_path)
    assert_one_line(run, "did you mean 'steps'")


def test_a_path_may_have_a_colon(tmp_path, monkeypatch):
    (tmp_path / "a:b").mkdir()
    (tmp_path / "a:b" / "widths.py").write_text(FILE)
    for arg, name in (("", "widths"), (":x:y.py", "widths-x_y_py")):
        config = f"{tmp_path}/a:b/widths.py{arg}"
        given = types.SimpleNamespace(config=config, add=[], tune=[])
        monkeypatch.setattr(launcher, "FLAGS", given)
        assert launcher.load([]).name == name


def test_a_value_of_several_lines_is_one_word():
    values = flags.FlagValues()
    flags.DEFINE_multi_string("add", [], "", flag_values=values)
    flags.DEFINE_string("workdir", None, "", flag_values=values)
    words = ["--add={'name':\n'cbam'}", "--add=none", "--workdir=a\nb"]
    values(["launch.py", *words])
    found = [
        word for name in ("add", "workdir") for word in launcher._words(values[name])
    ]
    assert found == words


def test_ctrl_c_is_one_line(monkeypatch, capsys):
    def interrupted(overrides):
        raise KeyboardInterrupt

    monkeypatch.setitem(launcher.COMMANDS, "evaluate", interrupted)
    monkeypatch.setattr(launcher.signal, "signal", lambda *_: None)
    with pytest.raises(SystemExit) as caught:
        launcher.main(["launch.py", "evaluate"])
    assert caught.value.code == launcher.INTERRUPTED
    assert capsys.readouterr().err == "interrupted\n"


@pytest.mark.parametrize(
    ("number", "stop_on", "status", "says"),
    [
        (signal.SIGINT, "TERM", launcher.INTERRUPTED, "interrupted\n"),
        (signal.SIGTERM, "TERM,KILL", 75, "stopped: nothing to save; run the same"),
        (signal.SIGUSR1, "INT,USR1", 75, "stopped: nothing to save; run the same"),
        (signal.SIGTERM, "USR1", -signal.SIGTERM, ""),  # as ever
    ],
)
def test_a_signal_while_the_program_starts_is_one_line(
    tmp_path, number, stop_on, status, says
):
    """In an import, where others make other errors of an exception."""
    (tmp_path / "slow.py").write_text("print('here', flush=True)\nimport slower\n")
    (tmp_path / "slower.py").write_text(
        "import time\ntry:\n    time.sleep(100)\n"
        "except BaseException as error:\n"
        "    raise ImportError('half done') from error\n"
    )
    (tmp_path / "exp.py").write_text("import slow\n")
    words = [f"--config={tmp_path}/exp.py", f"--stop_on={stop_on}"]
    # where tests run in the background it may be ignored, and so in what they start
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(
        [sys.executable, ROOT / "launch.py", *words],
        env=os.environ | {"PYTHONPATH": f"{ROOT}:{tmp_path}"},
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    signal.signal(signal.SIGINT, before)
    assert process.stdout.readline() == "here\n"
    process.send_signal(number)
    _, said = process.communicate(timeout=100)
    assert process.returncode == status
    assert said.startswith(says) and said.count("\n") == bool(says)


@pytest.mark.parametrize("words", [["--help"], ["modules"], ["modules", "--markdown"]])
def test_what_reads_the_output_may_have_had_enough(words):
    process = subprocess.Popen(
        [sys.executable, ROOT / "launch.py", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait(timeout=100) == launcher.CLOSED


def test_work_directories_that_cannot_be_used(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    config = f"--config={ROOT}/experiments/attention_sweep.py"
    run = launch(config, f"--workdir={tmp_path}")
    assert_one_line(run, "holds files that are no sweep's")
    run = launch(config, f"--workdir={tmp_path}/mine.txt/below")
    assert_one_line(run, "cannot be written")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
