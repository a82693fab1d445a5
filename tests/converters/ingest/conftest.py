from __future__ import annotations

import os
import warnings
from pathlib import Path

import numpy as np
import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

pytest.importorskip("keras", reason="the [convert] extra is not installed")

from boardfit.converters.model import SourceRequest
from boardfit.specs import ImageSpec

NETS = Path(__file__).with_name("torch_nets.py")


@pytest.fixture
def request_for():
    """Make a SourceRequest for a source and some sizes."""

    def make(source, *sizes, **options):
        spec = ImageSpec(mean=(127.0,) * 3, std=(64.0,) * 3)
        return SourceRequest(source=str(source), sizes=sizes or (32,), image=spec, **options)

    return make


@pytest.fixture
def torch_source():
    """Name a factory of torch_nets.py."""
    pytest.importorskip("torch", reason="torch is not installed")
    return lambda factory: f"{NETS}:{factory}"


@pytest.fixture
def export_torch(tmp_path, torch_source):
    """Export a net of torch_nets.py to ONNX: fixed to a size, or with free height and width."""
    import torch

    from boardfit.converters.ingest.torch import load_factory, size_parameter

    def export(factory, size=32, *, free=False, opset=17):
        build, _ = load_factory(torch_source(factory))
        parameter = size_parameter(build)
        net = build(**({parameter: size} if parameter else {}))
        path = tmp_path / f"{factory}-{size}.onnx"
        axes = {"image": {0: "n", 2: "h", 3: "w"}} if free else None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                net,
                (torch.zeros(1, 3, size, size),),
                str(path),
                dynamo=False,
                opset_version=opset,
                training=torch.onnx.TrainingMode.PRESERVE,
                do_constant_folding=False,
                input_names=["image"],
                output_names=["scores"],
                dynamic_axes=axes,
            )
        return path

    return export


@pytest.fixture
def save_onnx(tmp_path):
    """Write a small ONNX model: nodes from x to y, constants by name."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    def save(
        nodes,
        consts=None,
        *,
        shape=(1, 3, 32, 32),
        opset=17,
        name="net",
        inputs=("x",),
        outputs=("y",),
        dtype=TensorProto.FLOAT,
    ):
        graph = helper.make_graph(
            nodes,
            name,
            [helper.make_tensor_value_info(item, dtype, list(shape)) for item in inputs],
            [helper.make_tensor_value_info(item, TensorProto.FLOAT, None) for item in outputs],
            [numpy_helper.from_array(np.asarray(value), key) for key, value in (consts or {}).items()],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
        path = tmp_path / f"{name}.onnx"
        onnx.save_model(model, str(path))
        return path

    return save


@pytest.fixture
def difference():
    """Largest relative difference of a TrainedModel's net and its reference on two seeded images."""
    from boardfit.converters.ingest.check import max_relative_difference, outputs_of, random_images

    def measure(model, size):
        images = random_images(size, model.image, count=2, seed=size)
        pairs = zip(outputs_of(model.net, images), model.reference(images), strict=True)
        return max(max_relative_difference(actual, expected) for actual, expected in pairs)

    return measure
