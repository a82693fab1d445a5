"""ONNX files on ONNX Runtime's CPU provider."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from boardfit.errors import EngineError
from boardfit.runtime.engines import indices_by_name, missing, owned_float32
from boardfit.specs import Artifact


class OnnxRuntimeEngine:
    """One session; batch and spatial size are free in the file."""

    formats: ClassVar[tuple[str, ...]] = ("onnx",)
    libraries: ClassVar[tuple[str, ...]] = ("onnxruntime",)

    def __init__(self, artifact: Artifact, files: Mapping[str, bytes], threads: int) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise missing("onnxruntime", "onnxruntime", "onnx", error) from error
        self._name = artifact.name
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            self._session: Any = onnxruntime.InferenceSession(
                files[artifact.files[0]], sess_options=options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # its exceptions share no base but Exception
            raise EngineError(f"ONNX Runtime refused {artifact.name}: {error}") from error
        self._inputs = self._match(artifact.inputs, self._session.get_inputs(), "input")
        self._outputs = self._match(artifact.outputs, self._session.get_outputs(), "output")

    def run(self, feeds: Mapping[str, np.ndarray]) -> Sequence[np.ndarray]:
        """Run once; see ``Engine.run``."""
        if self._session is None:
            raise EngineError(f"{self._name} is closed: load it again")
        try:
            renamed = {self._inputs[name]: array for name, array in feeds.items()}
            arrays = self._session.run(list(self._outputs.values()), renamed)
        except Exception as error:  # its exceptions share no base but Exception
            raise EngineError(f"ONNX Runtime failed on {self._name}: {error}") from error
        return [owned_float32(array) for array in arrays]

    def close(self) -> None:
        """Free the session."""
        self._session = None

    def _match(self, specs: Sequence[Any], details: Sequence[Any], what: str) -> dict[str, str]:
        names = [spec.name for spec in specs]
        places = indices_by_name(names, [detail.name for detail in details])
        if places is None:
            raise EngineError(
                f"{self._name} has the {what}s {[detail.name for detail in details]}: "
                f"its manifest expects {names}. Build the bundle again"
            )
        return {name: details[place].name for name, place in zip(names, places, strict=True)}
