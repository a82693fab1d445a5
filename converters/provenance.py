"""What a bundle says of its own making, without anything of the machine that made it."""

from __future__ import annotations

import hashlib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from boardfit.converters.model import TrainedModel
from boardfit.converters.recipe import Recipe
from boardfit.specs import QUANTIZED

TOOLS = ("boardfit", "keras", "tensorflow", "tf2onnx", "onnx", "onnxslim", "pnnx", "torch")
QUANTIZERS = {"tflite": ("ai-edge-quantizer",), "onnx": ("onnxruntime",), "ncnn": ("ncnn",)}


def portable(recipe: Recipe, model: TrainedModel) -> dict[str, Any]:
    """Return the recipe without this machine's paths, with a fingerprint of the weights instead."""
    tables = recipe.to_dict()
    source = {
        "model": Path(recipe.source.model).name,
        "torch": recipe.source.torch.rpartition("/")[2],
        "weights_sha256": _weights_sha256(model),
        "assume_same_padding": recipe.source.assume_same_padding,
    }
    kept = {name: tables[name] for name in ("schema", "export", "policy", "parity")}
    if recipe.compresses:
        kept["prune"] = tables["prune"]
        kept["distill"] = {n: v for n, v in tables["distill"].items() if n not in ("folder", "labels")}
        kept["distill"]["teacher"] = Path(recipe.distill.teacher).name
        kept["elastic"] = tables["elastic"]
    if quantized_precisions(recipe):
        kept["quantize"] = {
            name: value for name, value in tables["quantize"].items() if name != "calibration"
        }
        if recipe.distill.folder:
            kept["qat"] = tables["qat"]
    return {**kept, "source": source}


def quantized_precisions(recipe: Recipe) -> tuple[str, ...]:
    """Return those of the recipe's precisions that need calibration or a gate of their own."""
    return tuple(precision for precision in recipe.export.precisions if precision in QUANTIZED)


def _weights_sha256(model: TrainedModel) -> str:
    if model.untouched is not None:
        return hashlib.sha256(model.untouched.data).hexdigest()
    digest = hashlib.sha256()
    for net in (model.nets_by_size or {0: model.net}).values():
        for weight in net.get_weights():
            digest.update(np.ascontiguousarray(weight).tobytes())
    return digest.hexdigest()


def tool_versions(recipe: Recipe) -> dict[str, str]:
    """Return the versions of what took part, by name."""
    names = [name for name in TOOLS if name != "torch" or recipe.source.torch]
    if quantized_precisions(recipe):
        names += [name for format_name in recipe.export.formats for name in QUANTIZERS.get(format_name, ())]
    return {name: found for name in names if (found := _version(name))}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
