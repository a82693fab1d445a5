"""What a long measurement has finished, on disk, so that an interruption costs one step at most."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from boardfit.benchmarks.tuning import write_json
from boardfit.errors import ReportError

JOURNAL_SCHEMA = 20261130


class Journal:
    """Steps by name, written after each. Without a path it forgets all."""

    def __init__(self, path: Path | None, subject: Mapping[str, Any]) -> None:
        """Take over what an interrupted measurement of the same subject has left.

        Args:
            path: The file; it need not be there.
            subject: JSON values. Where the file's differ, it is of another measurement, and starts anew.
        """
        self.resumed = 0
        self._path = path
        self._subject = json.loads(json.dumps(subject))
        self._steps: dict[str, Any] = {}
        try:
            found = json.loads(path.read_text(encoding="utf-8")) if path is not None else {}
            if found.get("schema") == JOURNAL_SCHEMA and found.get("subject") == self._subject:
                self._steps = dict(found["steps"])
                self.resumed = len(self._steps)
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
            pass  # There is none, or it is damaged: what it held is measured again.

    def get(self, name: str, of: Sequence[str]) -> Any:
        """Return what a step found; None where it was not taken with just these candidates."""
        step = self._steps.get(name)
        if not isinstance(step, Mapping) or step.get("of") != list(of):
            return None
        return step.get("found")

    def put(self, name: str, of: Sequence[str], found: Any) -> None:
        """Keep what a step found.

        Raises:
            ReportError: It cannot be written.
        """
        self._steps[name] = {"of": list(of), "found": found}
        self.check()

    def check(self) -> None:
        """Write what there is; raise ReportError now if the file cannot be written later."""
        if self._path is not None:
            write_json(self._path, {"schema": JOURNAL_SCHEMA, "subject": self._subject, "steps": self._steps})

    def remove(self) -> None:
        """Delete the file: all is done."""
        if self._path is not None:
            try:
                self._path.unlink(missing_ok=True)
            except OSError as error:
                raise ReportError(f"cannot remove {self._path}: {error.strerror}") from error
