"""Runs experiments on visual attention, and what belongs to them.

    python launch.py                                   the default experiment
    python launch.py --config=experiments/FILE.py:ARG --workdir=DIR
    python launch.py --config.train.steps=200 --config.seed=7 --only=cbam,none
    python launch.py --config.model.weights=PATH       from a safetensors file, or a
                                                       point of another work directory
    python launch.py --add=my_file:MyModule            one more row, of your own module
    python launch.py --dry_run                         points, costs and time only
    python launch.py --match=parameters[=400000]       widths of one budget; or macs,
                                                       latency, none
    python launch.py --workers=4                       on shares of the cores, or a GPU
                                                       each
    python launch.py --tune=schedule.peak=0.003,0.01,0.03   each row takes the best on
                                                       the validation split
    python launch.py --log_to=wandb,mlflow             tracking services hear of it too
    python launch.py --blocks=measured                 of attention, those that are the
                                                       fastest here
    python launch.py status --workdir=DIR [--watch]    how far it is, who trains what
    python launch.py evaluate --workdir=DIR [--only=POINT] [--checkpoint=best]
    python launch.py predict --workdir=DIR [--only=POINT] [FILE]   answers to the lines
                                                       of a file or standard input
    python launch.py predict --workdir=DIR --images=PATH   what is in pictures,
                                                       or these restored
    python launch.py report --workdir=DIR[,DIR...] [--output=FILE.html]
    python launch.py report --workdir=DIR --save=FILE.json      results in one file
    python launch.py report --workdir=DIR --against=FILE.json   then and now
    python launch.py report --results=FILE.json [--markdown]    its table again
    python launch.py modules [--markdown]              the table of attentions
    python launch.py submit --to=ENGINE [flags of a run]   by slurm, ray, tpu, skypilot

Running the same command again skips the points that are done and resumes the one
that was cut short; at the same time, it shares the points, also between machines.
Any field of a config that the sweep does not set can be set as --config.FIELD=VALUE,
and any setting of the engine as --launch.FIELD=VALUE.

Exit status: 0 done; 1 a training failed; 2 a mistake in the command or the config;
75 stopped after saving, by a signal (--stop_on), or by the loss of a machine that it
trained with: run the same command to go on; 130 stopped by Ctrl-C with nothing to
save. An error of the program, or of a module of yours, ends with its traceback.
"""

import contextlib
import dataclasses
import os
import pathlib
import re
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

from absl import app, flags, logging

STARTED = time.perf_counter()
INTERRUPTED = 130  # as shells say of Ctrl-C
CLOSED = 141  # and of a pipe that nobody reads any more
HERE = pathlib.Path(__file__).parent
DEFAULT = "experiments/attention_sweep.py"
FIELDS = ("--config.", "--launch.")  # what begins a flag of one field

