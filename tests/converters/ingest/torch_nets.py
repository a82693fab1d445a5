"""Small torch nets of three families, for tests: ``torch_nets.py:residual`` and so on."""

from __future__ import annotations

import torch
from torch import nn


class Residual(nn.Module):
    """ResNet-like: padded max pool, strided shortcut, sum."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 7, 2, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.body = nn.Sequential(
            nn.Conv2d(8, 16, 3, 2, 1, bias=False),
            nn.BatchNorm2d(16),
            nn.LeakyReLU(0.1),
            nn.Conv2d(16, 16, 3, 1, 2, dilation=2, bias=True),
            nn.BatchNorm2d(16),
        )
        self.shortcut = nn.Sequential(nn.Conv2d(8, 16, 1, 2, bias=False), nn.BatchNorm2d(16))
        self.head = nn.Linear(16, 7)

    def forward(self, x):
        x = self.pool(self.stem(x))
        x = torch.relu(self.body(x) + self.shortcut(x))
        return self.head(torch.flatten(nn.functional.adaptive_avg_pool2d(x, 1), 1))


class Mobile(nn.Module):
    """MobileNetV3-like: depthwise with multiplier, squeeze and excitation, hard swish, SiLU, softmax."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.Hardswish())
        self.depthwise = nn.Conv2d(8, 16, 5, 1, 2, groups=8, bias=False)
        self.norm = nn.BatchNorm2d(16)
        self.squeeze = nn.Sequential(nn.Conv2d(16, 4, 1), nn.ReLU(), nn.Conv2d(4, 16, 1), nn.Hardsigmoid())
        self.project = nn.Conv2d(16, 12, 1)
        self.gate = nn.Sequential(nn.Linear(12, 3), nn.SiLU(), nn.Linear(3, 12), nn.Sigmoid())
        self.head = nn.Sequential(nn.Linear(12, 10), nn.Hardswish(), nn.Dropout(0.2), nn.Linear(10, 5))

    def forward(self, x):
        x = self.norm(self.depthwise(self.stem(x)))
        x = x * self.squeeze(x.mean((2, 3), keepdim=True))
        x = nn.functional.silu(self.project(x))
        x = x * self.gate(x.mean((2, 3)))[:, :, None, None]
        return torch.softmax(self.head(x.mean((2, 3))), 1)


class Dense(nn.Module):
    """DenseNet-like: concat, pre-activation, average pools; grouped convolution, PReLU, GELU."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 2, 1, bias=False)
        self.one = nn.Sequential(nn.BatchNorm2d(8), nn.PReLU(8), nn.Conv2d(8, 4, 3, 1, 1))
        self.two = nn.Sequential(nn.BatchNorm2d(12), nn.GELU(), nn.Conv2d(12, 8, 3, 1, 1, groups=4))
        self.transition = nn.Sequential(nn.BatchNorm2d(20), nn.ReLU6(), nn.AvgPool2d(2, 2), nn.ELU())
        self.head = nn.Linear(20, 6)

    def forward(self, x):
        x = self.stem((x - 0.25) * 2.0)
        x = torch.cat([x, self.one(x)], 1)
        x = torch.cat([x, self.two(x)], 1)
        x = torch.tanh(self.transition(x))
        return self.head(torch.amax(x, (2, 3)) / 2)


class StaticSame(nn.Module):
    """Padding that is "same" for the one size that the net was built for."""

    def __init__(self, size):
        super().__init__()
        self.convs = nn.ModuleList()
        channels = 3
        for kernel in (3, 5, 3):
            out = -(-size // 2)
            total = max((out - 1) * 2 + kernel - size, 0)
            pad = (total // 2, total - total // 2) * 2
            self.convs.append(nn.Sequential(nn.ZeroPad2d(pad), nn.Conv2d(channels, 8, kernel, 2)))
            channels, size = 8, out
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        for conv in self.convs:
            x = conv(x).relu()
        return self.head(x.mean((2, 3)))


class Flat(nn.Module):
    """A head on flattened pixels, which one size fits."""

    def __init__(self, size):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, 2, 1)
        self.head = nn.Linear(4 * (size // 2) ** 2, 3)

    def forward(self, x):
        return self.head(torch.flatten(self.conv(x), 1))


def _seeded(net):
    generator = torch.Generator().manual_seed(7)
    for name, tensor in net.state_dict().items():
        if not tensor.is_floating_point():
            continue
        noise = torch.rand(tensor.shape, generator=generator) - 0.5
        tensor.copy_(noise + 1.0 if "running_var" in name else noise)
    return net.eval()


def residual():
    return _seeded(Residual())


def mobile():
    return _seeded(Mobile())


def dense():
    return _seeded(Dense())


def static_same(size):
    print("building")
    return _seeded(StaticSame(size))


def flat(resolution=32):
    return _seeded(Flat(resolution))


def unseeded(size):
    torch.manual_seed(size)
    return StaticSame(32)


def two_outputs():
    class Two(nn.Module):
        def forward(self, x):
            return x.mean((2, 3)), x.amax((2, 3))

    return Two()


def no_module():
    return "weights.pt"


def broken():
    raise RuntimeError("the checkpoint is missing")


def determinant():
    class Determinant(nn.Module):
        def forward(self, x):
            return torch.linalg.det(x @ x.mT)

    return Determinant()
