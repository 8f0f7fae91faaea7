"""The first rows of a split as one batch, whatever their lengths."""

from collections.abc import Sequence

import numpy as np

from attn.data import Dataset


def first(
    dataset: Dataset, split: str, count: int, fields: Sequence[str]
) -> dict[str, np.ndarray]:
    """The first examples of a split, [n, ...] each, n at most `count`.

    Shorter ones end in zeros. Batches may have their examples in another order, by
    length, but a probe is to show the same ones for every model.
    """
    wanted = min(count, dataset.size(split))
    found: dict[int, dict[str, np.ndarray]] = {}
    with dataset.split(split, count) as batches:
        for batch in batches:
            for place, row in enumerate(batch["index"].tolist()):
                if row < wanted and batch["weight"][place] > 0:
                    found.setdefault(row, {n: batch[n][place] for n in fields})
            if len(found) == wanted:
                break
    rows = [found[row] for row in sorted(found)]
    return {name: _stacked([row[name] for row in rows]) for name in fields}


def _stacked(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """Arrays of unlike shapes as one, [n, ...]."""
    whole = np.max([array.shape for array in arrays], axis=0)
    stacked = np.zeros((len(arrays), *whole.astype(int)), arrays[0].dtype)
    for place, array in enumerate(arrays):
        stacked[(place, *map(slice, array.shape))] = array
    return stacked
