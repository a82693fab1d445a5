"""Numbers that others published, to be shown beside a measurement, never as one of ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import date
from pathlib import Path
from typing import Any

from boardfit.benchmarks.records import Case, Report
from boardfit.errors import ReportError

PUBLISHED_TOML = Path(__file__).with_name("published.toml")


@dataclass(frozen=True, slots=True)
class Published:
    """One number of another's.

    Attributes:
        board: Name of the board's profile.
        model: Name of the net, as its source calls it.
        engine: Name of the engine, as ours are named.
        precision: Of the weights.
        size: Input side in pixels.
        threads: Of the engine.
        value_ms: Milliseconds for one image, network alone unless ``conditions`` say otherwise.
        source: Who says so, for people.
        url: Where.
        published: The day on which it came to stand there.
        conditions: How it was measured, as far as the source tells.
    """

    board: str
    model: str
    engine: str
    precision: str
    size: int
    threads: int
    value_ms: float
    source: str
    url: str
    published: date
    conditions: str

    def __post_init__(self) -> None:
        where = f"{self.model} on {self.board}"
        if not 0.0 < self.value_ms < 1e6 or self.size < 1 or self.threads < 1:
            raise ReportError(f"published number of {where}: value_ms, size and threads must be positive")
        if not self.url.startswith("https://") or not self.source or not self.conditions:
            raise ReportError(
                f"published number of {where}: expected a source, its https address and conditions"
            )

    @property
    def name(self) -> str:
        """What was measured, for people."""
        plural = "" if self.threads == 1 else "s"
        return f"{self.model}, {self.engine} {self.precision} {self.size}, {self.threads} thread{plural}"


def read_published(path: Path = PUBLISHED_TOML) -> tuple[Published, ...]:
    """Read the numbers from a file of TOML: tables ``[[source]]``, each with rows ``[[source.number]]``.

    Args:
        path: Of the file; the one that comes with the package by default.

    Raises:
        ReportError: It cannot be read, or a number lacks a field, or has one too many.
    """
    try:
        import tomllib
    except ImportError:  # Python 3.10
        import tomli as tomllib  # type: ignore[no-redef]
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
        return tuple(
            _published({**{k: v for k, v in source.items() if k != "number"}, **number})
            for source in data["source"]
            for number in source["number"]
        )
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise ReportError(f"published numbers in {path}: {error}") from error


def beside(case: Case, report: Report, known: Sequence[Published]) -> tuple[Published, ...]:
    """Return the numbers of the same board, net, engine, precision, size and threads.

    Args:
        case: What was measured; with several sizes none is like it.
        report: Of the measurement. Nets are the same if their names are, but for case and punctuation.
        known: To choose from.
    """
    if report.environment.emulated or case.batch != 1 or len(case.sizes) != 1:
        return ()
    wanted = (report.environment.board, _plain(report.bundle_name), case.engine, case.precision)
    return tuple(
        each
        for each in known
        if (each.board, _plain(each.model), each.engine, each.precision) == wanted
        and (each.size, each.threads) == (case.sizes[0], case.threads)
    )


def of_board(board: str, known: Sequence[Published]) -> tuple[Published, ...]:
    """Return all numbers of a board, whatever the net."""
    return tuple(each for each in known if each.board == board)


def _published(row: Mapping[str, Any]) -> Published:
    names = {item.name for item in fields(Published)}
    if set(row) != names:
        raise ReportError(f"a number has the fields {sorted(row)}: expected {sorted(names)}")
    return Published(**row)


def _plain(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())
