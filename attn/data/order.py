"""Order of examples and their random numbers: pure functions of a position.

A stream of training examples is endless and has positions 0, 1, 2, ...: epoch e of a
split of N examples holds positions e N to (e + 1) N - 1, in an order of its own. What
stands at a position, and every random number used there, follows from (seed,
position) alone, so a stream can be entered anywhere and cut anyhow.

Philox (Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011) turns
(key, counter) into four 64-bit words, so the numbers of any range of positions come
from one call. Only its raw words are used: NumPy promises to keep those from release
to release, and does not promise so for `Generator`'s methods.

Philox's key is (seed, purpose and stream). A stream is a name, such as that of a
transform: each has numbers of its own, so that a further one leaves the others as they
are. The stream "" is that of a data set's own numbers.
"""

import functools
import hashlib
import itertools
from collections.abc import Iterator

import numpy as np

WORDS = 4  # that Philox makes at one value of its counter

# The lowest byte of Philox's second key word: no two uses share random numbers.
ORDER, TRAIN, TEST, VALIDATION = 0, 1, 2, 3
# By the name of the split whose numbers they are.
PURPOSES = {"train": TRAIN, "validation": VALIDATION, "test": TEST}


def uniform(
    seed: int, purpose: int, start: int, count: int, draws: int, stream: str = ""
) -> np.ndarray:
    """Numbers in [0, 1) for `count` positions from `start`: float64 [count, draws].

    The numbers of a position do not depend on the range that is asked for, but they
    do on `draws`, which settles how many counters a position takes.

    Args:
        seed: 0 to 2^64 - 1.
        purpose: TRAIN, TEST or VALIDATION.
        start: first position.
        count: how many positions.
        draws: how many numbers each position needs.
        stream: whose numbers; see the head of this file.
    """
    counters = -(-draws // WORDS)
    philox = np.random.Philox(
        key=_key(seed, purpose, stream), counter=_words(start * counters)
    )
    raw = philox.random_raw(count * counters * WORDS)
    raw = raw.reshape(count, counters * WORDS)[:, :draws]
    return (raw >> np.uint64(11)) * 2.0**-53


def rows(seed: int, start: int, count: int, size: int, stream: str = "") -> np.ndarray:
    """Rows of a split of `size` at `count` positions from `start`: int64 [count]."""
    parts = []
    while count > 0:
        epoch, offset = divmod(start, size)
        part = permutation(seed, epoch, size, stream)[offset : offset + count]
        parts.append(part)
        start, count = start + len(part), count - len(part)
    return np.concatenate(parts)


@functools.lru_cache(maxsize=16)
def permutation(seed: int, epoch: int, size: int, stream: str = "") -> np.ndarray:
    """Order of a split in one epoch: int64 [size], read-only.

    It sorts one random 64-bit word a row, so that it is uniform up to ties, which
    two rows have with probability 2^-64.
    """
    philox = np.random.Philox(
        key=_key(seed, ORDER, stream),
        counter=np.array([0, epoch, 0, 0], np.uint64),
    )
    order = np.argsort(philox.random_raw(size), kind="stable")
    order.setflags(write=False)
    return order


def endless(seed: int, purpose: int, block: int, stream: str) -> Iterator[float]:
    """The numbers of all positions in turn, WORDS each, for what takes any number.

    Args:
        seed, purpose, stream: as of `uniform`.
        block: positions that are drawn at a time.
    """
    for start in itertools.count(step=block):
        yield from uniform(seed, purpose, start, block, WORDS, stream).ravel().tolist()


@functools.lru_cache(maxsize=256)
def _key(seed: int, purpose: int, stream: str) -> np.ndarray:
    """Philox's key, uint64 [2]; a hash of the stream above the byte of the purpose."""
    name = hashlib.blake2b(stream.encode(), digest_size=7).digest() if stream else b""
    key = np.array([seed, purpose | int.from_bytes(name, "big") << 8], np.uint64)
    key.setflags(write=False)
    return key


def _words(counter: int) -> np.ndarray:
    """Philox's counter of 256 bits as four words, the low one first."""
    mask = (1 << 64) - 1
    return np.array([counter >> 64 * i & mask for i in range(WORDS)], np.uint64)