FLAGS = flags.FLAGS
flags.DEFINE_string("config", DEFAULT, "Experiment file, with :ARG after it if any.")
flags.DEFINE_string(
    "workdir", None, "Where results and checkpoints go (default: runs/EXPERIMENT)."
)
flags.DEFINE_list(
    "only",
    [],
    "Points to take, by name, value or axis=value; with a comma: --only='\"a, b\"'.",
)
flags.DEFINE_multi_string(
    "add", [], "One more row, of [NAME=]MODULE; may be given several times."
)
flags.DEFINE_bool(
    "dry_run", False, "Show points, costs and time, or what submit would hand over."
)
flags.DEFINE_string(
    "parallel", "auto", "Points side by side: auto, off, devices (one on each) or vmap."
)
flags.DEFINE_string(
    "match",
    None,
    "Scale widths to equal parameters, macs or latency, of the baseline or =BUDGET.",
)
flags.DEFINE_multi_string(
    "tune",
    [],
    "FIELD=VALUE,VALUE,...: what each row tries on the validation split, or none.",
)
flags.DEFINE_string(
    "checkpoint", "last", "For evaluate and predict: last, best or a step."
)
flags.DEFINE_string(
    "output",
    None,
    "The page of report, or page or folder of predict --images (default: in WORKDIR).",
)
flags.DEFINE_string(
    "images", None, "For predict: a PNG or JPEG file, a folder of them or a pattern."
)
flags.DEFINE_bool(
    "skip_corrupt", False, "For predict --images: pass over files that cannot be read."
)
flags.DEFINE_bool("traceback", False, "Show where in the code a mistake was found.")
flags.DEFINE_bool(
    "markdown", False, "For modules and report --results: the table as Markdown."
)
flags.DEFINE_string("save", None, "For report: the file to write the results to.")
flags.DEFINE_string("against", None, "For report: results to compare with.")
flags.DEFINE_string("results", None, "For report: results to show, without a workdir.")
flags.DEFINE_string(
    "compilation_cache",
    os.path.join(
        os.environ.get("XDG_CACHE_HOME", os.path.expanduser("~/.cache")), "attn", "xla"
    ),
    "Where compiled programs are kept; empty for nowhere.",
)
flags.DEFINE_string(
    "blocks",
    "table",
    "Lengths of attention's blocks: of a table, or measured on this machine.",
)
flags.DEFINE_string(
    "distributed", "auto", "Other machines: auto, off, or ADDRESS:PORT,MACHINES,INDEX."
)
flags.DEFINE_list(
    "log_to", [], "Tracking services that hear of each point, too: wandb, mlflow."
)
flags.DEFINE_integer(
    "join_timeout", 20, "Seconds to wait for other machines, before status 75.", 1
)
flags.DEFINE_list(
    "stop_on", ["TERM", "INT", "USR1", "USR2"], "Signals that ask to save and stop."
)
flags.DEFINE_float(
    "stale", 60, "Seconds without a sign of life after which others take a point.", 1
)
flags.DEFINE_integer(
    "workers", 1, "Processes that share the points, and the cores or GPUs.", 1
)
flags.DEFINE_bool("report", True, "Show and write the report after a run.")
flags.DEFINE_bool("watch", False, "For status: show it anew until all is done.")
flags.DEFINE_string(
    "token", None, "Of the work directory, from submit: it must be the same one."
)
flags.DEFINE_string("to", None, "For submit: slurm, ray, tpu or skypilot.")
flags.DEFINE_string("launch", None, "For submit: a TOML file with a section [launch].")

RUNS, TRAINED = ("run", "submit"), ("evaluate", "predict")
# The commands that take a flag, which would do nothing for others. Flags that are not
# here are for all of them.
TAKEN_BY = {
    **dict.fromkeys(("add", "tune"), (*RUNS, "status")),
    **dict.fromkeys(
        (
            *("match", "parallel", "blocks", "log_to", "stop_on", "stale"),
            *("workers", "report", "token", "dry_run"),
        ),
        RUNS,
    ),
    **dict.fromkeys(("only", "distributed", "join_timeout"), (*RUNS, *TRAINED)),
    "workdir": (*RUNS, "status", *TRAINED, "report"),
    "checkpoint": TRAINED,
    **dict.fromkeys(("images", "skip_corrupt"), ("predict",)),
    "output": ("report", "predict"),
    "markdown": ("modules", "report"),
    **dict.fromkeys(("save", "against", "results"), ("report",)),
    "watch": ("status",),
    **dict.fromkeys(("to", "launch"), ("submit",)),
}


def parse(argv: Sequence[str]) -> list[str]:
    """Parses the command line; overrides stay among what it returns.

    Exits with status 2 after one line where it is wrong, and with 0 after --help.
    """
    if {"--help", "-h", "-help", "--helpshort", "--helpfull"} & set(argv[1:]):
        with piped():
            print(__doc__ + "\nFlags:\n" + FLAGS.main_module_help())
        sys.exit(0)
    try:
        words = FLAGS.read_flags_from_files(argv[1:], force_gnu=False)
    except flags.Error as error:
        complain(str(error))
    rest, overrides = [argv[0]], []
    while words:
        word = words.pop(0)
        if re.match("--?(config|launch)[.]", word):
            if "=" not in word:
                if not words or words[0].startswith("-"):
                    complain(f"{word} needs a value: {word}=VALUE")
                word = f"{word}={words.pop(0)}"
            overrides.append("--" + word.lstrip("-"))
        else:
            rest.append(word)
    try:
        return FLAGS(rest) + overrides
    except (flags.Error, ValueError) as error:  # the latter of --noreport=true
        complain(str(error))


