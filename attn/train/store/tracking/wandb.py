"""Weights & Biases; its own variables, such as WANDB_MODE=offline, say the rest."""

import os
from collections.abc import Mapping
from typing import Any

from attn.train.store import tracking


def check() -> None:
    """Raises Invalid where the package is missing."""
    tracking.package("wandb", "wandb")


def begin(about: tracking.About) -> "Run":
    """Begins a run, or goes on with it."""
    import wandb

    return Run(
        wandb.init(
            project=os.environ.get("WANDB_PROJECT", "attn"),
            group=about.group,
            name=about.name,
            id=about.key,
            config=dict(about.config),
            resume="allow",
            reinit="create_new",  # points that train side by side have one each
            settings=wandb.Settings(console="off", silent=True),
        )
    )


class Run:
    """A run of Weights & Biases, which leaves out steps that it has already."""

    def __init__(self, run: Any):
        """Takes what `wandb.init` made."""
        self._run = run

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Adds values by step."""
        self._run.log(dict(values), step=step)

    def summarise(self, values: Mapping[str, float]) -> None:
        """Adds values of the whole run."""
        self._run.summary.update(dict(values))

    def attach(self, name: str, page: str) -> None:
        """Adds a page, which is shown among the panels of the run."""
        import wandb

        self._run.log({name: wandb.Html(page, inject=False)})

    def close(self, end: tracking.End) -> None:
        """Ends the run, or marks it as preempted."""
        if end == "stopped":
            self._run.mark_preempting()
        self._run.finish(exit_code=int(end != "done"))
