"""Texts of prepared sets of TensorFlow Datasets, read without TensorFlow."""

from collections.abc import Mapping, Sequence
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
            raise settings.Invalid(
                f"data set {name!r} has no field {field!r}, but {', '.join(there)}"
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


def names(name: str, directory: str, field: str) -> tuple[str, ...]:
    """Names of the classes of a label."""
    feature = prepare.builder(name, directory).info.features[field]
    return tuple(feature.names)


def languages(name: str, directory: str) -> Mapping[str, Any]:
    """The languages of a set of translations, the source first."""
    features = prepare.builder(name, directory).info.features
    return dict(getattr(features, "items", dict)())
