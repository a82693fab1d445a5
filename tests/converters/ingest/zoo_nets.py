"""Torch nets of many families, as small as asked for: for the contract suite and for ``ingest_zoo.py``.

Each is written here from its paper's idea, not from anybody's code.
"""

from __future__ import annotations

import torch
from torch import nn


def conv(a, b, k=3, s=1, groups=1, act=nn.ReLU):
    layers = [nn.Conv2d(a, b, k, s, k // 2, groups=groups, bias=False), nn.BatchNorm2d(b)]
    return nn.Sequential(*layers, *([act()] if act else []))


class Shuffle(nn.Module):
    """ShuffleNetV2: split, depthwise, concatenate, shuffle of channels."""

    def __init__(self, width=16):
        super().__init__()
        self.stem = conv(3, width, s=2)
        self.down1 = nn.Sequential(conv(width, width, s=2, groups=width, act=None), conv(width, width, 1))
        self.down2 = nn.Sequential(
            conv(width, width, 1), conv(width, width, s=2, groups=width, act=None), conv(width, width, 1)
        )
        self.blocks = nn.ModuleList(
            nn.Sequential(
                conv(width, width, 1), conv(width, width, groups=width, act=None), conv(width, width, 1)
            )
            for _ in range(3)
        )
        self.head = nn.Linear(2 * width, 10)

    @staticmethod
    def shuffle(x):
        n, c, h, w = x.shape
        return x.reshape(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)

    def forward(self, x):
        x = self.stem(x)
        x = self.shuffle(torch.cat([self.down1(x), self.down2(x)], 1))
        for block in self.blocks:
            left, right = x.chunk(2, 1)
            x = self.shuffle(torch.cat([left, block(right)], 1))
        return self.head(x.mean((2, 3)))


class Unet(nn.Module):
    """U-Net: transposed convolutions and bilinear upsampling, skips."""

    def __init__(self, width=8):
        super().__init__()
        self.a, self.b, self.c = conv(3, width), conv(width, 2 * width), conv(2 * width, 4 * width)
        self.up1 = nn.ConvTranspose2d(4 * width, 2 * width, 2, 2)
        self.d = conv(4 * width, 2 * width, act=nn.LeakyReLU)
        self.up2 = nn.Sequential(
            nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True), nn.Conv2d(2 * width, width, 1)
        )
        self.e = conv(2 * width, width)
        self.head = nn.Conv2d(width, 4, 1)

    def forward(self, x):
        a = self.a(x)
        b = self.b(nn.functional.max_pool2d(a, 2))
        c = self.c(nn.functional.max_pool2d(b, 2))
        x = self.d(torch.cat([self.up1(c), b], 1))
        return self.head(self.e(torch.cat([self.up2(x), a], 1)))


class Detector(nn.Module):
    """Feature pyramid with a shared head: boxes and scores before any suppression, one row per anchor."""

    def __init__(self, width=16, classes=6):
        super().__init__()
        self.c1, self.c2 = conv(3, width, s=2, act=nn.SiLU), conv(width, width, s=2, act=nn.SiLU)
        self.c3 = conv(width, 2 * width, s=2, act=nn.SiLU)
        self.lateral2, self.lateral3 = nn.Conv2d(width, width, 1), nn.Conv2d(2 * width, width, 1)
        self.tower = nn.Sequential(nn.Conv2d(width, width, 3, 1, 1), nn.GroupNorm(4, width), nn.ReLU())
        self.boxes, self.scores = nn.Conv2d(width, 4, 3, 1, 1), nn.Conv2d(width, classes, 3, 1, 1)

    def forward(self, x):
        c2 = self.c2(self.c1(x))
        p3 = self.lateral3(self.c3(c2))
        p2 = self.lateral2(c2) + nn.functional.interpolate(p3, scale_factor=2, mode="nearest")
        rows = [self.tower(p) for p in (p2, p3)]
        boxes = torch.cat([self.boxes(r).flatten(2).transpose(1, 2) for r in rows], 1)
        scores = torch.cat([self.scores(r).flatten(2).transpose(1, 2) for r in rows], 1)
        return {"boxes": torch.exp(boxes.clamp(-4, 4)), "scores": torch.sigmoid(scores)}


class Reader(nn.Module):
    """OCR: columns of a convolutional image become tokens, an attention layer reads them."""

    def __init__(self, width=16, letters=11):
        super().__init__()
        self.body = nn.Sequential(conv(3, width, s=2), conv(width, 2 * width, s=2, act=nn.Hardswish))
        self.norm, self.qkv = nn.LayerNorm(2 * width), nn.Linear(2 * width, 6 * width)
        self.out, self.heads = nn.Linear(2 * width, 2 * width), 2
        self.mlp = nn.Sequential(nn.Linear(2 * width, 4 * width), nn.GELU(), nn.Linear(4 * width, 2 * width))
        self.letters = nn.Linear(2 * width, letters)

    def forward(self, x):
        x = self.body(x).mean(2).permute(2, 0, 1)  # columns, batch, channels: as recurrent readers had it
        t, n, c = x.shape
        q, k, v = self.qkv(self.norm(x)).reshape(t, n * self.heads, 3 * (c // self.heads)).chunk(3, 2)
        scores = torch.bmm(q.transpose(0, 1), k.permute(1, 2, 0)) * (c // self.heads) ** -0.5
        mixed = torch.bmm(scores.softmax(-1), v.transpose(0, 1)).transpose(0, 1).reshape(t, n, c)
        x = x + self.out(mixed)
        return self.letters(x + self.mlp(x)).log_softmax(2)


class Depth(nn.Module):
    """A depth net: pixel shuffle on the way up, ELU, output of an image's size."""

    def __init__(self, width=12):
        super().__init__()
        self.down = nn.Sequential(conv(3, width, 5, 2, act=nn.ELU), conv(width, 2 * width, 3, 2, act=nn.Mish))
        self.inner = nn.Sequential(
            nn.InstanceNorm2d(2 * width, affine=True), conv(2 * width, 4 * width, act=nn.PReLU)
        )
        self.up = nn.Sequential(
            nn.PixelShuffle(2), nn.ReflectionPad2d(1), nn.Conv2d(width, 4, 3), nn.PixelShuffle(2)
        )

    def forward(self, x):
        return nn.functional.softplus(self.up(self.inner(self.down(x))))


class Vit(nn.Module):
    """A vision transformer with a class token and position embedding for one size."""

    def __init__(self, size=32, width=24, heads=3, depth=2):
        super().__init__()
        self.patch = nn.Conv2d(3, width, 8, 8)
        self.token = nn.Parameter(torch.zeros(1, 1, width))
        self.place = nn.Parameter(torch.zeros(1, 1 + (size // 8) ** 2, width))
        self.blocks = nn.ModuleList(
            nn.ModuleList(
                [
                    nn.LayerNorm(width),
                    nn.Linear(width, 3 * width),
                    nn.Linear(width, width),
                    nn.LayerNorm(width),
                    nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)),
                ]
            )
            for _ in range(depth)
        )
        self.heads, self.norm, self.head = heads, nn.LayerNorm(width), nn.Linear(width, 7)

    def forward(self, x):
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.place
        n, t, c = x.shape
        for norm1, qkv, out, norm2, mlp in self.blocks:
            q, k, v = qkv(norm1(x)).reshape(n, t, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
            attention = (q @ k.transpose(-2, -1) * (c // self.heads) ** -0.5).softmax(-1)
            x = x + out((attention @ v).transpose(1, 2).reshape(n, t, c))
            x = x + mlp(norm2(x))
        return self.head(self.norm(x)[:, 0])


class Embed(nn.Module):
    """An embedding of unit length."""

    def __init__(self, width=12):
        super().__init__()
        self.body = nn.Sequential(conv(3, width, s=2, act=nn.SELU), conv(width, 2 * width, s=2, act=nn.Tanh))
        self.head = nn.Linear(2 * width, 16)

    def forward(self, x):
        return nn.functional.normalize(self.head(self.body(x).amax((2, 3))), dim=1)


NETS = {
    "shuffle": (Shuffle, "classify"),
    "vit": (Vit, "classify"),
    "unet": (Unet, "segment"),
    "detector": (Detector, "detect"),
    "reader": (Reader, "raw"),
    "depth": (Depth, "raw"),
    "embed": (Embed, "embed"),
}


def realistic(net, images, *, seed=3):
    """Give a net statistics as training leaves them: weights from a seed, batch norms that saw images."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in net.named_parameters():
        if tensor.ndim == 1 or "token" in name or "place" in name:
            noise = torch.randn(tensor.shape, generator=generator) * 0.1
            tensor.data = noise + (1.0 if name.endswith("weight") else 0.0)
    net.train()
    with torch.no_grad():
        for _ in range(3):
            net(images)
    return net.eval()


def output_names_of(answer):
    """Name what a net answers: a dict's keys, or ``output``."""
    return list(answer) if isinstance(answer, dict) else ["output"]


def made(name, *, seed=3, side=32, **arguments):
    """Build one of ``NETS`` with realistic statistics."""
    torch.manual_seed(seed)
    net = NETS[name][0](**arguments)
    images = torch.randn(4, 3, side, side, generator=torch.Generator().manual_seed(seed))
    return realistic(net, images)


def shuffle():
    return made("shuffle")


def vit():
    return made("vit")


def unet():
    return made("unet")


def detector():
    return made("detector")


def reader():
    return made("reader")


def depth():
    return made("depth")


def embed():
    return made("embed")