def complain(text: str) -> NoReturn:
    """Says in one line what is wrong with the command, and exits with status 2."""
    print("launch.py: " + " ".join(text.split()), file=sys.stderr)
    sys.exit(2)


def main(argv: Sequence[str]) -> None:
    logging.set_verbosity(logging.ERROR)  # libraries narrate every step
    words = [word for word in argv[1:] if not word.startswith(FIELDS)]
    overrides, engine = (fields(argv[1:], start) for start in FIELDS)
    command, *rest = words or ["run"]
    if command not in COMMANDS or (rest and command != "predict"):
        whole = " ".join(words)
        complain(f"unknown command {whole!r} (valid: {', '.join(COMMANDS)})")
    if engine and command != "submit":
        complain(f"--launch.{engine[0][0]} is for submit only")
    for name, takers in TAKEN_BY.items():
        if FLAGS[name].present and command not in takers:
            complain(f"{command} takes no --{name}, which is for {', '.join(takers)}")
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, interrupt)
    if command == "run":
        answer_stops(signal.SIG_DFL, stop)
    from attn import settings
    from attn.workdir import stores

    try:
        COMMANDS[command](overrides, *(engine if command == "submit" else rest))
    except settings.Invalid as error:
        if FLAGS.traceback:
            raise
        complain(str(error))
    except stores.Unreached as error:
        from attn.train import ending

        print(f"stopped: {error}; run the same command to go on", file=sys.stderr)
        sys.exit(ending.STOPPED)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(INTERRUPTED)


def interrupt(number: int, frame: Any) -> None:
    """Ctrl-C: a KeyboardInterrupt, or the end where it might not arrive.

    In an import it might not: extensions make other errors of it.
    """
    del number
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            os.write(2, b"interrupted\n")
            os._exit(INTERRUPTED)
        frame = frame.f_back
    raise KeyboardInterrupt


def stop(number: int, frame: Any) -> None:
    """A signal to stop, while the program starts: nobody listens yet."""
    del number, frame
    os.write(2, b"stopped: nothing to save; run the same command to go on\n")
    os._exit(os.EX_TEMPFAIL)


def answer_stops(before: Any, handler: Any) -> None:
    """Lets `handler` answer signals of --stop_on, but Ctrl-C, that `before` answers.

    Where machines have joined JAX answers SIGTERM, of which Python does not know.
    """
    taken = {signal.SIGINT}
    jax = sys.modules.get("jax")
    if jax is not None and jax.distributed.is_initialized():
        taken.add(signal.SIGTERM)
    for name in FLAGS.stop_on:
        number = getattr(signal, f"SIG{name}", None)  # wrong names are said later
        if not isinstance(number, signal.Signals) or number in taken:
            continue
        if signal.getsignal(number) == before:
            with contextlib.suppress(OSError):  # such as KILL
                signal.signal(number, handler)


@contextlib.contextmanager
def piped() -> Iterator[None]:
    """Ends quietly where what reads the output, such as `head`, has had enough."""
    try:
        yield
        sys.stdout.flush()
    except (BrokenPipeError, SystemExit):  # the latter by rich
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(CLOSED)


def fields(words: Sequence[str], start: str) -> list[tuple[str, str]]:
    """Paths and values of the words that begin so, each START + PATH=VALUE."""
    given = [word.removeprefix(start) for word in words if word.startswith(start)]
    return [(path, text) for path, _, text in (word.partition("=") for word in given)]


def begin() -> None:
    """Finds the other machines, if any, and turns the compilation cache on."""
    import jax

    from attn.train import machines

    machines.join(FLAGS.distributed, FLAGS.join_timeout)
    if FLAGS.compilation_cache:
        jax.config.update("jax_compilation_cache_dir", FLAGS.compilation_cache)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)


def load(overrides: Sequence[tuple[str, str]]):
    """The experiment that the command names."""
    from attn.train.sweep import experiment_file
    from attn.workdir import files

    # a colon may be in the path, too
    parts = re.fullmatch(r"(.*?\.py|[^:]*)(?::(.*))?", FLAGS.config, re.S)
    file, arg = parts.groups("")
    path = files.local(file)
    if not files.exists(path) and files.exists(HERE / path):  # started from elsewhere
        path = HERE / path
    return experiment_file.load(path, arg, overrides, add=FLAGS.add, tune=FLAGS.tune)


