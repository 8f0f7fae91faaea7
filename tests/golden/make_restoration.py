"""Makes restoration.npz: outputs of small EDSR, PAN, FFA and SAN, in float64.

    python tests/golden/make_restoration.py

Needs torch. The networks are written here from the papers and from the code that their
authors published, with that code's names and what it declares without using it. Weights
and images are not stored: `draw` and `images` make them, here and in the tests; names
and shapes of the state dicts are stored.
"""

import pathlib
import zlib

import numpy as np

CASES = {  # network, settings of ours
    "edsr x2": ("edsr", {"scale": 2, "width": 8, "depth": 2, "residual_scale": 0.3}),
    "edsr x3": ("edsr", {"scale": 3, "width": 6, "depth": 1}),
    "edsr x4": ("edsr", {"scale": 4, "width": 4, "depth": 1}),
    "pan x3": ("pan", {"scale": 3, "width": 8, "enlarged_width": 6, "depth": 2}),
    "pan x4": ("pan", {"scale": 4, "width": 6, "enlarged_width": 5, "depth": 2}),
    "ffa": ("ffa", {"width": 16, "depth": 2}),
    "san x4": (
        "san",
        {"scale": 4, "width": 16, "groups": 2, "depth": 2, "units": 255.0},
    ),
}
SHIFT = (0.4488, 0.4371, 0.4040)  # mean colour of DIV2K
SHAPE = (2, 14, 11, 3)


