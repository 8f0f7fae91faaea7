"""What the words of a text read of each other, head by head.

`token_attention.npz` is written by probes that know the words: `translations`,
`masked_words`. The entropy of a head is that of Clark et al., "What Does BERT Look At?
An Analysis of BERT's Attention", BlackboxNLP 2019, https://arxiv.org/abs/1906.04341.
"""

import functools
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from attn.train.program import Program
from attn.workdir import files

FILE = "token_attention.npz"
KIND = "token_matrix"
# By the slot of an attention, whose words ask and whose are read.
SIDES = {
    "cross": ("target", "source"),
    "self": ("target", "target_in"),
    "mixer": ("source", "source"),
}


def write(
    directory: pathlib.Path,
    program: Program,
    variables: Any,
    batch: Mapping[str, np.ndarray],
    words: Mapping[str, Sequence[Sequence[str]]],
    captions: Sequence[str],
) -> None:
    """Writes the matrices of all attentions in the slots of SIDES, if there are any.

    The file has "captions" [n] and "index", which tells by JSON the "words" of each
    side and example, without padding, and under "maps", from the input on, of each
    attention its "path", its "sides", the "entropy" of each head in nats, a mean over
    all words that ask, and the keys of two arrays: "mean" [n, T, S], over heads, and
    "heads" [N, T, S], of the example in the middle.

    Args:
        directory: of the point.
        program, variables: the model.
        batch: what the model reads, n examples.
        words: of the sides that are known, n lists each, as they are to be shown.
        captions: n texts.
    """
    _, shapes = jax.eval_shape(program.capture, variables, dict(batch))
    chosen = {
        path: _sides(path) for path, found in shapes.items() if found.kind == KIND
    }
    chosen = {path: s for path, s in chosen.items() if s and set(s) <= words.keys()}
    if not chosen:
        return
    lengths = {side: np.array([len(w) for w in words[side]]) for side in words}
    measure = functools.partial(_measured, program.capture, chosen)
    made = program.compiled("token_attention", measure)
    found = jax.device_get(made(variables, dict(batch), lengths))
    arrays: dict[str, np.ndarray] = {}
    entries = []
    for number, (path, sides) in enumerate(chosen.items()):
        mean, heads, entropy = found[path]
        arrays |= {f"mean{number}": mean.astype(np.float16)}
        arrays |= {f"heads{number}": heads.astype(np.float16)}
        entries.append(
            {
                "path": path.rpartition("/")[0],
                "sides": sides,
                "entropy": [round(float(value), 4) for value in entropy],
                "mean": f"mean{number}",
                "heads": f"heads{number}",
            }
        )
    index = {"words": {side: list(map(list, words[side])) for side in words}}
    files.write_npz(
        directory / FILE,
        captions=np.asarray(captions),
        index=np.asarray(json.dumps({**index, "maps": entries})),
        **arrays,
    )


def _sides(path: str) -> tuple[str, str] | None:
    """Whose words ask and are read at "decoder0/cross/token_matrix", if it is known."""
    slot = path.split("/")[-2] if "/" in path else ""
    return SIDES.get(slot.rstrip("0123456789"))


def _measured(
    capture: Any,
    chosen: Mapping[str, tuple[str, str]],
    variables: Any,
    batch: Mapping[str, Any],
    lengths: Mapping[str, jax.Array],
) -> dict[str, tuple[jax.Array, jax.Array, jax.Array]]:
    """By path the mean over heads, the heads of the middle example, and entropies."""
    _, maps = capture(variables, batch)
    found = {}
    for path, (asks, _) in chosen.items():
        values = maps[path].values.astype(jnp.float32)
        each = -jax.scipy.special.xlogy(values, values).sum(axis=-1)  # [B, N, T]
        places = jnp.arange(values.shape[2])[None]
        real = (places < lengths[asks][:, None]).astype(jnp.float32)[:, None]
        entropy = (each * real).sum(axis=(0, 2)) / real.sum()
        found[path] = values.mean(axis=1), values[len(values) // 2], entropy
    return found
