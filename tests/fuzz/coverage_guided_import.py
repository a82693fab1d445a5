"""Fuzz the ONNX importer with atheris, which steers by the lines that an input reaches.

Usage: python tests/fuzz/coverage_guided_import.py [-max_total_time=S] [CORPUS_FOLDER]
       (libFuzzer's options: https://llvm.org/docs/LibFuzzer.html#options)

Needs atheris: pip install 'boardfit[fuzz]'. It begins with corpus/net.onnx. What takes more memory than the
child process that reads models has counts as refused.
"""

from __future__ import annotations

import os
import resource
import sys
from contextlib import suppress
from itertools import count

import atheris

os.environ["KERAS_BACKEND"] = "numpy"
with atheris.instrument_imports(include=["boardfit.converters.ingest"]):
    import boardfit.converters.ingest.onnx_convert  # noqa: F401

import keras
from targets import CORPUS, import_onnx, scratch

from boardfit.errors import BoardfitError

MEMORY_BYTES = 4 << 30
RUNS_BETWEEN_CLEANING = 200
PATH = scratch() / "net.onnx"
RUNS = count(1)


def one_input(data: bytes) -> None:
    PATH.write_bytes(data)
    with suppress(BoardfitError, MemoryError):
        import_onnx(PATH)
    if next(RUNS) % RUNS_BETWEEN_CLEANING == 0:
        keras.backend.clear_session()


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_BYTES, MEMORY_BYTES))
    seeds = scratch()
    (seeds / "net.onnx").write_bytes((CORPUS / "net.onnx").read_bytes())
    # libFuzzer's own limit counts what libraries only reserve.
    atheris.Setup([*sys.argv, str(seeds), "-rss_limit_mb=0", "-max_len=8192", "-timeout=60"], one_input)
    atheris.Fuzz()
