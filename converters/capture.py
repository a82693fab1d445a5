"""Catch what foreign converters print, so that a build's own output stays readable.

TensorFlow and pnnx write to the file descriptors, below Python's ``sys.stdout``.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def captured_output() -> Iterator[list[str]]:
    """Send file descriptors 1 and 2 into a temporary file while the block runs.

    Yields:
        A list that holds the captured text, as its only item, once the block has ended.
    """
    text: list[str] = []
    sys.stdout.flush()
    sys.stderr.flush()
    saved = [os.dup(1), os.dup(2)]
    with tempfile.TemporaryFile() as sink:
        try:
            os.dup2(sink.fileno(), 1)
            os.dup2(sink.fileno(), 2)
            yield text
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for number, copy in zip((1, 2), saved, strict=True):
                os.dup2(copy, number)
                os.close(copy)
            sink.seek(0)
            text.append(sink.read().decode(errors="replace"))
