"""What tests on Arm need, made once and kept below ``build/arm``: roots, libraries, bundles, photographs.

A thing's name holds a fingerprint of what it is made from, so that nothing stale is used; it is made beside
its place and moved there, so that nothing half-made is.
"""

from __future__ import annotations

import hashlib
import os
import runpy
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import version
from pathlib import Path

import cv2

from boardfit.boards.remote.package import pack_package
from boardfit.boards.remote.python_there import PythonThere
from boardfit.converters.samples import synthetic_frame
from stand_ins.roots import CROSS, make_root

ROOT = Path(__file__).resolve().parents[3]
KEPT = Path(os.environ.get("BOARDFIT_ARM", ROOT / "build" / "arm"))
MACHINES = {"arm64": "aarch64", "armhf": "armv7l", "amd64": "x86_64"}
ENGINE_PACKAGES = {"litert": "ai-edge-litert", "onnxruntime": "onnxruntime", "ncnn": "ncnn"}
# Debian 12's, which the roots are made of.
PYTHON, GLIBC = (3, 11), (2, 36)


def kept(name: str, made_from: Iterable[str | bytes | Path], make: Callable[[Path], object]) -> Path:
    """Return what is kept under a name; if it was made from something else, or never, make it.

    Args:
        name: Of the file or folder below ``KEPT``.
        made_from: Texts, and files and folders by their contents.
        make: Gets the path to make it at.
    """
    digest = hashlib.sha256()
    for part in made_from:
        for piece in _pieces(part):
            digest.update(hashlib.sha256(piece).digest())
    stem, dot, ending = name.partition(".")
    place = KEPT / f"{stem}-{digest.hexdigest()[:12]}{dot}{ending}"
    if place.exists():
        return place
    KEPT.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="making-", dir=KEPT) as folder:
        fresh = Path(folder) / name
        make(fresh)
        for old in KEPT.glob(f"{stem}-{'[0-9a-f]' * 12}{dot}{ending}"):
            shutil.rmtree(old) if old.is_dir() else old.unlink()
        fresh.rename(place)
    return place


def _pieces(part: str | bytes | Path) -> Iterable[bytes]:
    if isinstance(part, Path):
        files = sorted(part.rglob("*")) if part.is_dir() else [part]
        return [path.read_bytes() for path in files if path.is_file() and path.suffix != ".pyc"]
    return [part.encode() if isinstance(part, str) else part]


def root(arch: str, packages: Sequence[str] = ()) -> Path:
    """Return a root file system of Debian's."""
    made_from = [CROSS / "local_base.sh", *packages]
    return kept(f"root-{arch}", made_from, lambda place: make_root(place, packages, arch=arch))


def platforms(arch: str) -> tuple[str, ...]:
    """Return the wheel platforms that a root takes."""
    return PythonThere("python3", PYTHON, MACHINES[arch], "glibc", GLIBC, False, "", frozenset()).platforms


def libraries(arch: str, requirements: Sequence[str], *, name: str, needed: bool = False) -> Path:
    """Return a folder of wheels for a root, installed from here: nothing is emulated.

    Args:
        arch: Of the root.
        requirements: As pip takes them.
        name: Of the folder.
        needed: Whether what they depend on is installed too.
    """
    words = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--quiet"]
    words += ["--only-binary=:all:", "--implementation", "cp", "--python-version", "3.11", "--no-compile"]
    words += [] if needed else ["--no-deps"]
    words += [word for platform in platforms(arch) for word in ("--platform", platform)]

    def make(place: Path) -> None:
        done = subprocess.run([*words, "--target", str(place), *requirements], capture_output=True, text=True)
        if done.returncode != 0:
            raise RuntimeError(f"pip for {arch}: {done.stderr.strip().splitlines()[-1]}")

    return kept(f"{name}-{arch}", [" ".join([*words[1:], *requirements])], make)


def as_here(*packages: str) -> list[str]:
    """Return requirements of the versions that are installed on this machine."""
    return [f"{package}=={version(package)}" for package in packages]


def own_package(folder: Path) -> Path:
    """Unpack what a board gets of boardfit into a folder."""
    with tempfile.TemporaryDirectory() as packed:
        pack_package(Path(packed) / "boardfit.zip")
        with zipfile.ZipFile(Path(packed) / "boardfit.zip") as archive:
            archive.extractall(folder)
    return folder


def photographs() -> Path:
    """Return the demo's 20 photographs."""
    script = ROOT / "sdk" / "examples" / "demo_photos.py"
    copy = runpy.run_path(str(script))["copy_photos"]
    return kept("photos", [script], copy)


def lite0_bundle() -> Path:
    """Return EfficientNet-Lite0 for every engine at three sizes, float and int8; its build takes minutes."""
    example = ROOT / "sdk" / "examples" / "lite0_keras.py"
    sources = [
        ROOT / "converters",
        ROOT / "sdk" / "bundle",
        ROOT / "sdk" / "specs.py",
        example,
        photographs(),
    ]

    def make(place: Path) -> None:
        keras = place.with_name("lite0.keras")
        _check([sys.executable, str(example), str(keras)])
        made_up = _made_up_pictures(place.with_name("made-up"))
        words = [sys.executable, "-m", "boardfit", "build", str(keras), "--images", str(made_up)]
        words += ["--image-spec", "efficientnet-lite", "--sizes", "112,160,224", "--no-fit"]
        words += ["--precisions", "fp32,int8", "--calibration", str(photographs()), "-o", str(place)]
        # The gate of int8 is not asked: on made-up pictures half of the answers are close calls.
        words += ["--max-flips", "100", "--estimators", "min-max"]
        _check(words)

    return kept("lite0.boardfit", sources, make)


def _made_up_pictures(folder: Path) -> Path:
    folder.mkdir()
    for seed in range(24):
        cv2.imwrite(str(folder / f"{seed:02d}.png"), synthetic_frame(seed, height=240, width=320))
    return folder


def _check(words: Sequence[str]) -> None:
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(words)}: {(done.stderr or done.stdout).strip()[-2000:]}")
