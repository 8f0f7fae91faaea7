"""listops: nested operations on lists of digits, whose value is to be found.

Nangia and Bowman 2018, "ListOps", arXiv:1804.06028, as the Long Range Arena makes it
(Tay et al. 2021, arXiv:2011.04006): [MAX 2 9 [MIN 4 7 ] 0 ] is 9. An operation has two
arguments or more, each of which is an operation with probability 1/4, and else a digit;
MED is the median, rounded down, and SM the sum modulo 10. Expressions whose length is
not between the limits are drawn again.

What differs: [CLS] stands first, and no expression is in two splits or comes twice, by
construction.
"""

import dataclasses
import functools
import io
import pathlib
from collections.abc import Callable, Iterator
from typing import Literal

import numpy as np

from attn import settings
from attn.data import cache, order, splits
from attn.data.source import Source
from attn.data.text import classified
from attn.data.text.classified import Classified
from attn.data.text.ragged import Ragged
from attn.data.text.symbols import CLS, FIRST, PAD, Symbols

SEED = 0  # of the expressions, the same in every run
BLOCK = 1 << 16  # random numbers that are drawn at a time
NESTED = 0.25  # how often an argument is an operation
TRIES = 10_000  # expressions of other lengths in a row, before it is given up
OPERATIONS: dict[str, Callable[[list[int]], int]] = {
    "[MIN": min,
    "[MAX": max,
    "[MED": lambda values: int(np.median(values)),
    "[SM": lambda values: sum(values) % 10,
}
SYMBOLS = Symbols((*"0123456789", *OPERATIONS, "]"))


@dataclasses.dataclass(frozen=True)
class ListOps:
    """listops: nested operations on lists of digits, whose value is the label.

    Fields "tokens" and "segments", int32 [L], with their masks, and "label". Facts:
    vocab_size, max_length, pad, cls, tokenizer, num_classes, class_names. Splits
    "train", "validation" and "test". The Long Range Arena has depth 10, 10 arguments,
    501 to 1999 symbols, and 96,000 and 2,000 examples, which take minutes to make,
    once (`attn.data.cache`).

    Attributes:
        depth: of the deepest digit, the outermost operation having depth 1.
        arguments: of an operation, at most.
        low, high: fewest and most symbols of an expression; an operation has two, its
            name and "]".
        train_size: examples of "train".
        eval_size: examples of "validation" and of "test".
        buckets: lengths to which sequences are padded, at most.
        budget: "tokens" makes batches of shorter sequences larger, to about as many
            tokens each; "examples" has as many examples in every batch.
    """

    depth: settings.Positive = 6
    arguments: settings.Positive = 5
    low: settings.Positive = 16
    high: settings.Positive = 96
    train_size: settings.Positive = 20_000
    eval_size: settings.Positive = 1_000
    buckets: settings.Positive = 3
    budget: Literal["tokens", "examples"] = "tokens"

    def __post_init__(self) -> None:
        if self.depth < 2 or self.arguments < 2:
            raise settings.Invalid(
                "depth and arguments of listops must be at least 2, got"
                f" {self.depth} and {self.arguments}"
            )
        if self.low > self.high:
            raise settings.Invalid(
                f"low must be at most high, got {self.low} and {self.high}"
            )

    def open(self, split: str) -> Source:
        """One split, such as "train[:90%]"."""
        found = _opened(self)
        sizes = {name: one.tokens.size for name, one in found.items()}
        name, part = splits.part(split, sizes, "listops")
        return classified.source(
            found[name].part(part),
            classified.edges(found, self.buckets),
            self.budget,
            tuple("0123456789"),
            {
                "vocab_size": SYMBOLS.vocab_size,
                "pad": PAD,
                "cls": CLS,
                "tokenizer": SYMBOLS,
            },
        )


@functools.lru_cache(maxsize=2)
def _opened(config: ListOps) -> dict[str, Classified]:
    """All splits, from disk if they were made before."""
    made = dataclasses.replace(config, buckets=1, budget="tokens")  # these do not count
    code = pathlib.Path(__file__).read_bytes()
    content = cache.kept("listops", [code, repr(made)], lambda: _written(config))
    with np.load(io.BytesIO(content)) as arrays:
        return {
            name: Classified(
                Ragged(arrays[f"{name}_flat"], arrays[f"{name}_ends"]),
                arrays[f"{name}_labels"],
            )
            for name in order.PURPOSES
        }


def _written(config: ListOps) -> bytes:
    """All splits as the bytes of an .npz."""
    arrays, seen = {}, set()
    for name in reversed(order.PURPOSES):  # those that are evaluated come first
        size = config.train_size if name == "train" else config.eval_size
        rows, labels = [], []
        for tokens, value in _expressions(config, name, seen):
            rows.append(np.frombuffer(bytes([CLS]) + tokens, np.uint8))
            labels.append(value)
            if len(rows) == size:
                break
        arrays[f"{name}_flat"] = np.concatenate(rows)
        arrays[f"{name}_ends"] = np.cumsum([0, *map(len, rows)])
        arrays[f"{name}_labels"] = np.array(labels, np.int32)
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def _expressions(
    config: ListOps, split: str, seen: set[bytes]
) -> Iterator[tuple[bytes, int]]:
    """Tokens and values of expressions that were not seen, without end.

    Raises:
        Invalid: hardly any has a length that is asked for, or is new.
    """
    draws, tries = order.endless(SEED, order.PURPOSES[split], BLOCK, "listops"), 0
    while tries < TRIES:
        tries += 1
        tokens = bytearray()
        value = _draw(draws, config, 1, tokens)
        key = bytes(tokens)
        if value is None or len(tokens) < config.low or key in seen:
            continue
        seen.add(key)
        tries = 0
        yield key, value
    raise settings.Invalid(
        f"hardly an expression of depth {config.depth} with {config.arguments}"
        f" arguments has {config.low} to {config.high} symbols and is new; ask for"
        " other lengths, or for fewer examples"
    )


def _draw(
    draws: Iterator[float], config: ListOps, depth: int, tokens: bytearray
) -> int | None:
    """Appends an operation to `tokens`; its value, or None where it is too long."""
    operation = int(next(draws) * len(OPERATIONS))
    count = 2 + int(next(draws) * (config.arguments - 1))
    tokens.append(FIRST + 10 + operation)
    values = []
    for _ in range(count):
        if depth + 1 < config.depth and next(draws) < NESTED:
            value = _draw(draws, config, depth + 1, tokens)
            if value is None:
                return None
        else:
            value = int(next(draws) * 10)
            tokens.append(FIRST + value)
        values.append(value)
    tokens.append(FIRST + 10 + len(OPERATIONS))
    if len(tokens) > config.high:
        return None
    return list(OPERATIONS.values())[operation](values)
