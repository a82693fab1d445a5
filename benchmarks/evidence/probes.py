"""What a read of the probes costs, part by part, and with a process as large as a real one.

    python benchmarks/evidence/probes.py

Prints milliseconds of this machine, on this machine's own files and on a recorded tree with the files of a
Jetson AGX Orin, and what the memory of a large process adds. A tool such as vcgencmd is stood in for by
/bin/true: what starting a process costs. The least of 200 reads is the cost, the 99th percentile what a
busy machine adds.
"""

from __future__ import annotations

import platform
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from boardfit.boards.detect import detect
from boardfit.boards.probes import Probes
from boardfit.boards.probes.memory import read_memory
from boardfit.boards.profile import find_profile
from boardfit.boards.system import ask_tool

READS = 200
TREE = Path(__file__).resolve().parents[2] / "tests/boards/trees/jetson-agx-orin.txt"


def times_ms(call: Callable[[], object]) -> tuple[float, float, float]:
    """Return least, median and 99th percentile of ``READS`` calls, in ms."""
    found = []
    for _ in range(READS):
        began = time.perf_counter()
        call()
        found.append(1e3 * (time.perf_counter() - began))
    return min(found), float(np.median(found)), float(np.percentile(found, 99))


def show(what: str, call: Callable[[], object]) -> None:
    least, median, worst = times_ms(call)
    print(f"{what:52s} {least:8.3f} {median:8.3f} {worst:8.3f}")


def plant(root: Path) -> None:
    """Write the recorded files of a board below a folder."""
    for part in TREE.read_text(encoding="utf-8").split("\n=== ")[1:]:
        path, _, content = part.partition("\n")
        if not path.startswith("$ "):
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(content, encoding="utf-8")


def main() -> int:
    board = detect()
    print(f"{board.cpu}, {board.cores} cores, Python {platform.python_version()}, {READS} reads")
    print(f"{'ms':52s} {'least':>8s} {'median':>8s} {'p99':>8s}")
    mine = Probes(board.profile)
    show("read, this machine's files", lambda: mine.read(0.0))
    with tempfile.TemporaryDirectory() as folder:
        plant(Path(folder))
        orin = Probes(find_profile("jetson-agx-orin"), root=Path(folder), ask=lambda _: None)
        show("read, files of a Jetson AGX Orin", lambda: orin.read(0.0))
        show("temperature_c, files of a Jetson AGX Orin", orin.temperature_c)
    show("a tool, as vcgencmd on a Raspberry Pi (/bin/true)", lambda: ask_tool(["/bin/true"]))
    for megabytes in (0, 256, 1024):
        ballast = np.ones(megabytes << 17)  # touched, so that every page is there
        show(f"memory alone, with {megabytes} MB more in the process", lambda: read_memory(Path("/")))
        show(f"a tool, with {megabytes} MB more in the process", lambda: ask_tool(["/bin/true"]))
        del ballast
    return 0


if __name__ == "__main__":
    sys.exit(main())
