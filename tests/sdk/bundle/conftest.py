from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from boardfit.specs import Artifact, ImageSpec, TensorSpec, classic_policy


def artifact(format_name: str, precision: str, sizes: tuple[int, ...], *files: str) -> Artifact:
    return Artifact(
        format=format_name,
        precision=precision,
        sizes=sizes,
        files=files,
        inputs=(TensorSpec("image", (None, None, None, 3), layout="NHWC"),),
        outputs=(TensorSpec("scores", (None, 3), activation="softmax"),),
    )


@pytest.fixture
def parts() -> dict[str, Any]:
    """Arguments of write_bundle for a bundle of made-up files."""
    return {
        "name": "tiny",
        "labels": ("cat", "dog", "bîrd"),
        "image": ImageSpec(),
        "policy": classic_policy("entropy", (32, 48, 64)),
        "artifacts": (
            artifact("tflite", "fp32", (32, 48, 64), "models/tflite-fp32.tflite"),
            artifact("ncnn", "fp16", (32, 48), "models/ncnn-fp16.param", "models/ncnn-fp16.bin"),
        ),
        "files": {
            "models/tflite-fp32.tflite": bytes(range(64)),
            "models/ncnn-fp16.param": b"7767517\n",
            "models/ncnn-fp16.bin": b"\0" * 40,
        },
        "golden_frame": np.arange(60, dtype=np.uint8).reshape(4, 5, 3),
        "golden_outputs": {size: [np.full((1, 3), size / 100, np.float32)] for size in (32, 48, 64)},
        "recipe": {"schema": 1, "export": {"sizes": [32, 48, 64]}},
        "tools": {"boardfit": "0.1.0"},
        "measurements": {"schema": 1, "machine": "test", "parity": [], "times": []},
    }
