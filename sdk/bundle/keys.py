"""Key files on disk, in PEM as other tools read them: I/O that decides nothing."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from boardfit.bundle.signing import PublicKey, public_key, public_part, require_cryptography
from boardfit.errors import RecipeError

PUBLIC_SUFFIX = ".pub"
MAX_KEY_BYTES = 1 << 16


def write_key_pair(path: str | os.PathLike[str], passphrase: bytes | None = None) -> PublicKey:
    """Make a new key: PATH, which its owner alone can read, and PATH.pub.

    Args:
        path: Of the private key; neither file may exist.
        passphrase: Encrypts the private key; None leaves it plain.

    Raises:
        RecipeError: A file is there already, or cannot be written; nothing is left of the other.
        ToolMissing: cryptography is not installed.
    """
    require_cryptography()
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    private = Ed25519PrivateKey.generate()
    form: Any = serialization.NoEncryption()
    if passphrase is not None:
        form = serialization.BestAvailableEncryption(passphrase)
    pem = private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, form)
    public = private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    place = Path(path)
    beside = place.with_name(f"{place.name}{PUBLIC_SUFFIX}")
    _write_new(beside, public, 0o644)
    try:
        _write_new(place, pem, 0o600)
    except BaseException:
        beside.unlink()
        raise
    return public_part(private)


def read_private(path: str | os.PathLike[str], passphrase: Callable[[], bytes]) -> Any:
    """Return a private key.

    Args:
        path: Of the file that ``write_key_pair`` wrote, or of another Ed25519 key in PEM (PKCS8).
        passphrase: Asked only where the key is encrypted.

    Raises:
        RecipeError: It is no such key, others can read it, or the passphrase is wrong.
        ToolMissing: cryptography is not installed.
    """
    require_cryptography()
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    data = _read(Path(path), private=True)
    secret = passphrase() if b"ENCRYPTED" in data else None
    try:
        key = load_pem_private_key(data, secret)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        fault = "is no private key in PEM" if secret is None else "does not open with this passphrase"
        raise RecipeError(f"{path} {fault}: give the key of boardfit keygen") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise RecipeError(f"{path} is a {type(key).__name__}: expected an Ed25519 key, as of boardfit keygen")
    return key


def read_public(keys: Sequence[str | os.PathLike[str] | bytes]) -> tuple[PublicKey, ...]:
    """Return trusted keys.

    Args:
        keys: Each the path of a PEM file, or the bytes of one.

    Raises:
        RecipeError: One is no Ed25519 key, or cannot be read.
        ToolMissing: cryptography is not installed.
    """
    found = []
    for item in keys:
        data = item if isinstance(item, bytes) else _read(Path(item), private=False)
        found.append(public_key(data, "a trusted key" if isinstance(item, bytes) else str(item)))
    return tuple(found)


def _read(path: Path, *, private: bool) -> bytes:
    try:
        with path.open("rb") as stream:
            mode = stat.S_IMODE(os.fstat(stream.fileno()).st_mode)
            if private and mode & 0o077:
                raise RecipeError(
                    f"the private key {path} has the mode {mode:04o}, others can read it: chmod 600 {path}, "
                    "or make a new one with boardfit keygen"
                )
            return stream.read(MAX_KEY_BYTES)
    except OSError as error:
        raise RecipeError(f"cannot read the key {path} ({error.strerror}): give the path of a key") from error


def _write_new(path: Path, data: bytes, mode: int) -> None:
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    except OSError as error:
        raise RecipeError(
            f"cannot write the key {path} ({error.strerror}): choose another name; a key is never replaced"
        ) from error
    try:
        with os.fdopen(fd, "wb") as stream:
            os.fchmod(stream.fileno(), mode)
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        path.unlink(missing_ok=True)
        raise RecipeError(f"cannot write the key {path} ({error.strerror}): make room") from error
