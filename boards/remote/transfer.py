"""Files over a link, whole or not at all.

A file is written under another name, its SHA-256 is taken on both ends, then it is renamed. A transfer that
breaks off while the board is still there goes on where it stopped, if what is there is the beginning of the
file.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePath, PurePosixPath
from typing import TYPE_CHECKING

from boardfit.boards.remote.link import last_line
from boardfit.errors import RemoteError

if TYPE_CHECKING:
    from boardfit.boards.remote.remote import Remote

ATTEMPTS = 4
_CHUNK = 1 << 16


def push(
    remote: Remote, local: Path, path: str | PurePath, *, on_bytes: Callable[[int], None] | None = None
) -> PurePosixPath:
    """Copy a file or a folder to the board; see ``Remote.push``."""
    target = _below_workspace(remote, path)
    if not local.is_dir():
        _push_file(remote, local, target, on_bytes)
        return target
    with tempfile.TemporaryDirectory(prefix="boardfit-") as folder:
        packed = Path(folder) / "folder.tar"
        with tarfile.open(packed, "w", dereference=True) as archive:
            archive.add(local, arcname=".")
        there = target.with_name(target.name + ".tar")
        _push_file(remote, packed, there, on_bytes)
        done = remote.ask("unpack", str(there), str(target))
        if done.status != 0:
            raise _refused(remote, f"unpacking {local.name}", done.stderr)
    return target


def pull(remote: Remote, path: str | PurePath, local: Path) -> None:
    """Copy a file or a folder from the board; see ``Remote.pull``."""
    source = remote.workspace() / path
    if remote.run(["test", "-d", str(source)]).status != 0:
        _pull_file(remote, source, local)
        return
    there = remote.workspace() / ".boardfit" / f"pull-{secrets.token_hex(4)}.tar"
    done = remote.ask("pack", str(source), str(there))
    if done.status != 0:
        raise _refused(remote, f"packing {source}", done.stderr)
    local.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{local.name}.", dir=local.parent) as folder:
        packed, whole = Path(folder) / "folder.tar", Path(folder) / "whole"
        _pull_file(remote, there, packed)
        remote.run(["rm", "-f", str(there)])
        _unpack(remote, packed, whole)
        _install_folder(whole, local)


def hash_file(path: Path, size: int | None = None) -> str:
    """Return the SHA-256 of a file, or of its first ``size`` bytes, in hexadecimal digits."""
    found = hashlib.sha256()
    with path.open("rb") as file:
        for piece in _pieces(file.read, size):
            found.update(piece)
    return found.hexdigest()


def _push_file(
    remote: Remote, local: Path, target: PurePosixPath, on_bytes: Callable[[int], None] | None
) -> None:
    try:
        size, wanted = local.stat().st_size, hash_file(local)
    except OSError as error:
        raise RemoteError(f"{local} cannot be read: {error.strerror}; nothing was sent") from error
    offset, said = 0, ""
    for attempt in range(ATTEMPTS):
        if attempt:
            offset = _sent_before(remote, local, target, size)
        status, said = remote.attempt(
            remote.own_words("put", str(target), str(offset), wanted),
            feed=_read_from(local, offset, on_bytes),
            on_out=lambda _: None,
        )
        if status == 0:
            return
        if status is not None and "boardfit-fault hash" not in said:
            raise _refused(remote, f"sending {local.name} ({size / 1e6:.1f} MB)", said)
        if remote.is_lost:
            break
    if remote.is_lost or "boardfit-fault hash" not in said:
        raise remote.lost(f"sending {local.name} ({size / 1e6:.1f} MB)", said)
    raise RemoteError(
        f"{remote.name}: {local.name} arrived with another SHA-256 {ATTEMPTS} times: expected {wanted}; "
        "did it change meanwhile, or is the board's disk or memory failing?"
    )


def _sent_before(remote: Remote, local: Path, target: PurePosixPath, size: int) -> int:
    """Return how many bytes are there already and are the file's own."""
    done = remote.ask("have", str(target))
    if done.status != 0:
        raise _refused(remote, f"sending {local.name}", done.stderr)
    count, found = done.stdout.split()
    there = int(count)
    return there if there <= size and hash_file(local, there) == found else 0


