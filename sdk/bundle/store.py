"""The two forms of a bundle on disk, a zip file and a folder: I/O that decides nothing."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from boardfit.bundle import layout
from boardfit.bundle.rules import FETCH_AGAIN, MAX_FILES, check_paths
from boardfit.errors import BundleError


class Store(Protocol):
    """Named bytes."""

    @property
    def path(self) -> Path:
        """Path of the zip file or the folder."""
        ...

    @property
    def sizes(self) -> Mapping[str, int]:
        """Bytes of every file, by its path in the bundle."""
        ...

    def read(self, name: str) -> bytes:
        """Return the contents of one file. May be called from several threads."""
        ...

    def close(self) -> None:
        """Free what is open. Twice does no harm."""
        ...


class ZipStore:
    """A bundle in one file."""

    def __init__(self, path: Path) -> None:
        """Read the directory of the zip.

        Raises:
            BundleError: The file cannot be read, or is no zip in the canonical layout.
        """
        self.path = path
        self._fd = _open(path)
        try:
            self.zip_bytes = os.fstat(self._fd).st_size
            tail = self.read_at(max(0, self.zip_bytes - layout.END_BYTES), layout.END_BYTES)
            end = layout.parse_end(tail, self.zip_bytes)
            self.entries = layout.parse_directory(
                self.read_at(end.directory_offset, end.directory_bytes), end
            )
            for entry in self.entries:
                layout.check_local(entry, self.read_at(entry.offset, entry.data_offset - entry.offset))
        except BundleError as error:
            self.close()
            raise BundleError(f"{path} is not a usable bundle, {error}: {FETCH_AGAIN}") from error
        except BaseException:
            self.close()
            raise
        self._by_path = {entry.path: entry for entry in self.entries}
        self.sizes = {entry.path: entry.size_bytes for entry in self.entries}

    def read(self, name: str) -> bytes:
        """Return the contents of one file."""
        entry = self._by_path[name]
        return self.read_at(entry.data_offset, entry.size_bytes)

    def read_at(self, offset: int, count: int) -> bytes:
        """Return bytes of the zip; fewer only at its end."""
        if self._fd < 0:
            raise BundleError(f"{self.path} is closed: open the bundle again")
        try:
            return _read(self._fd, count, offset)
        except OSError as error:
            raise _unreadable(self.path, error) from error

    def close(self) -> None:
        """Close the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class FolderStore:
    """A bundle as a folder."""

    def __init__(self, path: Path) -> None:
        """List the folder.

        Raises:
            BundleError: It cannot be read, or holds something other than plain files and folders.
        """
        self.path = path
        try:
            self.sizes = _walk(path)
        except OSError as error:
            raise _unreadable(path, error) from error

    def read(self, name: str) -> bytes:
        """Return the contents of one file."""
        fd = _open(self.path / name, os.O_NOFOLLOW)
        try:
            # One byte more than was listed: what has grown since is seen, and never read without end.
            return _read(fd, self.sizes[name] + 1, 0)
        except OSError as error:
            raise _unreadable(self.path / name, error) from error
        finally:
            os.close(fd)

    def close(self) -> None:
        """Do nothing: no file stays open."""


def open_store(path: str | os.PathLike[str]) -> ZipStore | FolderStore:
    """Open either form.

    Raises:
        BundleError: There is nothing that can be read, or it is no bundle.
    """
    place = Path(path)
    return FolderStore(place) if place.is_dir() else ZipStore(place)


def _read(fd: int, count: int, offset: int) -> bytes:
    """Return bytes of a file; fewer only at its end."""
    data = os.pread(fd, count, offset)
    while 0 < len(data) < count:
        more = os.pread(fd, count - len(data), offset + len(data))
        if not more:
            break
        data += more
    return data


def _open(path: Path, flags: int = 0) -> int:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | flags)
    except FileNotFoundError as error:
        raise BundleError(f"{path} does not exist: give the path of a .boardfit file or folder") from error
    except OSError as error:
        raise _unreadable(path, error) from error
    # O_NONBLOCK above: a pipe in place of the file would otherwise wait for a writer.
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise BundleError(f"{path} is not a plain file: give the path of a .boardfit file or folder")
    return fd


def _walk(root: Path) -> dict[str, int]:
    sizes: dict[str, int] = {}
    folders = [""]
    while folders:
        prefix = folders.pop()
        with os.scandir(root / prefix) as found:
            for item in found:
                name = f"{prefix}{item.name}"
                if item.is_dir(follow_symlinks=False):
                    folders.append(f"{name}/")
                else:
                    sizes[name] = _plain_bytes(root / name, item.stat(follow_symlinks=False))
                if len(sizes) + len(folders) > MAX_FILES:
                    raise BundleError(f"{root} holds more files than any bundle: give a bundle's folder")
    check_paths(sizes)
    return sizes


def _plain_bytes(path: Path, found: os.stat_result) -> int:
    """Return the size of a plain file that has no other name, or raise BundleError."""
    if stat.S_ISLNK(found.st_mode):
        raise BundleError(f"{path} is a symbolic link: expected plain files only")
    if not stat.S_ISREG(found.st_mode):
        raise BundleError(f"{path} is a pipe, a socket or a device: expected plain files only")
    if found.st_nlink > 1:
        raise BundleError(
            f"{path} is a hard link, one of {found.st_nlink} names of one file, any of which can change it: "
            "copy the bundle's folder"
        )
    return found.st_size


def _unreadable(path: Path, error: OSError) -> BundleError:
    return BundleError(f"cannot read {path} ({error.strerror or error}): check the path and its permissions")
