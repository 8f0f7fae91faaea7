"""MLflow; its own variables, such as MLFLOW_TRACKING_URI, say the rest."""

import os
import re
import time
from collections.abc import Mapping
from typing import Any

from attn.train.store import tracking
from attn.workdir import diff

KEY = "attn.key"  # the tag by which a run is found again
LONGEST = 6000  # letters of a value of the config
MOST = 100  # of them in a request
ENDS = {"done": "FINISHED", "diverged": "FAILED", "stopped": "KILLED"}


def check() -> None:
    """Raises Invalid where the package is missing."""
    tracking.package("mlflow", "mlflow-skinny")


def begin(about: tracking.About) -> "Run":
    """Begins a run, or goes on with it."""
    import mlflow
    from mlflow.entities import Param

    client = mlflow.MlflowClient()
    place = _experiment(client, os.environ.get("MLFLOW_EXPERIMENT_NAME", about.group))
    found = client.search_runs([place], f"tags.`{KEY}` = '{about.key}'")
    if found:
        run = found[0].info.run_id
        client.update_run(run, "RUNNING")
        return Run(client, run, _last(client, found[0]))
    tags = {KEY: about.key, "experiment": about.group}
    run = client.create_run(place, tags=tags, run_name=about.name).info.run_id
    config = diff.flat(about.config).items()
    params = [Param(_name(name), str(value)[:LONGEST]) for name, value in config]
    for first in range(0, len(params), MOST):
        client.log_batch(run, params=params[first : first + MOST])
    return Run(client, run, {})


def _experiment(client: Any, name: str) -> str:
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return client.create_experiment(name)
        except MlflowException:  # another worker may have, at the same time
            found = client.get_experiment_by_name(name)
            if found is None:
                raise
    return found.experiment_id


def _last(client: Any, run: Any) -> dict[str, int]:
    """The last step of which a run has each metric."""
    return {
        name: max(m.step for m in client.get_metric_history(run.info.run_id, name))
        for name in run.data.metrics
    }


def _name(text: str) -> str:
    """A name with the letters that MLflow allows."""
    return re.sub(r"[^\w\-. /]", "_", text)


class Run:
    """A run of MLflow, which is not told again what it has already."""

    def __init__(self, client: Any, run: str, last: dict[str, int]):
        """Takes the id of a run and the last step of each of its metrics."""
        self._client, self._run, self._last = client, run, last

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Adds values by step."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        named = {_name(name): float(value) for name, value in values.items()}
        new = [
            Metric(name, value, now, step)
            for name, value in named.items()
            if step > self._last.get(name, -1)
        ]
        if new:
            self._client.log_batch(self._run, metrics=new)

    def summarise(self, values: Mapping[str, float]) -> None:
        """Adds values of the whole run, as metrics of step 0."""
        self.log(0, values)

    def attach(self, name: str, page: str) -> None:
        """Adds a page among the artifacts."""
        self._client.log_text(self._run, page, f"{name}.html")

    def close(self, end: tracking.End) -> None:
        """Ends the run, or leaves it to go on later."""
        self._client.set_terminated(self._run, ENDS[end])
