"""The script of a TPU, run with a played gcloud that lives in a few files."""

import pytest

from attn.launchers.tpu import Tpu
from tests.launchers.programs import command

# Each call of "ssh" takes the next line of the plan: a status, and the state after it.
GCLOUD = """
HOME_OF=${NOTES%/*}
echo "$3 $4 ${*:5}" >> "$NOTES"
case "$4" in
describe) [ -f $HOME_OF/state ] && cat $HOME_OF/state ;;
create) [ ! -f $HOME_OF/refuse ] && echo "$MADE" > $HOME_OF/state ;;
delete) rm -f $HOME_OF/state ;;
ssh)
    { read -r status state; cat > $HOME_OF/rest; } < $HOME_OF/plan
    cat $HOME_OF/rest > $HOME_OF/plan
    echo "$state" > $HOME_OF/state
    exit $status
    ;;
esac
"""
SPOT = {"accelerator": "v5litepod-8", "version": "v2-alpha-tpuv5-lite", "spot": True}


@pytest.fixture
def gcloud(programs, monkeypatch):
    """Plays a cloud: the steps of runs go in, the verbs that were called come out."""
    (programs.folder / "rm").symlink_to("/usr/bin/rm")
    programs.add("gcloud", GCLOUD)
    monkeypatch.setenv("ATTN_PAUSE", "0")

    def play(tpu, run, plan, state=None):
        monkeypatch.setenv("MADE", "ACTIVE" if tpu.queued else "READY")
        (programs.folder / "plan").write_text("".join(f"{line}\n" for line in plan))
        if state:
            (programs.folder / "state").write_text(state)
        status = tpu.submit(run)
        calls = [line.split() for line in programs.notes("gcloud").splitlines()]
        known = ("tpu-vm", "queued-resources")
        verbs = [words[1] for words in calls if words and words[0] in known]
        return status, [verb for verb in verbs if verb != "describe"]

    return play


def test_a_run_on_a_tpu_that_is_there(gcloud, programs, tmp_path):
    run = command(tmp_path, "--workdir=runs/x")
    assert gcloud(Tpu("z"), run, ["0 READY"], "READY") == (0, ["ssh"])
    notes = programs.notes("gcloud")
    assert "tpu-vm ssh attn-a-sweep-2 --zone=z --worker=all --command=set -e" in notes
    assert "cd attn\nflock /tmp/attn.lock .venv/bin/python launch.py" in notes


@pytest.mark.parametrize("queued", [False, True])
def test_it_is_made_and_made_again_until_the_run_is_done(queued, gcloud, tmp_path):
    plan = ["255 SUSPENDED", "1 PREEMPTED", "75 READY", "255 READY", "0 READY"]
    found = gcloud(Tpu("z", queued=queued, **SPOT), command(tmp_path), plan)
    again = ["delete", "create"]
    want = ["create", "ssh", *again, "ssh", *again, "ssh", "ssh", "ssh"]
    assert found == (0, want)


@pytest.mark.parametrize("status", [1, 2])
def test_the_status_of_a_run_that_ended_is_kept(status, gcloud, tmp_path):
    found = gcloud(Tpu("z"), command(tmp_path), [f"{status} READY"], "READY")
    assert found == (status, ["ssh"])


def test_a_tpu_that_cannot_be_made_ends_it(gcloud, programs, tmp_path):
    (programs.folder / "refuse").touch()
    assert gcloud(Tpu("z", **SPOT), command(tmp_path), []) == (1, ["create"])


def test_a_tpu_that_should_exist_is_not_made(gcloud, tmp_path, capfd):
    assert gcloud(Tpu("z"), command(tmp_path), []) == (1, [])
    assert "there is no such TPU" in capfd.readouterr().err


def test_one_call_without_an_answer_does_not_give_up_a_tpu(gcloud, programs, tmp_path):
    # the connection is lost, and then the first call that asks for the state
    silent = GCLOUD.replace(
        "[ -f $HOME_OF/state ]",
        "[ -f $HOME_OF/state ] && [ $(cat $HOME_OF/state) = SILENT ]"
        " && echo READY > $HOME_OF/state && exit 1; [ -f $HOME_OF/state ]",
    )
    programs.add("gcloud", silent)
    found = gcloud(Tpu("z"), command(tmp_path), ["255 SILENT", "0 READY"], "READY")
    assert found == (0, ["ssh", "ssh"])


def test_queued_resources_have_options_of_their_own(tmp_path):
    run = command(tmp_path)
    queued = Tpu("z", queued=True, project="p", **SPOT).render(run)
    assert "--zone=z --project=p" in queued
    assert "--node-id=attn-a-sweep-2 --accelerator-type=v5litepod-8" in queued
    assert "--runtime-version=v2-alpha-tpuv5-lite --spot" in queued
    assert " --version=v2-alpha-tpuv5-lite --spot" in Tpu("z", **SPOT).render(run)
