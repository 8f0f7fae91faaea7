"""Texts of prepared sets of TensorFlow Datasets, read without TensorFlow."""

from collections.abc import Collection, Sequence
from typing import Any

from attn import settings
from attn.data import prepare


def columns(
    name: str, directory: str, fields: Sequence[str], most: int | None = None
) -> dict[str, dict[str, list[Any]]]:
    """Some fields of each split of a set, texts decoded.

    Args:
        name: of TFDS, such as "imdb_reviews".
        directory: where sets lie, as `attn.data.prepare` says.
        fields: that are read.
        most: examples of each split; None for all.

    Raises:
        Invalid: the set is unknown, not prepared, or has no such field.
    """
    builder = prepare.builder(name, directory)
    there = dict(getattr(builder.info.features, "items", dict)())
    for field in fields:
        if field not in there:
            known = ", ".join(sorted(there))
            raise settings.Invalid(
                f"data set {name!r} has no field {field!r}, but {known}"
            )
    found = {}
    for split, info in builder.info.splits.items():
        end = "" if most is None else f"[:{min(most, info.num_examples)}]"
        rows = {field: [] for field in fields}
        for example in builder.as_data_source(f"{split}{end}"):
            for field in fields:
                value = example[field]
                rows[field].append(
                    value.decode() if isinstance(value, bytes) else value
                )
        found[split] = rows
    return found


def labelled(
    name: str, directory: str, fields: Sequence[str], most: int | None = None
) -> tuple[dict[str, dict[str, list[Any]]], tuple[str, ...]]:
    """Some fields and the "label" of each split that has labels, and their names.

    Args:
        name, directory, fields, most: as of `columns`.

    Raises:
        Invalid: as `columns` and `class_names`, or there are none to train on.
    """
    found = columns(name, directory, (*fields, "label"), most)
    # -1 is TFDS's label of what has none
    known = {split: rows for split, rows in found.items() if -1 not in rows["label"]}
    check_train(name, known)
    return known, class_names(name, directory, "label")


def check_train(name: str, found: Collection[str]) -> None:
    """Refuses a set among whose splits there is none to train on."""
    if "train" not in found:
        raise settings.Invalid(
            f"data set {name!r} has no split 'train' to train on, but"
            f" {', '.join(sorted(found)) or 'none'}"
        )


def class_names(name: str, directory: str, field: str) -> tuple[str, ...]:
    """Names of the classes of a label.

    Raises:
        Invalid: the field has no classes.
    """
    feature = prepare.builder(name, directory).info.features[field]
    if not hasattr(feature, "names"):
        raise settings.Invalid(f"{field!r} of data set {name!r} has no classes")
    return tuple(feature.names)


def languages(name: str, directory: str) -> tuple[str, ...]:
    """The languages of a set of translations, the source first.

    Raises:
        Invalid: it is none.
    """
    info = prepare.builder(name, directory).info
    there = dict(getattr(info.features, "items", dict)())
    first = info.supervised_keys or tuple(there)
    if len(there) != 2 or set(first) != set(there):
        raise settings.Invalid(
            f"data set {name!r} is not one of translation: it needs a text in each of"
            f" two languages, and has {', '.join(there)}"
        )
    return tuple(first)


def identity(name: str, directory: str) -> list[str]:
    """What tells a prepared set from others, without reading it."""
    builder = prepare.builder(name, directory)
    sizes = {
        split: (info.num_examples, info.num_bytes)
        for split, info in builder.info.splits.items()
    }
    return [builder.info.full_name, str(builder.data_path), repr(sizes)]
