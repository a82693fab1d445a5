"""The child process of ``guard``: reads one model file within limits; its exit status says how that went."""

from __future__ import annotations

import json
import math
import os
import resource
import sys
import traceback
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from boardfit.converters.ingest.guard import FITS, OTHER_FAULT, TOO_LARGE, UNDECIDED
from boardfit.converters.model import SourceRequest
from boardfit.specs import ImageSpec

USUAL_SIDE = 224
TENSORS_AT_ONCE = 8
"""Of the size of the largest one: a forward pass with a few images must fit into the limit as well."""

OUT_OF_MEMORY = (
    "bad_alloc",
    "bad allocation",
    "allocate memory",
    "unable to allocate",
    "out of memory",
    "oom when",
)
"""What libraries say where they get none."""


def main() -> int:
    """Read the order from stdin, and the file that it names.

    Returns:
        FITS; TOO_LARGE where memory ran out; OTHER_FAULT where the file is refused for another reason;
        UNDECIDED where only a whole import can tell.
    """
    order = json.loads(sys.stdin.buffer.read())
    given = order["request"]
    image = ImageSpec.from_dict(given["image"])
    request = SourceRequest(**{**given, "image": image, "sizes": tuple(given["sizes"]), "labels": ()})
    try:
        if order["kind"] == "onnx":
            _read_onnx(request, order["memory_bytes"])
        elif order["kind"] == "tflite":
            _read_tflite(request, order["memory_bytes"])
        elif order["whole"]:
            _import_whole(request, order["memory_bytes"])
        else:
            return _read_keras(request, order["memory_bytes"])
    except Exception as error:
        traceback.print_exc()
        return TOO_LARGE if _is_memory(error) else OTHER_FAULT
    return FITS


def limit_memory(memory_bytes: int) -> None:
    """Let this process take so much more memory than it has now, and write no core file."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    taken = next(
        (
            int(line.split()[1]) << 10
            for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines()
            if line.startswith("VmData:")
        ),
        0,
    )
    # Private writable memory (Linux 4.7): RLIMIT_AS would count what libraries only reserve.
    resource.setrlimit(resource.RLIMIT_DATA, (taken + memory_bytes,) * 2)


def _read_keras(request: SourceRequest, memory_bytes: int) -> int:
    """Load the file, and follow the shapes at the largest size."""
    # Keras' NumPy backend starts three times as fast as TensorFlow's, but needs jax.
    os.environ["KERAS_BACKEND"] = "numpy" if find_spec("jax") is not None else "tensorflow"
    import keras

    limit_memory(memory_bytes)
    from boardfit.converters.ingest.keras_file import load_keras_file
    from boardfit.converters.ingest.reference import frame_place

    try:
        model = load_keras_file(Path(request.source))
        side = max(request.sizes, default=USUAL_SIDE)
        own = [axis for axis in model.inputs[frame_place(model)].shape[1:3] if axis is not None]
        numbers = largest_tensor(keras, model, max([side, *own]))
    except Exception as error:
        if _is_memory(error):
            raise
        traceback.print_exc()
        return UNDECIDED
    return FITS if numbers * 4 * TENSORS_AT_ONCE <= memory_bytes else TOO_LARGE


def largest_tensor(keras: Any, model: Any, side: int) -> int:
    """Return how many numbers the largest tensor has for one image; nothing is computed.

    Args:
        keras: The module.
        model: keras.Model.
        side: Of the image, in pixels; an axis that the model fixes keeps its extent.
    """
    from boardfit.converters.ingest.keras_rebuild import symbols, walk

    largest = 0

    def call(operation: Any, *args: Any, **options: Any) -> Any:
        nonlocal largest
        options.pop("training", None)
        outputs = operation.compute_output_spec(*args, **options)
        for tensor in keras.tree.flatten(outputs):
            largest = max(largest, math.prod(axis or 1 for axis in tensor.shape))
        return outputs

    tensors = [
        keras.KerasTensor((1, *(axis or side for axis in tensor.shape[1:])), dtype=tensor.dtype)
        for tensor in symbols(model, side, batch=1)
    ]
    walk(model, tensors, call)
    return largest


def _import_whole(request: SourceRequest, memory_bytes: int) -> None:
    """Import as the parent will."""
    from boardfit.converters.frameworks import load_frameworks

    load_frameworks()
    limit_memory(memory_bytes)
    from boardfit.converters.ingest import keras as importer

    importer.ingest(replace(request, sizes=request.sizes or (USUAL_SIDE,)))


def _read_onnx(request: SourceRequest, memory_bytes: int) -> None:
    """Read the file, fold its graph at every size, and run it once at the largest."""
    import numpy as np
    import onnx  # noqa: F401
    import onnxruntime  # noqa: F401

    from boardfit.converters.ingest.check import random_further
    from boardfit.converters.ingest.onnx import fold, onnx_reference
    from boardfit.converters.ingest.onnx_file import read_onnx, with_size

    limit_memory(memory_bytes)
    source = read_onnx(Path(request.source))
    own = source.size or max(request.sizes, default=USUAL_SIDE)
    reference = onnx_reference(source, with_size(source, own), batch_axes=[0] * len(source.outputs))
    specs = [item.spec for item in source.further]
    reference(np.zeros((1, own, own, 3), np.float32), random_further(specs, own, ImageSpec()))
    for size in (own, *(() if request.assume_same_padding else request.sizes)):
        fold(source, size)


def _read_tflite(request: SourceRequest, memory_bytes: int) -> None:
    """Load the file, and run it once."""
    from ai_edge_litert.interpreter import Interpreter

    limit_memory(memory_bytes)
    interpreter = Interpreter(model_content=Path(request.source).read_bytes(), num_threads=1)
    interpreter.allocate_tensors()
    interpreter.invoke()


def _is_memory(error: BaseException | None) -> bool:
    """Return whether an error says, itself or through its cause, that memory ran out."""
    while error is not None:
        text = str(error).lower()
        if isinstance(error, MemoryError) or any(word in text for word in OUT_OF_MEMORY):
            return True
        error = error.__cause__ or error.__context__
    return False


if __name__ == "__main__":
    raise SystemExit(main())
