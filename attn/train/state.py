"""Everything that decides the next step of a training, as one pytree."""

from typing import Any

import flax.struct
import jax

from attn.tasks import Mean


class State(flax.struct.PyTreeNode):
    """The state of a training; it has no device axis.

    The batch to come is number `step` of the data's order, and the randomness of a
    step is `fold_in(seed, step)`: there is no stream whose position could be lost.

    Attributes:
        step: steps taken, int32 [].
        seed: of the parameters, the data and all randomness, uint32 []. It is data,
            not a constant of the program, so that all seeds share one compilation.
        params: the parameters.
        extras: the other collections of the model, such as batch statistics.
        opt_state: of the optimizer.
        average: of params and extras, see `attn.train.averaging`, or None.
        totals: totals and weights of the losses since they were last logged.
    """

    step: jax.Array
    seed: jax.Array
    params: Any
    extras: Any
    opt_state: Any
    average: Any
    totals: dict[str, Mean]

    def variables(self) -> dict[str, Any]:
        """What a model is evaluated with: the average where there is one."""
        params, extras = self.average or (self.params, self.extras)
        return {"params": params, **extras}
