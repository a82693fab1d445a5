"""Signatures of a bundle: what is signed, and which signatures are enough. Opens no file.

Ed25519 (RFC 8032) over a short statement: the content id, which is the SHA-256 of the manifest and so stands
for every file that it lists, and the time after which the bundle shall not be installed any more.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from boardfit.bundle.rules import SIGNATURES, check_sha256, dump_json, parse_json, sha256_hex
from boardfit.errors import BundleError, RecipeError, ToolMissing, UntrustedBundle

if TYPE_CHECKING:
    from datetime import datetime

SCHEMA = 1
KIND = "boardfit bundle"
"""Signed too: a signature of this key over anything else can never be taken for one of a bundle."""
MAX_SIGNATURES = 64

_VALUE = re.compile(r"[0-9a-f]{128}")
_TIME_FORM = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z", re.ASCII)
_TIME = "%Y-%m-%dT%H:%M:%SZ"


@dataclass(frozen=True, slots=True)
class PublicKey:
    """An Ed25519 key that somebody trusts: 32 bytes."""

    raw: bytes

    def __post_init__(self) -> None:
        if len(self.raw) != 32:
            raise RecipeError(f"a public key has {len(self.raw)} bytes: expected the 32 of Ed25519")

    @property
    def key_id(self) -> str:
        """SHA-256 of the key in hex."""
        return sha256_hex(self.raw)


@dataclass(frozen=True, slots=True)
class Signature:
    """One signature of one bundle.

    Attributes:
        key_id: Of the key that made it.
        expires: UTC, ``2027-01-31T00:00:00Z``: from then on the bundle shall not be installed; None for
            never. What is installed goes on running.
        value: The 64 bytes in hex.
    """

    key_id: str
    expires: str | None
    value: str

    def __post_init__(self) -> None:
        check_sha256(self.key_id, "a signature's key")
        if self.expires is not None:
            parse_time(self.expires)
        if not isinstance(self.value, str) or _VALUE.fullmatch(self.value) is None:
            raise BundleError(f"a signature is {self.value!r:.80}: expected 128 lower-case hex digits")

    def to_dict(self) -> dict[str, Any]:
        """Return the record as JSON values."""
        return {"key_id": self.key_id, "expires": self.expires, "value": self.value}


def statement(content_id: str, expires: str | None) -> bytes:
    """Return the bytes that are signed.

    Args:
        content_id: SHA-256 of the manifest in hex.
        expires: As in ``Signature``.
    """
    fields = {"schema": SCHEMA, "kind": KIND, "content_id": content_id, "expires": expires}
    return dump_json(fields, "the statement to sign")


def dump_signatures(signatures: Iterable[Signature]) -> bytes:
    """Return signatures.json, sorted by key."""
    rows = [each.to_dict() for each in sorted(signatures, key=lambda each: each.key_id)]
    return dump_json({"schema": SCHEMA, "signatures": rows}, SIGNATURES)


def parse_signatures(data: bytes) -> tuple[Signature, ...]:
    """Read signatures.json from untrusted bytes.

    Raises:
        BundleError: It makes no sense, has two signatures of one key, or is of a later schema.
    """
    found = parse_json(data, SIGNATURES)
    rows = found.get("signatures")
    if type(found.get("schema")) is not int or found["schema"] != SCHEMA:
        raise BundleError(
            f"{SIGNATURES} has schema {found.get('schema')!r:.40}, and this boardfit reads schema {SCHEMA}: "
            "install another version of boardfit"
        )
    if set(found) != {"schema", "signatures"} or not isinstance(rows, list) or len(rows) > MAX_SIGNATURES:
        raise BundleError(f"{SIGNATURES} is no list of at most {MAX_SIGNATURES} signatures: sign again")
    signatures = tuple(_signature(row) for row in rows)
    if len({each.key_id for each in signatures}) != len(signatures):
        raise BundleError(f"{SIGNATURES} has two signatures of one key: sign again")
    return signatures


def check_signatures(
    content_id: str,
    signatures: Sequence[Signature],
    keys: Sequence[PublicKey],
    *,
    threshold: int = 1,
    installing_at: datetime | None = None,
) -> tuple[Signature, ...]:
    """Return the signatures of trusted keys, if they are enough.

    Args:
        content_id: SHA-256 of the manifest in hex, as it was read and hashed.
        signatures: What the bundle carries.
        keys: Whom the caller trusts.
        threshold: From how many different ones a signature is needed.
        installing_at: The time, with its zone, where the bundle is about to be installed: an expired
            signature then counts for nothing. None for a bundle that is installed: it goes on running.

    Raises:
        UntrustedBundle: Too few signatures of trusted keys.
        RecipeError: The threshold is below 1, or above the number of different keys.
        ToolMissing: cryptography is not installed.
    """
    trusted = {key.key_id: key for key in keys}
    if not 1 <= threshold <= len(trusted):
        raise RecipeError(
            f"{threshold} signatures are asked for, of {len(trusted)} different keys: expected at least one "
            "key, and a threshold from 1 to the number of keys"
        )
    good: list[Signature] = []
    faults: list[str] = []
    for each in signatures:
        key = trusted.get(each.key_id)
        if key is None:
            continue
        if not _is_right(each, key, content_id):
            faults.append(f"that of key {each.key_id[:16]} is wrong")
        elif installing_at is not None and _has_expired(each, installing_at):
            faults.append(f"that of key {each.key_id[:16]} expired on {each.expires}")
        else:
            good.append(each)
    if len(good) < threshold:
        why = "; ".join(faults) or "no other one is of a trusted key"
        raise UntrustedBundle(
            f"{len(good)} of {len(signatures)} signatures of the bundle {content_id[:16]} count, {threshold} "
            f"needed ({why}): have it signed by whom you trust, or fetch it again"
        )
    return tuple(good)


def public_key(pem: bytes, what: str) -> PublicKey:
    """Read a public key, PEM (RFC 7468) of a SubjectPublicKeyInfo.

    Args:
        pem: Untrusted bytes.
        what: Where they come from, for messages.

    Raises:
        RecipeError: It is no Ed25519 key.
        ToolMissing: cryptography is not installed.
    """
    require_cryptography()
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        key = load_pem_public_key(pem)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise RecipeError(f"{what} is no public key in PEM: give the .pub of boardfit keygen") from error
    if not isinstance(key, Ed25519PublicKey):
        raise RecipeError(f"{what} is a {type(key).__name__}: expected an Ed25519 key, as of boardfit keygen")
    return PublicKey(key.public_bytes_raw())


def public_part(private: Any) -> PublicKey:
    """Return the public half of a key that ``keys.read_private`` returned."""
    return PublicKey(private.public_key().public_bytes_raw())


def sign(private: Any, content_id: str, *, expires: str | None = None) -> Signature:
    """Sign a bundle.

    Args:
        private: What ``keys.read_private`` returned.
        content_id: SHA-256 of the manifest in hex.
        expires: As in ``Signature``.
    """
    if expires is not None:
        parse_time(expires)
    value = private.sign(statement(content_id, expires))
    return Signature(public_part(private).key_id, expires, value.hex())


def parse_time(text: object) -> datetime:
    """Return a time in UTC from its one form, ``2027-01-31T00:00:00Z``.

    Raises:
        BundleError: It is in another form.
    """
    from datetime import datetime, timezone

    fault = f"the time {text!r:.60} has another form than 2027-01-31T00:00:00Z"
    if not isinstance(text, str) or _TIME_FORM.fullmatch(text) is None:
        raise BundleError(fault)
    try:
        return datetime.strptime(text, _TIME).replace(tzinfo=timezone.utc)
    except ValueError as error:  # a 31st of February
        raise BundleError(fault) from error


def require_cryptography() -> None:
    """Raise ToolMissing if the library that signs and checks is not installed."""
    try:
        import cryptography  # noqa: F401
    except ImportError as error:
        raise ToolMissing(
            f"signatures need cryptography, which cannot be imported ({error}): pip install 'boardfit[sign]'"
        ) from error


def _is_right(signature: Signature, key: PublicKey, content_id: str) -> bool:
    require_cryptography()
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    message = statement(content_id, signature.expires)
    try:
        Ed25519PublicKey.from_public_bytes(key.raw).verify(bytes.fromhex(signature.value), message)
    except InvalidSignature:
        return False
    return True


def _has_expired(signature: Signature, now: datetime) -> bool:
    return signature.expires is not None and now >= parse_time(signature.expires)


def _signature(row: object) -> Signature:
    if not isinstance(row, Mapping) or set(row) != {"key_id", "expires", "value"}:
        raise BundleError(f"{SIGNATURES} holds {row!r:.80}: expected key_id, expires and value; sign again")
    return Signature(row["key_id"], row["expires"], row["value"])
