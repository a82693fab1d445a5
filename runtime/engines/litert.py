"""TFLite files on LiteRT (or on tflite-runtime, where a board has nothing newer)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from boardfit.errors import EngineError
from boardfit.runtime.engines import indices_by_name, missing, owned_float32
from boardfit.specs import Artifact


class LiteRTEngine:
    """One interpreter, resized when the shape of the input changes."""

    formats: ClassVar[tuple[str, ...]] = ("tflite",)
    libraries: ClassVar[tuple[str, ...]] = ("ai_edge_litert", "tflite_runtime")
    slow_resize: ClassVar[bool] = True

    def __init__(self, artifact: Artifact, files: Mapping[str, bytes], threads: int) -> None:
        interpreter_class = _interpreter_class()
        self._name = artifact.name
        try:
            self._interpreter: Any = interpreter_class(
                model_content=files[artifact.files[0]], num_threads=threads
            )
            inputs = self._interpreter.get_input_details()
            outputs = self._interpreter.get_output_details()
        except (RuntimeError, ValueError) as error:
            raise EngineError(f"LiteRT refused {artifact.name}: {error}") from error
        self._inputs = self._match(artifact.inputs, inputs, "input")
        self._outputs = self._match(artifact.outputs, outputs, "output")
        self._shapes: dict[str, tuple[int, ...]] = {}

    def run(self, feeds: Mapping[str, np.ndarray]) -> Sequence[np.ndarray]:
        """Run once; see ``Engine.run``."""
        if self._interpreter is None:
            raise EngineError(f"{self._name} is closed: load it again")
        try:
            shapes = {name: array.shape for name, array in feeds.items()}
            if shapes != self._shapes:
                self._resize(shapes)
            for name, array in feeds.items():
                self._interpreter.set_tensor(self._inputs[name], array)
            self._interpreter.invoke()
            # get_tensor copies: the arrays outlive the next run.
            return [owned_float32(self._interpreter.get_tensor(i)) for i in self._outputs.values()]
        except (RuntimeError, ValueError, KeyError) as error:
            self._shapes = {}
            raise EngineError(f"LiteRT failed on {self._name}: {error}") from error

    def close(self) -> None:
        """Free the interpreter."""
        self._interpreter = None

    def _resize(self, shapes: dict[str, tuple[int, ...]]) -> None:
        for name, shape in shapes.items():
            self._interpreter.resize_tensor_input(self._inputs[name], shape)
        self._interpreter.allocate_tensors()
        self._shapes = shapes

    def _match(self, specs: Sequence[Any], details: list[dict[str, Any]], what: str) -> dict[str, int]:
        names = [spec.name for spec in specs]
        places = indices_by_name(names, [detail["name"] for detail in details])
        if places is None:
            raise EngineError(
                f"{self._name} has the {what}s {[detail['name'] for detail in details]}: "
                f"its manifest expects {names}. Build the bundle again"
            )
        return {name: details[place]["index"] for name, place in zip(names, places, strict=True)}


def _interpreter_class() -> Any:
    try:
        from ai_edge_litert.interpreter import Interpreter

        return Interpreter
    except ImportError as error:
        try:
            from tflite_runtime.interpreter import Interpreter as OldInterpreter  # type: ignore[import-not-found]
        except ImportError:
            raise missing("litert", "ai-edge-litert", "litert", error) from error
        return OldInterpreter
