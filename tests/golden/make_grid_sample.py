"""Makes grid_sample.npz: PyTorch's affine_grid and grid_sample, values and gradients.

Run with a Python that has torch and numpy, from anywhere:

    python tests/golden/make_grid_sample.py

Arrays, all channels last:

    sample/CASE/{x,grid,weight}     the input of a case, and the cotangent of its output
    sample/CASE/CONVENTION/{y,dx,dgrid}  y, and the gradients of sum(y * weight)
    affine/SIZE/{theta,weight}, affine/SIZE/CONVENTION/{grid,dtheta}

where CONVENTION is "corners-PADDING" or "edges-PADDING" for align_corners True and
False (without PADDING for affine). The case "random" is far from any kink; "corners"
and "edges" have grids whose positions in that convention are exact multiples of half
a pixel, edges and beyond included, so that they pin the one-sided derivatives.
"""

import itertools
import pathlib

import numpy as np
import torch
from torch.nn import functional

PADDINGS = ("zeros", "border", "reflection")
ALIGN = {"corners": True, "edges": False}


def lattice(step, limit):
    values = np.arange(-limit, limit + step / 2, step)
    return np.stack(np.meshgrid(values, values), axis=-1)[None]


def cases(rng):
    """Name -> (x, grid, conventions): non-square, output size unlike the input's."""
    far = rng.uniform(-3.5, 3.5, (2, 4, 6, 2))
    near = rng.uniform(-1.1, 1.1, (2, 4, 6, 2))
    grid = np.concatenate([far, near], axis=2)
    yield "random", rng.normal(size=(2, 5, 7, 3)), grid, ("corners", "edges")
    yield "one_pixel", rng.normal(size=(1, 1, 3, 2)), near[:1], ("corners", "edges")
    yield "corners", rng.normal(size=(1, 9, 5, 2)), lattice(0.25, 1.5), ("corners",)
    yield "edges", rng.normal(size=(1, 8, 4, 2)), lattice(0.25, 1.5), ("edges",)


def sample(x, grid, weight, align_corners, padding):
    x = torch.tensor(x).permute(0, 3, 1, 2).requires_grad_()
    grid = torch.tensor(grid, requires_grad=True)
    y = functional.grid_sample(
        x, grid, "bilinear", padding_mode=padding, align_corners=align_corners
    )
    y = y.permute(0, 2, 3, 1)
    dx, dgrid = torch.autograd.grad((y * torch.tensor(weight)).sum(), (x, grid))
    return {"y": y, "dx": dx.permute(0, 2, 3, 1), "dgrid": dgrid}


def affine(theta, size, weight, align_corners):
    theta = torch.tensor(theta, requires_grad=True)
    shape = (len(theta), 1, *size)
    grid = functional.affine_grid(theta, shape, align_corners=align_corners)
    (dtheta,) = torch.autograd.grad((grid * torch.tensor(weight)).sum(), theta)
    return {"grid": grid, "dtheta": dtheta}


def main():
    rng = np.random.default_rng(0)
    float32 = lambda a: np.asarray(a, np.float32)
    arrays = {"torch": np.array(torch.__version__)}

    def put(prefix, tensors):
        for name, value in tensors.items():
            if isinstance(value, torch.Tensor):
                value = value.detach().numpy()
            arrays[f"{prefix}/{name}"] = float32(value)

    for name, x, grid, conventions in cases(rng):
        x, grid = float32(x), float32(grid)
        weight = float32(rng.normal(size=(*grid.shape[:3], x.shape[-1])))
        put(f"sample/{name}", {"x": x, "grid": grid, "weight": weight})
        for corners, padding in itertools.product(conventions, PADDINGS):
            found = sample(x, grid, weight, ALIGN[corners], padding)
            put(f"sample/{name}/{corners}-{padding}", found)
    for size in ((4, 7), (1, 5)):
        theta = float32(rng.normal(size=(2, 2, 3)))
        weight = float32(rng.normal(size=(2, *size, 2)))
        prefix = f"affine/{size[0]}x{size[1]}"
        put(prefix, {"theta": theta, "weight": weight})
        for corners, align_corners in ALIGN.items():
            found = affine(theta, size, weight, align_corners)
            put(f"{prefix}/{corners}", found)
    path = pathlib.Path(__file__).with_name("grid_sample.npz")
    np.savez_compressed(path, **arrays)
    print(f"{path.name}: {len(arrays)} arrays, {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
