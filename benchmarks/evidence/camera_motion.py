"""Motion reuse on a film: inferences saved, and agreement with running every frame.

The default share (0.02) was chosen on bikes.mp4.

Usage: python benchmarks/evidence/camera_motion.py BUNDLE VIDEO... [--size 224]
"""

from __future__ import annotations

import argparse
import sys

import cv2
import numpy as np

from boardfit.runtime.policy.motion import Motion, MotionSettings
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


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle")
    parser.add_argument("videos", nargs="+")
    parser.add_argument("--size", type=int, default=224)
    asked = parser.parse_args(argv)
    print("| video | share that must move | inferences saved | same top-1 | by a clock, as many saved |")
    print("|---|---|---|---|---|")
    with load(asked.bundle, size=asked.size) as model:
        for video in asked.videos:
            frames, fps = frames_of(video)
            results = [model(frame) for frame in frames]
            answers = [result.top(1)[0].index for result in results]
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
