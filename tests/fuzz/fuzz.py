"""Fuzz boardfit and the engines: workers run seed after seed, and the host counts what becomes of them.

Usage: python tests/fuzz/fuzz.py [TARGET ...] [--seconds S] [--first SEED] [--count N] [--log FILE.jsonl]

Fails, with the seeds, on what must never be: an exception that is none of boardfit's; and outside an engine,
a process that dies or hangs. An engine that crashes or hangs is counted: its process is replaced, and the
host goes on.
"""

from __future__ import annotations

import argparse
import json
import mmap
import os
import resource
import shutil
import struct
import subprocess
import sys
import time
import traceback
from dataclasses import asdict, dataclass, field
from pathlib import Path

import targets

MEMORY_BYTES = 3 << 30
HANG_S = 20.0
"""Of the processor's time for one input: a busy machine is no hang."""
WAIT_S = 300.0
"""Of wall-clock time for one input, or the start of a worker: what waits for ever uses no processor."""
WORDS = struct.Struct("<4q")
"""Shared by the host and a worker: seeds begun (that many from the first), refused, accepted, ready."""


@dataclass
class Tally:
    """What became of the inputs of one target."""

    target: str
    first: int
    count: int = 0
    refused: int = 0
    accepted: int = 0
    crashed: int = 0
    hung: int = 0
    seconds: float = 0.0
    faults: list[str] = field(default_factory=list)

    @property
    def failed(self) -> bool:
        """Whether something happened that must not."""
        contained = self.target.startswith("engine-")
        return bool(self.faults) or (not contained and bool(self.crashed or self.hung))


def work(name: str, first: int, count: int, shared_path: str) -> int:
    """Run seeds in this process; the host reads from the shared words how far it came."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_BYTES, MEMORY_BYTES))
    target = {**targets.TARGETS, **targets.ENGINES, **targets.SELF_TEST}[name]()
    with Path(shared_path).open("r+b") as file:
        shared = mmap.mmap(file.fileno(), WORDS.size)
    refused = accepted = 0
    shared[:] = WORDS.pack(0, 0, 0, 1)
    for done in range(count):
        shared[:] = WORDS.pack(done + 1, refused, accepted, 1)
        try:
            if targets.refused(target, first + done):
                refused += 1
            else:
                accepted += 1
        except BaseException:
            print(f"seed {first + done}: {traceback.format_exc()}", flush=True)
            return 1
    shared[:] = WORDS.pack(count, refused, accepted, 1)
    return 0


def processor_s(pid: int) -> float:
    """Return the processor's time that a child has used so far; 0 where it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def run(name: str, *, first: int, count: int, seconds: float) -> Tally:
    """Run a target until its inputs or its time are used up."""
    tally = Tally(name, first)
    begin = time.monotonic()
    while tally.count < count and time.monotonic() - begin < seconds:
        _one_worker(tally, count - tally.count, begin + seconds)
        if len(tally.faults) >= 20:
            break
    tally.seconds = round(time.monotonic() - begin, 1)
    return tally


def _one_worker(tally: Tally, count: int, until: float) -> None:
    folder = targets.scratch()
    try:
        _watch(tally, count, until, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _watch(tally: Tally, count: int, until: float, folder: Path) -> None:
    """Start one worker and wait until it ends, hangs, or its time is up."""
    words = folder / "words"
    words.write_bytes(bytes(WORDS.size))
    first = tally.first + tally.count
    command = [sys.executable, __file__, "--work", tally.target, str(first), str(count), str(words)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "3", "TMPDIR": str(folder)}
    log = folder / "log"
    with log.open("wb") as stream, words.open("rb") as file:
        process = subprocess.Popen(command, stdout=stream, stderr=subprocess.DEVNULL, env=environment)
        shared = mmap.mmap(file.fileno(), WORDS.size, access=mmap.ACCESS_READ)
        begun, since, used, hung, stopped = -1, time.monotonic(), 0.0, False, False
        while process.poll() is None:
            time.sleep(0.02)
            now, (current, _, _, ready) = time.monotonic(), WORDS.unpack(shared[:])
            if current != begun:
                begun, since, used = current, now, processor_s(process.pid)
            hung = now - since > WAIT_S or bool(ready and processor_s(process.pid) - used > HANG_S)
            stopped = now > until
            if hung or stopped:
                process.kill()
                process.wait()
        current, refused, accepted, _ = WORDS.unpack(shared[:])
        shared.close()
    tally.refused += refused
    tally.accepted += accepted
    if process.returncode == 0 or (stopped and not hung):
        tally.count += refused + accepted
        return
    tally.count += max(current, 1)
    if process.returncode == 1:
        tally.faults.append(log.read_text(errors="replace")[-2000:])
    elif hung:
        tally.hung += 1
    else:
        tally.crashed += 1
    if process.returncode != 1 and not tally.target.startswith("engine-"):
        how = "hangs" if hung else f"ends the process with {process.returncode}"
        tally.faults.append(f"seed {first + max(current, 1) - 1} {how}")


def main(argv: list[str]) -> int:
    if argv[:1] == ["--work"]:
        return work(argv[1], int(argv[2]), int(argv[3]), argv[4])
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    known = [*targets.TARGETS, *targets.ENGINES]
    parser.add_argument(
        "targets", nargs="*", metavar="TARGET", help=f"among {', '.join(known)} (default: all)"
    )
    parser.add_argument("--seconds", type=float, default=60.0, help="per target (default: 60)")
    parser.add_argument("--first", type=int, default=0, help="first seed; --log goes on after its last one")
    parser.add_argument("--count", type=int, default=1 << 40, help="inputs per target at most")
    parser.add_argument("--log", type=Path, help="add a line per target to this file")
    asked = parser.parse_args(argv)
    status = 0
    for name in asked.targets or known:
        tally = run(
            name,
            first=max(asked.first, _next_seed(asked.log, name)),
            count=asked.count,
            seconds=asked.seconds,
        )
        status |= tally.failed
        rate = tally.count / max(tally.seconds, 1e-3) * 3600
        print(
            f"{name}: {tally.count} inputs from seed {tally.first}, {tally.refused} refused, "
            f"{tally.accepted} accepted, {tally.crashed} crashes and {tally.hung} hangs of the worker, "
            f"{len(tally.faults)} faults, {rate:.0f} an hour",
            flush=True,
        )
        print("".join(f"  {fault}\n" for fault in tally.faults), end="", flush=True)
        if asked.log and tally.count:
            with asked.log.open("a") as stream:
                stream.write(json.dumps(asdict(tally)) + "\n")
    return status


def _next_seed(log: Path | None, name: str) -> int:
    if log is None or not log.exists():
        return 0
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    return max((row["first"] + row["count"] for row in rows if row["target"] == name), default=0)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
