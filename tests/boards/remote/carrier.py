"""Stands for ssh and adb: runs the command in a shell of a made-up board, and can be told to fail as they do.

Its folder is in CARRIER. There, ``says`` is printed instead of running anything; ``damage`` and ``cut`` hold
a count of bytes and how many commands it befalls; ``features`` answers adb; ``words`` notes every call.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

HOME = Path(os.environ["CARRIER"])


def told(name: str) -> int | None:
    """Bytes until something befalls this command; None if nothing does. Each command uses up one count."""
    path = HOME / name
    if not path.exists():
        return None
    size, count = (int(word) for word in path.read_text().split())
    if count == 0:
        return None
    path.write_text(f"{size} {count - 1}")
    return size


def carry(source, sink, *, cut_at: int | None = None, damage_at: int | None = None) -> None:
    done = 0
    while piece := os.read(source, 1 << 14):
        if damage_at is not None and done <= damage_at < done + len(piece):
            at = damage_at - done
            piece = piece[:at] + bytes([piece[at] ^ 1]) + piece[at + 1 :]
        if cut_at is not None and done + len(piece) > cut_at:
            os.write(sink, piece[: cut_at - done])
            os.write(2, b"client_loop: send disconnect: Broken pipe\n")
            os._exit(255)
        view = memoryview(piece)
        while view:
            view = view[os.write(sink, view) :]
        done += len(piece)
    os.close(sink)


def main() -> int:
    with (HOME / "words").open("a") as notes:
        notes.write("\t".join(sys.argv[1:]) + "\n")
    if (HOME / "says").exists():
        sys.stderr.write((HOME / "says").read_text())
        return 255
    if sys.argv[-1] == "features":
        print((HOME / "features").read_text())
        return 0
    command = sys.argv[-1]
    moves = " put " in command or " get " in command
    board = HOME / "board"
    # As a server gives it: little, and nothing of the caller's.
    environment = {
        "HOME": str(board),
        "TMPDIR": str(board / "tmp"),
        "PATH": f"{board}/bin:{os.environ['PATH']}",
    }
    process = subprocess.Popen(
        ["sh", "-c", command],
        cwd=board,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    options = {"cut_at": told("cut"), "damage_at": told("damage")} if moves else {}
    up = options if " put " in command else {}
    down = options if " get " in command else {}
    threading.Thread(target=carry, args=(0, process.stdin.fileno()), kwargs=up, daemon=True).start()
    back = [
        threading.Thread(target=carry, args=(process.stdout.fileno(), 1), kwargs=down),
        threading.Thread(target=carry, args=(process.stderr.fileno(), 2)),
    ]
    for thread in back:
        thread.start()
    for thread in back:
        thread.join()
    return process.wait()


if __name__ == "__main__":
    sys.exit(main())
