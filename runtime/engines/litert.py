"""TFLite files on LiteRT, and on an accelerator through a delegate that is named by its path.

``litert:/usr/lib/libvx_delegate.so`` loads a delegate. None was run on hardware: this is written from the
documentation, https://ai.google.dev/edge/litert/performance/delegates and that of ``load_delegate``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from boardfit.errors import EngineError, EngineMissing
from boardfit.runtime.engines import Engine, indices_by_name, missing, owned_float32
from boardfit.specs import Artifact

if TYPE_CHECKING:
    from boardfit.runtime.engines.layers import LayerProfile


class LiteRTEngine:
    """One interpreter, resized when the shape of the input changes."""

    formats: ClassVar[tuple[str, ...]] = ("tflite",)
    libraries: ClassVar[tuple[str, ...]] = ("ai_edge_litert",)
    slow_resize: ClassVar[bool] = True
    label: ClassVar[str] = "LiteRT"
    variant: ClassVar[str] = ""

    def __init__(self, artifact: Artifact, files: Mapping[str, bytes], threads: int) -> None:
        module = self.interpreter_module()
        self._name = artifact.name
        delegates = [_load_delegate(module, self.variant)] if self.variant else None
        try:
            self._interpreter: Any = module.Interpreter(
                model_content=files[artifact.files[0]],
                num_threads=threads,
                experimental_delegates=delegates,
            )
            inputs = self._interpreter.get_input_details()
            outputs = self._interpreter.get_output_details()
        except Exception as error:  # what its bindings raise has no common base: MemoryError is among it
            raise EngineError(f"{self.label} refused {artifact.name}: {error}") from error
        self._inputs = self._match(artifact.inputs, inputs, "input")
        self._outputs = self._match(artifact.outputs, outputs, "output")
        self._shapes: dict[str, tuple[int, ...]] = {}

    @classmethod
    def with_variant(cls, variant: str) -> type[LiteRTEngine]:
        """Return the engine with a delegate.

        Args:
            variant: Path of the delegate's shared library.

        Raises:
            EngineMissing: There is no such file.
        """
        if not Path(variant).is_file():
            raise EngineMissing(
                f"there is no delegate {variant!r}: expected the path of a shared library, as in "
                "litert:/usr/lib/libvx_delegate.so; install what came with the accelerator"
            )
        return type(cls.__name__, (cls,), {"variant": variant})

    @classmethod
    def first_of_several(cls, artifact: Artifact, files: Mapping[str, bytes], threads: int) -> Engine:
        """Return an engine whose siblings share its packed weights, or a plain one where that cannot be."""
        if cls is not LiteRTEngine:  # another library, or a delegate that packs for itself
            return cls(artifact, files, threads)
        from boardfit.runtime.engines.litert_sharing import CannotShare, SharingEngine

        try:
            return SharingEngine(artifact, files, threads)
        except CannotShare:
            return cls(artifact, files, threads)

    @classmethod
    def interpreter_module(cls) -> Any:
        """Import the module that holds ``Interpreter`` and ``load_delegate``."""
        try:
            from ai_edge_litert import interpreter
        except ImportError as error:
            raise missing("litert", "ai-edge-litert", "litert", error) from error
        return interpreter

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
        from boardfit.runtime.engines.litert_profile import profile

        if cls.variant:
            raise EngineError("only LiteRT's own kernels tell what each layer takes: leave out the delegate")
        return profile(artifact, files, threads, feeds=feeds, runs=runs, warmup=warmup)

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
        except Exception as error:  # see above
            self._shapes = {}
            raise EngineError(f"{self.label} failed on {self._name}: {error}") from error

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


def _load_delegate(module: Any, path: str) -> Any:
    try:
        return module.load_delegate(path)
    except Exception as error:  # OSError, ValueError or RuntimeError, by what went wrong in the library
        raise EngineMissing(
            f"the delegate {path} cannot be loaded ({error}): it is another kind of library, or its "
            "accelerator or driver is not there"
        ) from error
