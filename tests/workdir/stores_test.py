"""Object stores: whole objects, one creator, and folders that stand for them."""

import json
import sys
import threading

import numpy as np
import pytest

from attn import settings
from attn.commands import predict, run
from attn.workdir import files, stores
from attn.workdir.leases import Leases, Lost
from tests import buckets


@pytest.fixture
def directory():
    return files.path(buckets.new() + "/sweep")


def test_files_are_written_and_read_alike(directory):
    path = directory / "a" / "b.json"
    files.make(path.parent)
    assert files.read_json(path) is None
    files.write_json(path, {"a": 1})
    files.write_json(path, {"a": 2})
    assert files.read_json(path) == {"a": 2}
    files.write_npz(directory / "c.npz", x=np.arange(3))
    with (directory / "c.npz").open("rb") as file, np.load(file) as arrays:
        assert arrays["x"].tolist() == [0, 1, 2]
    assert files.names(directory) == ["a", "c.npz"]
    assert files.names(directory / "nothing") == []
    assert files.exists(directory / "a")
    for _ in range(2):
        files.remove(path)
    assert not files.exists(path)


def test_one_of_many_creates_an_object(directory):
    for round_ in range(10):
        won, gate = [], threading.Barrier(6)

        def race(number, round_=round_, won=won, gate=gate):
            gate.wait()
            if files.create(directory / str(round_), f"{number}".encode()):
                won.append(number)

        threads = [threading.Thread(target=race, args=[k]) for k in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [str(number).encode() for number in won] == [
            (directory / str(round_)).read_bytes()
        ]


def test_a_creation_that_was_sent_twice_is_one(directory):
    """A client sends again what was not answered, and finds its own."""
    assert files.create(directory / "a", b"mine")
    assert files.create(directory / "a", b"mine")
    assert not files.create(directory / "a", b"another's")


def test_only_what_is_there_is_renewed(directory):
    assert not files.renew(directory / "a", b"x")
    assert not files.exists(directory / "a")
    files.create(directory / "a", b"ab")
    assert files.renew(directory / "a", b"cd")
    assert (directory / "a").read_bytes() == b"cd"


def test_lines_are_there_when_they_are_synced(directory, monkeypatch):
    path = directory / "lines"
    keep = lambda line: json.loads(line) < 3
    lines = files.Lines(path, keep)
    for number in (1, 2, 3):
        lines.add(str(number))
    assert not files.exists(path)
    lines.sync()
    assert path.read_bytes() == b"1\n2\n3\n"
    lines = files.Lines(path, keep)  # goes on from an earlier step
    assert path.read_bytes() == b"1\n2\n"
    lines.add("4")
    lines.close()
    assert path.read_bytes() == b"1\n2\n4\n"
    monkeypatch.setattr(files, "SHOWN", -1.0)
    files.Lines(path, keep).add("5")
    assert path.read_bytes() == b"1\n2\n5\n"


def test_a_folder_stands_for_what_is_in_the_store(directory):
    copy = stores.Copy(directory)
    (copy.folder / "1").mkdir()
    (copy.folder / "1" / "x").write_text("first")
    (copy.folder / "file").write_text("old")
    copy.push()
    (copy.folder / "file").write_text("changed")
    (copy.folder / "2").mkdir()
    copy.push()
    assert files.names(directory) == ["1.tar", "2.tar", "file"]

    other = stores.Copy(directory)
    assert (other.folder / "1" / "x").read_text() == "first"
    assert (other.folder / "file").read_text() == "changed"
    (other.folder / "1" / "x").unlink()
    (other.folder / "1").rmdir()
    (other.folder / "file").unlink()
    (other.folder / "1").mkdir()  # another one of the same name
    (other.folder / "1" / "x").write_text("second")
    other.push()
    other.close()
    assert not other.folder.exists()
    assert files.names(directory) == ["1.tar", "2.tar"]
    third = stores.Copy(directory)
    assert (third.folder / "1" / "x").read_text() == "second"


def test_a_folder_of_a_file_system_stands_for_itself(tmp_path):
    copy = stores.Copy(tmp_path)
    (tmp_path / "x").mkdir()
    copy.push()
    copy.close()
    assert copy.folder == tmp_path
    assert files.names(tmp_path) == ["x"]


def test_leases_are_held_by_one(directory):
    now = [0.0]
    a, b = (Leases(directory, span=60.0, clock=lambda: now[0]) for _ in range(2))
    a.facts["place"] = b.facts["place"] = ""  # of unknown machines
    lease = a.take("p", a.seen().get("p"))
    held = b.seen()["p"]
    assert not b.may_take("p", held)
    lease.renew()
    lease.check()
    held = b.seen()["p"]
    now[0] = 61.0
    assert b.may_take("p", held)
    other = b.take("p", held)
    with pytest.raises(Lost):
        lease.check()
    assert files.names(directory / ".leases") == ["p.2"]
    other.check()
    other.over()
    assert a.seen() == {}


def test_a_store_that_knows_no_conditions_is_refused(directory, monkeypatch):
    with Leases(directory):
        pass
    assert files.names(directory) == []
    system = stores._system(directory)
    put = system.pipe_file
    monkeypatch.setattr(
        system, "pipe_file", lambda path, content, mode="": put(path, content)
    )
    with pytest.raises(settings.Invalid, match="workers cannot share it"):
        Leases(directory).__enter__()
    assert files.names(directory) == []


def test_a_bucket_that_is_not_there_is_named(directory):
    files.check(directory)
    files.write_json(directory / "experiment.json", {})
    files.check(directory)
    with pytest.raises(settings.Invalid, match="holds files that are no sweep's"):
        files.check(directory.parent)
    with pytest.raises(settings.Invalid, match="no bucket s3://nowhere"):
        files.check(files.path("s3://nowhere/sweep"))


def test_what_the_store_refuses_is_a_mistake_of_the_command(directory, monkeypatch):
    system = stores._system(directory)

    def refuse(*args, **options):
        raise PermissionError("Access Denied")

    monkeypatch.setattr(system, "pipe_file", refuse)
    with pytest.raises(settings.Invalid, match=r"x may not be .*: Access Denied"):
        files.write_json(directory / "x", {})


def test_a_store_that_does_not_answer_is_no_mistake_of_the_command(
    directory, monkeypatch
):
    def silent(path):
        raise OSError("Could not connect") from ConnectionError("no route")

    monkeypatch.setattr(stores, "names", silent)
    with pytest.raises(stores.Unreached, match="does not answer: Could not connect"):
        run.directory(str(directory))


def test_a_point_with_a_checkpoint_is_found(directory):
    files.write_json(directory / "experiment.json", {"points": [{"name": "a"}]})
    files.write_json(directory / "a" / "config.json", {})
    with pytest.raises(settings.Invalid, match="has a checkpoint yet"):
        predict.with_checkpoint(str(directory), [])
    files.write_bytes(directory / "a" / "checkpoints" / "4.tar", b"")
    assert predict.with_checkpoint(str(directory), []) == [directory / "a"]


def test_an_unknown_kind_and_a_missing_package_are_named(monkeypatch):
    with pytest.raises(settings.Invalid, match=r"'s4://'.*valid: gs://, s3://, az://"):
        files.path("s4://bucket/x")
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(settings.Invalid, match=r"gs://b/x needs gcsfs: pip install"):
        files.path("gs://b/x")


def test_missing_credentials_are_a_mistake_and_no_silence(monkeypatch):
    botocore = pytest.importorskip("botocore.exceptions")

    def system(path):
        class Without:
            def ls(self, *_, **__):
                raise botocore.NoCredentialsError

        return Without()

    monkeypatch.setattr(stores, "_system", system)
    path = files.path("s3://bucket/x")
    says = pytest.raises(settings.Invalid, match="Unable to locate credentials")
    with says, stores.reaching(path):
        stores.check(path)
