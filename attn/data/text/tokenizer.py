"""Sub-words: byte-level byte-pair encoding, by the package `tokenizers`.

Byte-pair encoding (Sennrich, Haddow and Birch, 2016, arXiv:1508.07909) joins the most
frequent pair of pieces again and again, here of bytes (Radford et al. 2019): every text
can be written, there are no unknown words, and decoding gives the very text back. It is
trained on the training split. Numbers are written digit by digit, so that one that
never came in training can be copied. A published tokenizer in a `tokenizer.json` serves
as well, and then encodes as it was made to: lower-cased words are not to be had back.
"""

import functools
import importlib.metadata
import itertools
import json
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from attn import settings
from attn.data import cache
from attn.data.source import NOTES
from attn.data.text.ragged import Ragged

# What a token is for, and its names: ours, then those of published tokenizers.
SPECIAL = {
    "pad": ("[PAD]", "<pad>", "<|endoftext|>"),
    "start": ("[START]", "<s>", "<bos>", "[CLS]", "<pad>", "<|endoftext|>"),
    "end": ("[END]", "</s>", "<eos>", "[SEP]", "<|endoftext|>"),
    "cls": ("[CLS]", "<s>", "<cls>"),
    "sep": ("[SEP]", "</s>", "<sep>"),
    "mask": ("[MASK]", "<mask>"),
}
# Between what stands alone no pieces are joined: as GPT-2 has it, but digit by digit.
WORD = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
BYTES = 256
BLOCK = 1 << 16  # texts encoded at a time


class Tokenizer:
    """Texts as tokens, and back.

    Two are equal if their files are. Threads may share one.

    Attributes:
        file: the bytes of its `tokenizer.json`, all that it is made of.
        vocab_size: how many tokens there are.
    """

    def __init__(self, file: bytes) -> None:
        """Reads a tokenizer.

        Raises:
            ValueError: it is none.
        """
        import tokenizers

        try:
            # of two, as a setting of the whole says what "[MASK]" in a text is
            self._inner, self._special = (
                tokenizers.Tokenizer.from_str(file.decode()) for _ in range(2)
            )
        except Exception as error:  # the package has no class of its own
            raise ValueError(f"no tokenizer: {error}") from error
        for inner in (self._inner, self._special):
            inner.no_truncation()
            inner.no_padding()
        self._inner.encode_special_tokens = True
        self.file = file
        self.vocab_size = self._inner.get_vocab_size()
        form = json.loads(file)
        added = form["added_tokens"]
        self._names = {token["content"] for token in added if token["special"]}
        self._whole = {token["content"] for token in added}  # not made of bytes
        self._bytes = _letters() if _is_byte_level(form) else {}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Tokenizer) and self.file == other.file

    def __hash__(self) -> int:
        return hash(self.file)

    def __repr__(self) -> str:
        return f"Tokenizer({self.vocab_size} tokens, {cache.digest([self.file])[:12]})"

    @functools.cached_property
    def ordinary(self) -> np.ndarray:
        """The tokens that are not special, int32, ascending."""
        special = {self._inner.token_to_id(name) for name in self._names}
        numbers = np.arange(self.vocab_size, dtype=np.int32)
        return numbers[~np.isin(numbers, list(special))]

    def encode(self, text: str, *, special: bool = False) -> list[int]:
        """The tokens of a text, without any at its ends.

        Args:
            text: any.
            special: whether "[MASK]" and the like stand for special tokens, or else
                for the characters that they are written with.
        """
        if not special:
            return self.encode_all([text]).flat.tolist()
        return self._special.encode(text, add_special_tokens=False).ids

    def encode_all(self, texts: Iterable[str]) -> Ragged:
        """The tokens of each text."""
        texts, parts, lengths = list(texts), [np.zeros(0, np.int32)], []
        for first in range(0, len(texts), BLOCK):
            some = self._inner.encode_batch_fast(
                texts[first : first + BLOCK], add_special_tokens=False
            )
            ids = [one.ids for one in some]
            lengths += map(len, ids)
            parts.append(np.fromiter(itertools.chain.from_iterable(ids), np.int32))
        return Ragged(np.concatenate(parts), np.cumsum([0, *lengths]))

    def decode(self, ids: Iterable[int]) -> str:
        """The text of some tokens, special ones left out."""
        return self._inner.decode([int(i) for i in ids], skip_special_tokens=True)

    def words(self, ids: Iterable[int]) -> list[str]:
        """Each token as it can be shown: "▁" for a space, <E2> for part of a letter."""
        return [self._word(int(i)) for i in ids]

    def special(self, role: str) -> int:
        """The token that is there for a role of `SPECIAL`.

        Raises:
            Invalid: there is none.
        """
        for name in SPECIAL[role]:
            if name in self._names:
                return self._inner.token_to_id(name)
        raise settings.Invalid(
            f"the tokenizer has no token for {role!r}, such as"
            f" {' or '.join(SPECIAL[role][:2])}; its special tokens are"
            f" {', '.join(sorted(self._names)) or 'none'}"
        )

    def _word(self, number: int) -> str:
        piece = self._inner.id_to_token(number)
        if piece is None:
            return f"<{number}>"
        if not self._bytes or piece in self._names:
            return piece
        text = piece
        if piece not in self._whole:
            raw = bytes(self._bytes[letter] for letter in piece)
            try:
                text = raw.decode()
            except UnicodeDecodeError:
                return "".join(f"<{byte:02X}>" for byte in raw)
        shown = text.replace(" ", "▁")
        return shown if shown.isprintable() else shown.encode("unicode_escape").decode()


