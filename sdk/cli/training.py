"""How far a training is, on the terminal: a bar, or a line now and then where the output goes to a file."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from boardfit.converters.compress.train import Moment

LINE_EVERY_S = 30.0


class TrainingProgress:
    """Told after every step; a context manager, so that the bar ends with the build."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._task: Any = None
        self._told = -LINE_EVERY_S

    def __enter__(self) -> TrainingProgress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, moment: Moment) -> None:
        """Show a moment of the training."""
        if sys.stderr.isatty():
            self._show(moment)
        elif time.monotonic() - self._told >= LINE_EVERY_S or moment.step == moment.steps:
            self._told = time.monotonic()
            print(moment_text(moment), file=sys.stderr, flush=True)

    def _show(self, moment: Moment) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        if self._bar is None:
            columns = BarColumn(bar_width=30), TextColumn("{task.description}")
            self._bar = Progress(*columns, console=Console(stderr=True))
            self._bar.start()
            self._task = self._bar.add_task("", total=moment.epochs * moment.steps)
        done = (moment.epoch - 1) * moment.steps + moment.step
        self._bar.update(self._task, completed=done, description=moment_text(moment))
        if done == moment.epochs * moment.steps:
            self._bar.stop()


def moment_text(moment: Moment) -> str:
    """Return a moment of a training as a line."""
    return (
        f"epoch {moment.epoch}/{moment.epochs} ({moment.phase}), step {moment.step}/{moment.steps}, "
        f"{_means(moment)}, {moment.images_per_s:.0f} images/s, {_duration(moment.left_s)} left"
    )


def _means(moment: Moment) -> str:
    """Return the loss, and the share of right answers where the model counts them."""
    shares = [f"{name} {100 * mean:.1f} %" for name, mean in moment.metrics.items() if name != "loss"]
    return ", ".join([f"loss {moment.loss:.3f}", *shares])


def _duration(seconds: float) -> str:
    if seconds < 90.0:
        return f"{seconds:.0f} s"
    if seconds < 5400.0:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
