"""Motion reuse on a film: inferences saved, and agreement with running every frame.

The default share (0.02) was chosen on bikes.mp4.

With --compare: beside it the entropy of the difference image, and the largest change of a block.

Usage: python benchmarks/evidence/camera_motion.py BUNDLE VIDEO... [--size 224] [--compare]
"""

from __future__ import annotations

import argparse
import sys

import cv2
import numpy as np

from boardfit.runtime.entropy import grid_step
from boardfit.runtime.policy.motion import Motion, MotionSettings, small_grey
from boardfit.runtime.session import load

SHARES = (0.01, 0.02, 0.04)
MAX_AGE_S = 2.0


def frames_of(video: str) -> tuple[list[np.ndarray], float]:
    capture = cv2.VideoCapture(video)
    fps = capture.get(cv2.CAP_PROP_FPS)
    frames = []
    while (read := capture.read())[0]:
        frames.append(read[1])
    capture.release()
    return frames, fps


def by_clock(count: int, saved: int) -> list[int]:
    """Return for each frame the last one that was run, where a clock leaves out as many, evenly."""
    runs = {round(step * count / (count - saved)) for step in range(count - saved)}
    last, found = 0, []
    for index in range(count):
        last = index if index in runs else last
        found.append(last)
    return found


def difference_bits(before: np.ndarray, after: np.ndarray) -> float:
    """Entropy of the grey difference on the grid of entropy_bits."""
    step = grid_step(before.shape[0], before.shape[1])
    greys = [
        cv2.cvtColor(np.ascontiguousarray(one[::step, ::step]), cv2.COLOR_BGR2GRAY) for one in (before, after)
    ]
    counts = np.bincount((greys[1].astype(np.int16) - greys[0] + 255).ravel())
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log2(shares)).sum())


def block_change(before: np.ndarray, after: np.ndarray) -> float:
    """Mean change, in grey levels, of that one of 12x9 blocks that changed most."""
    change = np.abs(small_grey(after).astype(np.float32) - small_grey(before))
    return float(cv2.resize(change, (12, 9), interpolation=cv2.INTER_AREA).max())


SIGNALS = {
    "difference bits": (difference_bits, (2.5, 3.5, 4.5)),
    "block change": (block_change, (8.0, 16.0, 24.0)),
}


def compare(name: str, frames: list[np.ndarray], answers: list[int], fps: float) -> None:
    for signal, (measure, limits) in SIGNALS.items():
        for limit in limits:
            last, saved, same = 0, 0, 0
            for index, frame in enumerate(frames):
                old = (index - last) / fps > MAX_AGE_S
                if index == 0 or old or measure(frames[last], frame) >= limit:
                    last = index
                saved += last != index
                same += answers[last] == answers[index]
            print(
                f"| {name} | {signal} {limit:g} | {saved / len(frames):.1%} | {same / len(frames):.1%} | |",
                flush=True,
            )


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle")
    parser.add_argument("videos", nargs="+")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--compare", action="store_true")
    asked = parser.parse_args(argv)
    print("| video | share that must move | inferences saved | same top-1 | by a clock, as many saved |")
    print("|---|---|---|---|---|")
    with load(asked.bundle, size=asked.size) as model:
        for video in asked.videos:
            frames, fps = frames_of(video)
            results = [model(frame) for frame in frames]
            answers = [result.top(1)[0].index for result in results]
            if asked.compare:
                compare(video.rpartition("/")[2], frames, answers, fps)
            for share in SHARES:
                motion = Motion(MotionSettings(moved_share=share, max_age_s=MAX_AGE_S))
                reused, same = 0, 0
                for index, frame in enumerate(frames):
                    result = motion.reusable(frame, index / fps)
                    if result is None:
                        result = results[index]
                        motion.answered(frame, index / fps, result)
                    else:
                        reused += 1
                    same += result.top(1)[0].index == answers[index]
                clock = np.mean(
                    [answers[ran] == answers[i] for i, ran in enumerate(by_clock(len(frames), reused))]
                )
                row = [f"{reused / len(frames):.1%}", f"{same / len(frames):.1%}", f"{clock:.1%}"]
                print("|", " | ".join([video.rpartition("/")[2], f"{share:g}", *row]), "|", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
