"""What a model is trained for: tasks by name.

`attn.tasks.base` tells the contract. To add a task: write `attn/tasks/<name>.py` with a
frozen dataclass derived from `Task`, and add a line to TASKS; or name a class of your
own in the config, by "package.file:Class".
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from attn import settings
from attn.tasks.answers import Answer, Finding
from attn.tasks.base import Batch, Mean, Metric, Task, divide
from attn.tasks.captioning import Captioning
from attn.tasks.classification import Classification
from attn.tasks.detection import Detection
from attn.tasks.distillation import Distillation
from attn.tasks.keypoints import Keypoints
from attn.tasks.masked_language import MaskedLanguage
from attn.tasks.next_sentence import NextSentence
from attn.tasks.recurrent_attention import RecurrentAttention
from attn.tasks.restoration import Restoration
from attn.tasks.sequence import Sequence
from attn.tasks.translation import Translation

TASKS: dict[str, type[Task]] = {
    "captioning": Captioning,
    "classification": Classification,
    "detection": Detection,
    "distillation": Distillation,
    "keypoints": Keypoints,
    "masked_language": MaskedLanguage,
    "next_sentence": NextSentence,
    "recurrent_attention": RecurrentAttention,
    "restoration": Restoration,
    "sequence": Sequence,
    "translation": Translation,
}


def create(config: Mapping[str, Any], facts: Mapping[str, Any] | None = None) -> Task:
    """Builds the task that `config["name"]` names, with the other entries as settings.

    Args:
        config: the section `task`.
        facts: of the data set, for the fields of the task that have their names.

    Raises:
        settings.Invalid: unknown task or setting; the message names the valid ones.
    """
    options = dict(config)
    name = options.pop("name", None)
    kind = settings.choose(TASKS, "task", name)
    known = {field.name for field in dataclasses.fields(kind)} & {*(facts or {})}
    given = {name: (facts or {})[name] for name in known}
    return settings.build(kind, "task", name, given | options)


__all__ = [
    "TASKS",
    "Answer",
    "Batch",
    "Captioning",
    "Classification",
    "Detection",
    "Distillation",
    "Finding",
    "Keypoints",
    "MaskedLanguage",
    "Mean",
    "Metric",
    "NextSentence",
    "Restoration",
    "Sequence",
    "Task",
    "Translation",
    "create",
    "divide",
]
