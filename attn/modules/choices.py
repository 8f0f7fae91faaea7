"""What hard attention chose, for whoever has the reward that its training needs.

A mechanism that draws what it attends to has no gradient of its own: a task multiplies
log-probabilities by a reward (`attn.ops.score_function`), and knows nothing but the
outputs of the model. So the mechanism notes its choice, the model that called it reads
that and returns it among its outputs:

    z = attention(q, kv, train=train)
    choice = choices.of(attention)      # None where nothing was drawn

A model that does not do so never rewards them.

In training the collection "choices" may be written, and is dropped behind the step.
Inside of `nn.scan` it needs `variable_axes={"choices": 0}`.
"""

import flax.struct
import jax
from flax import linen as nn

COLLECTION = "choices"


class Choice(flax.struct.PyTreeNode):
    """One choice for each of T targets.

    Attributes:
        log_prob: of what was drawn, [B, T]; 0 where it was not drawn but averaged.
        entropy: of the distribution it was drawn from, [B, T], in nats.
    """

    log_prob: jax.Array
    entropy: jax.Array


def note(module: nn.Module, choice: Choice) -> None:
    """Keeps the choice of this call of `module`, in training."""
    if not module.is_initializing() and module.is_mutable_collection(COLLECTION):
        module.sow(COLLECTION, "choice", choice)


def of(*modules: nn.Module) -> Choice | None:
    """The choices of the last calls of submodules, and of what is in them, as one.

    Their log-probabilities and entropies are added up. None if there was no choice.
    """
    noted = jax.tree.leaves(
        [module.variables.get(COLLECTION, {}) for module in modules],
        is_leaf=lambda part: isinstance(part, tuple),
    )
    last = [calls[-1] for calls in noted]
    return jax.tree.map(lambda *parts: sum(parts), *last) if last else None
