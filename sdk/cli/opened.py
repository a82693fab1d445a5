"""A model as a command opens it: quietly, and warm."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from boardfit.cli.quiet import quiet_engines

if TYPE_CHECKING:
    from boardfit.runtime.model import Model


@contextmanager
def opened(
    load: Callable[[], Model], *, given: Mapping[str, Any] | None = None, quiet: bool = True
) -> Iterator[Model]:
    """Load a model, look once at each size, and close it at the end.

    So an engine's first run does not count among the frames, or make one late.

    Args:
        load: Loads it.
        given: What it takes besides a frame.
        quiet: Whether what its libraries write on stderr as they start is kept back.
    """
    import numpy as np

    grey = np.full((240, 320, 3), 127, np.uint8)
    with ExitStack() as stack:
        with quiet_engines() if quiet else nullcontext():
            model = load()
            stack.callback(_close, model)
            for size in model.sizes:
                model.look(grey, size, inputs=given)
        yield model


def _close(model: Model) -> None:
    with quiet_engines():
        model.close()
