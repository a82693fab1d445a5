from __future__ import annotations

import dataclasses
import stat
import sys
from datetime import datetime, timezone

import pytest

pytest.importorskip("cryptography", reason="signatures need cryptography")

from boardfit.bundle.keys import read_private, read_public, write_key_pair
from boardfit.bundle.signing import (
    PublicKey,
    Signature,
    check_signatures,
    dump_signatures,
    parse_signatures,
    parse_time,
    public_part,
    sign,
    statement,
)
from boardfit.errors import BundleError, RecipeError, ToolMissing, UntrustedBundle

CONTENT = "c" * 64
YEAR = "2027-01-01T00:00:00Z"


@pytest.fixture
def keys(tmp_path):
    """Three private keys."""
    paths = [tmp_path / name for name in ("a", "b", "c")]
    for path in paths:
        write_key_pair(path)
    return [read_private(path, bytes) for path in paths]


def test_rfc_8032_test_1_gives_our_key_and_verifies():
    """The vector of RFC 8032, 7.1, so that any other Ed25519 can check what we sign."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    private = Ed25519PrivateKey.from_private_bytes(
        bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
    )
    public = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
    assert public_part(private) == PublicKey(bytes.fromhex(public))


def test_the_statement_has_one_form():
    assert statement(CONTENT, None) == (
        b'{\n  "content_id": "' + b"c" * 64 + b'",\n  "expires": null,\n  "kind": "boardfit bundle",\n'
        b'  "schema": 1\n}\n'
    )


def test_a_trusted_signature_counts(keys):
    signature = sign(keys[0], CONTENT)
    assert check_signatures(CONTENT, [signature], [public_part(keys[0])]) == (signature,)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"value": "0" * 128}, "is wrong"),
        ({"expires": YEAR}, "is wrong"),
        ({"key_id": "a" * 64}, "no other one is of a trusted key"),
    ],
    ids=["value", "expiry", "key"],
)
def test_a_changed_signature_does_not(keys, change, why):
    signature = dataclasses.replace(sign(keys[0], CONTENT), **change)
    with pytest.raises(UntrustedBundle, match=rf"0 of 1 signatures .*{why}"):
        check_signatures(CONTENT, [signature], [public_part(keys[0])])


def test_a_signature_of_other_content_does_not(keys):
    with pytest.raises(UntrustedBundle, match="is wrong"):
        check_signatures("d" * 64, [sign(keys[0], CONTENT)], [public_part(keys[0])])


def test_every_flipped_bit_of_a_signature_is_seen(keys):
    trusted = [public_part(keys[0])]
    good = sign(keys[0], CONTENT)
    for bit in range(512):
        value = (int(good.value, 16) ^ (1 << bit)).to_bytes(64, "big").hex()
        with pytest.raises(UntrustedBundle):
            check_signatures(CONTENT, [dataclasses.replace(good, value=value)], trusted)


@pytest.mark.parametrize(
    ("signers", "threshold", "enough"),
    [([0], 1, True), ([0], 2, False), ([0, 1], 2, True), ([0, 1, 2], 2, True), ([2], 1, False)],
    ids=str,
)
def test_a_threshold_counts_different_trusted_keys(keys, signers, threshold, enough):
    signatures = [sign(keys[i], CONTENT) for i in signers]
    trusted = [public_part(key) for key in keys[:2]]
    if enough:
        assert len(check_signatures(CONTENT, signatures, trusted, threshold=threshold)) >= threshold
    else:
        with pytest.raises(UntrustedBundle, match=f"{threshold} needed"):
            check_signatures(CONTENT, signatures, trusted, threshold=threshold)


@pytest.mark.parametrize("threshold", [0, -1, 2])
def test_a_threshold_that_makes_no_sense_is_refused(keys, threshold):
    key = public_part(keys[0])
    with pytest.raises(RecipeError, match="different keys"):
        check_signatures(CONTENT, [sign(keys[0], CONTENT)], [key, key], threshold=threshold)


def test_no_trusted_key_is_not_trust_in_everybody(keys):
    with pytest.raises(RecipeError, match="at least one key"):
        check_signatures(CONTENT, [sign(keys[0], CONTENT)], [])


@pytest.mark.parametrize(("second", "counts"), [(59, True), (60, False)], ids=["before", "at expiry"])
def test_expiry_gates_installing_and_never_running(keys, second, counts):
    signature, trusted = sign(keys[0], CONTENT, expires=YEAR), [public_part(keys[0])]
    assert check_signatures(CONTENT, [signature], trusted)
    now = datetime(2027, 1, 1, tzinfo=timezone.utc).timestamp() - 60 + second
    at = datetime.fromtimestamp(now, timezone.utc)
    if counts:
        assert check_signatures(CONTENT, [signature], trusted, installing_at=at)
    else:
        with pytest.raises(UntrustedBundle, match="expired on 2027-01-01"):
            check_signatures(CONTENT, [signature], trusted, installing_at=at)


def test_signatures_come_back_in_one_order(keys):
    signatures = [sign(key, CONTENT, expires=YEAR) for key in keys]
    data = dump_signatures(signatures)
    assert dump_signatures(reversed(signatures)) == data
    assert parse_signatures(data) == tuple(sorted(signatures, key=lambda each: each.key_id))


@pytest.mark.parametrize(
    "text",
    ["2027-01-01", "2027-1-01T00:00:00Z", "2027-02-30T00:00:00Z", "2027-01-01T00:00:00+00:00", "", None, 7],
    ids=repr,
)
def test_a_time_has_one_form(text):
    with pytest.raises(BundleError, match="the time"):
        parse_time(text)
    if text is not None:
        with pytest.raises(BundleError, match="the time"):
            Signature("a" * 64, text, "0" * 128)


def test_only_the_owner_can_read_a_private_key(tmp_path):
    write_key_pair(tmp_path / "key")
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600
    (tmp_path / "key").chmod(0o640)
    with pytest.raises(RecipeError, match="others can read it: chmod 600"):
        read_private(tmp_path / "key", bytes)


@pytest.mark.parametrize("name", ["key", "key.pub"])
def test_a_key_is_never_replaced(tmp_path, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(RecipeError, match="never replaced"):
        write_key_pair(tmp_path / "key")
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "mine"


def test_an_encrypted_key_needs_its_passphrase(tmp_path):
    public = write_key_pair(tmp_path / "key", b"secret")
    assert public_part(read_private(tmp_path / "key", lambda: b"secret")) == public
    with pytest.raises(RecipeError, match="does not open"):
        read_private(tmp_path / "key", lambda: b"wrong")


def test_a_plain_key_asks_for_no_passphrase(tmp_path):
    write_key_pair(tmp_path / "key")

    def ask():
        raise AssertionError("asked")

    read_private(tmp_path / "key", ask)


def test_a_public_key_is_taken_as_path_or_bytes(tmp_path):
    public = write_key_pair(tmp_path / "key")
    path = tmp_path / "key.pub"
    assert read_public([path, str(path), path.read_bytes()]) == (public,) * 3


@pytest.mark.parametrize("kind", ["text", "private", "absent", "ec"])
def test_what_is_no_public_ed25519_key_is_refused(tmp_path, kind):
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    path = tmp_path / "key.pub"
    if kind == "text":
        path.write_text("hello")
    elif kind == "private":
        write_key_pair(tmp_path / "key")
        path = tmp_path / "key"
    elif kind == "ec":
        public = ec.generate_private_key(ec.SECP256R1()).public_key()
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        path.write_bytes(public.public_bytes(serialization.Encoding.PEM, form))
    with pytest.raises(RecipeError, match=r"no public key|cannot read|expected an Ed25519"):
        read_public([path])


def test_without_cryptography_the_command_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "cryptography", None)
    with pytest.raises(ToolMissing, match=r"pip install 'boardfit\[sign\]'"):
        write_key_pair(tmp_path / "key")
    with pytest.raises(ToolMissing, match=r"pip install 'boardfit\[sign\]'"):
        read_public([b""])
