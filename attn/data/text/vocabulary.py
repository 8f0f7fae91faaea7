"""A vocabulary that is a list of words, some of which are marks that no text has."""

import dataclasses
import functools
import re
from collections.abc import Iterable


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """Texts of known words with spaces between them, for a grammar.

    It has the methods of `attn.data.text.tokenizer.Tokenizer`.

    Attributes:
        names: the words by number; one may have spaces of its own, such as "left of".
        marks: those of them that stand for no word of a text, such as an end.
        unknown: that which stands for all words that are not among them, if there is.
    """

    names: tuple[str, ...]
    marks: tuple[str, ...] = ()
    unknown: str = ""

    @property
    def vocab_size(self) -> int:
        """How many words there are, with the marks."""
        return len(self.names)

    def encode(self, text: str) -> list[int]:
        """The numbers of the words of a text, of which the longest are looked for.

        Raises:
            ValueError: it has something else in it.
        """
        found, rest = [], text.strip()
        while rest:
            word = self._pattern.match(rest)
            if word is None:
                raise ValueError(f"no word of the vocabulary begins {rest!r}")
            found.append(self.names.index(word[1]))
            rest = rest[word.end() :]
        return found

    def decode(self, ids: Iterable[int]) -> str:
        """The text of some words, marks left out."""
        words = self.words(ids)
        return " ".join(word for word in words if word not in self.marks)

    def words(self, ids: Iterable[int]) -> list[str]:
        """Each word or mark."""
        return [self.names[int(number)] for number in ids]

    @functools.cached_property
    def _pattern(self) -> re.Pattern[str]:
        words = sorted(set(self.names) - set(self.marks), key=len, reverse=True)
        return re.compile(rf"({'|'.join(map(re.escape, words))})(?:\s+|$)")
