"""What a model is trained for: tasks by name."""

from collections.abc import Mapping
from typing import Any, ClassVar, Protocol

import jax

from attn import settings
from attn.tasks.classification import Classification, Metrics
from attn.tasks.sequence import Sequence


class Task(Protocol):
    """What training asks of a task.

    Attributes:
        metrics: names of what `loss` gives to log, "loss" and "error" among them.
    """

    metrics: ClassVar[tuple[str, ...]]

    def loss(
        self, logits: jax.Array, batch: Mapping[str, jax.Array]
    ) -> tuple[jax.Array, Metrics]:
        """The loss of a training batch, a mean over examples, and what to log."""
        ...

    def sums(self, logits: jax.Array, batch: Mapping[str, jax.Array]) -> Metrics:
        """What a batch adds to an evaluation: sums over its examples by "weight"
        of "loss" and "error" (in percent), and their number "examples"."""
        ...


TASKS = {"classification": Classification, "sequence": Sequence}


def create(config: Mapping[str, Any]) -> Task:
    """Builds the task that `config["name"]` names, with the other entries as settings.

    Raises:
        Invalid: unknown task or setting; the message names the valid ones.
    """
    options = dict(config)
    name = options.pop("name")
    return settings.build(settings.choose(TASKS, "task", name), "task", name, options)


__all__ = ["TASKS", "Classification", "Metrics", "Sequence", "Task", "create"]
