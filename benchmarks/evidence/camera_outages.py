"""Kill, and start again, a real RTSP or MJPEG server: when is it noticed, when are frames back?

Usage: python benchmarks/evidence/camera_outages.py rtsp|mjpeg [--times 50] [--how kill|stop]
"""

from __future__ import annotations

import argparse
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

from boardfit.runtime import camera
from boardfit.runtime.camera.records import LIVE
from boardfit.timing import machine_name

HERE = Path(__file__).resolve().parent
MJPEG = HERE.parents[1] / "tests" / "runtime" / "camera" / "servers.py"
HANG_S = 30.0


def free_port() -> int:
    with socket.socket() as link:
        link.bind(("127.0.0.1", 0))
        return link.getsockname()[1]


def held() -> tuple[int, int]:
    return threading.active_count(), len(list(Path("/proc/self/fd").iterdir()))


def start(words: list[str]) -> subprocess.Popen:
    child = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert child.stdout is not None and child.stdout.readline() == b"ready\n"
    return child


def end(child: subprocess.Popen) -> None:
    child.kill()
    child.wait()
    child.stdout.close()


def wait_for(source, events: list, kinds: set[str], since: float) -> float | None:
    """Return when an event of some kinds came after a time; None if it did not."""
    while time.monotonic() - since < HANG_S:
        found = [event.time_s for event in events if event.kind in kinds and event.time_s >= since]
        if found:
            return found[0]
        source.take(0.02)
    return None


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=["rtsp", "mjpeg"])
    parser.add_argument("--times", type=int, default=50)
    parser.add_argument("--how", choices=["kill", "stop"], default="kill")
    asked = parser.parse_args(argv)
    port = free_port()
    if asked.kind == "rtsp":
        words, url = (
            ["/usr/bin/python3", str(HERE / "rtsp_server.py"), str(port)],
            f"rtsp://127.0.0.1:{port}/cam",
        )
    else:
        words, url = [sys.executable, str(MJPEG), "mjpeg", str(port)], f"http://127.0.0.1:{port}/x.mjpg"
    dice = random.Random(0)
    events: list = []
    noticed, back, hangs = [], [], 0
    child = start(words)
    with camera.open(url, on_event=events.append) as source:
        before = held()
        for _ in range(asked.times):
            time.sleep(dice.uniform(0.3, 1.5))
            gone = time.monotonic()
            end(child) if asked.how == "kill" else child.send_signal(signal.SIGSTOP)
            seen = wait_for(source, events, {"unplugged", "stalled"}, gone)
            time.sleep(dice.uniform(0.0, 4.0))
            if asked.how == "kill":
                child = start(words)
            else:
                child.send_signal(signal.SIGCONT)
            there = time.monotonic()
            live = wait_for(source, events, {LIVE}, there)
            hangs += seen is None or live is None
            noticed.append(HANG_S if seen is None else seen - gone)
            back.append(HANG_S if live is None else live - there)
        after = held()
        counters = source.counters
    end(child)
    print(f"{machine_name()}: {asked.kind}, server {asked.how}ed {asked.times} times")
    for name, values in (("noticed after", noticed), ("frames again after", back)):
        values.sort()
        print(f"{name}: median {values[len(values) // 2]:.2f} s, worst {values[-1]:.2f} s")
    print(f"hangs {hangs}; threads and open files before {before}, after {after}; {counters}")
    return 0 if hangs == 0 and noticed[-1] <= 1.0 and back[-1] <= 2.0 and after == before else 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
