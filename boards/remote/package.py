"""Our own package, packed for a board: kernel, runtime, boards, benchmarks and the command line."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution, distributions
from importlib.util import find_spec
from pathlib import Path, PurePosixPath

from boardfit._version import __version__
from boardfit.errors import RemoteError

ROOMS = ("runtime", "boards", "benchmarks")
_ELSEWHERE = ("converters", "cross", "examples", "evidence", "__pycache__")
_EPOCH = (1980, 1, 1, 0, 0, 0)


def pack_package(target: Path) -> None:
    """Write our own package as a zip file, the same bytes for the same sources.

    Args:
        target: The file to write. It unpacks to ``boardfit`` and its ``dist-info``, by which the engines
            are found.

    Raises:
        RemoteError: This boardfit was not installed, so that its entry points are not known.
    """
    files = {**_sources(), **_metadata()}
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(files):
            archive.writestr(zipfile.ZipInfo(name, _EPOCH), files[name], zipfile.ZIP_DEFLATED)


def _sources() -> dict[str, bytes]:
    found = {}
    for path, name in _walk("boardfit", skip=ROOMS):
        found[name] = path.read_bytes()
    for room in ROOMS:
        for path, name in _walk(f"boardfit.{room}"):
            found[name] = path.read_bytes()
    return found


def _walk(package: str, skip: tuple[str, ...] = ()) -> Iterator[tuple[Path, str]]:
    """Yield each file of a package, with its name in the archive."""
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise RemoteError(f"{package} is not installed: pip install boardfit")
    folder = Path(next(iter(spec.submodule_search_locations)))
    for path in sorted(folder.rglob("*")):
        inner = path.relative_to(folder)
        if path.is_file() and not {*inner.parts} & {*_ELSEWHERE} and inner.parts[0] not in skip:
            yield path, str(PurePosixPath(*package.split("."), *inner.parts))


def _metadata() -> dict[str, bytes]:
    try:
        ours = distribution("boardfit")
    except PackageNotFoundError as error:
        raise RemoteError("boardfit is not installed, it only lies there: pip install -e .") from error
    groups: dict[str, list[str]] = {}
    for point in ours.entry_points:
        # The board has no converters.
        if not point.value.startswith("boardfit.converters"):
            groups.setdefault(point.group, []).append(f"{point.name} = {point.value}")
    listed = "\n".join("\n".join([f"[{group}]", *lines, ""]) for group, lines in sorted(groups.items()))
    told = [
        "Metadata-Version: 2.4",
        "Name: boardfit",
        f"Version: {__version__}",
        f"License-Expression: {ours.metadata['License-Expression'] or ours.metadata['License']}",
        "License-File: LICENSE",
    ]
    folder = f"boardfit-{__version__}.dist-info"
    return {
        f"{folder}/METADATA": "".join(f"{line}\n" for line in told).encode(),
        f"{folder}/entry_points.txt": listed.encode(),
        f"{folder}/licenses/LICENSE": _licence(),
    }


def _licence() -> bytes:
    """Return the licence's text, which goes wherever we go."""
    # A build of the wheel leaves a second record beside the sources, without the text.
    for ours in distributions(name="boardfit"):
        for name in ("licenses/LICENSE", "LICENSE"):
            if text := ours.read_text(name):
                return text.encode()
    raise RemoteError("this boardfit was installed without its LICENSE: install it again")
