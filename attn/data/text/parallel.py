"""Pairs of texts from files, and from sets of TensorFlow Datasets."""

import dataclasses
import pathlib
import re
from collections.abc import Mapping
from typing import Any

from attn import settings
from attn.data.text import documents, prepared
from attn.data.text.pairs import Pairs, Texts

# Sets of TFDS that are translations, by name.
TRANSLATIONS = re.compile(r"\w*_translate|para_crawl|opus|opus100")


@dataclasses.dataclass(frozen=True)
class Parallel(Pairs):
    """parallel: pairs of texts from files in UTF-8, a text a line.

    A folder has a split NAME for each pair of files NAME.en and NAME.de, such as
    train.en; "train" must be there. Pairs with an empty side are left out, and
    counted. `attn.data.text.pairs.Pairs` says which fields and facts there are.

    Attributes:
        path: of the folder; or PATH of two files PATH.en and PATH.de, of which all
            lines are the split "train".
        source, target: the languages, by which the files end.
    """

    path: str = ""
    source: str = "en"
    target: str = "de"

    def __post_init__(self) -> None:
        if not self.path:
            raise settings.Invalid("data set 'parallel' needs the setting 'path'")
        if self.source == self.target:
            raise settings.Invalid(
                f"source and target must be two languages, got {self.source!r} twice"
            )

    def texts(self) -> tuple[Mapping[str, Texts], dict[str, Any]]:
        """The pairs of each split.

        Raises:
            Invalid: a file is missing, has another number of lines than the other, or
                a line that is not UTF-8.
        """
        pairs = self._files()
        found, empty = {}, 0
        for name, paths in pairs.items():
            found[name], count = _read(*paths)
            empty += count
        notes: dict[str, Any] = {"split": "by file"}
        if empty:
            notes["left out"] = {"pairs with an empty side": empty}
        return found, notes

    def identity(self) -> list[str]:
        """The files, when they were written, and how long they are."""
        files = [path for pair in self._files().values() for path in pair]
        states = [path.stat() for path in files if path.exists()]
        found = [(state.st_size, state.st_mtime_ns) for state in states]
        return [repr([path.resolve() for path in files]), repr(found)]

    def _files(self) -> dict[str, list[pathlib.Path]]:
        """The two files of each split."""
        place = pathlib.Path(self.path).expanduser()
        ends = (f".{self.source}", f".{self.target}")
        if place.is_dir():
            shown = (p for p in place.iterdir() if not p.name.startswith("."))
            names = sorted({p.stem for p in shown if p.suffix in ends})
            pairs = {n: [place / f"{n}{end}" for end in ends] for n in names}
        else:
            pairs = {"train": [place.with_name(f"{place.name}{end}") for end in ends]}
        if "train" not in pairs:
            raise settings.Invalid(
                f"{self.path!r} has no train{ends[0]} and train{ends[1]}, but"
                f" {', '.join(pairs) or 'no files in these languages'}"
            )
        return pairs


@dataclasses.dataclass(frozen=True)
class Translation(Pairs):
    """A set of translations of TensorFlow Datasets, by its name there.

    `attn.data.prepare` says where it is looked for, `attn.data.text.pairs.Pairs` which
    fields and facts there are.

    Attributes:
        name: such as "wmt14_translate/de-en" or "ted_hrlr_translate/pt_to_en".
        directory: where data sets lie; "" for TFDS's usual place.
        source: language of the sources; "" for the one that the set names first.
        most: pairs read of each split; None for all.
    """

    name: str = ""
    directory: str = ""
    source: str = ""
    most: settings.Positive | None = None

    def texts(self) -> tuple[Mapping[str, Texts], dict[str, Any]]:
        """The pairs of each split.

        Raises:
            Invalid: the set is not prepared, is no translation, or lacks the language.
        """
        languages = prepared.languages(self.name, self.directory)
        source = self.source or languages[0]
        if source not in languages:
            raise settings.unknown(f"language of {self.name!r}", source, languages)
        (target,) = (language for language in languages if language != source)
        rows = prepared.columns(self.name, self.directory, (source, target), self.most)
        prepared.check_train(self.name, rows)
        found = {name: Texts(one[source], one[target]) for name, one in rows.items()}
        return found, {"split": "as in TensorFlow Datasets"}

    def identity(self) -> list[str]:
        """The set, and what TFDS knows of its files."""
        return prepared.identity(self.name, self.directory)


def _read(first: pathlib.Path, second: pathlib.Path) -> tuple[Texts, int]:
    """The lines of two files that are not empty in either, and how many are."""
    sides = [documents.lines(path) for path in (first, second)]
    if len(sides[0]) != len(sides[1]):
        raise settings.Invalid(
            f"{first} has {len(sides[0])} lines and {second} {len(sides[1])}; line n of"
            " one must translate line n of the other"
        )
    pairs = [pair for pair in zip(*sides, strict=True) if all(pair)]
    sources, targets = ([pair[side] for pair in pairs] for side in (0, 1))
    return Texts(sources, targets), len(sides[0]) - len(pairs)
