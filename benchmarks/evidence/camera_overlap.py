"""Time a film through ``camera.loop`` against a plain loop of cv2 and the bare engine, in turn.

Both read the same video, draw the same annotation and write an MP4 of every frame; one engine thread each.

Usage: python benchmarks/evidence/camera_overlap.py BUNDLE VIDEO [--rounds 3] [--frames N] [--size 224]
       [--isolate]
"""

from __future__ import annotations

import argparse
import runpy
import sys
import tempfile
from pathlib import Path

import cv2

from boardfit.bundle import open_bundle
from boardfit.cli.annotate import annotate
from boardfit.runtime import camera
from boardfit.runtime.camera.sinks import Answer
from boardfit.runtime.camera.sinks.video import Recording
from boardfit.runtime.engines import available_engines
from boardfit.runtime.session import load
from boardfit.timing import machine_name, time_paired

FPS = 10.0
OVERHEAD = runpy.run_path(str(Path(__file__).with_name("overhead.py")))


def plain(video: str, out: Path, call, labels: tuple[str, ...], most: int) -> int:
    """What somebody writes with cv2 and the engine alone; the preprocessing is that of overhead.py."""
    capture = cv2.VideoCapture(video)
    writer = None
    count = 0
    while count < most:
        found, frame = capture.read()
        if not found:
            break
        index, score = call(frame)
        picture = annotate(frame, [(labels[index] if labels else str(index), score)], footer=f"frame {count}")
        if writer is None:
            size_wh = (picture.shape[1], picture.shape[0])
            writer = cv2.VideoWriter(str(out), cv2.VideoWriter.fourcc(*"mp4v"), FPS, size_wh)
        writer.write(picture)
        count += 1
    writer.release()
    capture.release()
    return count


def drawn(answer: Answer):
    best = answer.result.top(1)[0]
    return annotate(
        answer.frame.image,
        [(best.label or str(best.index), best.score)],
        footer=f"frame {answer.frame.index}",
    )


def overlapped(video: str, out: Path, model, most: int) -> int:
    sink = Recording(out, fps=FPS, real_time=False, draw=drawn, part_s=1e9)
    with camera.open(video, every_frame=True) as source, camera.loop(source, model, sinks=[sink]) as running:
        for _ in running:
            if running.stats.results == most:
                break
    return running.stats.results


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle")
    parser.add_argument("video")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--frames", type=int, default=10**9)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--isolate", action="store_true", help="the loop's engine in a process of its own")
    asked = parser.parse_args(argv)
    print(f"{machine_name()}, 1 engine thread, {asked.video.rpartition('/')[2]}, {asked.rounds} rounds\n")
    print("| engine | plain ms/frame | overlapped ms/frame | speed-up, median of rounds |")
    print("|---|---|---|---|")
    worst = float("inf")
    with open_bundle(asked.bundle) as bundle, tempfile.TemporaryDirectory() as folder:
        for artifact in bundle.manifest.artifacts:
            for engine in available_engines(artifact.format) if artifact.precision == "fp32" else ():
                run = OVERHEAD["BARE"][engine](artifact, bundle.artifact_files(artifact), 1)
                call = OVERHEAD["hand_written"](bundle, artifact, run, asked.size)
                how = {"precision": "fp32", "size": asked.size, "threads": 1, "isolate": asked.isolate}
                with load(bundle, engine=engine, **how) as model:
                    counts = set()
                    a, b = Path(folder) / "a.mp4", Path(folder) / "b.mp4"
                    calls = {
                        "plain": lambda: counts.add(plain(asked.video, a, call, model.labels, asked.frames)),  # noqa: B023
                        "loop": lambda: counts.add(overlapped(asked.video, b, model, asked.frames)),  # noqa: B023
                    }
                    times = time_paired(calls, rounds=asked.rounds, warmup=1)
                assert len(counts) == 1, f"frames were lost: {counts}"
                count = counts.pop()
                ratio = times["plain"].ratio_to(times["loop"])
                worst = min(worst, ratio)
                each = [f"{times[name].p50_s / count * 1e3:.2f}" for name in ("plain", "loop")]
                print("|", " | ".join([engine, *each, f"{ratio:.2f}"]), "|", flush=True)
    print(f"\nsmallest speed-up: {worst:.2f} (bar 1.30)")
    return 0 if worst >= 1.3 else 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
