"""What a model is trained for: tasks by name.

`attn.tasks.base` tells the contract. To add a task: write `attn/tasks/<name>.py` with a
frozen dataclass derived from `Task`, and add a line to TASKS; or name a class of your
own in the config, by "package.file:Class".
"""

from collections.abc import Mapping
from typing import Any

from attn import settings
from attn.tasks.base import Batch, Mean, Metric, Task, divide
from attn.tasks.classification import Classification
from attn.tasks.distillation import Distillation
from attn.tasks.sequence import Sequence

TASKS: dict[str, type[Task]] = {
    "classification": Classification,
    "distillation": Distillation,
    "sequence": Sequence,
}


def create(config: Mapping[str, Any]) -> Task:
    """Builds the task that `config["name"]` names, with the other entries as settings.

    Raises:
        settings.Invalid: unknown task or setting; the message names the valid ones.
    """
    options = dict(config)
    name = options.pop("name", None)
    return settings.build(settings.choose(TASKS, "task", name), "task", name, options)


__all__ = [
    "TASKS",
    "Batch",
    "Classification",
    "Distillation",
    "Mean",
    "Metric",
    "Sequence",
    "Task",
    "create",
    "divide",
]
