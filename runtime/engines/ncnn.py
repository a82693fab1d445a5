"""ncnn models (.param and .bin) on ncnn's CPU path."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import numpy as np

from boardfit.errors import EngineError
from boardfit.runtime.engines import missing, owned_float32
from boardfit.runtime.engines.ncnn_stores import check_length
from boardfit.specs import Artifact


class NcnnEngine:
    """One net; a batch runs image by image, since ncnn has no batch axis."""

    formats: ClassVar[tuple[str, ...]] = ("ncnn",)
    libraries: ClassVar[tuple[str, ...]] = ("ncnn",)

    def __init__(self, artifact: Artifact, files: Mapping[str, bytes], threads: int) -> None:
        self._artifact = artifact
        self._net: Any = open_net(artifact, files, threads)
        import ncnn

        self._ncnn: Any = ncnn

    def run(self, feeds: Mapping[str, np.ndarray]) -> Sequence[np.ndarray]:
        """Run once; see ``Engine.run``."""
        if self._net is None:
            raise EngineError(f"{self._artifact.name} is closed: load it again")
        batch = len(next(iter(feeds.values())))
        rows = [self._run_one({name: array[i] for name, array in feeds.items()}) for i in range(batch)]
        if batch == 1:
            return [array[None] for array in rows[0]]
        return [np.stack(arrays) for arrays in zip(*rows, strict=True)]

    def close(self) -> None:
        """Free the net."""
        self._net = None

    def _run_one(self, image: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        extractor = self._net.create_extractor()
        for name, array in image.items():
            # A copy: a Mat that borrows numpy's memory is not aligned as ncnn demands, and a first
            # layer that works in place wrote into the array, or crashed (Keras' MobileNetV3).
            mat = self._ncnn.Mat(owned_float32(array)).clone()
            self._check(extractor.input(name, mat), "take the input", name)
        arrays = []
        for spec in self._artifact.outputs:
            status, mat = extractor.extract(spec.name)
            self._check(status, "make the output", spec.name)
            array = np.array(mat, dtype=np.float32)
            shape = spec.shape[1:]
            # ncnn keeps an axis of one here and there, which no other engine has.
            known = None not in shape and array.size == math.prod(extent or 0 for extent in shape)
            arrays.append(array.reshape([extent or 0 for extent in shape]) if known else array)
        return arrays

    def _check(self, status: int, did: str, tensor: str) -> None:
        if status != 0:
            raise EngineError(
                f"ncnn could not {did} {tensor!r} of {self._artifact.name} (status {status}): "
                f"the names in the manifest must be blobs of the .param"
            )


def open_net(artifact: Artifact, files: Mapping[str, bytes], threads: int) -> Any:
    """Return an artifact as an ``ncnn.Net`` that computes on the CPU.

    ncnn's half-precision options are on by default and cost three digits on x86-64 (1.1e-3 against 6e-6 on
    a small net) and on ARM. Only an fp16 artifact leaves them to ncnn: what was measured of an int8 one
    must hold on a board that computes in half precision too. int8 kernels are on by default.

    Args:
        artifact: The artifact.
        files: Its bytes, by path inside the bundle.
        threads: Threads that ncnn uses.

    Raises:
        EngineMissing: ncnn is not installed.
        EngineError: ncnn refuses one of the files.
    """
    try:
        import ncnn
    except ImportError as error:
        raise missing("ncnn", "ncnn", "ncnn", error) from error
    net: Any = ncnn.Net()
    net.opt.num_threads = threads
    net.opt.use_vulkan_compute = False
    if artifact.precision != "fp16":
        for option in ("fp16_packed", "fp16_storage", "fp16_arithmetic", "bf16_storage"):
            setattr(net.opt, f"use_{option}", False)
    param, weights = (files[path] for path in artifact.files[:2])
    try:
        text = param.decode("ascii")
    except UnicodeDecodeError as error:
        raise EngineError(f"the .param of {artifact.name} is no text: build the bundle again") from error
    check_length(text, weights, artifact.name)
    status = net.load_param_mem(text)
    if status != 0:
        raise EngineError(
            f"ncnn refused the .param of {artifact.name} (status {status}): build the bundle again"
        )
    # ncnn reads past the end of a short buffer in memory, but notices the end of a file.
    with _as_file(weights) as path:
        status = net.load_model(path)
    if status != 0:
        raise EngineError(
            f"ncnn refused the .bin of {artifact.name} (status {status}): build the bundle again"
        )
    return net


@contextmanager
def _as_file(data: bytes) -> Iterator[str]:
    """Lend the path of a file with these bytes that nobody else can change."""
    if hasattr(os, "memfd_create"):
        with os.fdopen(os.memfd_create("boardfit"), "wb") as file:
            file.write(data)
            file.flush()
            yield f"/proc/self/fd/{file.fileno()}"
    else:
        with tempfile.NamedTemporaryFile() as file:
            file.write(data)
            file.flush()
            yield file.name
