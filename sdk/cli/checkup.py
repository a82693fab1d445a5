"""What this machine lacks to run a bundle: libraries, engines, a camera, right answers.

Every library is tried in a process of its own, since one that was built for another processor kills the
process that imports it.
"""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from boardfit.boards.detect import Board
    from boardfit.bundle import Bundle

OK, NOTE, ABSENT, MISSING, WRONG = "ok", "note", "absent", "MISSING", "WRONG"
"""States: fine; worth knowing; not there and not needed; not there and needed; there, and does not work."""

EXTRAS = {"litert": "litert", "tflite": "tflite", "onnxruntime": "onnx", "ncnn": "ncnn"}
"""The extra of pip by engine."""

LONGEST_TRY_S = 300.0

_DEBIAN = {
    "libGL.so.1": "libgl1",
    "libEGL.so.1": "libegl1",
    "libgthread-2.0.so.0": "libglib2.0-0",
    "libglib-2.0.so.0": "libglib2.0-0",
    "libgomp.so.1": "libgomp1",
    "libstdc++.so.6": "libstdc++6",
    "libvulkan.so.1": "libvulkan1",
    "libopenblas.so.0": "libopenblas0",
    "liblapack.so.3": "liblapack3",
    "libblas.so.3": "libblas3",
    "libcblas.so.3": "libatlas3-base",
    "libatlas.so.3": "libatlas3-base",
    "libatomic.so.1": "libatomic1",
}
"""Debian's package by system library, of those that the wheels of our engines and of OpenCV want."""

_IMPORT = """
import importlib, sys
print(getattr(importlib.import_module(sys.argv[1]), "__version__", ""))
"""
_PROVIDERS = "import onnxruntime; print(*onnxruntime.get_available_providers())"
_ANSWERS = """
import dataclasses, json, sys
from boardfit.runtime.selftest import self_test
records = self_test(sys.argv[1], engine=sys.argv[2])
print(json.dumps([dataclasses.asdict(record) for record in records]))
"""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        name: Such as ``opencv`` or ``litert``.
        state: ``ok``, ``note``, ``absent`` (not needed), ``MISSING`` or ``WRONG``.
        text: What was found.
        command: What to type; empty where nothing is to be done.
    """

    name: str
    state: str
    text: str
    command: str = ""

    @property
    def bad(self) -> bool:
        """Whether nothing can run, or answers are wrong, until this is mended."""
        return self.state in (MISSING, WRONG)


@dataclass(frozen=True, slots=True)
class Tried:
    """What a child process printed, or how it ended.

    Attributes:
        said: Its last line, where it ended well.
        fault: The last line of its error, or the signal that killed it; empty where it ended well.
    """

    said: str
    fault: str = ""


def attempt(code: str, *arguments: str) -> Tried:
    """Run Python code in a child process of this interpreter."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=LONGEST_TRY_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Tried("", f"it did not end within {LONGEST_TRY_S:g} seconds")
    if done.returncode < 0:
        name = signal.Signals(-done.returncode).name
        other = ": it was built for another processor" if name == "SIGILL" else ""
        return Tried("", f"it died of {name}{other}")
    lines = (done.stdout if done.returncode == 0 else done.stderr).strip().splitlines()
    last = lines[-1] if lines else ""
    return Tried(last) if done.returncode == 0 else Tried("", last or f"exit status {done.returncode}")


def base_libraries(board: Board) -> list[Finding]:
    """Try what every bundle needs: numpy and OpenCV."""
    found = []
    for name, module, debian, termux, wheel in (
        ("numpy", "numpy", "python3-numpy", "python-numpy", "numpy"),
        ("opencv", "cv2", "python3-opencv", "opencv-python", "opencv-python-headless"),
    ):
        command = f"pip install {wheel}"
        if _is_android(board):
            command = f"pkg install {termux}"
        elif _is_small_arm(board):
            command = f"sudo apt install {debian}"
        found.append(_library(name, module, command, needed=True))
    return found


def engines(board: Board) -> list[Finding]:
    """Try the engines that this board's profile names, in its order, and what else is installed."""
    from boardfit.boards.profile import find_profile

    # A system of 32 bits on a 64-bit kernel takes the wheels of 32 bits.
    profile = find_profile("generic-armv7l") if _is_small_arm(board) else board.profile
    bases = [choice.name.partition(":")[0] for choice in profile.engines]
    found = {name: _engine(name) for name in dict.fromkeys([*bases, *_installed()])}
    variants = [choice.name for choice in profile.engines if ":" in choice.name]
    if not variants or "onnxruntime" not in found or found["onnxruntime"].state != OK:
        return list(found.values())
    there = attempt(_PROVIDERS).said.split()
    return [*found.values(), *(_provider(name, there) for name in variants)]


