"""A folder of results: all of it, or nothing."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from boardfit.errors import ReportError


@contextmanager
def new_folder(out: str | os.PathLike[str] | None) -> Iterator[Path | None]:
    """Give a folder to fill, which takes its place when all went well, and else is gone.

    It is made before the work begins: what cannot be written is told before an hour was spent.

    Args:
        out: Where it shall be; nothing may be there but an empty folder. None for no folder at all.

    Yields:
        The folder to write to.

    Raises:
        ReportError: Something is there, or nothing can be written there.
    """
    if out is None:
        yield None
        return
    require_new(out)
    target = Path(out).absolute()
    try:
        draft = target.with_name(f".{target.name}.{os.urandom(6).hex()}.tmp")
        draft.mkdir()
    except OSError as error:
        raise _unwritable(out, error) from error
    try:
        yield draft
        try:
            draft.rename(target)
        except OSError as error:
            raise _unwritable(out, error) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def require_new(out: str | os.PathLike[str] | None) -> None:
    """Refuse a place where something is.

    Raises:
        ReportError: There is something other than an empty folder, or it cannot be looked at.
    """
    if out is None:
        return
    target = Path(out)
    try:
        if os.path.lexists(target) and not (target.is_dir() and not any(target.iterdir())):
            raise ReportError(f"{out} is there already: choose another place, or remove it")
    except OSError as error:
        raise _unwritable(out, error) from error


def _unwritable(out: str | os.PathLike[str], error: OSError) -> ReportError:
    return ReportError(f"cannot write {out} ({error.strerror or error}): choose another place")
