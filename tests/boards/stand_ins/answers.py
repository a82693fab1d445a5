"""What a bundle answers here, written down to be compared with another machine: a script for boards.

``python answers.py BUNDLE FRAMES OUT.npz --engine ncnn --precision fp32 --look 112:20 --look 224:3``

It needs boardfit's runtime and nothing else. FRAMES is a folder of pictures, taken in the order of their
names; ``--look 112:20`` gives the first 20 of them to the net at 112 pixels.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from pathlib import Path

import numpy as np

from boardfit.bundle import open_bundle
from boardfit.runtime.entropy import entropy_bits, exact_entropy_bits, grey_histogram
from boardfit.runtime.images import read_image
from boardfit.runtime.policy import make_policy
from boardfit.runtime.preprocess import place
from boardfit.runtime.resize import resize_square
from boardfit.runtime.session import load
from boardfit.specs import ImageSpec


def look(text: str) -> tuple[int, int]:
    """Read ``SIZE:COUNT``."""
    size, _, count = text.partition(":")
    return int(size), int(count)


def answers(
    bundle: Path, frames: list[Path], *, engine: str, precision: str, looks: list[tuple[int, int]]
) -> dict[str, np.ndarray]:
    """Return arrays with a row for each frame: pixels read, histogram, bits, chosen size, outputs."""
    images = [read_image(path) for path in frames]
    with open_bundle(bundle) as opened:
        spec = opened.manifest.image
        policy = make_policy(opened.manifest.policy, stream=False)
    bits = [entropy_bits(image) for image in images]
    found = {
        "names": np.array([path.name for path in frames]),
        "pixels": np.array([hashlib.sha256(image.tobytes()).hexdigest() for image in images]),
        "histogram": np.stack([grey_histogram(image) for image in images]),
        "bits": np.array(bits),
        "exact_bits": np.array([exact_entropy_bits(image) for image in images]),
        "chosen": np.array([policy.first(each) for each in bits]),
    }
    for size, count in looks:
        with load(bundle, engine=engine, precision=precision, size=size, threads=1) as session:
            outputs = [session.look(image, size).outputs[0] for image in images[:count]]
        found[f"outputs {size}"] = np.concatenate(outputs)
        found[f"seen {size}"] = np.stack([seen(image, size, spec) for image in images[:count]])
    return found


def seen(image: np.ndarray, size: int, spec: ImageSpec) -> np.ndarray:
    """Return the pixels that become the tensor: (size, size, 3) uint8."""
    where = place(image.shape[0], image.shape[1], crop=spec.crop, size=size)
    square = image[where.top : where.top + where.side, where.left : where.left + where.side]
    return resize_square(square, size, resize=spec.resize)


def main(argv: list[str]) -> int:
    """Write the arrays of one engine."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle", type=Path)
    parser.add_argument("frames", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--engine", required=True)
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--look", type=look, action="append", default=[], metavar="SIZE:COUNT")
    args = parser.parse_args(argv)
    found = answers(
        args.bundle,
        sorted(args.frames.iterdir()),
        engine=args.engine,
        precision=args.precision,
        looks=args.look,
    )
    with args.out.open("wb") as file:
        np.savez(file, **found)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
