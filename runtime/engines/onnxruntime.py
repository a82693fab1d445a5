"""ONNX files on ONNX Runtime: on the CPU, or on another execution provider that is named.

``onnxruntime:cuda`` asks for one (https://onnxruntime.ai/docs/execution-providers/). Only the CPU's was run;
the others are written from that documentation, not run on hardware. What one does not know runs on the CPU.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from boardfit.errors import EngineError, EngineMissing
from boardfit.runtime.engines import indices_by_name, missing, owned_float32
from boardfit.specs import Artifact

if TYPE_CHECKING:
    from boardfit.runtime.engines.layers import LayerProfile

PROVIDERS: Mapping[str, tuple[str, str]] = {
    "cuda": ("CUDAExecutionProvider", "pip install onnxruntime-gpu, on a machine with CUDA and cuDNN"),
    "tensorrt": ("TensorrtExecutionProvider", "on a Jetson take NVIDIA's onnxruntime-gpu, with TensorRT"),
    "nnapi": ("NnapiExecutionProvider", "Android only: build ONNX Runtime with --use_nnapi"),
    "xnnpack": ("XnnpackExecutionProvider", "build ONNX Runtime with --use_xnnpack"),
}
"""By the name behind the colon: ONNX Runtime's name, and how to come by it."""


class OnnxRuntimeEngine:
    """One session; batch and spatial size are free in the file."""

    formats: ClassVar[tuple[str, ...]] = ("onnx",)
    libraries: ClassVar[tuple[str, ...]] = ("onnxruntime",)
    variants: ClassVar[tuple[str, ...]] = tuple(PROVIDERS)
    variant: ClassVar[str] = ""
    profile_prefix: ClassVar[str] = ""

    def __init__(self, artifact: Artifact, files: Mapping[str, bytes], threads: int) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise missing("onnxruntime", "onnxruntime", "onnx", error) from error
        self._name = artifact.name
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        # Planned for one shape: with it, a change of size took 3 % of a run, and no run gained by it.
        options.enable_mem_pattern = False
        options.log_severity_level = 3
        if self.profile_prefix:
            options.enable_profiling = True
            options.profile_file_prefix = self.profile_prefix
        wanted = self._providers(onnxruntime, threads)
        try:
            self._session: Any = onnxruntime.InferenceSession(
                files[artifact.files[0]], sess_options=options, providers=wanted
            )
        except Exception as error:  # its exceptions share no base but Exception
            raise EngineError(f"ONNX Runtime refused {artifact.name}: {error}") from error
        if self.variant and PROVIDERS[self.variant][0] not in self._session.get_providers():
            # It goes on without a provider that does not start, and says so in its log only.
            raise EngineMissing(f"{PROVIDERS[self.variant][0]} does not start here: {self._advice()}")
        self._inputs = self._match(artifact.inputs, self._session.get_inputs(), "input")
        self._outputs = self._match(artifact.outputs, self._session.get_outputs(), "output")

    @classmethod
    def with_variant(cls, variant: str) -> type[OnnxRuntimeEngine]:
        """Return the engine on another execution provider.

        Args:
            variant: Among ``PROVIDERS``.

        Raises:
            EngineMissing: There is no such provider.
        """
        if variant not in PROVIDERS:
            raise EngineMissing(
                f"there is no provider {variant!r} for onnxruntime: expected one of {', '.join(PROVIDERS)}, "
                "or onnxruntime alone for the CPU"
            )
        return type(cls.__name__, (cls,), {"variant": variant})

    @classmethod
    def profile(
        cls,
        artifact: Artifact,
        files: Mapping[str, bytes],
        threads: int,
        *,
        feeds: Mapping[str, np.ndarray],
        runs: int,
        warmup: int,
    ) -> LayerProfile:
        """Run an artifact layer by layer; see ``Engine``."""
        from boardfit.runtime.engines.onnxruntime_profile import profile

        return profile(cls, artifact, files, threads, feeds=feeds, runs=runs, warmup=warmup)

    def end_profiling(self) -> str:
        """Return the path of what the profiler wrote, where ``profile_prefix`` asked for it."""
        return str(self._session.end_profiling())

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

    def _providers(self, onnxruntime: Any, threads: int) -> list[Any]:
        """Return the providers to ask for, the CPU last, or raise EngineMissing."""
        if not self.variant:
            return ["CPUExecutionProvider"]
        name = PROVIDERS[self.variant][0]
        known = onnxruntime.get_available_providers()
        if name not in known:
            raise EngineMissing(
                f"engine 'onnxruntime:{self.variant}' needs {name}, and this ONNX Runtime has "
                f"{', '.join(known)}: {self._advice()}"
            )
        options = {"intra_op_num_threads": str(threads)} if self.variant == "xnnpack" else {}
        return [(name, options), "CPUExecutionProvider"]

    def _advice(self) -> str:
        return f"{PROVIDERS[self.variant][1]}, or use another engine"

    def _match(self, specs: Sequence[Any], details: Sequence[Any], what: str) -> dict[str, str]:
        names = [spec.name for spec in specs]
        places = indices_by_name(names, [detail.name for detail in details])
        if places is None:
            raise EngineError(
                f"{self._name} has the {what}s {[detail.name for detail in details]}: "
                f"its manifest expects {names}. Build the bundle again"
            )
        return {name: details[place].name for name, place in zip(names, places, strict=True)}
