"""Hosts on this machine: processes that train together, each with CPU devices."""

import os
import pathlib
import socket
import subprocess
import sys
import time

from flax import linen as nn

ROOT = pathlib.Path(__file__).parents[2]


def address():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{found.getsockname()[1]}"


def start(config, workdir, *flags, hosts, devices, only=None):
    """The same command on every host, or on those whose numbers are given.

    `workdir` may name a directory of each host, by its {index}.
    """
    meet = address()
    force = f"--xla_force_host_platform_device_count={devices}"
    return [
        subprocess.Popen(
            [
                sys.executable,
                str(ROOT / "launch.py"),
                f"--config={config}",
                f"--workdir={str(workdir).format(index=index)}",
                f"--distributed={f'{meet},{hosts},{index}' if hosts > 1 else 'off'}",
                f"--compilation_cache={os.environ['JAX_COMPILATION_CACHE_DIR']}",
                *flags,
            ],
            env=os.environ | {"XLA_FLAGS": force, "PYTHONPATH": str(ROOT)},
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for index in (range(hosts) if only is None else only)
    ]


def end(processes, code, seconds=1000):
    """What all say, which must end with the same status."""
    outputs = []
    try:
        for process in processes:
            outputs.append(process.communicate(timeout=seconds)[0])
    finally:
        for process in processes:
            process.kill()  # JAX takes SIGTERM for a notice
    codes = [process.returncode for process in processes]
    assert codes == [code] * len(processes), [o[-2000:] for o in outputs]
    return outputs


def wait_until(processes, condition):
    """Waits for what a training writes."""
    until = time.monotonic() + 1000
    while not condition():
        if time.monotonic() > until or any(p.poll() is not None for p in processes):
            for process in processes:
                process.kill()
            raise AssertionError([p.communicate()[0][-2000:] for p in processes])
        time.sleep(0.01)


class Plain(nn.Module):
    """A model of which little is compiled and nothing is drawn."""

    num_classes: int

    @nn.compact
    def __call__(self, x, *, train):
        return nn.Dense(self.num_classes)(x[:, ::4, ::4].reshape(len(x), -1))
