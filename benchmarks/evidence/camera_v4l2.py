"""Pull out, put back and stall a real V4L2 camera, the kernel's vivid driver: when noticed, when mended?

Needs root, v4l2-ctl and the module vivid (modprobe vivid n_devs=1 node_types=0x1), as in a virtual arm64
board.

Usage: python benchmarks/evidence/camera_v4l2.py [--times 10]
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

from boardfit.errors import CameraError
from boardfit.runtime import camera
from boardfit.timing import machine_name

DRIVER = Path("/sys/bus/platform/drivers/vivid")
DROPPED = "percentage_of_dropped_buffers"


def control(name: str, value: int) -> None:
    subprocess.run(["v4l2-ctl", "-d", "/dev/video0", "-c", f"{name}={value}"], check=True)


def pull_out() -> None:
    (DRIVER / "unbind").write_text("vivid.0")


def put_back() -> None:
    (DRIVER / "bind").write_text("vivid.0")


def stall() -> None:
    control(DROPPED, 100)


def go_on() -> None:
    control(DROPPED, 0)


FAULTS = {"unplugged": (pull_out, put_back), "stalled": (stall, go_on)}


def wait_for(source: camera.Source, states: set[str], timeout_s: float = 20.0) -> float:
    began = time.monotonic()
    while source.state not in states and time.monotonic() - began < timeout_s:
        source.take(0.01)
    return time.monotonic() - began


def held() -> tuple[int, int]:
    return threading.active_count(), len(list(Path("/proc/self/fd").iterdir()))


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=10)
    asked = parser.parse_args(argv)
    print(f"{machine_name()}, {os.uname().machine}", flush=True)
    met = True
    with camera.open("0", size_wh=(320, 180)) as source:
        frame = source.take(5.0)
        print("frame", None if frame is None else frame.image.shape, flush=True)
        try:
            camera.open("/dev/video0").close()
            print("a second loop on one camera was let in")
        except CameraError as error:
            print("a second loop on one camera:", error)
        before = held()
        for fault, (begin, end) in FAULTS.items():
            noticed, back = [], []
            for _ in range(asked.times):
                time.sleep(1.0)
                begin()
                noticed.append(wait_for(source, {fault, "unplugged"}))
                time.sleep(1.5)
                end()
                back.append(wait_for(source, {"live"}))
            met &= max(noticed) <= 1.0 and max(back) <= 2.0
            print(
                f"{fault} {asked.times} times: noticed after {max(noticed):.2f} s, "
                f"back after {max(back):.2f} s, at worst"
            )
        print("threads and open files", before, held(), source.counters)
        met &= before == held()
    return 0 if met else 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
