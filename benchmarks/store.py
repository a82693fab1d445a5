"""Reports on disk: report.json, all of it or nothing."""

from __future__ import annotations

import json
import os
from pathlib import Path

from boardfit.benchmarks.records import Report
from boardfit.errors import ReportError
from boardfit.files import write_whole

REPORT_JSON = "report.json"

MOST_BYTES = 256 << 20
"""An hour of samples at 1 kHz takes about half of it."""


def write_report(folder: str | os.PathLike[str], report: Report) -> Path:
    """Write ``report.json`` into a folder, which is made if need be; one that is there is replaced.

    Whatever happens meanwhile, a reader finds the whole new file, or what was there before.

    Args:
        folder: Its parent must exist.
        report: To write.

    Returns:
        The path of the file.

    Raises:
        ReportError: It cannot be written.
    """
    text = json.dumps(report.to_dict(), ensure_ascii=False, allow_nan=False) + "\n"
    path = Path(folder) / REPORT_JSON
    write_file(path, text.encode())
    return path


def write_file(path: Path, data: bytes) -> None:
    """Write a file so that it is there whole or not at all; its folder is made if need be.

    Raises:
        ReportError: It cannot be written.
    """
    try:
        path.parent.mkdir(exist_ok=True)
        write_whole(path, data)
    except OSError as error:
        raise ReportError(
            f"cannot write {path} ({error.strerror or error}): make room, or choose another folder"
        ) from error


def read_report(path: str | os.PathLike[str]) -> Report:
    """Read a report.

    Args:
        path: Of a ``report.json``, or of the folder that holds it.

    Raises:
        ReportError: It cannot be read, is cut short or damaged, or is of another schema.
    """
    place = Path(path)
    file = place / REPORT_JSON if place.is_dir() else place
    try:
        if file.stat().st_size > MOST_BYTES:
            raise ReportError(
                f"{file} has more than {MOST_BYTES >> 20} MiB: no report of boardfit is so long"
            )
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise ReportError(
            f"{file} does not exist: give the folder that boardfit bench --out wrote, or its {REPORT_JSON}"
        ) from error
    except OSError as error:
        raise ReportError(
            f"cannot read {file} ({error.strerror or error}): check the path and its permissions"
        ) from error
    except UnicodeDecodeError as error:
        raise ReportError(f"{file} is not text: expected the {REPORT_JSON} of boardfit bench") from error
    try:
        return Report.from_dict(json.loads(text, parse_constant=_no_number))
    except (json.JSONDecodeError, RecursionError) as error:
        raise ReportError(
            f"{file} is cut short or damaged ({error}): fetch it again, or measure again"
        ) from error
    except ReportError as error:
        raise ReportError(f"{file}: {error}") from error


def _no_number(word: str) -> float:
    raise ReportError(f"a damaged report: it holds {word} in place of a number")
