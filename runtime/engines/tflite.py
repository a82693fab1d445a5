"""TFLite files on tflite-runtime, for boards that LiteRT has no wheels for. It needs numpy < 2."""

from __future__ import annotations

from typing import Any, ClassVar

from boardfit.runtime.engines import missing
from boardfit.runtime.engines.litert import LiteRTEngine


class TfliteEngine(LiteRTEngine):
    """The interpreter of LiteRT under its old name."""

    libraries: ClassVar[tuple[str, ...]] = ("tflite_runtime",)
    label: ClassVar[str] = "tflite-runtime"
    profile: ClassVar[Any] = None  # its library has no functions that would tell

    @classmethod
    def interpreter_module(cls) -> Any:
        """Import the module that holds ``Interpreter`` and ``load_delegate``."""
        try:
            from tflite_runtime import interpreter
        except ImportError as error:
            raise missing("tflite", "tflite-runtime", "tflite", error) from error
        return interpreter
