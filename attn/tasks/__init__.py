"""What a model is trained for: tasks by name."""

from collections.abc import Mapping
from typing import Any

from attn import settings
from attn.tasks.classification import Classification

TASKS = {"classification": Classification}


def create(config: Mapping[str, Any]) -> Classification:
    """Builds the task that `config["name"]` names, with the other entries as settings.

    Raises:
        ValueError: unknown task or setting; the message names the valid ones.
    """
    options = dict(config)
    name = options.pop("name")
    return settings.build(settings.choose(TASKS, "task", name), "task", name, options)


__all__ = ["TASKS", "Classification", "create"]
