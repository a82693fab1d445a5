"""A board made ready to run boardfit: what it lacks goes into the workspace, nothing is installed."""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from boardfit.boards.remote.link import last_line
from boardfit.boards.remote.package import pack_package
from boardfit.boards.remote.python_there import PythonThere, find_python
from boardfit.boards.remote.remote import Remote
from boardfit.boards.remote.wheels import Need, Wheel, fetch_wheel, missing, no_wheel
from boardfit.errors import RemoteError

SITE = "site"
_TIMEOUT_S = 600.0
TOMLI = Need("tomli", "tomli", "python3-tomli")
"""What Python 3.11 brings as tomllib."""

# The zip module of a board's Python serves: there may be no pip. "*.data/platlib" belongs to the rest.
_UNPACK = """
import os, re, sys, zipfile
source, folder = sys.argv[1:]
with zipfile.ZipFile(source) as archive:
    for item in archive.infolist():
        name = re.sub(r"^[^/]+[.]data/(pure|plat)lib/", "", item.filename)
        if not item.is_dir() and not re.match(r"^[^/]+[.]data/", name):
            item.filename = name
            archive.extract(item, folder)
os.remove(source)
"""

# What was imported is compiled, so that later runs do not pay for it; nothing else on the board is touched.
_IMPORT = """
import importlib, os, py_compile, sys
site = os.path.abspath(sys.argv[1]) + os.sep
for name in sys.argv[2:]:
    try:
        importlib.import_module(name)
    except BaseException as error:
        sys.exit("%s: %s: %s" % (name, type(error).__name__, error))
for module in list(sys.modules.values()):
    path = getattr(module, "__file__", None) or ""
    if path.startswith(site) and path.endswith(".py"):
        py_compile.compile(path)
"""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A board that can run boardfit.

    Attributes:
        python: Its Python.
        env: Variables with which that finds what was sent.
        sent: Files that were sent, in their order.
    """

    python: PythonThere
    env: Mapping[str, str]
    sent: tuple[str, ...]

    def words(self, *arguments: str) -> list[str]:
        """Return the words that run ``boardfit`` there."""
        return [self.python.path, "-m", "boardfit", *arguments]


def prepare(
    remote: Remote,
    *,
    needs: Sequence[Need],
    engines: Sequence[Need] = (),
    every_engine: bool = False,
    on_note: Callable[[str], None] = lambda _: None,
    cache: Path | None = None,
) -> Prepared:
    """Send boardfit itself and the libraries that a board lacks.

    Args:
        remote: The open board.
        needs: Libraries that must be there.
        engines: Libraries of which one must be there, the best first. If the board has one of them none is
            sent.
        every_engine: Send each of them that the board lacks and that there is a wheel of.
        on_note: Gets lines about the progress.
        cache: Where wheels are kept on this machine; the default folder if None.

    Raises:
        RemoteError: There is no Python, no wheel, no room, or what was sent does not work there.
    """
    asked = [*needs, *engines, TOMLI]
    python = find_python(remote, [need.module for need in asked])
    version = ".".join(str(each) for each in python.version)
    on_note(f"{remote.name}: {python.machine}, Python {version}, in {remote.workspace()}")
    base = [*needs, TOMLI] if python.version < (3, 11) else [*needs]
    wheels = _base_wheels(missing(python, base), python, remote.name, cache)
    served = [need for need in engines if need.module in python.modules]
    if engines and (every_engine or not served):
        most = None if every_engine else 1
        fetched = _engine_wheels(missing(python, engines), python, remote.name, cache, at_most=most)
        if not served and not fetched:
            raise no_wheel(engines[:1], python, remote.name)
        wheels += fetched.values()
        served += fetched
    with tempfile.TemporaryDirectory(prefix="boardfit-") as folder:
        own = Path(folder) / "boardfit.zip"
        pack_package(own)
        archives = [own, *(wheel.path for wheel in wheels)]
        _require_room(remote, archives)
        for archive in archives:
            _send_archive(remote, python, archive, on_note)
    prepared = Prepared(python, _environment(remote, python), tuple(path.name for path in archives))
    _try_imports(remote, prepared, [need.module for need in (*base, *served)])
    return prepared


def _base_wheels(needs: Sequence[Need], python: PythonThere, board: str, cache: Path | None) -> list[Wheel]:
    found = {need: fetch_wheel(need, python, board=board, cache=cache) for need in needs}
    without = [need for need, wheel in found.items() if wheel is None]
    if without:
        # All at once, so that one command there is enough.
        raise no_wheel(without, python, board)
    return [wheel for wheel in found.values() if wheel is not None]


def _engine_wheels(
    engines: Sequence[Need], python: PythonThere, board: str, cache: Path | None, *, at_most: int | None
) -> dict[Need, Wheel]:
    """Fetch the first engines that there is a wheel of."""
    found: dict[Need, Wheel] = {}
    for need in engines:
        if at_most is not None and len(found) == at_most:
            break
        wheel = fetch_wheel(need, python, board=board, cache=cache)
        if wheel is not None:
            found[need] = wheel
    return found


def _require_room(remote: Remote, archives: Sequence[Path]) -> None:
    needed = max(path.stat().st_size for path in archives)
    for path in archives:
        with zipfile.ZipFile(path) as archive:
            needed += sum(item.file_size for item in archive.infolist())
    if remote.free_bytes is not None and remote.free_bytes < needed:
        raise RemoteError(
            f"{remote.name}: what it lacks takes {needed / 1e6:.0f} MB, and at {remote.workspace().parent} "
            f"{remote.free_bytes / 1e6:.0f} MB are free: make room there, set TMPDIR there to another disk, "
            "or install what it lacks on it for good"
        )


def send(
    remote: Remote, local: Path, path: str, *, on_note: Callable[[str], None] = lambda _: None
) -> PurePosixPath:
    """Push a file or folder, and tell how far it is.

    Args:
        remote: The open board.
        local: What to push.
        path: Where to, below the workspace.
        on_note: Gets a line at the beginning, and of what is large at each quarter.

    Returns:
        The path on the board.

    Raises:
        RemoteError: As ``Remote.push``.
    """
    inside = [each for each in local.rglob("*") if each.is_file()] if local.is_dir() else [local]
    size = sum(each.stat().st_size for each in inside)
    told = sent = 0

    def count(piece: int) -> None:
        nonlocal told, sent
        sent += piece
        if size > 4_000_000 and told < min(sent * 4 // size, 4):
            told = min(sent * 4 // size, 4)
            on_note(f"  {local.name}: {min(sent, size) / 1e6:.1f} of {size / 1e6:.1f} MB")

    on_note(f"sending {local.name} ({size / 1e6:.1f} MB)")
    return remote.push(local, path, on_bytes=count)


def _send_archive(remote: Remote, python: PythonThere, archive: Path, on_note: Callable[[str], None]) -> None:
    there = send(remote, archive, f"wheels/{archive.name}", on_note=on_note)
    done = remote.run([python.path, "-c", _UNPACK, str(there), SITE], timeout_s=_TIMEOUT_S)
    if done.status != 0:
        why = last_line(done.stderr, "it does not say why")
        hint = "its disk is full: set TMPDIR there to another disk" if "No space left" in why else why
        raise RemoteError(f"{remote.name}: unpacking {archive.name} failed: {hint}")


def _environment(remote: Remote, python: PythonThere) -> dict[str, str]:
    work = remote.workspace()
    path = [str(work / SITE), python.search_path]
    return {
        "PYTHONPATH": ":".join(filter(None, path)),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUNBUFFERED": "1",
        "PYTHONUTF8": "1",
    }


def _try_imports(remote: Remote, prepared: Prepared, modules: Sequence[str]) -> None:
    words = [prepared.python.path, "-c", _IMPORT, SITE, *modules, "boardfit.cli"]
    done = remote.run(words, env=prepared.env, timeout_s=_TIMEOUT_S)
    if done.status == 0:
        return
    why = last_line(done.stderr, f"exit status {done.status}")
    raise RemoteError(
        f"{remote.name}: a library does not work there: {why}; install what it names, or its whole "
        "package, on the board"
    )