def train(texts: Iterable[str], vocab_size: int, special: Sequence[str]) -> Tokenizer:
    """A tokenizer of byte-pair encoding, the same to the byte for the same texts.

    What was trained once is kept on disk (`attn.data.cache`).

    Args:
        texts: to train on.
        vocab_size: tokens at most; fewer where the texts have no more pairs.
        special: names of special tokens, the first tokens in this order.

    Raises:
        Invalid: there is no room for the bytes.
    """
    least = len(special) + BYTES
    if vocab_size < least:
        raise settings.Invalid(
            f"vocab_size must be at least {least}, for {len(special)} special tokens"
            f" and {BYTES} bytes, got {vocab_size}"
        )
    texts = list(texts)
    key = [version(), str(vocab_size), repr(list(special)), *texts]
    file = cache.kept("tokenizer", key, lambda: _trained(texts, vocab_size, special))
    return Tokenizer(file)


def version() -> str:
    """Of the package that makes the tokens, and of what asks it to."""
    code = pathlib.Path(__file__).read_bytes()
    return f"{importlib.metadata.version('tokenizers')} {cache.digest([code])}"


def load(path: str) -> Tokenizer:
    """The tokenizer in a file.

    Raises:
        Invalid: there is no such file, or it is no tokenizer.
    """
    try:
        return _loaded(pathlib.Path(path).expanduser().read_bytes())
    except OSError as error:
        reason = error.strerror
    except ValueError as error:
        reason = str(error).splitlines()[0]
    raise settings.Invalid(
        f"the tokenizer {path!r} cannot be read ({reason}); it must be a"
        " tokenizer.json, as the package tokenizers writes it"
    )


@functools.lru_cache(maxsize=4)
def _loaded(file: bytes) -> Tokenizer:
    return Tokenizer(file)


def files(words: Any, notes: Mapping[str, Any]) -> dict[str, bytes]:
    """Files to be kept beside what is trained (`Source.files`).

    Args:
        words: a `Tokenizer`; another vocabulary needs no file.
        notes: what there is to know of the data.
    """
    found = {NOTES: (json.dumps(notes, indent=2) + "\n").encode()}
    if isinstance(words, Tokenizer):
        found["tokenizer.json"] = words.file
    return found


def _trained(texts: Sequence[str], vocab_size: int, special: Sequence[str]) -> bytes:
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers, trainers

    # the space before a masked word is masked with it
    tokens = [
        tokenizers.AddedToken(
            name, lstrip=name == "[MASK]", normalized=False, special=True
        )
        for name in special
    ]
    made = tokenizers.Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(tokenizers.Regex(WORD), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=tokens,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    made.train_from_iterator(texts, trainer, length=len(texts))
    return made.to_str().encode()


def _is_byte_level(form: Any) -> bool:
    decoder = form.get("decoder") or {}
    parts = decoder.get("decoders", [decoder])
    return "ByteLevel" in [part.get("type") for part in parts]


@functools.cache
def _letters() -> dict[str, int]:
    """The byte for which each letter of a byte-level token stands.

    Printable bytes stand for themselves, the others in turn for letters from 256 on.
    """
    ranges = (("!", "~"), ("¡", "¬"), ("®", "ÿ"))
    shown = [byte for a, b in ranges for byte in range(ord(a), ord(b) + 1)]
    others = [byte for byte in range(BYTES) if byte not in shown]
    letters = {chr(byte): byte for byte in shown}
    return letters | {chr(BYTES + n): byte for n, byte in enumerate(others)}
