"""ONNX files on OpenCV's own network module (cv2.dnn), which is there wherever boardfit runs.

From OpenCV 5 on, whose importer takes free extents: 4.11 refuses a file whose batch and size are free. It
pads "same" otherwise than ONNX says where a stride meets an even side: EfficientNet-Lite0 answered wrongly at
224 and rightly at 225 (5.0.0). So it refuses such files, and serves by name only: prove the others with
``boardfit verify --engine opencv``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import cv2
import numpy as np

from boardfit.errors import EngineError, EngineMissing
from boardfit.runtime.engines import owned_float32
from boardfit.specs import Artifact

FIRST_VERSION = 5


class OpenCvEngine:
    """One net; the shape of the input may change from run to run.

    OpenCV has one pool of threads in a process, which resizes the frames too: ``threads`` leaves it as it is.
    """

    formats: ClassVar[tuple[str, ...]] = ("onnx",)
    by_name_only: ClassVar[bool] = True

    def __init__(self, artifact: Artifact, files: Mapping[str, bytes], threads: int) -> None:  # noqa: ARG002
        self._artifact = artifact
        if not self.is_usable():
            raise EngineMissing(
                f"engine 'opencv' needs OpenCV 5, this is {cv2.__version__}: pip install -U "
                "opencv-python-headless, or pip install 'boardfit[onnx]' for ONNX Runtime"
            )
        if any(word in files[artifact.files[0]] for word in (b"SAME_UPPER", b"SAME_LOWER")):
            raise EngineError(
                f"OpenCV refused {artifact.name}: it pads 'same' otherwise than ONNX says, and would answer "
                "wrongly; use onnxruntime"
            )
        try:
            buffer = np.frombuffer(files[artifact.files[0]], np.uint8)
            self._net: Any = cv2.dnn.readNetFromONNX(buffer)
        except Exception as error:
            raise EngineError(f"OpenCV refused {artifact.name}: {_sentence(error)}") from error
        if self._net.empty():
            raise EngineError(f"OpenCV found no net in {artifact.name}: build the bundle again")

    @classmethod
    def is_usable(cls) -> bool:
        """Return whether this OpenCV reads nets of free size."""
        return int(cv2.__version__.partition(".")[0]) >= FIRST_VERSION

    def run(self, feeds: Mapping[str, np.ndarray]) -> Sequence[np.ndarray]:
        """Run once; see ``Engine.run``."""
        if self._net is None:
            raise EngineError(f"{self._artifact.name} is closed: load it again")
        names = {spec.name for spec in self._artifact.inputs}
        if set(feeds) != names:
            raise EngineError(f"{self._artifact.name} wants the inputs {sorted(names)}, not {sorted(feeds)}")
        try:
            for name, array in feeds.items():
                self._net.setInput(owned_float32(array), name)
            outputs = self._net.forward([spec.name for spec in self._artifact.outputs])
        except Exception as error:
            raise EngineError(f"OpenCV failed on {self._artifact.name}: {_sentence(error)}") from error
        return [np.array(array, np.float32) for array in outputs]

    def close(self) -> None:
        """Free the net."""
        self._net = None


def _sentence(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
