"""babel: pairs of English and German or French, written by rules.

Dates, intervals of dates, lists of names, amounts of units and of money, and times from
now, as the Unicode Common Locale Data Repository has them in many languages; the
package Babel carries it and writes them out. "Thursday, November 26, 2026" is
"Donnerstag, 26. November 2026": the words have another order and other endings, which
a small model learns in minutes, and every source has one right translation.

A pair is a function of a fixed seed and its row. What "validation" and "test" have is
held out as a whole: a tenth each of the years 1900 to 2099 with all their dates, of the
sets of names that make a list, in whatever order, and of the amounts of each unit. In a
random split two thirds of the targets would be known but for their digits. No text
comes twice in a split. Spaces that are narrow or do not break are written as plain
ones.
"""

import dataclasses
import hashlib
import importlib.metadata
import itertools
import json
import logging
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import numpy as np

from attn import settings
from attn.data import cache, order
from attn.data.text import phrases
from attn.data.text.pairs import Pairs, Texts

SEED = 0  # of the pairs, the same in every run
DRAWS = 16  # random numbers of a pair
BLOCK = 4096  # pairs that are drawn at a time
MOST = 0.6  # of the pairs drawn that may be there already
# Of the package's data as it was when the sets were looked at (Babel 2.19.0).
LOCALES = {
    "en": "1e613e1ac63d11f0",
    "de": "76d0afef457b296b",
    "fr": "0a4d8b9befb62f45",
}

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Babel(Pairs):
    """babel: pairs of English and another language, written by rules.

    Splits "train", "validation" and "test", and "test_date", "test_list" and so on, the
    pairs of "test" of each kind. `attn.data.text.babel` says what is in them,
    `attn.data.text.pairs.Pairs` which fields and facts there are.

    Attributes:
        language: into which English is translated.
        only: kinds of pairs, of `attn.data.text.phrases.KINDS`; all of them if it
            is empty.
        train_size: pairs of "train".
        eval_size: pairs of "validation" and of "test".
    """

    language: Literal["de", "fr"] = "de"
    only: tuple[str, ...] = ()
    train_size: settings.Positive = 20_000
    eval_size: settings.Positive = 500

    def __post_init__(self) -> None:
        object.__setattr__(self, "only", tuple(self.only))  # to be hashed
        for kind in self.only:
            if kind not in phrases.KINDS:
                raise settings.unknown("kind of pairs", kind, phrases.KINDS)

    def kinds(self) -> tuple[str, ...]:
        """Names of the kinds of pairs."""
        return tuple(phrases.KINDS)

    def identity(self) -> list[str]:
        """The package's words, and the code that makes pairs of them."""
        code = [pathlib.Path(path).read_text() for path in (__file__, phrases.__file__)]
        return [*code, repr(_locales(("en", self.language)))]

    def texts(self) -> tuple[Mapping[str, Texts], dict[str, Any]]:
        """The pairs of each split, from disk if they were written before."""
        notes = {
            "babel": importlib.metadata.version("babel"),
            "split": "held out: years, sets of names, amounts of a unit",
        }
        data = _locales(("en", self.language))
        if data != {name: LOCALES[name] for name in data}:
            log.warning(
                "babel %s has other words than the pairs were looked at with",
                notes["babel"],
            )
            notes["babel"] += " (other words than 2.19.0)"
        kinds = [kind for kind in phrases.KINDS if kind in (self.only or phrases.KINDS)]
        found = {}
        for split in order.PURPOSES:
            size = self.train_size if split == "train" else self.eval_size
            key = [*self.identity(), repr(kinds), split, str(size)]
            write = lambda split=split, size=size: json.dumps(
                list(zip(*_written(self.language, kinds, split, size), strict=True))
            ).encode()
            columns = json.loads(cache.kept("babel", key, write))
            found[split] = Texts(*columns[:2], np.array(columns[2], np.int32))
        return found, notes


def _written(
    language: str, kinds: list[str], split: str, size: int
) -> Iterator[tuple[str, str, int]]:
    """The pairs of a split, with the number of their kind."""
    from babel import Locale

    english, other = Locale("en"), Locale(language)
    makers = phrases.makers((english, other))
    names, seen = list(phrases.KINDS), set()
    bag = [kind for kind in kinds for _ in range(phrases.KINDS[kind])]
    for block in itertools.count():
        rows = order.uniform(
            SEED, order.PURPOSES[split], block * BLOCK, BLOCK, DRAWS, "babel"
        )
        known = 0
        for draws in rows.tolist():
            kind = phrases.pick(draws[0], bag)
            held, write = makers[kind](draws[1:])
            if side(held) != split:
                continue
            source = _plain(write(english))
            if source in seen:
                known += 1
                continue
            seen.add(source)
            yield source, _plain(write(other)), names.index(kind)
            if len(seen) == size:
                return
        if known > MOST * BLOCK * (1 if split == "train" else 0.1):
            raise settings.Invalid(
                f"there are not enough pairs of {', '.join(kinds)} for {size} that"
                f" differ in {split}, but {len(seen)} at least"
            )


def side(held: str) -> str:
    """The split to which all belongs that is held out as one; "" is not held out."""
    if not held:
        return "train"
    number = hashlib.blake2b(held.encode(), digest_size=8).digest()
    tenth = int.from_bytes(number, "big") % 10
    return {0: "validation", 1: "test"}.get(tenth, "train")


def _plain(text: str) -> str:
    """The text with plain spaces in the place of narrow ones."""
    return " ".join(text.split())


def _locales(languages: tuple[str, ...]) -> dict[str, str]:
    """A digest of the package's words in each language."""
    import babel

    place = pathlib.Path(babel.__file__).parent / "locale-data"
    return {
        name: hashlib.sha256((place / f"{name}.dat").read_bytes()).hexdigest()[:16]
        for name in languages
    }
