"""Write a .tflite of 768 bytes that never ends: a While whose condition is a constant.

Usage: python benchmarks/evidence/endless.py OUT.tflite
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

SIZE = 32


def endless_tflite() -> bytes:
    """Return the model: image (1, 32, 32, 3) float32 -> scores of the same shape, in principle."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    floats, bools = schema.TensorType.FLOAT32, schema.TensorType.BOOL
    loop = _set(schema.WhileOptionsT(), condSubgraphIndex=1, bodySubgraphIndex=2)
    while_options = schema.BuiltinOptions.WhileOptions
    shape = (1, SIZE, SIZE, 3)

    def tensor(name: str, dims: tuple[int, ...], kind: int, buffer: int = 0) -> Any:
        return _set(schema.TensorT(), name=name, shape=_ints(*dims), type=kind, buffer=buffer)

    def graph(tensors: list[Any], *operators: Any) -> Any:
        ends = {"inputs": _ints(0), "outputs": _ints(1)}
        return _set(schema.SubGraphT(), tensors=tensors, operators=list(operators), **ends)

    def operator(code: int, **options: Any) -> Any:
        ends = {"inputs": _ints(0), "outputs": _ints(1)}
        return _set(schema.OperatorT(), opcodeIndex=code, **ends, **options)

    images = [tensor("image", shape, floats), tensor("scores", shape, floats)]
    codes = [
        _set(schema.OperatorCodeT(), builtinCode=code, deprecatedBuiltinCode=code, version=1)
        for code in (schema.BuiltinOperator.WHILE, schema.BuiltinOperator.ABS)
    ]
    model = _set(
        schema.ModelT(),
        version=3,
        operatorCodes=codes,
        buffers=[schema.BufferT(), _set(schema.BufferT(), data=np.array([1], np.uint8))],
        subgraphs=[
            graph(images, operator(0, builtinOptionsType=while_options, builtinOptions=loop)),
            graph([images[0], tensor("true", (1,), bools, buffer=1)]),
            graph(images, operator(1)),
        ],
    )
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def write_endless_bundle(out: Path) -> None:
    """Write a bundle of this one model."""
    from boardfit.bundle import write_bundle
    from boardfit.specs import Artifact, ImageSpec, PolicySpec, TensorSpec

    shape = (1, SIZE, SIZE, 3)
    artifact = Artifact(
        format="tflite",
        precision="fp32",
        sizes=(SIZE,),
        files=("model/endless.tflite",),
        inputs=(TensorSpec("image", shape, layout="NHWC"),),
        outputs=(TensorSpec("scores", shape, activation="none"),),
    )
    write_bundle(
        out,
        name="endless",
        labels=(),
        image=ImageSpec(),
        policy=PolicySpec("fixed", (SIZE,)),
        artifacts=(artifact,),
        files={"model/endless.tflite": endless_tflite()},
    )


def _set(record: Any, **fields: Any) -> Any:
    for name, value in fields.items():
        assert hasattr(record, name), name
        setattr(record, name, value)
    return record


def _ints(*values: int) -> np.ndarray:
    return np.array(values, np.int32)


if __name__ == "__main__":
    Path(sys.argv[1]).write_bytes(endless_tflite())
