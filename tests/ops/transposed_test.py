"""The transposed convolution against its formula, and both programs against each other.

PyTorch's own numbers are those of the formula: its documentation defines the module as
the gradient of a convolution with respect to its input.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attn import ops
from attn.models import cost
from attn.ops import transposed


def arrays(shape=(2, 5, 3, 4), features=6):
    rng = np.random.default_rng(0)
    x, kernel = rng.normal(size=shape), rng.normal(size=(4, 4, shape[-1], features))
    return x.astype(np.float32), kernel.astype(np.float32)


def scattered(x, kernel):
    """Each pixel times the kernel, added up where it falls, without the border."""
    batch, height, width, _ = x.shape
    y = np.zeros((batch, 2 * height + 2, 2 * width + 2, kernel.shape[-1]))
    for i, j in np.ndindex(height, width):
        for k, m in np.ndindex(4, 4):
            y[:, 2 * i + k, 2 * j + m] += np.float64(x[:, i, j]) @ kernel[k, m]
    return y[:, 1:-1, 1:-1]


def both():
    """The program of this platform and XLA's, compiled anew."""
    run = lambda x, kernel: transposed.double(x, kernel)

    def plainly(x, kernel):
        with ops.plain():
            return transposed.double(x, kernel)

    return {"usual": jax.jit(run), "plain": jax.jit(plainly)}


@pytest.mark.parametrize("program", ["usual", "plain"])
@pytest.mark.parametrize("shape", [(2, 5, 3, 4), (1, 1, 2, 3)])
def test_equals_its_formula(program, shape):
    x, kernel = arrays(shape)
    y = both()[program](x, kernel)
    assert y.shape == (shape[0], 2 * shape[1], 2 * shape[2], 6)
    np.testing.assert_allclose(y, scattered(x, kernel), rtol=1e-5, atol=1e-5)


def test_is_the_gradient_of_a_convolution_of_stride_2():
    """The definition of `torch.nn.ConvTranspose2d(4, 2, 1)`."""
    x, kernel = arrays()

    def down(big):  # [B, 10, 6, F] -> [B, 5, 3, C]
        numbers = ("NHWC", "HWOI", "NHWC")
        return jax.lax.conv_general_dilated(
            big, kernel, (2, 2), ((1, 1), (1, 1)), dimension_numbers=numbers
        )

    big = jax.ShapeDtypeStruct((2, 10, 6, 6), jnp.float32)
    (want,) = jax.linear_transpose(down, big)(x)
    np.testing.assert_allclose(both()["usual"](x, kernel), want, rtol=1e-5, atol=1e-5)


def test_both_programs_have_the_same_gradients():
    x, kernel = arrays()
    weight = np.random.default_rng(1).normal(size=(2, 10, 6, 6)).astype(np.float32)
    found = {
        name: jax.jit(
            jax.grad(lambda x, k, run=run: jnp.sum(weight * run(x, k)), argnums=(0, 1))
        )(x, kernel)
        for name, run in both().items()
    }
    for one, other in zip(*found.values(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


def test_both_programs_cost_the_same():
    x, kernel = arrays()
    found = [cost.macs(run, x, kernel) for run in both().values()]
    assert found == [2 * 5 * 3 * 16 * 4 * 6] * 2


def test_keeps_the_type():
    shapes = [jax.ShapeDtypeStruct(a.shape, jnp.bfloat16) for a in arrays()]
    assert jax.eval_shape(transposed.double, *shapes).dtype == jnp.bfloat16


def test_other_kernels_are_refused():
    x, kernel = arrays()
    for wrong in (kernel[:3], kernel[:, :, :2]):
        with pytest.raises(ValueError, match=r"the kernel \[4, 4, C, F\]"):
            transposed.double(x, wrong)
