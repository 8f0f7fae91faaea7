"""Makes resnet.npz: outputs of tiny ResNets, computed by torch in float64.

    python tests/golden/make_resnet.py

Needs torch. Parameters are not stored: `draw` makes each from its path, here and in
`tests/models/resnet_test.py`. For each slot there is the output of a network in which
the map at that slot is doubled.
"""

import pathlib
import zlib

import numpy as np
import torch
import torch.nn.functional as F

CASES = {
    "imagenet": {"layout": "imagenet", "kind": "basic", "image": (37, 50)},
    "cifar": {"layout": "cifar", "kind": "basic", "image": (9, 14), "stem": 2},
    "conv2": {"layout": "cifar", "kind": "bottleneck", "image": (11, 14)},
    "conv1": {"layout": "cifar", "kind": "bottleneck", "image": (11, 14)},
}
SLOTS = ["input", "stem", "block.pre", "block.conv2", "block.after_conv2"]
SLOTS += ["block.residual", "block.identity", "block.post", "stage.end", "head"]


def draw(path, shape):
    rng = np.random.default_rng(zlib.crc32(path.encode()))
    if path.endswith("kernel"):
        return rng.normal(size=shape) * np.sqrt(2 / np.prod(shape[:-1]))
    if path.endswith(("scale", "var")):
        return rng.uniform(0.5, 1.5, shape)
    return rng.normal(size=shape) * 0.3


class Network:
    def __init__(self, layout, kind, image, stem=None, stride_at="conv2"):
        self.layout, self.kind, self.stride_at = layout, kind, stride_at
        self.stem = stem or (2 if layout == "imagenet" else 1)
        rng = np.random.default_rng(0)
        self.images = torch.tensor(rng.normal(size=(3, *image, 3)))
        self.images = self.images.permute(0, 3, 1, 2)

    def conv(self, x, path, features, size, stride):
        kernel = draw(f"{path}/kernel", (size, size, x.shape[1], features))
        kernel = torch.tensor(kernel).permute(3, 2, 0, 1)
        return F.conv2d(x, kernel, stride=stride, padding=size // 2)

    def norm(self, x, path):
        scale, bias, mean, var = (
            torch.tensor(draw(f"{path}/{name}", x.shape[1]))
            for name in ("scale", "bias", "mean", "var")
        )
        if self.train:
            # flax keeps the biased variance, torch's layer the unbiased one.
            self.moved[path] = (
                0.9 * mean + 0.1 * x.mean(dim=(0, 2, 3)),
                0.9 * var + 0.1 * x.var(dim=(0, 2, 3), correction=0),
            )
            mean = var = None
        return F.batch_norm(x, mean, var, scale, bias, self.train, 0.1, 1e-5)

    def at(self, slot, x):
        return 2 * x if slot == self.slot else x

    def block(self, x, path, features, stride):
        if self.kind == "basic":
            plan = [(features, 3, stride), (features, 3, 1)]
        else:
            first, second = (stride, 1) if self.stride_at == "conv1" else (1, stride)
            narrow = features // 4
            plan = [(narrow, 1, first), (narrow, 3, second), (features, 1, 1)]
        y = self.at("block.pre", x)
        for i, (width, size, by) in enumerate(plan, 1):
            if i == 2 and self.slot == "block.conv2":
                y = 2 * y
                if by == 2:
                    y = F.avg_pool2d(y, 2, 2, ceil_mode=True, count_include_pad=False)
            else:
                y = self.conv(y, f"{path}/conv{i}", width, size, by)
            y = self.norm(y, f"{path}/norm{i}")
            if i < len(plan):
                y = F.relu(y)
            if i == 2:
                y = self.at("block.after_conv2", y)
        y = self.at("block.residual", y)
        if x.shape[1] != features or stride != 1:
            x = self.conv(x, f"{path}/shortcut_conv", features, 1, stride)
            x = self.norm(x, f"{path}/shortcut_norm")
        x = self.at("block.identity", x)
        return self.at("block.post", F.relu(x + y))

    def __call__(self, slot=None, train=False):
        self.slot, self.train, self.moved = slot, train, {}
        x = self.at("input", self.images)
        x = self.conv(
            x, "stem_conv", 4, 7 if self.layout == "imagenet" else 3, self.stem
        )
        x = self.at("stem", F.relu(self.norm(x, "stem_norm")))
        stages = 3
        if self.layout == "imagenet":
            x, stages = F.max_pool2d(x, 3, 2, 1), 4
        for s in range(stages):
            features = 4 * 2**s * (1 if self.kind == "basic" else 4)
            for b in range(2):
                stride = 2 if s > 0 and b == 0 else 1
                x = self.block(x, f"stage{s + 1}/block{b}", features, stride)
            x = self.at("stage.end", x)
        x = self.at("head", x).mean(dim=(2, 3))
        kernel = draw("classifier/kernel", (x.shape[1], 5))
        return (
            x @ torch.tensor(kernel) + torch.tensor(draw("classifier/bias", 5))
        ).numpy()


def main():
    arrays = {"torch": np.array(torch.__version__)}
    for name, case in CASES.items():
        stride_at = name if name.startswith("conv") else "conv2"
        network = Network(**case, stride_at=stride_at)
        arrays[name] = network()
        if name == "cifar":
            arrays["cifar/train"] = network(train=True)
            for path, (mean, var) in network.moved.items():
                arrays[f"cifar/train/{path}"] = np.stack([mean, var])
        if name == "conv2":
            for slot in SLOTS:
                arrays[f"conv2/{slot}"] = network(slot)
    np.savez_compressed(pathlib.Path(__file__).with_name("resnet.npz"), **arrays)


if __name__ == "__main__":
    main()
