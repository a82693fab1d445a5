from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("cryptography", reason="signatures need cryptography")

import boardfit
from boardfit.bundle import open_bundle, verify_bundle
from boardfit.cli import main
from boardfit.errors import UntrustedBundle
from boardfit.runtime.engines.fake import write_fake_bundle


@pytest.fixture(params=["a.boardfit", "tree"])
def bundle(request, tmp_path, monkeypatch) -> Path:
    """A bundle in either form, in the current folder, with the keys release and other."""
    monkeypatch.chdir(tmp_path)
    write_fake_bundle(request.param)
    for name in ("release", "other"):
        assert main(["keygen", name]) == 0
    return Path(request.param)


def content_id(path: Path) -> str:
    with open_bundle(path) as opened:
        return opened.content_id


def test_a_signed_bundle_is_whole_and_has_the_same_content_id(bundle):
    before = content_id(bundle)
    assert main(["sign", str(bundle), "--key", "release"]) == 0
    verify_bundle(bundle)
    assert content_id(bundle) == before


def test_verify_says_who_signed(bundle, capsys):
    assert main(["sign", str(bundle), "--key", "release"]) == 0
    assert main(["verify", str(bundle), "--key", "release.pub", "--bytes-only"]) == 0
    assert "signed: by " in capsys.readouterr().out
    assert main(["verify", str(bundle), "--key", "other.pub", "--bytes-only"]) == 1
    assert "0 of 1 signatures" in capsys.readouterr().err


def test_two_keys_sign_one_after_the_other(bundle, capsys):
    both = [
        "verify",
        "--bytes-only",
        "--threshold",
        "2",
        "--key",
        "release.pub",
        "--key",
        "other.pub",
        str(bundle),
    ]
    assert main(["sign", str(bundle), "--key", "release"]) == 0
    assert main(both) == 1
    assert main(["sign", str(bundle), "--key", "other"]) == 0
    assert main(both) == 0
    assert main(["sign", str(bundle), "--key", "other", "--expires", "2999-01-01T00:00:00Z"]) == 0
    with open_bundle(bundle) as opened:
        assert len(opened.signatures) == 2
    assert main(both) == 0


def test_an_expired_bundle_is_not_installed_but_runs(bundle, capsys):
    assert main(["sign", str(bundle), "--key", "release", "--expires", "2001-01-01T00:00:00Z"]) == 0
    check = ["verify", str(bundle), "--key", "release.pub", "--bytes-only"]
    assert main(check) == 1
    assert "expired on 2001-01-01" in capsys.readouterr().err
    assert main([*check, "--installed"]) == 0
    with boardfit.load(bundle, trusted_keys=["release.pub"]) as model:
        assert model(np.zeros((40, 40, 3), np.uint8)).top(1)


def test_load_refuses_what_nobody_trusted_has_signed(bundle):
    with pytest.raises(UntrustedBundle, match="0 of 0 signatures"):
        boardfit.load(bundle, trusted_keys=["release.pub"])
    assert main(["sign", str(bundle), "--key", "release"]) == 0
    with pytest.raises(UntrustedBundle):
        boardfit.load(bundle, trusted_keys=[Path("other.pub")])
    keys = [Path("release.pub").read_bytes(), "other.pub"]
    with pytest.raises(UntrustedBundle, match="2 needed"):
        boardfit.load(bundle, trusted_keys=keys, key_threshold=2)
    boardfit.load(bundle, trusted_keys=keys).close()


def test_a_bundle_is_swapped_in_only_while_its_signature_holds(bundle):
    assert main(["sign", str(bundle), "--key", "release"]) == 0
    for name, expires in (("good", "2999-01-01T00:00:00Z"), ("late", "2001-01-01T00:00:00Z")):
        assert main(["sign", str(bundle), "--key", "release", "--expires", expires, "-o", name]) == 0
    write_fake_bundle("unsigned")
    with boardfit.load("late", trusted_keys=["release.pub"]) as model:
        for name in ("late", "unsigned"):
            with pytest.raises(UntrustedBundle):
                model.swap(name)
        model.swap("good")
        assert model(np.zeros((40, 40, 3), np.uint8)).top(1)