def _installed() -> list[str]:
    """Return the engines of ours whose library is there, those that serve by name only left out."""
    from boardfit.runtime.engines import engine_classes, is_by_name_only, is_installed

    classes = engine_classes()
    return [name for name in EXTRAS if is_installed(classes[name]) and not is_by_name_only(classes[name])]


def _engine(name: str) -> Finding:
    from boardfit.runtime.engines import find_engine

    if name == "tflite" and sys.version_info >= (3, 12):
        return Finding(name, ABSENT, "has no wheel for Python 3.12 or newer")
    modules: Sequence[str] = getattr(find_engine(name), "libraries", ())
    tried = [
        _library(name, module, f"pip install 'boardfit[{EXTRAS[name]}]'", needed=False) for module in modules
    ]
    return next((one for one in tried if one.state == OK), tried[0])


def _library(name: str, module: str, command: str, *, needed: bool) -> Finding:
    tried = attempt(_IMPORT, module)
    if not tried.fault:
        return Finding(name, OK, tried.said)
    if lacking := re.search(r"No module named '([\w.]+)'", tried.fault):
        state = MISSING if needed else ABSENT
        if lacking[1] == module:
            return Finding(name, state, "not installed", command)
        return Finding(name, state, f"needs {lacking[1]}, which is not installed")
    if lacking := re.search(r"(lib[\w.+-]+\.so[.\d]*): cannot open shared object", tried.fault):
        library = lacking[1]
        package = _DEBIAN.get(library)
        to_type = f"sudo apt install {package}" if package else f"apt-file search {library}"
        return Finding(name, MISSING, f"the system library {library} is not there", to_type)
    again = command.replace("pip install", "pip install --force-reinstall")
    return Finding(name, WRONG, f"cannot be imported: {tried.fault}", again)


def _provider(name: str, there: Sequence[str]) -> Finding:
    from boardfit.runtime.engines.onnxruntime import PROVIDERS

    provider, advice = PROVIDERS[name.partition(":")[2]]
    if provider in there:
        return Finding(name, OK, f"this ONNX Runtime has {provider}")
    return Finding(name, ABSENT, f"this ONNX Runtime has no {provider}: {advice}")


def enough_engines(found: Sequence[Finding], bundle: Bundle | None) -> list[Finding]:
    """Return a finding if no usable engine runs the bundle, or anything at all."""
    if bundle is None:
        usable = any(one.state == OK for one in found)
        return [] if usable else [Finding("engines", MISSING, "none is usable", _first_command(found))]
    if _serving(bundle, found):
        return []
    from boardfit.runtime.engines import engine_classes

    formats = {artifact.format for artifact in bundle.manifest.artifacts}
    able = {name for name, one in engine_classes().items() if formats & set(one.formats)}
    command = _first_command([one for one in found if one.name in able])
    return [Finding("engines", MISSING, f"none that is usable runs {', '.join(sorted(formats))}", command)]


def _serving(bundle: Bundle, found: Sequence[Finding]) -> list[str]:
    """Return the engines that run one of the bundle's formats, and that were not found wanting."""
    from boardfit.runtime.engines import available_engines

    formats = {artifact.format for artifact in bundle.manifest.artifacts}
    wanting = {one.name for one in found if one.state != OK}
    return sorted({name for each in formats for name in available_engines(each)} - wanting)


def _first_command(found: Sequence[Finding]) -> str:
    return next((one.command for one in found if one.command), "")


def answers(path: str, bundle: Bundle, found: Sequence[Finding]) -> Iterator[Finding]:
    """Run the bundle's golden input on each engine that is usable and serves it."""
    if bundle.manifest.golden is None:
        yield Finding("answers", NOTE, "not tested, the bundle carries no golden input")
        return
    for name in _serving(bundle, found):
        yield _answer(path, name)


def _answer(path: str, engine: str) -> Finding:
    tried = attempt(_ANSWERS, path, engine)
    if tried.fault:
        return Finding(f"answers {engine}", WRONG, tried.fault)
    records: list[dict[str, Any]] = json.loads(tried.said)
    wrong = [f"{one['artifact']} at {one['size']}" for one in records if not one["passed"]]
    if wrong:
        return Finding(f"answers {engine}", WRONG, f"wrong here: {', '.join(wrong)}: use another engine")
    return Finding(f"answers {engine}", OK, f"all {len(records)} as on the machine of the build")


def _is_android(board: Board) -> bool:
    return bool(board.profile.recognition.properties)


def _is_small_arm(board: Board) -> bool:
    """Return whether wheels are those of 32-bit Arm."""
    return board.bits == 32 and board.machine.startswith(("arm", "aarch64"))
