"""PyTorch in a process of its own, which sleeps while others are measured."""

import os
import subprocess


class Torch:
    """A script that runs PyTorch and answers each line with the seconds of one run.

    Attributes:
        note: the first line that it prints; empty where PyTorch cannot be imported.
    """

    def __init__(self, python: str, script: str, *arguments: object):
        """Starts the script; its arguments are the number of cores, and these."""
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(
            [python, "-c", script, str(os.cpu_count()), *map(str, arguments)],
            stdin=pipe,
            stdout=pipe,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.note = self._process.stdout.readline().strip()

    def seconds(self, *line: object) -> float:
        """One run, timed by the process itself."""
        print(*line, file=self._process.stdin, flush=True)
        return float(self._process.stdout.readline())

    def close(self) -> None:
        """Ends the process."""
        self._process.stdin.close()
        self._process.wait()