def draw(name, shape):
    """An array for a name, of about the size that a trained network has there."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    if name == "gamma":
        return np.full(shape, 0.3)
    width = np.prod(shape[1:]) ** -0.5 if len(shape) > 1 else 0.2
    return width * rng.normal(size=shape)


def images():
    """[2, 14, 11, 3] in [0, 1]."""
    return np.random.default_rng(0).uniform(size=SHAPE)


def networks(torch):
    """The networks by name, made from settings of ours."""
    nn, functional = torch.nn, torch.nn.functional

    def conv(inputs, outputs, size=3, bias=True):
        return nn.Conv2d(inputs, outputs, size, padding=size // 2, bias=bias)

    def shuffled(scale, width):
        steps = [3] if scale == 3 else [2] * (scale.bit_length() - 1)
        layers = [(conv(width, s * s * width), nn.PixelShuffle(s)) for s in steps]
        return nn.Sequential(*[layer for pair in layers for layer in pair])

    def gate(*layers):
        return nn.Sequential(*layers, nn.Sigmoid())

    def bottleneck(width, hidden, outputs):
        return gate(conv(width, hidden, 1), nn.ReLU(), conv(hidden, outputs, 1))

    def shift():
        layer = nn.Conv2d(3, 3, 1)
        layer.weight.data = torch.eye(3)[:, :, None, None]
        layer.bias.data = torch.zeros(3)  # the colour itself is added below
        return layer

    colour = torch.tensor(SHIFT)[None, :, None, None]

    class EDSR(nn.Module):
        def __init__(self, scale, width, depth, residual_scale=1.0):
            super().__init__()
            self.times = residual_scale
            block = lambda: nn.ModuleDict(
                {
                    "body": nn.Sequential(
                        conv(width, width), nn.ReLU(), conv(width, width)
                    )
                }
            )
            self.sub_mean, self.add_mean = shift(), shift()
            self.head = nn.Sequential(conv(3, width))
            blocks = [block() for _ in range(depth)]
            self.body = nn.ModuleList([*blocks, conv(width, width)])
            self.tail = nn.Sequential(shuffled(scale, width), conv(width, 3))

        def forward(self, x):
            x = y = self.head(x - colour)
            for block in self.body[:-1]:
                y = y + self.times * block["body"](y)
            return self.tail(x + self.body[-1](y)) + colour

    class PAConv(nn.Module):
        def __init__(self, width):
            super().__init__()
            self.k2 = conv(width, width, 1)
            self.k3 = conv(width, width, bias=False)
            self.k4 = conv(width, width, bias=False)

        def forward(self, x):
            return self.k4(self.k3(x) * self.k2(x).sigmoid())

    class SCPA(nn.Module):
        def __init__(self, width):
            super().__init__()
            half = width // 2
            self.conv1_a = conv(width, half, 1, bias=False)
            self.conv1_b = conv(width, half, 1, bias=False)
            self.k1 = nn.Sequential(conv(half, half, bias=False))
            self.PAConv = PAConv(half)
            self.conv3 = conv(width, width, 1, bias=False)

        def forward(self, x):
            leaky = lambda y: functional.leaky_relu(y, 0.2)
            a = leaky(self.k1(leaky(self.conv1_a(x))))
            b = leaky(self.PAConv(leaky(self.conv1_b(x))))
            return x + self.conv3(torch.cat([a, b], dim=1))

    class PA(nn.Module):
        def __init__(self, width):
            super().__init__()
            self.conv = conv(width, width, 1)

        def forward(self, x):
            return x * self.conv(x).sigmoid()

    class PAN(nn.Module):
        def __init__(self, scale, width, enlarged_width, depth):
            super().__init__()
            self.steps = [2, 2] if scale == 4 else [scale]
            self.scale, wide = scale, enlarged_width
            self.conv_first = conv(3, width)
            self.SCPA_trunk = nn.Sequential(*[SCPA(width) for _ in range(depth)])
            self.trunk_conv = conv(width, width)
            for number, _ in enumerate(self.steps, 1):
                first = width if number == 1 else wide
                setattr(self, f"upconv{number}", conv(first, wide))
                setattr(self, f"att{number}", PA(wide))
                setattr(self, f"HRconv{number}", conv(wide, wide))
            self.conv_last = conv(wide, 3)

        def forward(self, image):
            leaky = lambda y: functional.leaky_relu(y, 0.2)
            x = self.conv_first(image)
            x = x + self.trunk_conv(self.SCPA_trunk(x))
            for number, step in enumerate(self.steps, 1):
                x = functional.interpolate(x, scale_factor=step, mode="nearest")
                x = getattr(self, f"upconv{number}")(x)
                x = leaky(getattr(self, f"att{number}")(x))
                x = leaky(getattr(self, f"HRconv{number}")(x))
            enlarged = functional.interpolate(
                image, scale_factor=self.scale, mode="bilinear", align_corners=False
            )
            return self.conv_last(x) + enlarged

    class Gates(nn.Module):
        """Of channels ("ca") or pixels ("pa")."""

        def __init__(self, name, width):
            super().__init__()
            outputs = width if name == "ca" else 1
            setattr(self, name, bottleneck(width, width // 8, outputs))
            self.name = name

        def forward(self, x):
            given = x.mean(dim=(2, 3), keepdim=True) if self.name == "ca" else x
            return x * getattr(self, self.name)(given)

    class Hazy(nn.Module):
        def __init__(self, width):
            super().__init__()
            self.conv1, self.conv2 = conv(width, width), conv(width, width)
            self.calayer, self.palayer = Gates("ca", width), Gates("pa", width)

        def forward(self, x):
            y = self.conv2(x + self.conv1(x).relu())
            return x + self.palayer(self.calayer(y))

    class Group(nn.Module):
        def __init__(self, width, depth):
            super().__init__()
            blocks = [Hazy(width) for _ in range(depth)]
            self.gp = nn.Sequential(*blocks, conv(width, width))

        def forward(self, x):
            return x + self.gp(x)

    class FFA(nn.Module):
        def __init__(self, width, depth):
            super().__init__()
            self.g1, self.g2, self.g3 = (Group(width, depth) for _ in range(3))
            self.ca = nn.Sequential(
                nn.AdaptiveAvgPool2d(1), *bottleneck(3 * width, width // 16, 3 * width)
            )
            self.palayer = Gates("pa", width)
            self.pre = nn.Sequential(conv(3, width))
            self.post = nn.Sequential(conv(width, width), conv(width, 3))

        def forward(self, x):
            mean, deviation = (
                torch.tensor(one)[None, :, None, None]
                for one in ((0.64, 0.6, 0.58), (0.14, 0.15, 0.152))
            )
            given = (x - mean) / deviation
            first = self.g1(self.pre(given))
            second = self.g2(first)
            third = self.g3(second)
            gates = self.ca(torch.cat([first, second, third], dim=1)).chunk(3, dim=1)
            parts = zip(gates, (first, second, third), strict=True)
            x = sum(gate * part for gate, part in parts)
            return self.post(self.palayer(x)) + given

    class SOCA(nn.Module):
        def __init__(self, width, reduction):
            super().__init__()
            self.conv_du = bottleneck(width, width // reduction, width)

        def forward(self, x):
            y = x.flatten(2)
            y = y - y.mean(dim=2, keepdim=True)
            covariance = y @ y.transpose(1, 2) / y.shape[2]
            trace = covariance.diagonal(dim1=1, dim2=2).sum(dim=1)[:, None, None]
            y, eye = covariance / trace, torch.eye(x.shape[1])
            z = eye
            for _ in range(5):
                step = (3 * eye - z @ y) / 2
                y, z = y @ step, step @ z
            root = y * trace.sqrt()
            return x * self.conv_du(root.mean(dim=1)[:, :, None, None])

    class NonLocal(nn.Module):
        def __init__(self, width, inner):
            super().__init__()
            pooled = lambda: nn.Sequential(conv(width, inner, 1), nn.MaxPool2d(2))
            self.g, self.phi = pooled(), pooled()
            self.theta, self.W = conv(width, inner, 1), conv(inner, width, 1)

        def forward(self, x):
            theta, phi, g = (f(x).flatten(2) for f in (self.theta, self.phi, self.g))
            weights = (theta.transpose(1, 2) @ phi).softmax(dim=-1)
            y = (weights @ g.transpose(1, 2)).transpose(1, 2)
            return x + self.W(y.reshape(*y.shape[:2], *x.shape[2:]))

    class Quarters(nn.Module):
        def __init__(self, width):
            super().__init__()
            self.soca = SOCA(width, 8)  # unused
            self.non_local = NonLocal(width, width // 8)

        def forward(self, x):
            rows = [x[:, :, : x.shape[2] // 2], x[:, :, x.shape[2] // 2 :]]
            middle = x.shape[3] // 2
            parts = [(row[..., :middle], row[..., middle:]) for row in rows]
            rows = [torch.cat([self.non_local(p) for p in row], 3) for row in parts]
            return torch.cat(rows, 2)

    class RB(nn.Module):
        def __init__(self, width):
            super().__init__()
            self.conv_first = nn.Sequential(
                conv(width, width), nn.ReLU(), conv(width, width)
            )

        def forward(self, x):
            return x + self.conv_first(x)

    class LSRAG(nn.Module):
        def __init__(self, width, depth):
            super().__init__()
            self.rcab = nn.ModuleList([RB(width) for _ in range(depth)])
            self.soca, self.conv_last = SOCA(width, 16), conv(width, width)
            self.gamma = nn.Parameter(torch.zeros(1))  # unused

        def forward(self, x):
            y = x
            for block in self.rcab:
                y = block(y)
            return x + self.conv_last(self.soca(y))

    class SAN(nn.Module):
        def __init__(self, scale, width, groups, depth, units):
            super().__init__()
            self.units = units
            self.sub_mean, self.add_mean = shift(), shift()
            self.head = nn.Sequential(conv(3, width))
            self.gamma = nn.Parameter(torch.zeros(1))
            self.RG = nn.ModuleList([LSRAG(width, depth) for _ in range(groups)])
            self.conv_last = conv(width, width)  # unused
            self.non_local = Quarters(width)
            self.tail = nn.Sequential(shuffled(scale, width), conv(width, 3))

        def forward(self, x):
            x = self.head(self.units * (x - colour))
            y = first = self.non_local(x)
            for group in self.RG:
                y = group(y) + self.gamma * first
            return self.tail(self.non_local(y) + x) / self.units + colour

    return {"edsr": EDSR, "pan": PAN, "ffa": FFA, "san": SAN}


def main():
    import torch

    torch.set_default_dtype(torch.float64)
    arrays = {"versions": np.array(f"torch {torch.__version__}")}
    kinds = networks(torch)
    for case, (name, settings) in CASES.items():
        model = kinds[name](**settings).eval()
        state = {
            name: torch.tensor(draw(name, tuple(value.shape)))
            for name, value in model.state_dict().items()
        }
        model.load_state_dict(state)
        with torch.no_grad():
            found = model(torch.tensor(images()).permute(0, 3, 1, 2))
        arrays[f"{case}/output"] = found.permute(0, 2, 3, 1).numpy().astype(np.float32)
        arrays[f"{case}/names"] = np.array(list(state))
        arrays[f"{case}/shapes"] = np.array(
            ["x".join(map(str, value.shape)) for value in state.values()]
        )
    np.savez_compressed(pathlib.Path(__file__).with_name("restoration.npz"), **arrays)


if __name__ == "__main__":
    main()
