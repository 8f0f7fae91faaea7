"""The time of a program's bare step: on one batch, without data, logs and the rest."""

import time

import jax

from attn.train.program import Program


class StepTime:
    """Takes steps of a program and times them; keeps nothing of what they train."""

    def __init__(self, program: Program, points: int = 1):
        """Compiles the step, and takes it once.

        Args:
            program: whose step it is.
            points: that it trains together, where it does.
        """
        train = program.train
        with program.dataset.train(
            train.batch_size, seed=0, shard=program.partition.shard
        ) as batches:
            batch = next(batches)
        batch = {name: batch[name] for name in program.fields}
        fed = program.partition.shard_batch([batch] * points)
        self._batch = fed if points > 1 else jax.device_put(fed)
        self._step = program.train_step
        self._state = program.partition.stack([program.init_state(0)] * points)
        self.seconds(1)

    def seconds(self, steps: int) -> float:
        """The seconds that so many steps take, one after the other."""
        began = time.perf_counter()
        loss = None
        for _ in range(steps):
            self._state, loss = self._step(self._state, self._batch)
        jax.block_until_ready(loss)
        return time.perf_counter() - began
