"""Work directories: atomic files, and what is refused."""

import concurrent.futures
import errno
import json
import os
import pathlib

import pytest

from attn import settings
from attn.workdir import diff, files, machine


def test_a_json_file_is_there_whole_or_not_at_all(tmp_path):
    path = tmp_path / "a.json"
    assert files.read_json(path) is None
    files.write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        files.write_json(path, {"a": object()})
    assert files.read_json(path) == {"a": 1}


def test_a_file_is_created_by_one_and_renewed_only_where_it_is(tmp_path):
    path = tmp_path / "a"
    assert not files.renew(path, b"x")
    assert files.create(path, b"ab")
    assert not files.create(path, b"cd")
    assert path.read_bytes() == b"ab"
    assert files.renew(path, b"ef")
    assert path.read_bytes() == b"ef"


@pytest.mark.parametrize("links", [True, False])
def test_what_is_created_is_there_whole_as_soon_as_it_is_there(
    tmp_path, monkeypatch, links
):
    if not links:  # as on some file systems

        def refuse(*paths):
            raise PermissionError(errno.EPERM, "Operation not permitted")

        monkeypatch.setattr(os, "link", refuse)
    content = b"x" * 100_000
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        for number in range(20):
            path = tmp_path / f"{number}"

            def attempt(_, path=path):
                mine = files.create(path, content)
                return mine, len(path.read_bytes()) if links else len(content)

            found = list(pool.map(attempt, range(8)))
            assert sum(mine for mine, _ in found) == 1
            assert {size for _, size in found} == {len(content)}
    assert len(list(tmp_path.iterdir())) == 20  # no drafts


def test_what_could_not_be_created_is_not_there(tmp_path):
    full = pathlib.Path("/dev/full")
    if not full.exists():
        pytest.skip("needs /dev/full")
    opened = pathlib.Path.open
    with pytest.MonkeyPatch.context() as patch:

        def on_a_full_disk(path, *arguments, **options):
            opened(path, "xb").close()
            return opened(full, "wb", buffering=0)

        patch.setattr(pathlib.Path, "open", on_a_full_disk)
        with pytest.raises(OSError, match="No space left"):
            files.create(tmp_path / "a", b"ab")
    assert not list(tmp_path.iterdir())
    assert files.create(tmp_path / "a", b"ab")


def test_processes_of_one_number_do_not_write_into_each_others_drafts(
    tmp_path, monkeypatch
):
    """The first process of every container has number 1."""
    drafts = []
    replace = pathlib.Path.replace

    def kept(draft, target):
        drafts.append(draft.name)
        return replace(draft, target)

    monkeypatch.setattr(pathlib.Path, "replace", kept)
    files.write_json(tmp_path / "a.json", 1)
    files.write_json(tmp_path / "a.json", 2)
    assert len({*drafts}) == 2
    assert all(name.startswith(".a.json.") for name in drafts)


def test_difference_names_fields_and_both_values():
    old = {"train": {"steps": 250, "batch_size": 8}, "model": {"slots": {}}}
    new = {"train": {"steps": 500, "batch_size": 8}, "model": {"slots": {"a": "b"}}}
    assert diff.difference(old, old) == ""
    assert diff.difference(old, new) == (
        "model.slots: {} -> absent; model.slots.a: absent -> 'b';"
        " train.steps: 250 -> 500"
    )


def test_refuses_a_file_and_a_directory_of_somebody_else(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="is a file"):
        files.check(tmp_path / "file")
    with pytest.raises(ValueError, match="cannot be written"):
        files.check(tmp_path / "file" / "below")
    with pytest.raises(ValueError, match="no sweep's"):
        files.check(tmp_path)
    files.check(tmp_path / "new" / "deeper")
    assert not (tmp_path / "new").exists()
    files.write_json(tmp_path / "experiment.json", {})
    files.check(tmp_path)


