"""Vocabularies that need no training: bytes, and a few symbols.

They have the methods of `attn.data.text.tokenizer.Tokenizer`. Token 0 is padding, 1 is
[CLS], and what follows are the symbols.
"""

import dataclasses
from collections.abc import Iterable

PAD, CLS = 0, 1
FIRST = 2  # token of the first symbol
SPECIAL = ("[PAD]", "[CLS]")


@dataclasses.dataclass(frozen=True)
class Symbols:
    """Texts of symbols with spaces between them.

    Attributes:
        names: of the symbols.
    """

    names: tuple[str, ...]

    @property
    def vocab_size(self) -> int:
        """How many tokens there are."""
        return FIRST + len(self.names)

    def encode(self, text: str) -> list[int]:
        """The tokens of a text; a ValueError if it has another symbol."""
        return [FIRST + self.names.index(name) for name in text.split()]

    def decode(self, ids: Iterable[int]) -> str:
        """The text of some tokens, special ones left out."""
        return " ".join(self.names[i - FIRST] for i in ids if i >= FIRST)

    def words(self, ids: Iterable[int]) -> list[str]:
        """Each token as it can be shown."""
        return [(*SPECIAL, *self.names)[i] for i in ids]


@dataclasses.dataclass(frozen=True)
class Bytes:
    """Texts as the bytes of UTF-8."""

    vocab_size: int = FIRST + 256

    def encode(self, text: str) -> list[int]:
        """The tokens of a text."""
        return [FIRST + byte for byte in text.encode()]

    def decode(self, ids: Iterable[int]) -> str:
        """The text of some tokens, special ones left out."""
        return bytes(i - FIRST for i in map(int, ids) if i >= FIRST).decode(
            errors="replace"
        )

    def words(self, ids: Iterable[int]) -> list[str]:
        """Each token as it can be shown: "▁" for a space, <E2> for part of a letter."""
        return [self._word(int(i)) for i in ids]

    def _word(self, number: int) -> str:
        if number < FIRST:
            return SPECIAL[number]
        byte = number - FIRST
        if byte == ord(" "):
            return "▁"
        return chr(byte) if ord(" ") < byte < 127 else f"<{byte:02X}>"
