"""Where a training's checkpoint and log lie, and what they belong to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from boardfit.converters.compress.checkpoint import (
    Position,
    fingerprint,
    load_checkpoint,
    log_failed,
    save_checkpoint,
    write_log,
)
from boardfit.converters.compress.events import write_events
from boardfit.converters.compress.images import ImageSet
from boardfit.errors import CompressError

if TYPE_CHECKING:
    from boardfit.converters.compress.train import Phase, Training


class Keeper:
    """Knows where the checkpoint and the log lie, and what they belong to."""

    def __init__(self, model: Any, settings: Training, phases: Sequence[Phase], images: ImageSet) -> None:
        self.settings = settings
        self._model = model
        about = {
            **settings.settings(),
            "phases": [asdict(phase) for phase in phases],
            "model": model.settings(),
            "images": images.checksum(),
        }
        self._belongs_to = fingerprint(self._variables(), about)

    @property
    def path(self) -> Path | None:
        """Path of the checkpoint."""
        return None if self.settings.folder is None else self.settings.folder / "checkpoint.npz"

    def load(self) -> Position:
        """Return where to begin, and bring the variables there."""
        if self.path is None:
            return Position()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if not self.settings.resume or not self.path.is_file():
            return Position()
        return load_checkpoint(self.path, self._variables(), belongs_to=self._belongs_to)

    def save(self, position: Position) -> None:
        """Write the checkpoint, and the log of complete epochs.

        Raises:
            CompressError: It cannot be written, or the weights are not finite: the loss of a step is that
                before its update, so that the last step of all would not be noticed.
        """
        if not all(np.isfinite(values).all() for values in map(np.asarray, self._model.weights)):
            raise CompressError(
                f"the weights are not finite in epoch {position.epoch + (position.step > 0)}: the training "
                f"is stopped{self.kept()}; lower the learning rate"
            )
        if self.path is None:
            return
        save_checkpoint(self.path, self._variables(), position=position, belongs_to=self._belongs_to)
        write_log(self.path.with_name("log.csv"), position.history)
        try:
            write_events(self.path.parent, position.history)
        except OSError as error:
            raise log_failed(self.path.parent, error) from error

    def kept(self) -> str:
        """Return where the last good state lies, as the end of a sentence; nothing if there is none."""
        return f"; {self.path} holds the last good state" if self.path and self.path.exists() else ""

    def _variables(self) -> list[Any]:
        return [*self._model.variables, *self._model.optimizer.variables]
