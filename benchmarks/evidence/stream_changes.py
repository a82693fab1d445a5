"""Does the size flap in a steady shot, and does it follow a real change? On the videos.

    python benchmarks/evidence/stream_changes.py lite0.boardfit

Two policies that change size: image entropy with its threshold at the median of the video itself (the worst
place for it), and two-look with its bound at the median doubt of the first looks. A change is a frame
that is answered at another size than the one before.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from itertools import pairwise

import cv2
import numpy as np
from photos import data_folder, labelled

from boardfit.runtime.entropy import entropy_bits
from boardfit.runtime.images import read_image
from boardfit.runtime.session import Session, load
from boardfit.specs import PolicySpec
from boardfit.timing import machine_name

VIDEOS = ("vtest.avi", "bikes.mp4", "carphone_pristine.mp4")
Loader = Callable[..., Session]


def frames_of(name: str) -> list[np.ndarray]:
    capture = cv2.VideoCapture(str(data_folder() / "video" / name))
    frames = []
    while True:
        ok, frame = capture.read()
        if not ok:
            return frames
        frames.append(frame)


def run(bundle: str, spec: PolicySpec, frames: Iterable[np.ndarray], *, stream: bool) -> list[int]:
    with load(bundle, engine="onnxruntime", policy=spec, stream=stream) as session:
        return [session(frame).size for frame in frames]


def changes(sizes: list[int]) -> int:
    return sum(a != b for a, b in pairwise(sizes))


def shaken(photo: np.ndarray, count: int) -> list[np.ndarray]:
    """Return a photograph as a camera in an unsteady hand would see it."""
    rng = np.random.default_rng(0)
    frames = []
    for _ in range(count):
        shift = np.float32([[1, 0, rng.integers(-3, 4)], [0, 1, rng.integers(-3, 4)]])
        moved = cv2.warpAffine(photo, shift, photo.shape[1::-1], borderMode=cv2.BORDER_REFLECT)
        frames.append(cv2.add(moved, rng.integers(0, 9, photo.shape).astype(np.uint8)))
    return frames


def sure_and_unsure(session: Session, small: int) -> tuple[list[np.ndarray], float]:
    """Return two of photos_fit, at the ends of the small size's certainty, and the bound between them."""
    photos = [read_image(path) for path, _ in labelled("photos_fit", 100)]
    bits = [session.look(photo, small).doubt_bits for photo in photos]
    ends = int(np.argmin(bits)), int(np.argmax(bits))
    return [photos[end] for end in ends], float(bits[ends[0]] + bits[ends[1]]) / 2


def followed(sizes: list[int]) -> str:
    """Return how many frames after the 40th the size changes, if it is another one in the end."""
    old = max(set(sizes[30:40]), key=sizes[30:40].count)
    settled = max(set(sizes[60:]), key=sizes[60:].count)
    moved = next((i for i, size in enumerate(sizes[40:]) if size != old), None)
    return "no change was due" if settled == old else str(moved)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle")
    args = parser.parse_args(argv)
    with load(args.bundle, engine="onnxruntime", policy="entropy") as session:
        small, large = session.sizes[0], session.sizes[-1]
        photos, between = sure_and_unsure(session, small)
        videos = {name: frames_of(name) for name in VIDEOS}
        bits = {name: [entropy_bits(frame) for frame in frames] for name, frames in videos.items()}
        doubt = {
            name: [session.look(frame, small).doubt_bits for frame in frames]
            for name, frames in videos.items()
        }
    print(f"{machine_name()}\n")
    print("| video | frames | policy | changes per 100 frames, stream=False | stream=True |")
    print("|---|---|---|---|---|")
    for name, frames in videos.items():
        specs = [
            PolicySpec("entropy", (small, large), (float(np.median(bits[name])),)),
            PolicySpec("two-look", (small, large), (9.0,), second_look_bits=float(np.median(doubt[name]))),
        ]
        for spec in specs:
            counts = [changes(run(args.bundle, spec, frames, stream=stream)) for stream in (False, True)]
            cells = " | ".join(f"{100 * count / len(frames):.1f}" for count in counts)
            print(f"| {name} | {len(frames)} | {spec.kind} | {cells} |", flush=True)
    print("\n| cut | policy | frames until the size follows |\n|---|---|---|")
    for before, after in (("bikes.mp4", "vtest.avi"), ("vtest.avi", "bikes.mp4")):
        cut = [*videos[before][:40], *videos[after][:40]]
        for kind, values in (("entropy", bits), ("two-look", doubt)):
            middle = float(np.median(values[before][:40]) + np.median(values[after][:40])) / 2
            if kind == "entropy":
                spec = PolicySpec("entropy", (small, large), (middle,))
            else:
                spec = PolicySpec("two-look", (small, large), (9.0,), second_look_bits=middle)
            sizes = run(args.bundle, spec, cut, stream=True)
            print(f"| {before} to {after} | {kind} | {followed(sizes)} |", flush=True)
    spec = PolicySpec("two-look", (small, large), (9.0,), second_look_bits=between)
    for name, (before, after) in (("sure to unsure", photos), ("unsure to sure", photos[::-1])):
        sizes = run(args.bundle, spec, [*shaken(before, 40), *shaken(after, 40)], stream=True)
        print(f"| photograph, {name} | two-look | {followed(sizes)} |", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
