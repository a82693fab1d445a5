"""Small torch nets of several inputs, for tests: each factory returns a net and examples of its inputs."""

from __future__ import annotations

import torch
from torch import nn


class Pair(nn.Module):
    """A stereo pair, a box, and whole numbers without a batch; the frame is not the first parameter."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, 2, 1)
        self.gate = nn.Linear(4, 6)
        self.head = nn.Linear(8, 5)

    def forward(self, box, left, *, right, scale):
        def tower(x):
            return torch.relu(self.conv(x)).mean((2, 3))

        x = (tower(left) - tower(right)) * torch.sigmoid(self.gate(box))
        x = torch.cat([x, box[:, :2]], 1) * (1 + scale[0].float())
        return {"box": box * scale[1].float(), "scores": self.head(x)}


def pair(size=32):
    torch.manual_seed(7)
    examples = {"right": torch.zeros(1, 3, size, size), "left": torch.zeros(1, 3, size, size)}
    numbers = {"box": torch.ones(1, 4), "scale": torch.tensor([1, 2])}
    return Pair(), {**examples, **numbers}


def channels_last():
    """Images of one size in the example, in NHWC, and no parameter for the size."""

    torch.manual_seed(7)

    class Last(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 5, 3, 2, 1)

        def forward(self, photo, tilt):
            return torch.relu(self.conv(photo.permute(0, 3, 1, 2))).mean((2, 3)) * tilt

    return Last(), {"photo": torch.zeros(1, 24, 24, 3), "tilt": torch.ones(1, 1)}


class _Sum(nn.Module):
    def forward(self, image, more):
        return image.mean((2, 3)) + more.float().mean()


def _summed(more, image=None):
    return _Sum(), {"image": torch.zeros(1, 3, 32, 32) if image is None else image, "more": more}


def another_side():
    return _summed(torch.zeros(1, 3, 16, 16))


def doubles():
    return _summed(torch.zeros(1, 4, dtype=torch.float64))


def two_images_a_time():
    return _summed(torch.zeros(2, 4), image=torch.zeros(2, 3, 32, 32))


def grid(size):
    return _summed(torch.zeros(1, size, size))


def idle():
    class Idle(nn.Module):
        def forward(self, image, more):
            return image.mean((2, 3))

    return Idle(), {"image": torch.zeros(1, 3, 32, 32), "more": torch.zeros(1, 4)}


def no_frame():
    class Numbers(nn.Module):
        def forward(self, box, more):
            return box * more

    return Numbers(), {"box": torch.zeros(1, 4), "more": torch.zeros(1, 4)}


def other_names():
    return _Sum(), {"picture": torch.zeros(1, 3, 32, 32), "more": torch.zeros(1, 4)}


def list_of_examples():
    return _Sum(), [torch.zeros(1, 3, 32, 32), torch.zeros(1, 4)]


def no_examples():
    return _Sum(), {}


def no_tensor():
    return _summed([0.0] * 4)
