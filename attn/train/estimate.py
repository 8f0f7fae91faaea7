"""How long a training will take, from its own compiled steps."""

import statistics
import time

import jax

from attn.train.program import Program

# Steps timed after the one that compiles.
TIMED = 5


def seconds(program: Program) -> dict[str, float]:
    """Times a few steps and one evaluation, and trains nothing that is kept.

    Returns:
        "ms_per_step"; "compile", the seconds before the first step that a compilation
        cache may spare; and "train", the seconds of one point after that.
    """
    train = program.train
    state = program.start(0)
    with program.dataset.train(
        train.batch_size, seed=0, shard=program.partition.shard
    ) as batches:
        batch = next(batches)
    batch = {name: batch[name] for name in ("image", "label")}
    batch = program.partition.split(batch)
    began, laps = time.perf_counter(), []
    for _ in range(TIMED + 1):
        lap = time.perf_counter()
        state, loss = program.update(state, batch)
        jax.block_until_ready(loss)
        laps.append(time.perf_counter() - lap)
    step = statistics.median(laps[1:])
    evaluations = []
    for _ in range(2):
        lap = time.perf_counter()
        program.evaluate(state)
        evaluations.append(time.perf_counter() - lap)
    compiled = time.perf_counter() - began - TIMED * step - 2 * evaluations[1]
    tested = -(-train.steps // train.eval_every)
    return {
        "ms_per_step": 1000 * step,
        "compile": compiled,
        "train": train.steps * step + tested * evaluations[1],
    }
