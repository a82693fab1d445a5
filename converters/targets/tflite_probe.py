"""A .tflite artifact whose inner tensors can be read.

Every tensor is made an output of the graph, so that LiteRT runs the kernels that it runs on a board: told
to keep all tensors instead, it leaves XNNPACK out and takes three times as long.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from boardfit.converters.targets.tflite_view import View, pack
from boardfit.errors import EngineError


class TfliteProbe:
    """One interpreter; see ``quantize.records.Probe``."""

    def __init__(self, view: View, *, name: str, threads: int) -> None:
        """Make every activation an output and load the file.

        Args:
            view: Of the artifact; its graph is changed.
            name: Of the artifact, for errors.
            threads: At least 1.

        Raises:
            EngineError: LiteRT refuses it.
        """
        from ai_edge_litert.interpreter import Interpreter

        self._name = name
        self._input = int(view.graph.inputs[0])
        self._tensors = view.activations()
        self._grids = {place: _grid(view, place) for place in self._tensors.values()}
        outputs = [int(tensor) for tensor in view.graph.outputs]
        given = {int(tensor) for tensor in view.graph.inputs}
        more = [tensor for tensor in self._tensors.values() if tensor not in outputs and tensor not in given]
        view.graph.outputs = [*outputs, *more]
        try:
            self._interpreter: Any = Interpreter(model_content=pack(view.model), num_threads=threads)
            self._interpreter.allocate_tensors()
        except (RuntimeError, ValueError) as error:
            raise EngineError(f"LiteRT refused {name}: {error}") from error

    def run(self, image: np.ndarray) -> Mapping[str, np.ndarray]:
        """Run once and return every inner tensor; see ``quantize.records.Probe``."""
        if self._interpreter is None:
            raise EngineError(f"{self._name} is closed: open the probe again")
        try:
            self._interpreter.set_tensor(self._input, np.ascontiguousarray(image, np.float32))
            self._interpreter.invoke()
            return {name: self._read(place) for name, place in self._tensors.items()}
        except (RuntimeError, ValueError) as error:
            raise EngineError(f"LiteRT failed on {self._name}: {error}") from error

    def close(self) -> None:
        """Free the interpreter."""
        self._interpreter = None

    def _read(self, place: int) -> np.ndarray:
        values: np.ndarray = self._interpreter.get_tensor(place)
        grid = self._grids[place]
        if grid is None:
            return values
        scale, zero = grid
        return (values.astype(np.float32) - zero) * scale


def _grid(view: View, tensor: int) -> tuple[np.float32, np.float32] | None:
    """Return step and zero of an integer tensor, or None of a float one."""
    if view.type_of(tensor) == "FLOAT32":
        return None
    zeros = view.graph.tensors[tensor].quantization.zeroPoint
    zero = zeros[0] if zeros is not None and len(zeros) else 0
    return np.float32(view.scales(tensor)[0]), np.float32(zero)