def test_an_open_bundle_is_checked_too(bundle):
    with open_bundle(bundle) as opened, pytest.raises(UntrustedBundle):
        boardfit.load(opened, trusted_keys=["release.pub"])


def test_a_signature_does_not_fit_another_bundle(bundle):
    assert main(["sign", str(bundle), "--key", "release", "-o", "signed"]) == 0
    write_fake_bundle("evil", seed=1)
    shutil.copyfile("signed/signatures.json", "evil/signatures.json")
    sums = Path("signed/SHA256SUMS").read_text().splitlines(keepends=True)
    theirs = Path("evil/SHA256SUMS").read_text().splitlines(keepends=True)
    theirs += [line for line in sums if line.endswith("  signatures.json\n")]
    ordered = theirs[:1] + sorted(theirs[1:], key=lambda line: line[66:])
    Path("evil/SHA256SUMS").write_text("".join(ordered))
    verify_bundle("evil")
    with pytest.raises(UntrustedBundle, match="is wrong"):
        boardfit.load("evil", trusted_keys=["release.pub"])


def test_a_damaged_bundle_is_not_signed(bundle, capsys):
    if bundle.is_dir():
        (bundle / "model" / "fake.json").write_bytes(b"{}")
    else:
        data = bytearray(bundle.read_bytes())
        data[len(data) // 2] ^= 1
        bundle.write_bytes(data)
    assert main(["sign", str(bundle), "--key", "release", "-o", "out.boardfit"]) == 1
    assert not Path("out.boardfit").exists()


def test_pack_keeps_signatures_of_the_same_content_and_says_when_they_are_lost(bundle, capsys):
    assert main(["sign", str(bundle), "--key", "release"]) == 0
    assert main(["pack", str(bundle), "-o", "same.boardfit"]) == 0
    assert "not signed" not in capsys.readouterr().out
    assert main(["verify", "same.boardfit", "--key", "release.pub", "--bytes-only"]) == 0
    assert main(["pack", str(bundle), "--size", "32", "-o", "less.boardfit"]) == 0
    assert "not signed: the 1 signatures were of the other content" in capsys.readouterr().out
    with open_bundle("less.boardfit") as opened:
        assert opened.signatures == ()


def test_run_answers_only_for_what_is_signed(bundle, capsys):
    import cv2

    cv2.imwrite("photo.png", np.zeros((40, 40, 3), np.uint8))
    assert main(["run", str(bundle), "photo.png", "--key", "release.pub"]) == 1
    assert "0 of 0 signatures" in capsys.readouterr().err
    assert main(["sign", str(bundle), "--key", "release"]) == 0
    assert main(["run", str(bundle), "photo.png", "--key", "release.pub"]) == 0


def test_inspect_names_the_keys_and_that_it_checks_nothing(bundle, capsys):
    assert main(["sign", str(bundle), "--key", "release"]) == 0
    assert main(["inspect", str(bundle)]) == 0
    assert "not checked here" in capsys.readouterr().out


def test_a_key_with_a_passphrase(bundle, monkeypatch, capsys):
    monkeypatch.setenv("BOARDFIT_PASSPHRASE", "secret")
    assert main(["keygen", "locked", "--passphrase"]) == 0
    assert b"ENCRYPTED" in Path("locked").read_bytes()
    assert main(["sign", str(bundle), "--key", "locked"]) == 0
    monkeypatch.setenv("BOARDFIT_PASSPHRASE", "wrong")
    assert main(["sign", str(bundle), "--key", "locked"]) == 1
    assert "does not open with this passphrase" in capsys.readouterr().err


def test_a_key_before_the_bundle_does_not_swallow_it(bundle):
    assert main(["sign", str(bundle), "--key", "release"]) == 0
    assert main(["verify", "--bytes-only", "--key", "release.pub", str(bundle)]) == 0