def run(overrides: Sequence[tuple[str, str]]) -> None:
    """Trains the points of an experiment, then shows and writes the report."""
    shared = FLAGS.workers > 1 and not FLAGS.dry_run
    if not shared:  # else each of the workers begins for itself
        begin()
    from attn.commands import run as command
    from attn.train import ending
    from attn.train.budget import match

    experiment = load(overrides)
    if FLAGS.match is not None:
        experiment = dataclasses.replace(experiment, match=match.parse(FLAGS.match))
    experiment = dataclasses.replace(experiment, blocks=FLAGS.blocks)
    points = experiment.select(FLAGS.only)
    with ending.together():
        check(experiment, points)
    workdir = FLAGS.workdir or f"runs/{experiment.name}"
    directory = command.directory(workdir, FLAGS.token)
    how = {"parallel": FLAGS.parallel, "cache": FLAGS.compilation_cache}
    answer_stops(stop, signal.SIG_DFL)  # what trains listens for itself
    if FLAGS.dry_run:
        command.plan(experiment, points, directory, started=STARTED, **how)
    elif shared:
        from attn.commands import workers
        from attn.train.store.tracking import Tracking

        alone = given(overrides, "workers", "report", "distributed")
        alone = [sys.executable, __file__, *alone, "--noreport", "--distributed=off"]
        how = {"tracking": Tracking(FLAGS.log_to, experiment.name)}
        how |= {"stop_on": FLAGS.stop_on, "report": FLAGS.report}
        how["names"] = {point.name for point in points}
        sys.exit(workers.train(alone, directory, FLAGS.workers, **how))
    else:
        how |= {"log_to": FLAGS.log_to, "stop_on": FLAGS.stop_on, "span": FLAGS.stale}
        how["report"] = FLAGS.report
        sys.exit(command.train(experiment, points, directory, **how))


def evaluate(overrides: Sequence[tuple[str, str]]) -> None:
    """Evaluates a checkpoint of every chosen point of a work directory."""
    if not FLAGS.workdir:
        complain("evaluate needs --workdir=DIR, of a sweep or of one point")
    begin()
    from attn.commands import predict
    from attn.train import evaluation, machines

    for path in predict.with_checkpoint(FLAGS.workdir, FLAGS.only):
        program, step, values = evaluation.evaluate_checkpoint(
            path, FLAGS.checkpoint, overrides
        )
        shown = [
            metric.text(values[metric.name])
            for metric in program.task.metrics
            if metric.name in values  # not what no example of the split has
        ]
        if "loss" in values:
            shown.append(f"loss {values['loss']:.4f}")
        if machines.first():
            print(
                f"{path.name}: step {step}, {', '.join(shown)},"
                f" {values['examples']} examples"
            )


def predict(overrides: Sequence[tuple[str, str]], *names: str) -> None:
    """Prints what a trained model answers to lines, or finds in pictures."""
    if not FLAGS.workdir:
        complain("predict needs --workdir=DIR, of a sweep or of one point")
    if len(names) > 1:
        complain(f"predict reads one file, got {', '.join(names)}")
    if FLAGS.images is not None and names:
        complain(f"predict reads lines of a file or --images, got {names[0]} as well")
    begin()
    from attn.commands import predict

    point = predict.one(FLAGS.workdir, FLAGS.only)
    if FLAGS.images is not None:
        predict.pictures(
            point,
            FLAGS.images,
            FLAGS.output,
            FLAGS.checkpoint,
            overrides,
            skip_corrupt=FLAGS.skip_corrupt,
        )
    else:
        predict.lines(point, *names, checkpoint=FLAGS.checkpoint, overrides=overrides)


