"""ncnn through pnnx, which reads the simplified ONNX.

pnnx drops what it does not know with a line "ignore ..." and exit status 0: its output is read here,
and every number is compared afterwards by the parity gate.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from boardfit.converters.model import TrainedModel
from boardfit.converters.targets import Exported, file_stem, input_specs
from boardfit.converters.targets.onnx import onnx_graph
from boardfit.converters.targets.onnx import require_tools as require_onnx_tools
from boardfit.converters.targets.onnx_axes import with_few_axes
from boardfit.errors import ExportError, ToolMissing
from boardfit.specs import Artifact, TensorSpec

TIMEOUT_S = 600.0
_PARAM_MAGIC = "7767517"
_BATCHED_RESHAPE = re.compile(r'^(Reshape .*) 12=0 13=0 6="(.+),0n"$', re.MULTILINE)
_MANY_AXES = re.compile(r"[5-9]-rank .*not (supported|possible)|^ignore Tensor\.reshape", re.MULTILINE)
"""pnnx takes some tensors of five axes, a channel shuffle's among them, and says so of the others."""


def require_tools() -> None:
    """Raise ToolMissing unless pnnx and what the onnx format needs are installed."""
    require_onnx_tools()
    _pnnx()


def export(model: TrainedModel, *, sizes: tuple[int, ...], precision: str) -> Exported:
    """Export to a .param and a .bin file. ``fp16`` stores the weights in half; see ``targets.export``."""
    side = sizes[0] if len(sizes) == 1 else None
    graph = onnx_graph(model, side)
    inputs = input_specs(model, size=side, layout="NCHW")
    param, weights = convert_onnx(
        graph.SerializeToString(deterministic=True), sizes, half=precision == "fp16", further=inputs[1:]
    )
    names = {
        **{f"in{i}": spec.name for i, spec in enumerate(inputs)},
        **{f"out{i}": spec.name for i, spec in enumerate(model.outputs)},
    }
    stem = file_stem("ncnn", precision=precision, sizes=sizes)
    artifact = Artifact(
        format="ncnn",
        precision=precision,
        sizes=sizes,
        files=(f"{stem}.param", f"{stem}.bin"),
        inputs=inputs,
        outputs=model.outputs,
    )
    text = without_batch(rename_blobs(param, names))
    return Exported(artifact=artifact, files={f"{stem}.param": text.encode(), f"{stem}.bin": weights})


def rename_blobs(param: str, names: dict[str, str]) -> str:
    """Return the text of a .param file with blobs renamed.

    A line is: type, name, number of inputs, number of outputs, inputs, outputs, parameters
    (https://github.com/Tencent/ncnn/wiki/param-and-model-file-structure).

    Raises:
        ExportError: The text is not a .param file, lacks a blob that is to be renamed, or has a layer that
            ncnn has not.
    """
    lines = param.splitlines()
    if not lines or lines[0].strip() != _PARAM_MAGIC:
        raise ExportError("pnnx wrote no ncnn .param file: its first line is not 7767517")
    missing = set(names)
    renamed = lines[:2]
    for line in lines[2:]:
        words = line.split()
        if len(words) < 4:
            continue
        if "." in words[0]:
            # pnnx writes what it knows, and ncnn has not, under PyTorch's name: F.softsign, torch.roll.
            raise ExportError(
                f"ncnn has no layer for {words[0]}: build without ncnn (leave it out of --formats), or "
                "change that layer"
            )
        end = 4 + int(words[2]) + int(words[3])
        missing -= set(words[4:end])
        words[4:end] = [names.get(word, word) for word in words[4:end]]
        renamed.append(" ".join(words))
    if missing:
        raise ExportError(f"pnnx dropped {', '.join(sorted(missing))} of the graph: expected {sorted(names)}")
    return "\n".join(renamed) + "\n"


def without_batch(param: str) -> str:
    """Return the text of a .param whose Reshapes do not speak of the batch, which is always one.

    pnnx 20261020 writes the batch as a Reshape's last extent, ``0n``. The ncnn of that day reads it; older
    ones, its last complete source package and its wheel for Python 3.8 among them, refuse the file.
    """

    def plain(match: re.Match[str]) -> str:
        extents = re.sub(r"\b0n\b", "1", match[2])
        return f'{match[1]} 6="{extents}"'

    return _BATCHED_RESHAPE.sub(plain, param)


