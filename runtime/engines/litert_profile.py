"""LiteRT's own profiler, through the C interface of its library: its Python one does not reach it.

The functions and records are those of ``litert/c`` in google-ai-edge/LiteRT on GitHub: ``litert_profiler.h``,
``litert_profiler_event.h``, ``litert_compiled_model.h``, ``litert_layout.h``. It runs the file as a compiled
model, which computes with the same XNNPACK kernels as the interpreter of ``LiteRTEngine``.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from boardfit.errors import EngineError
from boardfit.runtime.engines import missing
from boardfit.runtime.engines.layers import LayerProfile, profile_of
from boardfit.specs import Artifact

_CPU = 1
_FLOAT32 = 1
_WRITE = 1
_OPERATOR, _INSIDE = 2, 8
"""Events of an operator, and of one inside a delegate such as XNNPACK."""
_FIRST = ctypes.c_size_t(0)
_MOST_AXES = 8
_NEEDED = ("LiteRtCompiledModelGetProfiler", "LiteRtGetProfilerEvents", "LiteRtCreateOpaqueOptions")
_TOO_OLD = "this LiteRT has no profiler that can be reached: install a newer ai-edge-litert"


class _Layout(ctypes.Structure):
    _fields_ = (
        ("rank", ctypes.c_uint32, 7),
        ("has_strides", ctypes.c_uint32, 1),
        ("dimensions", ctypes.c_int32 * _MOST_AXES),
        ("strides", ctypes.c_uint32 * _MOST_AXES),
    )


class _TensorType(ctypes.Structure):
    _fields_ = (("element", ctypes.c_int32), ("layout", _Layout))


class _Event(ctypes.Structure):
    _fields_ = (
        ("tag", ctypes.c_char_p),
        ("type", ctypes.c_int),
        ("start_us", ctypes.c_uint64),
        ("elapsed_us", ctypes.c_uint64),
        ("memory", ctypes.c_size_t * 6),
        ("index", ctypes.c_uint64),
        ("more", ctypes.c_uint64),
        ("source", ctypes.c_int),
    )


def profile(
    artifact: Artifact,
    files: Mapping[str, bytes],
    threads: int,
    *,
    feeds: Mapping[str, np.ndarray],
    runs: int,
    warmup: int,
) -> LayerProfile:
    """Run an artifact with the profiler on; see ``Engine``.

    Raises:
        EngineMissing: LiteRT is not installed.
        EngineError: This LiteRT has no profiler, or refuses the file or the profile.
    """
    if len(feeds) != 1:
        raise EngineError(
            f"{artifact.name} has {len(feeds)} inputs: LiteRT's profile is of nets with one image"
        )
    with ExitStack() as stack:
        model = _Model(stack, files[artifact.files[0]], threads)
        model.take(next(iter(feeds.values())), len(artifact.outputs))
        for _ in range(warmup):
            model.run()
        return profile_of([model.profiled_run() for _ in range(runs)])


class _Model:
    """A compiled model with its tensors; freed by the stack that it was given."""

    def __init__(self, stack: ExitStack, data: bytes, threads: int) -> None:
        self._library = _library()
        self._stack = stack
        self._data = ctypes.create_string_buffer(data, len(data))  # must live as long as the model
        self._environment = self._made("Environment", "CreateEnvironment", 0, None)
        source = self._made(
            "Model", "CreateModelFromBuffer", self._environment, self._data, ctypes.c_size_t(len(data))
        )
        options = self._made("Options", "CreateOptions")
        self._call("SetOptionsHardwareAccelerators", options, _CPU)
        self._add(options, "runtime_options_string", "enable_profiling = true\n")
        self._add(options, "xnnpack", f"num_threads = {threads}\n")
        self._model = self._made("CompiledModel", "CreateCompiledModel", self._environment, source, options)
        self._profiler = ctypes.c_void_p()
        self._call("CompiledModelGetProfiler", self._model, ctypes.byref(self._profiler))
        if not self._profiler:
            raise EngineError(_TOO_OLD)

    def take(self, image: np.ndarray, outputs: int) -> None:
        """Make the tensors: one input, with the shape and the values of (1, S, S, 3) float32, and outputs."""
        dims = (ctypes.c_int * image.ndim)(*image.shape)
        axes = ctypes.c_size_t(image.ndim)
        self._call("CompiledModelResizeInputTensorNonStrict", self._model, _FIRST, _FIRST, dims, axes)
        layouts = (_Layout * outputs)()
        count, settle = ctypes.c_size_t(outputs), ctypes.c_bool(True)
        self._call("GetCompiledModelOutputTensorLayouts", self._model, _FIRST, count, layouts, settle)
        layout = _Layout()
        self._call("GetCompiledModelInputTensorLayout", self._model, _FIRST, _FIRST, ctypes.byref(layout))
        self._in = (ctypes.c_void_p * 1)(self._tensor("Input", 0, layout).value)
        made = [self._tensor("Output", index, each).value for index, each in enumerate(layouts)]
        self._out = (ctypes.c_void_p * outputs)(*made)
        address = ctypes.c_void_p()
        self._call("LockTensorBuffer", ctypes.c_void_p(self._in[0]), ctypes.byref(address), _WRITE)
        values = np.ascontiguousarray(image, np.float32)
        ctypes.memmove(address, values.ctypes.data, values.nbytes)
        self._call("UnlockTensorBuffer", ctypes.c_void_p(self._in[0]))

    def run(self) -> None:
        """Run once."""
        ins, outs = ctypes.c_size_t(len(self._in)), ctypes.c_size_t(len(self._out))
        self._call("RunCompiledModel", self._model, _FIRST, ins, self._in, outs, self._out)

    def profiled_run(self) -> tuple[float, list[tuple[str, str, float]]]:
        """Return the seconds of a run, and the index, kind and seconds of each of its layers."""
        self._call("ResetProfiler", self._profiler)
        self._call("StartProfiler", self._profiler)
        begin = perf_counter()
        self.run()
        whole_s = perf_counter() - begin
        self._call("StopProfiler", self._profiler)
        count = ctypes.c_int()
        self._call("GetNumProfilerEvents", self._profiler, ctypes.byref(count))
        events = (_Event * count.value)()
        self._call("GetProfilerEvents", self._profiler, count, events)
        inside = any(event.type == _INSIDE for event in events)
        layers = [
            (str(event.index), event.tag.decode(errors="replace"), 1e-6 * event.elapsed_us)
            for event in events
            # The delegate as a whole is an operator too.
            if event.type == _INSIDE or (event.type == _OPERATOR and not (inside and b"elegate" in event.tag))
        ]
        return whole_s, layers

    def _tensor(self, side: str, index: int, layout: _Layout) -> ctypes.c_void_p:
        needs = ctypes.c_void_p()
        name = f"GetCompiledModel{side}BufferRequirements"
        self._call(name, self._model, _FIRST, ctypes.c_size_t(index), ctypes.byref(needs))
        kind = ctypes.byref(_TensorType(_FLOAT32, layout))
        make = "CreateManagedTensorBufferFromRequirements"
        return self._made("TensorBuffer", make, self._environment, kind, needs)

    def _add(self, options: ctypes.c_void_p, name: str, text: str) -> None:
        """Add options as LiteRT's own wrappers do: a name, and TOML that it frees."""
        c = ctypes.CDLL(None)
        c.strdup.restype = ctypes.c_void_p
        copied = ctypes.c_void_p(c.strdup(text.encode()))
        made = ctypes.c_void_p()
        self._call("CreateOpaqueOptions", name.encode(), copied, c.free, ctypes.byref(made))
        self._call("AddOpaqueOptions", options, made)

    def _made(self, kind: str, name: str, *arguments: object) -> ctypes.c_void_p:
        """Return a new object, which the stack destroys."""
        made = ctypes.c_void_p()
        self._call(name, *arguments, ctypes.byref(made))
        self._stack.callback(getattr(self._library, f"LiteRtDestroy{kind}"), made)
        return made

    def _call(self, name: str, *arguments: object) -> None:
        status = getattr(self._library, f"LiteRt{name}")(*arguments)
        if status != 0:
            raise EngineError(f"LiteRT's profiler failed: {name} gave status {status}")


def _library() -> Any:
    try:
        import ai_edge_litert
    except ImportError as error:
        raise missing("litert", "ai-edge-litert", "litert", error) from error
    try:
        library = ctypes.CDLL(str(Path(str(ai_edge_litert.__file__)).with_name("libLiteRt.so")))
        for name in _NEEDED:
            getattr(library, name)
    except (OSError, AttributeError) as error:
        raise EngineError(f"{_TOO_OLD} ({error})") from error
    return library
