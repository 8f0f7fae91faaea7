"""Spatial transformer: a small network says where to look, and the map is warped so.

Jaderberg, Simonyan, Zisserman, Kavukcuoglu, "Spatial Transformer Networks", NIPS
2015, https://arxiv.org/abs/1506.02025, section 3. The geometry is in `attn.ops.grid`
and `attn.ops.sample`.
"""

import itertools
import math
from typing import ClassVar, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from attn import settings
from attn.modules.capture import sow
from attn.modules.card import Card, Paper
from attn.modules.convolution import Conv
from attn.ops import grid as grids
from attn.ops.convolution import max_pool
from attn.ops.sample import bilinear_sample
from attn.ops.shapes import as_map
from attn.settings import Positive

WIDTHS = {"conv": (20, 20, 20), "dense": (32, 32, 32)}


class SpatialTransformer(nn.Module):
    """Warps maps: x [B, H, W, C] -> x read at T_theta(G), [B, h, w, count C].

    theta = f(x) is regressed from the map itself. The last layer starts with a zero
    kernel and the identity as its bias, so that a new module returns its input (to
    the rounding of positions, about 1e-7 of the side length in pixels), or the middle
    of it where `scale` is below 1. The localisation network f and the geometry are in
    float32 whatever `dtype` is; its dense layers fix H and W.

    Attributes:
        transform: "affine" (6 numbers), "attention" (scale, x, y: isotropic scale
            and translation), "projective" (8), or "thin_plate" (the spline through
            `control_points` squared points, 2 numbers each).
        scale: of "attention", if it is to be fixed: the side of what is read over
            that of the map (the paper's birds: 0.5). Then only x and y are regressed.
        count: number of transformers in parallel (the paper's section 3.4), each
            with a localisation network of its own that sees all of x. Their outputs
            are joined over channels; "transformer0" comes first.
        localisation: "conv", the network of the paper's ST-CNN: average pooling by
            `downsample`, convolutions with 2 x 2 max pooling between, a dense layer;
            or "dense", that of its ST-FCN. ReLU after each layer but the last.
        widths: of the layers before the last: the filters of each convolution and
            then the units of one dense layer, or the units of each dense layer.
            None takes the paper's, (20, 20, 20) or (32, 32, 32).
        downsample: by which "conv" shrinks its input first.
        kernel_size: side of its kernels. The paper's two convolutions of 5 x 5 need
            a map of at least 28 x 28; take 1 and 3 for a map from 8 x 8.
        kernel_padding: of these convolutions, "VALID" (none, the paper's MNIST) or
            "SAME" (its SVHN).
        output_size: (h, w); None keeps that of the input.
        control_points: control points of "thin_plate" along each side.
        align_corners: -1 and 1 are the centres of the outermost pixels, not their
            outer edges.
        padding: what lies outside the map, see `attn.ops.sample.bilinear_sample`.
        dtype: type of the output, and in which values are read; None takes the type
            of the input.
        param_dtype: type in which parameters are kept.

    Raises:
        Invalid: when it is made, a fixed scale of another transform or not above
            0; when it is called, a map too small for the convolutions, or settings
            that make no network or spline. The message has the numbers.
    """

    transform: Literal["affine", "attention", "projective", "thin_plate"] = "affine"
    scale: float | None = None
    count: Positive = 1
    localisation: Literal["conv", "dense"] = "conv"
    widths: tuple[Positive, ...] | None = None
    downsample: Positive = 2
    kernel_size: Positive = 5
    kernel_padding: Literal["VALID", "SAME"] = "VALID"
    output_size: tuple[Positive, Positive] | None = None
    control_points: Positive = 4
    align_corners: bool = False
    padding: Literal["zeros", "border", "reflection"] = "zeros"
    dtype: jnp.dtype | None = None
    param_dtype: jnp.dtype = jnp.float32

    card: ClassVar[Card]

    def __post_init__(self):
        check_scale(self.transform, self.scale)
        super().__post_init__()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        if self.count > 1:
            own = [f"transformer{index}" for index in range(self.count)]
            each = [self.clone(parent=self, count=1, name=name) for name in own]
            return jnp.concatenate([one(x, train=train) for one in each], axis=-1)
        x = as_map(x)
        wide = jnp.promote_types(x.dtype, jnp.float32)
        kinds = {"dtype": wide, "param_dtype": self.param_dtype}
        features = _localise(self, x.astype(wide), kinds)
        identity = _identity(self)
        theta = nn.Dense(
            len(identity),
            kernel_init=nn.initializers.zeros,
            bias_init=lambda key, shape, dtype: jnp.asarray(identity, dtype),
            precision=jax.lax.Precision.HIGHEST,  # it is a position, not a feature
            name="theta",
            **kinds,
        )(features)
        size = tuple(self.output_size or x.shape[1:3])
        grid = make_grid(
            self.transform,
            theta,
            size,
            align_corners=self.align_corners,
            scale=self.scale,
        )
        read = x.shape[1:3]
        edges = lambda: grids.between_edges(grid, read) if self.align_corners else grid
        sow(self, "sampling_grid", edges)
        return bilinear_sample(
            x.astype(self.dtype or x.dtype),
            grid,
            align_corners=self.align_corners,
            padding=self.padding,
        )