def convert_onnx(
    onnx_bytes: bytes, sizes: tuple[int, ...], *, half: bool, further: Sequence[TensorSpec] = ()
) -> tuple[str, bytes]:
    """Run pnnx.

    Args:
        onnx_bytes: A model whose first input is an NCHW image.
        sizes: Sides in pixels, ascending; one binds it.
        half: Whether weights are stored in half precision.
        further: Its other inputs, in its order.

    Returns:
        The text of .param, and the bytes of .bin.

    Raises:
        ExportError: pnnx failed, or dropped a part of the graph.
    """
    # Two shapes make pnnx leave height and width free.
    shapes = [
        ",".join([f"[1,3,{size},{size}]", *(_shape_word(spec, size) for spec in further)])
        for size in (sizes[-1], sizes[0])
    ]
    options = [f"fp16={int(half)}", f"inputshape={shapes[0]}"]
    if len(sizes) > 1:
        options.append(f"inputshape2={shapes[1]}")
    done = _run_pnnx(onnx_bytes, options)
    if len(sizes) == 1 and _MANY_AXES.search(done.log):
        image = (1, 3, *sizes, *sizes)
        fewer = _with_few_axes(onnx_bytes, [image, *(_shape(spec, sizes[0]) for spec in further)])
        done = done if fewer is None else _run_pnnx(fewer, options)
    _raise_if_dropped(done.log)
    if done.status != 0 or done.param is None or done.weights is None:
        tail = " / ".join(line for line in done.log.splitlines()[-3:] if line.strip())
        raise ExportError(f"pnnx failed with exit status {done.status}: {tail}")
    return done.param, done.weights


@dataclass(frozen=True, slots=True)
class _Run:
    """What pnnx said, and the files that it wrote."""

    status: int
    log: str
    param: str | None
    weights: bytes | None


def _run_pnnx(onnx_bytes: bytes, options: Sequence[str]) -> _Run:
    with tempfile.TemporaryDirectory(prefix="boardfit-") as folder:
        source = Path(folder) / "net.onnx"
        source.write_bytes(onnx_bytes)
        command = [str(_pnnx()), str(source), *options]
        try:
            done = subprocess.run(
                command, cwd=folder, capture_output=True, text=True, errors="replace", timeout=TIMEOUT_S
            )
        except subprocess.TimeoutExpired as error:
            raise ExportError(f"pnnx did not end within {TIMEOUT_S:.0f} s") from error
        param, weights = source.with_suffix(".ncnn.param"), source.with_suffix(".ncnn.bin")
        return _Run(
            status=done.returncode,
            log=done.stdout + done.stderr,
            param=param.read_text() if param.is_file() else None,
            weights=weights.read_bytes() if weights.is_file() else None,
        )


def _with_few_axes(onnx_bytes: bytes, shapes: Sequence[tuple[int, ...]]) -> bytes | None:
    """Return the model without tensors of more than four axes, None where it has none; see ``onnx_axes``."""
    import onnx

    fewer = with_few_axes(onnx.load_from_string(onnx_bytes), shapes)
    return None if fewer is None else bytes(fewer.SerializeToString(deterministic=True))


def _shape(spec: TensorSpec, size: int) -> tuple[int, ...]:
    return (1, 3, size, size) if spec.layout else (1, *(extent or 1 for extent in spec.shape[1:]))


def _shape_word(spec: TensorSpec, size: int) -> str:
    """Return an input's shape as pnnx reads it: ``[1,4]``, or ``[1,4]i64`` where it is of whole numbers."""
    kind = {"int64": "i64", "int32": "i32", "bool": "i8"}.get(spec.dtype, "")
    return f"[{','.join(map(str, _shape(spec, size)))}]{kind}"


def _raise_if_dropped(log: str) -> None:
    dropped = [line.strip() for line in log.splitlines() if line.strip().startswith("ignore ")]
    if dropped:
        raise ExportError(
            f"pnnx does not know a part of the graph and dropped it ({dropped[0]}): "
            "build without ncnn (leave it out of --formats), or change that layer"
        )


def _pnnx() -> Path:
    """Return the converter's binary, which lies in its package: no torch is needed to run it."""
    found = find_spec("pnnx")
    places = [Path(place) for place in (found.submodule_search_locations or [])] if found else []
    for binary in (place / name for place in places for name in ("pnnx", "bin/pnnx")):
        if binary.is_file():
            return binary
    raise ToolMissing(
        "the ncnn format needs pnnx, which is not installed: pip install --no-deps pnnx "
        "(it declares torch, but does not need it)"
    )
