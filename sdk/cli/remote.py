"""A subcommand run on a board elsewhere: what it needs goes there, what it made comes back."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from boardfit.boards.remote import Remote
    from boardfit.boards.remote.wheels import Need

# Engines that can be sent, the best first: name, module, extra of this package that says which version.
_ENGINES = (
    ("litert", "ai_edge_litert", "litert"),
    ("onnxruntime", "onnxruntime", "onnx"),
    ("ncnn", "ncnn", "ncnn"),
    ("tflite", "tflite_runtime", "tflite"),
)
_FORWARDED = ("BOARDFIT_DEBUG",)


def run_remotely(
    address: str,
    words: Sequence[str],
    *,
    bundle: Path,
    inputs: Sequence[Path] = (),
    out: Path | None = None,
    engine: str | None = None,
) -> int:
    """Run ``boardfit WORD...`` on a board, and fetch what it wrote.

    Args:
        address: ``ssh://user@host[:port]`` or ``adb://serial``.
        words: The subcommand and its arguments as they would stand here. Where one is the bundle, one of
            ``inputs`` or ``out``, it is replaced by that path on the board.
        bundle: Is sent.
        inputs: More files and folders that are sent.
        out: File or folder that the command writes: it is fetched to this path if the command made it.
        engine: The one that is needed; None for any that runs the bundle.

    Returns:
        The command's exit status. Its output appears here line by line.

    Raises:
        RemoteError: The board cannot be reached, lacks what cannot be sent, or was lost.
        BundleError: The bundle is damaged.
    """
    from boardfit.boards.remote import connect
    from boardfit.boards.remote.session import prepare

    engines = _engine_needs(bundle, engine)
    with connect(address) as remote:
        prepared = prepare(remote, needs=_base_needs(), engines=engines, on_note=_note)
        there = {str(path): _send(remote, number, path) for number, path in enumerate([bundle, *inputs])}
        if out is not None:
            there[str(out)] = f"out/{out.name}"
            remote.run(["mkdir", "-p", "out"])
        forwarded = {name: os.environ[name] for name in _FORWARDED if name in os.environ}
        done = remote.run(
            prepared.words(*(there.get(word, word) for word in words)),
            env={**prepared.env, **forwarded},
            on_line=lambda line: print(line, flush=True),
            on_note=_note,
        )
        if out is not None and remote.run(["test", "-e", there[str(out)]]).status == 0:
            remote.pull(there[str(out)], out)
            _note(f"fetched {out}")
    return done.status


def _send(remote: Remote, number: int, path: Path) -> str:
    # A folder of its own each, so that two of the same name do not meet.
    return str(remote.push(path, f"in/{number}/{path.name or 'folder'}"))


def _note(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _base_needs() -> list[Need]:
    from boardfit.boards.remote.wheels import Need

    wanted = _requirements()
    return [
        Need("numpy", wanted["numpy"], "python3-numpy"),
        Need("cv2", wanted["opencv-python-headless"], "python3-opencv"),
    ]


def _engine_needs(bundle: Path, engine: str | None) -> list[Need]:
    """Return the libraries of the engines that run a bundle, the best first.

    Raises:
        BundleError: The bundle is damaged.
    """
    from boardfit.boards.remote.wheels import Need
    from boardfit.bundle import open_bundle
    from boardfit.runtime.engines import engine_classes

    with open_bundle(bundle) as opened:
        formats = {artifact.format for artifact in opened.manifest.artifacts}
    classes = engine_classes()
    base = None if engine is None else engine.partition(":")[0]
    return [
        Need(module, _requirements(extra)[module.replace("_", "-")])
        for name, module, extra in _ENGINES
        if (formats & set(classes[name].formats) if base is None else name == base)
    ]


def _requirements(extra: str = "") -> dict[str, str]:
    """Return this package's own requirements by name: of the base, or of an extra."""
    from importlib.metadata import requires

    found = {}
    for line in requires("boardfit") or []:
        text, _, marker = line.partition(";")
        named = re.search(r"extra\s*==\s*['\"]([^'\"]+)", marker)
        if (named.group(1) if named else "") == extra:
            name = re.match(r"[A-Za-z0-9._-]+", text.strip())
            assert name is not None
            found[name.group().lower().replace("_", "-")] = text.strip()
    return found