def _pull_file(remote: Remote, source: PurePosixPath, local: Path) -> None:
    local.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{local.name}.", dir=local.parent)
    os.close(handle)
    part = Path(name)
    try:
        _fetch(remote, source, part)
        part.chmod(0o644)
        part.replace(local)
    finally:
        part.unlink(missing_ok=True)


def _fetch(remote: Remote, source: PurePosixPath, part: Path) -> None:
    known, said = "", ""
    for _ in range(ATTEMPTS):
        offset = part.stat().st_size
        with part.open("ab") as file:
            sink = _Sink(file.write)
            status, said = remote.attempt(remote.own_words("get", str(source), str(offset)), on_out=sink)
        if status not in (None, 0):
            raise _refused(remote, f"fetching {source}", said)
        if status == 0 and sink.head.endswith(hash_file(part)):
            return
        if remote.is_lost:
            raise remote.lost(f"fetching {source}", said)
        if status == 0 or (known and sink.head != known):
            part.write_bytes(b"")  # Another file by now, or damaged: from the beginning.
        known = sink.head
    if status is None:
        raise remote.lost(f"fetching {source}", said)
    raise RemoteError(
        f"{remote.name}: {source} arrived with another SHA-256 {ATTEMPTS} times: does it change meanwhile?"
    )


class _Sink:
    """Takes the line before the bytes off, and passes the bytes on."""

    def __init__(self, write: Callable[[bytes], object]) -> None:
        self._write = write
        self._start = b""
        self.head = ""

    def __call__(self, piece: bytes) -> None:
        if self.head:
            self._write(piece)
            return
        self._start += piece
        line, found, rest = self._start.partition(b"\n")
        if found:
            self.head = line.decode("ascii", "replace").strip()
            self._write(rest)


def _unpack(remote: Remote, packed: Path, folder: Path) -> None:
    """Unpack what a board sent: files and folders only, all of them below the folder."""
    folder.mkdir()
    with tarfile.open(packed) as archive:
        for member in archive:
            path = PurePosixPath(member.name)
            if path.is_absolute() or ".." in path.parts:
                raise RemoteError(
                    f"{remote.name}: it sent a file outside of its folder ({member.name!r}): refused"
                )
            if member.isdir():
                (folder / path).mkdir(parents=True, exist_ok=True)
            elif member.isfile():
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                source = archive.extractfile(member)
                assert source is not None
                with source, (folder / path).open("xb") as file:
                    shutil.copyfileobj(source, file)


def _install_folder(whole: Path, local: Path) -> None:
    try:
        whole.replace(local)
    except OSError as error:
        raise RemoteError(f"{local} cannot be written: {error.strerror}; nothing was changed") from error


def _below_workspace(remote: Remote, path: str | PurePath) -> PurePosixPath:
    work = remote.workspace()
    target = work / path
    if work not in target.parents or ".." in target.parts or target.parts[len(work.parts)] == ".boardfit":
        raise RemoteError(
            f"{path} is not below the workspace on {remote.name}: boardfit writes nowhere else there; "
            "give a relative path"
        )
    return target


def _refused(remote: Remote, what: str, said: str) -> RemoteError:
    if "No space left" in said or "Disk quota" in said:
        free = remote.free_bytes
        room = "" if free is None else f" ({free / 1e6:.0f} MB were free at {remote.workspace().parent})"
        return RemoteError(
            f"{remote.name}: {what}: its disk is full{room}; make room there, or "
            "set TMPDIR there to another disk"
        )
    if "boardfit-fault no-sha256" in said:
        return RemoteError(
            f"{remote.name}: {what}: there is neither sha256sum nor python3 there; install one of them"
        )
    return RemoteError(f"{remote.name}: {what} failed: {last_line(said, 'the board does not say why')}")


def _read_from(local: Path, offset: int, on_bytes: Callable[[int], None] | None) -> Iterator[bytes]:
    with local.open("rb") as file:
        file.seek(offset)
        for piece in _pieces(file.read, None):
            yield piece
            if on_bytes is not None:
                on_bytes(len(piece))


def _pieces(read: Callable[[int], bytes], size: int | None) -> Iterator[bytes]:
    while size is None or size > 0:
        piece = read(_CHUNK if size is None else min(size, _CHUNK))
        if not piece:
            return
        if size is not None:
            size -= len(piece)
        yield piece
