"""Preparation: once, by one process, whatever happens to the others."""

import pathlib
import signal
import subprocess
import sys
import time

import pytest
import tensorflow_datasets as tfds

from attn.data import prepare
from attn.data.images.builders import mnist_5k

OPEN = """
import sys
from attn.data import prepare
info = prepare.builder("mnist_5k", sys.argv[1]).info
assert not any(name.partition(".")[0] == "tensorflow" for name in sys.modules)
print(info.splits["train"].num_examples, info.splits["test"].num_examples)
"""


def start(directory):
    return subprocess.Popen(
        [sys.executable, "-c", OPEN, str(directory)],
        cwd=pathlib.Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(pattern, directory, process):
    for _ in range(1200):
        if list(directory.glob(pattern)):
            return
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    raise AssertionError(f"no {pattern} in {directory}")


def test_three_processes_prepare_once_after_one_was_killed(tmp_path):
    killed = start(tmp_path)
    wait_for("mnist_5k/incomplete.*", tmp_path, killed)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert not list(tmp_path.glob("mnist_5k/1.0.0"))

    processes = [start(tmp_path) for _ in range(3)]
    outputs = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], outputs
    assert [out for out, _ in outputs] == ["4000 1000\n"] * 3
    lines = [line for _, error in outputs for line in error.splitlines()]
    assert [line for line in lines if line.startswith("preparing")] == [
        f"preparing mnist_5k in {tmp_path} (once, some seconds)"
    ]
    assert not [line for line in lines if "Generating" in line or "WARNING" in line]
    assert [path.name for path in (tmp_path / "mnist_5k").iterdir()] == ["1.0.0"]


def test_what_is_prepared_is_not_prepared_again(directory, capfd, monkeypatch):
    monkeypatch.setattr(
        mnist_5k.Mnist5k, "_split_generators", lambda *_: pytest.fail("prepared again")
    )
    assert prepare.builder("mnist_5k", directory).info.full_name == "mnist_5k/1.0.0"
    assert capfd.readouterr() == ("", "")


def test_a_damaged_copy_is_prepared_anew(tmp_path, capfd):
    damaged = tmp_path / "mnist_5k" / "1.0.0"
    damaged.mkdir(parents=True)
    (damaged / "features.json").touch()
    assert prepare.builder("mnist_5k", str(tmp_path)).info.splits["train"]
    assert (damaged / "dataset_info.json").exists()
    assert capfd.readouterr().err.count("\n") == 1


def test_a_failing_preparation_leaves_nothing(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(mnist_5k.Mnist5k, "_split_generators", full)
    with pytest.raises(ValueError, match=r"cannot prepare .*No space left.*directory"):
        prepare.builder("mnist_5k", str(tmp_path))
    assert not list((tmp_path / "mnist_5k").glob("*"))


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(
        ValueError, match=r"cannot prepare data set 'mnist_5k' in .*file"
    ):
        prepare.builder("mnist_5k", str(tmp_path / "file"))


def test_a_set_that_is_not_prepared_says_which_command_prepares_it(tmp_path):
    with pytest.raises(ValueError) as error:
        prepare.builder("cifar10", str(tmp_path))
    message = str(error.value)
    assert f"'cifar10' is not prepared in {tmp_path}" in message
    assert "pip install tensorflow-cpu" in message and "TFDS_DATA_DIR" in message
    assert (
        "tfds.builder('cifar10', file_format='array_record').download_and_prepare()"
        in message
    )
    assert "\n" not in message and "by hand" not in message


def test_imagenet_names_the_download_by_hand(tmp_path):
    with pytest.raises(ValueError, match=r"by hand .*ILSVRC2012_img_train\.tar"):
        prepare.builder("imagenet2012", str(tmp_path))


def test_a_version_of_a_set_of_ours_is_not_prepared_by_itself(tmp_path):
    with pytest.raises(ValueError, match="'photos', without a version, prepares itsel"):
        prepare.builder("photos:0.0.1", str(tmp_path))


@pytest.mark.parametrize(
    "name, nearest", [("mnist5k", "mnist_5k"), ("cifar_10", "cifar10")]
)
def test_an_unknown_set_names_the_nearest(name, nearest, tmp_path):
    with pytest.raises(
        ValueError, match=f"unknown data set '{name}'; did you mean '{nearest}'"
    ):
        prepare.builder(name, str(tmp_path))


def test_a_set_in_another_format_is_refused(tmp_path, monkeypatch):
    class Tiny(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")
        name = "tiny_parquet"

        def _info(self):
            features = {"label": tfds.features.ClassLabel(num_classes=2)}
            return tfds.core.DatasetInfo(
                builder=self, features=tfds.features.FeaturesDict(features)
            )

        def _split_generators(self, dl_manager):
            return {"train": iter([(0, {"label": 1})])}

        def _generate_examples(self):
            pass

    builder = Tiny(data_dir=str(tmp_path), file_format="array_record")
    builder.download_and_prepare()
    info = pathlib.Path(builder.data_dir) / "dataset_info.json"
    info.write_text(info.read_text().replace("array_record", "tfrecord"))
    with pytest.raises(
        ValueError, match=r"as tfrecord in .*prepare it again by .*array_record"
    ):
        prepare.builder("tiny_parquet", str(tmp_path))
