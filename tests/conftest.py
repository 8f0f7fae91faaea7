"""Settings for every test: eight devices on a CPU, exact products, quick compiling."""

import collections
import ctypes
import gc
import hashlib
import os
import pathlib
import resource
import tempfile

import pytest

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Most programs run once or twice: it is their compilation that takes time, and without
# LLVM's optimization two thirds of it. What is given in the environment overrides that.
os.environ["XLA_FLAGS"] = (
    "--xla_backend_optimization_level=0 "
    + os.environ.get("XLA_FLAGS", "")
    + " --xla_force_host_platform_device_count=8"
)
CACHE = pathlib.Path(tempfile.gettempdir()) / f"attn-tests-{os.getuid()}"
# sets of ours, prepared once and kept between runs, as their present builders make them
BUILDERS = sorted(
    (pathlib.Path(__file__).parents[1] / "attn/data/images/builders").glob("*.py")
)
CODE = b"".join(path.read_bytes() for path in BUILDERS)
VERSION = hashlib.sha256(CODE).hexdigest()[:12]
os.environ["TFDS_DATA_DIR"] = str(CACHE / f"data-{VERSION}")
os.environ["XDG_CACHE_HOME"] = str(CACHE / "kept")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(CACHE / "xla"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")

import jax  # noqa: E402
from absl import flags  # noqa: E402

jax.config.update("jax_default_matmul_precision", "highest")
jax.config.update("jax_numpy_rank_promotion", "raise")
flags.FLAGS.mark_as_parsed()  # grain's workers read flags

SLOWEST = 12  # files that are named at the end
MEMORY = 1.5  # GiB that a worker may hold when it goes on to another file
MOST = 2.25  # and when it goes on to another test
PEAKS: dict[str, str] = {}  # memory of each worker, and the file that took it
PEAK = [0.0, ""]  # of this process


@pytest.fixture(autouse=True, scope="module")
def between_files(request):
    """Drops compiled programs between files, once they fill the memory."""
    yield
    _drop_above(MEMORY)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    if peak > PEAK[0]:
        PEAK[:] = peak, request.node.nodeid


@pytest.fixture(autouse=True)
def between_tests():
    """Drops them within a file that compiles a great many."""
    yield
    _drop_above(MOST)


def _drop_above(limit):
    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
    if pages * resource.getpagesize() > limit * 2**30:
        jax.clear_caches()
        gc.collect()
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:  # of the GNU library: what is free goes back to the system
            trim(0)


def pytest_sessionfinish(session):
    """Tells the process that collects how much memory this worker took, and where."""
    said = f"{PEAK[0]:7.2f} GiB at most in {{}}, by the end of {PEAK[1]}"
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["peak"] = said
    elif PEAK[0]:
        PEAKS["one process"] = said


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node, error):
    """Keeps what a worker told."""
    del error
    PEAKS[node.gateway.id] = getattr(node, "workeroutput", {}).get("peak", "{}")


def pytest_terminal_summary(terminalreporter):
    """Names the slowest files and the memory of each process."""
    seconds = collections.Counter()
    for reports in terminalreporter.stats.values():
        for report in reports:
            if hasattr(report, "duration"):
                seconds[report.nodeid.partition("::")[0]] += report.duration
    terminalreporter.section("slowest files")
    for name, taken in seconds.most_common(SLOWEST):
        terminalreporter.write_line(f"{taken:7.1f} s  {name}")
    for name, said in sorted(PEAKS.items()):
        terminalreporter.write_line(said.format(name))
