"""SLURM's script, handed to a played sbatch and run with a played srun."""

import os
import subprocess
import sys

import pytest

from attn import settings
from attn.launchers.slurm import Slurm
from tests.launchers.programs import command


def test_sbatch_gets_the_script_and_its_answer_is_shown(programs, tmp_path, capsys):
    programs.add("sbatch", 'cat > "$NOTES"; echo Submitted batch job 12')
    slurm, run = Slurm(workers=3), command(tmp_path)
    assert slurm.submit(run) == 0
    assert programs.notes("sbatch") == slurm.render(run)
    assert capsys.readouterr().out == "Submitted batch job 12\n"


def test_the_words_of_sbatch_are_one_line(programs, tmp_path):
    said = "sbatch: error: invalid partition specified: x"
    programs.add("sbatch", f"cat > /dev/null; echo '{said}' >&2; echo more >&2; exit 1")
    with pytest.raises(settings.Invalid) as error:
        Slurm(partition="x").submit(command(tmp_path))
    assert str(error.value) == f"sbatch: {said} more"


@pytest.mark.parametrize("status", [0, 1, 75])
def test_a_worker_that_stopped_is_queued_again(status, programs, tmp_path):
    programs.add("srun", f"exit {status}")
    programs.add("scontrol", 'echo "$@" > "$NOTES"')
    script = Slurm().render(command(tmp_path))
    environment = os.environ | {"SLURM_JOB_ID": "41"}
    assert subprocess.call(["bash", "-c", script], env=environment) == status
    assert (programs.folder / "scontrol.notes").exists() == (status == 75)
    if status == 75:
        assert programs.notes("scontrol") == "requeue 41\n"


def test_the_step_is_the_run_after_the_setup(programs, tmp_path):
    programs.add("srun", 'echo "$PREPARED" "$@" > "$NOTES"; "${@:3}"')
    slurm = Slurm(setup="export PREPARED=yes", cpus=4)
    script = slurm.render(command(tmp_path, "--workdir=a b"))
    said = subprocess.run(["bash", "-c", script], capture_output=True, text=True)
    assert said.stdout == "['--workdir=a b', '--distributed=off']\n"
    started = f"yes --kill-on-bad-exit=1 --cpus-per-task=4 {sys.executable}"
    assert programs.notes("srun").startswith(started)


def test_nodes_that_train_together_find_each_other(tmp_path):
    together = Slurm(nodes=2).render(command(tmp_path))
    assert "#SBATCH --nodes=2\n" in together
    assert "--distributed" not in together


def test_options_go_to_sbatch_as_a_command_line_has_them(tmp_path):
    given = "-C a100 --comment='two words' --qos=low"
    script = Slurm(options=given).render(command(tmp_path))
    lines = [line for line in script.splitlines() if line.startswith("#SBATCH -")]
    assert lines[-1] == "#SBATCH -C a100 '--comment=two words' --qos=low"
    with pytest.raises(settings.Invalid, match="options of slurm are no command line"):
        Slurm(options="--comment='abc")