def test_saves_what_a_user_asked_for_or_says_why_not(tmp_path, monkeypatch):
    assert files.save(tmp_path / "new" / "a", b"1").read_bytes() == b"1"
    assert files.save(tmp_path / "new", b"2", "b.html") == tmp_path / "new" / "b.html"
    with pytest.raises(settings.Invalid, match="cannot be written: File name too long"):
        files.save(tmp_path / ("x" * 300), b"2", "b.html")
    with pytest.raises(ValueError, match="new cannot be written: Is a directory"):
        files.save(tmp_path / "new", b"3")

    def gone(path, content):
        raise OSError("the bucket is gone")  # without a number, as of object stores

    monkeypatch.setattr(files, "write_bytes", gone)
    with pytest.raises(ValueError, match="a cannot be written: the bucket is gone"):
        files.save(tmp_path / "a", b"4")


@pytest.mark.skipif(os.getuid() == 0, reason="root may write anywhere")
def test_refuses_a_directory_without_permission(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(ValueError, match="no access"):
        files.check(tmp_path / "new")


def test_the_environment_is_plain_data():
    found = json.loads(json.dumps(machine.environment()))
    assert found["packages"].keys() == set(machine.PACKAGES)
    assert found["devices"] == 8


def test_an_error_leaves_no_draft_behind(tmp_path):
    with pytest.raises(TypeError):
        files.write_json(tmp_path / "a.json", {"a": object()})
    assert not list(tmp_path.iterdir())


def test_what_a_process_leaves_that_died_early_is_not_somebody_elses(tmp_path):
    """Before experiment.json is there a kill must not spoil the directory."""
    (tmp_path / ".experiment.json.123").write_text('{"na')
    for folder in (".workers", ".blocks"):
        (tmp_path / folder).mkdir()
    files.check(tmp_path)
    for name in ("other", ".workers.mine"):
        (tmp_path / name).write_text("")
        with pytest.raises(settings.Invalid, match="no sweep's"):
            files.check(tmp_path)
        (tmp_path / name).unlink()


@pytest.mark.parametrize(("text", "says"), [("", "is empty"), ("{", "is no JSON")])
def test_a_broken_file_is_named(tmp_path, text, says):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(settings.Invalid, match=rf"{tmp_path}/config.json {says}"):
        files.read_json(tmp_path / "config.json")


def test_a_path_that_cannot_be_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    assert files.read_json(tmp_path / "file" / "a.json") is None
    long = tmp_path / ("x" * 300)
    with pytest.raises(settings.Invalid, match=f"{long} cannot be read: File name too"):
        files.read_json(long)
    with pytest.raises(settings.Invalid, match="cannot be written: File name too"):
        files.check(long)
    assert not files.exists(long)
    assert files.listed(f"{long},a") == [long, pathlib.Path("a")]


def test_an_object_store_is_no_local_directory():
    assert files.path("gs/a:b") == files.local("gs/a:b") == pathlib.Path("gs/a:b")
    with pytest.raises(settings.Invalid, match="gs://bucket/x is in an object store"):
        files.local("gs://bucket/x")


def test_a_comma_parts_only_what_is_no_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a,b").mkdir()
    paths = lambda *names: [pathlib.Path(name) for name in names]
    assert files.listed("a,b") == paths("a,b")
    assert files.listed("c,a,b,d") == paths("c", "a,b", "d")
    assert files.listed("c,d") == paths("c", "d")
    with pytest.raises(settings.Invalid, match="'s4://'; did you mean 's3://'"):
        files.listed("c,s4://d")


def test_every_start_of_a_point_is_kept(tmp_path, monkeypatch):
    commits = iter(["abc", "def+"])
    monkeypatch.setattr(machine, "commit", lambda: next(commits))
    machine.note_start(tmp_path, 0)
    machine.note_start(tmp_path, 40)
    found = files.read_json(tmp_path / "environment.json")
    assert [(start["commit"], start["step"]) for start in found] == [
        ("abc", 0),
        ("def+", 40),
    ]


def test_a_file_of_one_start_is_added_to(tmp_path):
    files.write_json(tmp_path / "environment.json", {"commit": "abc"})
    machine.note_start(tmp_path, 4)
    first, second = files.read_json(tmp_path / "environment.json")
    assert first == {"commit": "abc"}
    assert second["step"] == 4