def identity_theta(transform: str, control_points: int) -> np.ndarray:
    """The numbers, float64 [D], by which `transform` leaves a map as it is."""
    if transform == "thin_plate":
        if control_points < 2:
            raise settings.Invalid(
                f"control_points must be at least 2, got {control_points}"
            )
        return grids.control_grid(control_points).reshape(-1)
    return np.array(
        {
            "affine": [1.0, 0, 0, 0, 1, 0],
            "attention": [1.0, 0, 0],
            "projective": [1.0, 0, 0, 0, 1, 0, 0, 0],
        }[transform]
    )


def check_scale(transform: str, scale: float | None) -> None:
    """Refuses a fixed scale that is not positive, or of another transform."""
    if scale is not None and transform != "attention":
        raise settings.Invalid(
            f"a fixed scale={scale} needs the transform 'attention', got {transform!r}"
        )
    if scale is not None and not scale > 0:
        raise settings.Invalid(f"scale must be above 0, got {scale}")


def make_grid(
    transform: str,
    theta: jax.Array,
    size: tuple[int, int],
    *,
    align_corners: bool,
    scale: float | None = None,
) -> jax.Array:
    """The sampling grid [B, h, w, 2] of the numbers `theta` [B, D].

    With a fixed `scale`, D is 2: x and y of "attention".
    """
    if transform == "projective":
        return grids.projective_grid(theta, size, align_corners=align_corners)
    if transform == "thin_plate":
        points = theta.reshape(theta.shape[0], theta.shape[1] // 2, 2)
        return grids.thin_plate_grid(points, size, align_corners=align_corners)
    if transform == "attention":
        *regressed, x, y = theta.T
        zero = jnp.zeros_like(x)
        side = regressed[0] if scale is None else zero + scale
        theta = jnp.stack([side, zero, x, zero, side, y], axis=-1)
    theta = theta.reshape(theta.shape[0], 2, 3)
    return grids.affine_grid(theta, size, align_corners=align_corners)


def _identity(module: SpatialTransformer) -> np.ndarray:
    """From what the regressed numbers start; all but a fixed scale."""
    identity = identity_theta(module.transform, module.control_points)
    return identity if module.scale is None else identity[1:]


def _localise(module: SpatialTransformer, x: jax.Array, kinds: dict) -> jax.Array:
    """The localisation network up to its last layer: [B, H, W, C] -> [B, D]."""
    filters, units = _layers(module)
    if filters:
        _feature_sides(module, x.shape[1:3])
        window = (module.downsample, module.downsample)
        x = nn.avg_pool(x, window, strides=window)
    for index, width in enumerate(filters):
        if index:
            x = max_pool(x[:, : x.shape[1] // 2 * 2, : x.shape[2] // 2 * 2])
        side = (module.kernel_size, module.kernel_size)
        padding = module.kernel_padding
        conv = Conv(width, side, padding=padding, name=f"conv{index}", **kinds)
        x = nn.relu(conv(x))
    x = x.reshape(x.shape[0], math.prod(x.shape[1:]))
    for index, width in enumerate(units):
        x = nn.relu(nn.Dense(width, name=f"dense{index}", **kinds)(x))
    return x


def _layers(module: SpatialTransformer) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Filters of the convolutions, and units of the dense layers after them."""
    widths = module.widths
    if widths is None:
        widths = WIDTHS[module.localisation]
    if module.localisation == "dense":
        return (), tuple(widths)
    if len(widths) < 2:
        raise settings.Invalid(
            "localisation 'conv' needs the widths of at least one convolution and of"
            f" a dense layer, got {tuple(widths)}"
        )
    return tuple(widths[:-1]), tuple(widths[-1:])


def _feature_sides(module: SpatialTransformer, sides: tuple[int, int]) -> list[int]:
    """Height and width of the last map of the convolutional localisation.

    Raises:
        Invalid: less than one pixel is left.
    """
    if min(module.downsample, module.kernel_size) < 1:
        raise settings.Invalid(
            f"downsample and kernel_size must be at least 1, got {module.downsample}"
            f" and {module.kernel_size}"
        )
    count = len(_layers(module)[0])
    lost = module.kernel_size - 1 if module.kernel_padding == "VALID" else 0
    found, least = [], 1
    for side in sides:
        side //= module.downsample
        for index in range(count):
            side = side // (2 if index else 1) - lost
        found.append(side)
    if min(found) < 1:
        for index in reversed(range(count)):
            least = (least + lost) * (2 if index else 1)
        least *= module.downsample
        raise settings.Invalid(
            f"localisation 'conv' with downsample={module.downsample} and {count}"
            f" convolutions of kernel_size={module.kernel_size} needs a map of at least"
            f" {least} x {least}, got {sides[0]} x {sides[1]}; lower them, or take"
            " localisation 'dense'"
        )
    return found


def _parameters(module: SpatialTransformer, shape: tuple[int, ...]) -> int:
    height, width, channels = shape
    filters, units = _layers(module)
    if filters:
        height, width = _feature_sides(module, (height, width))
    total = 0
    for inputs, outputs in itertools.pairwise((channels, *filters)):
        total += (module.kernel_size**2 * inputs + 1) * outputs
    features = height * width * (filters or (channels,))[-1]
    numbers = len(_identity(module))
    for inputs, outputs in itertools.pairwise((features, *units, numbers)):
        total += (inputs + 1) * outputs
    return module.count * total


SpatialTransformer.card = Card(
    family="spatial",
    contract="map",
    paper=Paper(
        title="Spatial Transformer Networks",
        authors="Jaderberg, Simonyan, Zisserman, Kavukcuoglu",
        year=2015,
        arxiv="1506.02025",
    ),
    formula=(
        "y_i = sum_nm x_nm max(0, 1 - |x_i - m|) max(0, 1 - |y_i - n|),"
        " (x_i, y_i) = T_theta(G_i), theta = f(x)"
    ),
    complexity="4 hwC + f; f of 'dense': 32 HWC + 2 * 32^2 + 32 D",
    parameters=_parameters,
    maps=("sampling_grid",),
    supports=frozenset(),
    variants={
        "st_cnn": {},
        "st_fcn": {"localisation": "dense"},
        "pixel_centres": {"align_corners": True},
    },
    note=(
        "No code was released. The localisation networks (ST-CNN by default) are those"
        " of the distorted-MNIST experiments, known from the paper's appendix A.4 only;"
        " that says downsampled by 2 without how (average pooling here). The paper"
        " leaves open what -1 and 1 are: the outer edges of the map by default, as in"
        " PyTorch, so that one theta is one region at any output size; 'pixel_centres'"
        " is the other reading. Outside the map its formula gives zeros (default). The"
        " localisation is dense at its end, so that H and W are fixed, and 'conv' with"
        " the paper's sizes needs 28 x 28; the paper also lowers its learning rate on"
        " SVHN (by 10) and on birds (by 10^4), which belongs to the optimizer."
    ),
)
