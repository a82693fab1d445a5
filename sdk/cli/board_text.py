"""Text for people about boards: what is known of one, and how the one here is doing."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Mapping
from textwrap import wrap
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from boardfit.boards.detect import Board
    from boardfit.boards.profile import Profile
    from boardfit.boards.records import Snapshot

_INDENT = 15
_WIDTH = 110
_VARIES = "varies"
_OLDEST_PYTHON = 10
"""Minor version that boardfit needs."""


def cores_text(profile: Profile) -> str:
    """Return the cores by kind, such as ``4 x Cortex-A72 1.8 GHz``."""
    kinds = [f"{each.cores} x {each.cpu} {_ghz(each.max_hz)} GHz" for each in profile.clusters]
    return " + ".join(kinds) or _VARIES


def cores_short(profile: Profile) -> str:
    """Return how many cores and the highest clock, such as ``8, up to 3.2 GHz``."""
    if profile.cores is None:
        return _VARIES
    return f"{profile.cores}, up to {_ghz(max(each.max_hz for each in profile.clusters))} GHz"


def memory_short(profile: Profile) -> str:
    """Return the least and the most memory that it is sold with, such as ``1 to 16 GiB``."""
    if profile.memory is None:
        return _VARIES
    least, most = (f"{size / (1 << 30):g}" for size in (profile.memory.bytes[0], profile.memory.bytes[-1]))
    return f"{most} GiB" if least == most else f"{least} to {most} GiB"


def memory_text(profile: Profile) -> str:
    """Return what it is sold with, in GiB."""
    if profile.memory is None:
        return _VARIES
    return ", ".join(f"{size / (1 << 30):g}" for size in profile.memory.bytes) + " GiB"


def profile_text(profile: Profile) -> str:
    """Return everything that is known of a board, with the sources."""
    known = {
        "board": f"{profile.title} ({profile.name})",
        "cores": _with_sources(cores_text(profile), {key for c in profile.clusters for key in c.sources}),
        "instructions": " ".join(profile.instructions) or _VARIES,
        "memory": _with_sources(memory_text(profile), profile.memory.sources if profile.memory else ()),
        "recognised by": _with_sources(_recognition(profile), profile.recognition.sources),
        "engines": "\n".join(
            _with_sources(f"{number}. {each.name} {each.precision}: {each.reason}", each.sources)
            for number, each in enumerate(profile.engines, 1)
        ),
        "threads": _with_sources(_threads(profile), profile.threads.sources),
        "camera": _with_sources(_camera(profile), profile.camera.sources),
        "sensors": _with_sources(_sensors(profile), profile.sensors.sources),
        "systems": "\n".join(_system(each.name, each.python, each.platform) for each in profile.systems),
        "docker": profile.build.docker,
        "compiler": " ".join(profile.build.flags),
        "emulate as": _emulate(profile),
    }
    sources = "\n".join(f"  {key}: {text}" for key, text in profile.sources.items())
    note = "The order of engines and threads is from documents, not measured on this board."
    return f"{_block(known)}\n\nsources\n{sources}\n\n{note}"


def board_text(board: Board, now: Snapshot) -> str:
    """Return where we are and how the board is doing, in one screen."""
    instructions = " ".join(board.instructions) or "no known instruction sets"
    first = board.profile.engines[0]
    reasons = f"boardfit boards {board.profile.name} has the reasons"
    return _block(
        {
            "board": f"{board.profile.title} ({board.profile.name})",
            "calls itself": board.model,
            "processor": f"{board.cpu}; {board.cores} cores for this process; {instructions}",
            "memory": _memory_now(now),
            "system": f"{board.os_name or 'unknown'}, kernel {board.kernel or 'unknown'}, {board.machine}, "
            f"Python {platform.python_version()} of {board.bits} bits",
            "emulated": f"yes: {board.emulation}. Its times are no board's" if board.emulated else "not seen",
            "temperature": ", ".join(f"{name} {c:.1f} C" for name, c in now.temperatures_c.items()),
            "clock": _clocks(now),
            "throttled": _throttled(now),
            "power": ", ".join(f"{name} {watts:.2f} W" for name, watts in now.power_w.items()),
            "power mode": now.power_mode or "",
            "load": "" if now.load_1min is None else f"{now.load_1min:g} runnable tasks, over a minute",
            "engine": f"documents say {first.name} {first.precision} ({reasons}); boardfit tune measures",
            "next": "boardfit doctor",
        }
    )


def _block(lines: Mapping[str, str]) -> str:
    """Return names and values in two columns, without those that have none."""
    shown = []
    for name, value in lines.items():
        wrapped = [piece for line in value.splitlines() for piece in _wrapped(line)]
        shown += [f"{name if number == 0 else '':{_INDENT}}{line}" for number, line in enumerate(wrapped)]
    return "\n".join(shown)


def _wrapped(line: str) -> list[str]:
    """Return a line in pieces that fit; addresses and names stay whole."""
    width = _WIDTH - _INDENT
    return wrap(line, width, subsequent_indent="   ", break_long_words=False, break_on_hyphens=False)


def _with_sources(text: str, keys: Iterable[str]) -> str:
    names = ", ".join(sorted(set(keys)))
    return f"{text}  [{names}]" if names else text


def _recognition(profile: Profile) -> str:
    mark = profile.recognition
    words = [
        *([f"device tree {', '.join(mark.compatible)}"] if mark.compatible else []),
        *([f"model {' or '.join(mark.model)}..."] if mark.model else []),
        *(f"{name} {' or '.join(values) or 'of any value'}" for name, values in mark.properties.items()),
    ]
    return "; ".join(words) or f"uname -m {mark.machine}, where no other board fits"


def _threads(profile: Profile) -> str:
    threads = profile.threads
    cores = f" on cores {', '.join(map(str, threads.cores))}" if threads.cores else ""
    return f"{threads.count or 'at most 4'}{cores}: {threads.reason}"


def _camera(profile: Profile) -> str:
    words = " or ".join(f"'{word}'" if " " in word else word for word in profile.camera.words)
    return f"{profile.camera.stack}; boardfit watch BUNDLE {words}" if words else profile.camera.stack


def _sensors(profile: Profile) -> str:
    sensors = profile.sensors
    words = [f"throttling from {sensors.throttling}", f"power from {sensors.power}"]
    if sensors.soft_limit_c is not None:
        words.append(f"lowers its clock from {sensors.soft_limit_c:g} C on")
    if sensors.nvpmodel:
        words.append("power modes from nvpmodel")
    if sensors.ignored_zones:
        words.append(f"zones that tell nothing: {', '.join(sensors.ignored_zones)}")
    return "; ".join(words)


def _system(name: str, python: str, tag: str) -> str:
    old = int(python.partition(".")[2] or 0) < _OLDEST_PYTHON
    note = f" (boardfit needs 3.{_OLDEST_PYTHON}: install a newer one beside it)" if old else ""
    return f"{name}: Python {python}{note}, wheels up to {tag}"


def _emulate(profile: Profile) -> str:
    build = profile.build
    return f"{build.emulate} ({build.emulate_note})" if build.emulate_note else build.emulate


def _memory_now(now: Snapshot) -> str:
    memory = now.memory
    if memory.total_bytes is None:
        return "unknown"
    free = "" if memory.available_bytes is None else f", {memory.available_bytes / 1e9:.1f} GB to be had"
    return f"{memory.total_bytes / 1e9:.1f} GB{free}"


def _clocks(now: Snapshot) -> str:
    return ", ".join(
        f"{name} {_ghz(hz)} of {_ghz(now.max_clocks_hz.get(name, hz))} GHz"
        + (f" ({now.governors[name]})" if name in now.governors else "")
        for name, hz in now.clocks_hz.items()
    )


def _throttled(now: Snapshot) -> str:
    if now.throttled is None:
        return "this system does not tell"
    bits = "" if now.throttle_bits is None else f" ({now.throttle_bits:#x})"
    return f"{'YES: the clock is held down' if now.throttled else 'no'}{bits}"


def _ghz(hz: float) -> str:
    return f"{hz / 1e9:.2f}".rstrip("0").rstrip(".")