def report(overrides: Sequence[tuple[str, str]]) -> None:
    """Shows and writes the report of one or more work directories."""
    from attn import report as reports
    from attn.workdir import files

    if overrides:
        complain("report reads work directories; it takes no --config.FIELD")
    if FLAGS.results:
        if FLAGS.workdir or FLAGS.save or FLAGS.against or FLAGS.output:
            complain("report --results=FILE stands alone, or with --markdown")
        reports.show_saved(FLAGS.results, markdown=FLAGS.markdown)
        return
    if not FLAGS.workdir:
        complain("report needs --workdir=DIR[,DIR...] or --results=FILE")
    directories = files.listed(FLAGS.workdir)
    if len(directories) > 1 and (FLAGS.save or FLAGS.against):
        complain("--save and --against take one work directory, got several")
    if FLAGS.markdown:
        complain("report --markdown needs --results=FILE; --save writes one")
    output = files.path(FLAGS.output or str(directories[0] / "report.html"))
    reports.show(directories, FLAGS.against)
    print(f"report: {reports.write(directories, output, FLAGS.against)}")
    if FLAGS.save:
        print(f"results: {reports.save(directories[0], files.path(FLAGS.save))}")


def modules(overrides: Sequence[tuple[str, str]]) -> None:
    """Shows the table of attentions, made from their cards."""
    from attn.report import catalogue, live

    if overrides:
        complain("modules takes no --config.FIELD")
    with piped():
        if FLAGS.markdown:
            print(catalogue.markdown())
        else:
            live.catalogue(catalogue.rows())


def status(overrides: Sequence[tuple[str, str]]) -> None:
    """Shows how far the points of a work directory are, and who trains them."""
    from attn.commands import status as command
    from attn.workdir import files

    workdir = FLAGS.workdir or f"runs/{load(overrides).name}"
    command.show(files.path(workdir), watch=FLAGS.watch)


def given(overrides: Sequence[tuple[str, str]], *but: str) -> list[str]:
    """The flags of this command as words, but for some."""
    words = [
        word
        for flag in FLAGS.get_flags_for_module(sys.argv[0])
        if flag.present and flag.name not in but
        for word in _words(flag)
    ]
    return words + [f"--config.{path}={text}" for path, text in overrides]


def _words(flag: flags.Flag) -> list[str]:
    """A flag as one word, or one for each value if it may be given several times."""
    if isinstance(flag, flags.MultiFlag):
        return [f"--{flag.name}={value}" for value in flag.value]
    return [flag.serialize()]


def check(experiment, points: Sequence) -> None:
    """Refuses what is wrong with a run of these points, as far as is known here."""
    from attn import settings
    from attn.train import blocks, interruption, machines, program
    from attn.train.budget import match
    from attn.train.store import tracking
    from attn.train.sweep import plan, tuning

    if FLAGS.match is not None:
        match.parse(FLAGS.match)
    machines.parse(FLAGS.distributed)
    if not FLAGS.stale <= threading.TIMEOUT_MAX:  # nor is NaN
        raise settings.Invalid(
            f"--stale must be a number in 1..{threading.TIMEOUT_MAX:.0f}, got"
            f" {FLAGS.stale}"
        )
    for name in FLAGS.stop_on:
        interruption.signal_of(name)
    plan.check_name(FLAGS.parallel)
    blocks.check_name(FLAGS.blocks)
    for name in FLAGS.log_to:
        tracking.check(name)
    if experiment.tune:  # what is trained has the settings that are tried
        points = tuning.trials(experiment.tune, points)
    for point in points:
        program.check(point.config)


def submit(overrides: Sequence[tuple[str, str]], *engine: tuple[str, str]) -> None:
    """Hands a run to a scheduler, or shows what it would get."""
    from attn import launchers
    from attn.workdir import files, token

    file = files.local(FLAGS.launch) if FLAGS.launch else None
    launcher = launchers.build(FLAGS.to, file, engine)
    experiment = load(overrides)
    check(experiment, experiment.select(FLAGS.only))
    words = given(overrides, "to", "launch", "dry_run", "traceback", "token")
    if launcher.shares and not FLAGS.dry_run:
        workdir = files.path(FLAGS.workdir or f"runs/{experiment.name}")
        files.check(workdir)
        words.append(f"--token={token.made(workdir)}")
    command = launchers.Command(
        experiment.name, tuple(words), pathlib.Path.cwd(), HERE.resolve() / "launch.py"
    )
    if FLAGS.dry_run:
        print(launcher.render(command), end="")
        return
    sys.exit(launcher.submit(command))


COMMANDS = {
    "run": run,
    "status": status,
    "evaluate": evaluate,
    "predict": predict,
    "report": report,
    "modules": modules,
    "submit": submit,
}

if __name__ == "__main__":
    app.run(main, flags_parser=parse)
