"""A subcommand run on a board elsewhere: what it needs goes there, what it made comes back."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from boardfit.errors import RemoteError

if TYPE_CHECKING:
    from boardfit.boards.remote import Remote
    from boardfit.boards.remote.session import Prepared
    from boardfit.boards.remote.wheels import Need

ALL = "all"

_SENT = ("litert", "onnxruntime", "ncnn")
"""Engines that can be sent, the best first."""

_FORWARDED = ("BOARDFIT_DEBUG",)
_TYPED = "BOARDFIT_TYPED"


def typed_words(words: Sequence[str]) -> tuple[str, ...]:
    """Return what was typed: on a board, what was typed on the machine that sent the command there.

    Args:
        words: Of this process, without the program's name.
    """
    return tuple(json.loads(os.environ[_TYPED])) if _TYPED in os.environ else tuple(words)


def require_address(board: str) -> None:
    """Refuse what is no address of a board.

    Raises:
        BoardError: It has no ``://``; the name of a kind of board is told from an unknown one.
        RemoteError: Its form is wrong.
    """
    from boardfit.boards.profile import find_profile
    from boardfit.boards.remote.address import parse_address
    from boardfit.errors import BoardError

    if "://" not in board:
        kind = find_profile(board)  # or its error, with the names that are near
        raise BoardError(
            f"{kind.title} is a kind of board, not one of yours: say where one is, as in "
            "--board ssh://user@host or --board adb://serial"
        )
    parse_address(board)


def without_board(words: Sequence[str]) -> Iterator[str]:
    """Yield the words of a command without ``--board``, which argparse takes shortened too."""
    rest = iter(words)
    for word in rest:
        name, given, _ = word.partition("=")
        if len(name) > len("--") and "--board".startswith(name):
            if not given:
                next(rest)
        else:
            yield word


def run_remotely(
    address: str,
    words: Sequence[str],
    *,
    bundle: Path,
    inputs: Sequence[Path] = (),
    out: Path | None = None,
    engines: Sequence[str] = (),
    typed: Sequence[str] = (),
) -> int:
    """Run ``boardfit WORD...`` on a board, and fetch what it wrote.

    Args:
        address: ``ssh://user@host[:port]`` or ``adb://serial``.
        words: The subcommand and its arguments as they would stand here. Where one is the bundle, one of
            ``inputs`` or ``out``, it is replaced by that path on the board.
        bundle: Is sent.
        inputs: More files and folders that are sent.
        out: File or folder that the command writes: it is fetched to this path if the command made it.
        engines: Those that are needed; none for any one that runs the bundle, ``all`` for all of them.
        typed: What the user typed, for reports; ``words`` if empty.

    Returns:
        The command's exit status. Its output appears here line by line.

    Raises:
        RemoteError: The board cannot be reached, lacks what cannot be sent, or was lost.
        BundleError: The bundle is damaged.
    """
    from boardfit.boards.remote import connect

    able = _engine_needs(bundle)
    for path in (bundle, *inputs):
        if not path.exists():
            raise RemoteError(f"{path} is not there: a board is sent files and folders, and no patterns")
    with connect(address) as remote:
        prepared = _prepare(remote, able, engines)
        there = {str(path): _send(remote, number, path) for number, path in enumerate([bundle, *inputs])}
        if out is not None:
            there[str(out)] = f"out/{out.name}"
            remote.run(["mkdir", "-p", "out"])
        forwarded = {name: os.environ[name] for name in _FORWARDED if name in os.environ}
        done = remote.run(
            prepared.words(*(_replace(word, there) for word in words)),
            env={**prepared.env, **forwarded, _TYPED: json.dumps(typed or words)},
            on_line=lambda line: print(line, flush=True),
            on_note=_note,
        )
        if out is not None and remote.run(["test", "-e", there[str(out)]]).status == 0:
            remote.pull(there[str(out)], out)
            _note(f"fetched {out}")
    return done.status


def _prepare(remote: Remote, able: Sequence[Need], engines: Sequence[str]) -> Prepared:
    """Send what the board lacks: of the engines those that are named, or one of the able, or all of them."""
    from boardfit.boards.remote.session import prepare

    named = [need for name in engines if name != ALL for need in _named_engine(name)]
    return prepare(
        remote,
        needs=[*_base_needs(), *named],
        engines=able if not engines or ALL in engines else [],
        every_engine=ALL in engines,
        on_note=_note,
    )


def _send(remote: Remote, number: int, path: Path) -> str:
    from boardfit.boards.remote.session import send

    # A folder of its own each, so that two of the same name do not meet.
    return str(send(remote, path, f"in/{number}/{path.name or 'folder'}", on_note=_note))


def _note(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _base_needs() -> list[Need]:
    from boardfit.boards.remote.wheels import Need
    from boardfit.cli.needs import requirements

    wanted = requirements()
    return [
        Need("numpy", wanted["numpy"], "python3-numpy"),
        Need("cv2", wanted["opencv-python-headless"], "python3-opencv"),
    ]


def _engine_needs(bundle: Path) -> list[Need]:
    """Return the libraries of the engines that run a bundle, the best first.

    Raises:
        BundleError: The bundle is damaged.
    """
    from boardfit.bundle import open_bundle
    from boardfit.runtime.engines import engine_classes

    with open_bundle(bundle) as opened:
        formats = {artifact.format for artifact in opened.manifest.artifacts}
    classes = engine_classes()
    return [need for name in _SENT if formats & set(classes[name].formats) for need in _named_engine(name)]


def _named_engine(name: str) -> list[Need]:
    """Return the library of an engine; none for one that needs none, such as OpenCV's own."""
    from boardfit.boards.remote.wheels import Need
    from boardfit.cli.needs import engine_requirements

    base = name.partition(":")[0]
    if base not in _SENT:
        return []
    return [Need(module, wanted) for module, wanted in engine_requirements(base).items()]


def _replace(word: str, there: Mapping[str, str]) -> str:
    """Return a word with a path of this machine replaced by the board's, also one stuck to its option."""
    if word[:1] == "-" and word[1:2].isalpha():  # -oPATH
        return word[:2] + (_replace(word[2:].removeprefix("="), there) if word[2:] else "")
    option, equals, value = word.partition("=")
    if option.startswith("--") and equals:
        return f"{option}={_replace(value, there)}"
    return there.get(str(Path(word)), word)
