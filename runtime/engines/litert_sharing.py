"""Several sizes of one TFLite file on LiteRT, each with an engine of its own, over one copy of the weights.

An interpreter packs its weights for itself: two of them hold the net twice, and each drives the other's copy
out of the processor's caches. ``CompiledModel`` can keep the packed weights in a file that all of its kind
map; here that file is in memory and has no name.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from boardfit.errors import EngineError
from boardfit.runtime.engines import indices_by_name, owned_float32
from boardfit.specs import Artifact, TensorSpec


class CannotShare(Exception):
    """This LiteRT, system or file does not let engines share; one of its own still runs the file."""


class _PackedWeights:
    """The nameless file of packed weights of one model; gone with the last engine that has it.

    Attributes:
        path: Of the file, for this process alone.
        environment: LiteRT's, which its models share too.
    """

    def __init__(self) -> None:
        if not hasattr(os, "memfd_create"):
            raise CannotShare("this system has no memory file")
        self._file = os.memfd_create("packed-weights", os.MFD_CLOEXEC)
        self.path = f"/proc/self/fd/{self._file}"
        self.environment = _environment()

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            os.close(self._file)


class SharingEngine:
    """A compiled model at one size, resized when the shape of the input changes."""

    formats: ClassVar[tuple[str, ...]] = ("tflite",)

    def __init__(
        self,
        artifact: Artifact,
        files: Mapping[str, bytes],
        threads: int,
        *,
        like: SharingEngine | None = None,
    ) -> None:
        """Load an artifact; see ``Engine``.

        Args:
            artifact: What the file is.
            files: Contents by path.
            threads: Threads for one run.
            like: An engine of the same file, whose packed weights serve this one too.

        Raises:
            CannotShare: LiteRT is too old, or the file has no signature with the artifact's tensors.
        """
        self._artifact = artifact
        self._files = files
        self._threads = threads
        self._weights: _PackedWeights = like._weights if like is not None else _PackedWeights()
        self._model: Any = _compiled(files[artifact.files[0]], threads, self._weights)
        try:
            self._signature = self._model.get_signature_by_index(0)["key"]
            inputs = self._model.get_input_tensor_details(self._signature)
            outputs = self._model.get_output_tensor_details(self._signature)
        except Exception as error:  # what its bindings raise has no common base
            raise CannotShare(f"no signature: {error}") from error
        self._inputs = _places(artifact.inputs, inputs)
        self._outputs = _places(artifact.outputs, outputs)
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._in: list[Any] = []
        self._out: list[Any] = []

    def sibling(self) -> SharingEngine:
        """Return another engine for the same file over the same weights."""
        try:
            return SharingEngine(self._artifact, self._files, self._threads, like=self)
        except CannotShare as error:
            raise EngineError(f"LiteRT refused {self._artifact.name} for a further size: {error}") from error

    def run(self, feeds: Mapping[str, np.ndarray]) -> Sequence[np.ndarray]:
        """Run once; see ``Engine.run``."""
        if self._model is None:
            raise EngineError(f"{self._artifact.name} is closed: load it again")
        try:
            shapes = {name: array.shape for name, array in feeds.items()}
            if shapes != self._shapes:
                self._resize(shapes)
            for name, array in feeds.items():
                self._in[self._inputs[name]].write(array)
            self._model.run_by_index(0, self._in, self._out)
            details = list(self._model.get_output_tensor_details(self._signature).values())
            return [_read(self._out[place], details[place]) for place in self._outputs.values()]
        except Exception as error:  # see above
            self._shapes = {}
            raise EngineError(f"LiteRT failed on {self._artifact.name}: {error}") from error

    def close(self) -> None:
        """Free the model; the weights go with the last of the engines that share them."""
        self._model = None
        self._in, self._out = [], []
        self._shapes = {}

    def _resize(self, shapes: dict[str, tuple[int, ...]]) -> None:
        for name, shape in shapes.items():
            self._model.resize_input_tensor(self._inputs[name], list(shape), 0, strict=False)
        self._in = self._model.create_input_buffers(0)
        self._out = self._model.create_output_buffers(0)
        self._shapes = shapes


def _environment() -> Any:
    nowhere = "/nonexistent"  # to look for accelerators in: each that is found costs time and memory
    try:
        from ai_edge_litert.environment import Environment

        return Environment.create(
            runtime_path=nowhere, compiler_plugin_path=nowhere, dispatch_library_path=nowhere
        )
    except Exception as error:  # ImportError and TypeError of an older one; its bindings' have no common base
        raise CannotShare(str(error)) from error


def _compiled(model: bytes, threads: int, weights: _PackedWeights) -> Any:
    try:
        from ai_edge_litert.compiled_model import CompiledModel
        from ai_edge_litert.options import CpuOptions, Options

        cpu = CpuOptions(num_threads=threads, xnnpack_weight_cache_path=weights.path)
        return CompiledModel.from_buffer(
            model, environment=weights.environment, options=Options(cpu_options=cpu)
        )
    except Exception as error:  # as above
        raise CannotShare(str(error)) from error


def _places(specs: Sequence[TensorSpec], details: Mapping[str, Mapping[str, Any]]) -> dict[str, int]:
    names = [spec.name for spec in specs]
    found = indices_by_name(names, [detail["name"] for detail in details.values()])
    if found is None:
        found = indices_by_name(names, list(details))
    if found is None:
        raise CannotShare(f"the signature has {list(details)}, the manifest expects {names}")
    return dict(zip(names, found, strict=True))


def _read(buffer: Any, detail: Mapping[str, Any]) -> np.ndarray:
    shape = tuple(detail["shape"])
    return owned_float32(buffer.read(math.prod(shape), detail["dtype"]).reshape(shape))
