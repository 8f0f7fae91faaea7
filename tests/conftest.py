"""Settings for every test: eight devices on a CPU, exact products, a compile cache."""

import hashlib
import os
import pathlib
import tempfile

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
)
CACHE = pathlib.Path(tempfile.gettempdir()) / f"attn-tests-{os.getuid()}"
# sets of ours, prepared once and kept between runs, as their present builders make them
BUILDERS = sorted(
    (pathlib.Path(__file__).parents[1] / "attn/data/builders").glob("*.py")
)
CODE = b"".join(path.read_bytes() for path in BUILDERS)
VERSION = hashlib.sha256(CODE).hexdigest()[:12]
os.environ["TFDS_DATA_DIR"] = str(CACHE / f"data-{VERSION}")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(CACHE / "xla"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")

import jax  # noqa: E402
from absl import flags  # noqa: E402

jax.config.update("jax_default_matmul_precision", "highest")
jax.config.update("jax_numpy_rank_promotion", "raise")
flags.FLAGS.mark_as_parsed()  # grain's workers read flags
