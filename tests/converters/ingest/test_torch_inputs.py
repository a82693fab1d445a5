"""PyTorch nets that take more than an image, from factories that say what ``forward`` takes."""

from pathlib import Path

import numpy as np
import pytest

from boardfit.converters.ingest import ingest
from boardfit.converters.ingest.check import (
    TOLERANCE,
    max_relative_difference,
    outputs_of,
    random_further,
    random_images,
)
from boardfit.errors import UnsupportedModel

torch = pytest.importorskip("torch", reason="torch is not installed")

NETS = Path(__file__).with_name("torch_input_nets.py")


def net_of(factory):
    return f"{NETS}:{factory}"


def by_torch(net, count, feeds):
    """Ask a net of the factory's own image by image, and return its answers in order.

    Args:
        net: torch.nn.Module.
        count: Number of images.
        feeds: Of a row: arrays by name.
    """
    from boardfit.converters.ingest.torch import flat_outputs

    with torch.no_grad():
        rows = [
            [item.numpy() for item in flat_outputs(net(**{k: torch.from_numpy(v) for k, v in fed.items()}))]
            for fed in map(feeds, range(count))
        ]
    return [np.concatenate(parts) for parts in zip(*rows, strict=True)]


def factory_of(source):
    from boardfit.converters.ingest.torch import load_factory

    return load_factory(source)[0]


def worst(actual, expected):
    return max(max_relative_difference(a, b) for a, b in zip(actual, expected, strict=True))


def planar(images, row):
    return np.ascontiguousarray(images[row : row + 1].transpose(0, 3, 1, 2))


def test_two_images_numbers_and_a_vector_without_a_batch(request_for):
    source = net_of("pair")
    model = ingest(request_for(source, 32, 48, task="raw"))
    assert [(spec.name, spec.shape, spec.dtype, spec.layout) for spec in model.further] == [
        ("left", (None, None, None, 3), "float32", "NHWC"),
        ("box", (None, 4), "float32", ""),
        ("scale", (None, 2), "int64", ""),
    ]
    assert [spec.name for spec in model.outputs] == ["box_out", "scores"]
    assert model.fixed_size is None
    assert "the frame is the source's input 'right'" in model.notes[-1]
    rng = np.random.default_rng(2)
    for size in (32, 48):
        images = random_images(size, model.image, count=3, seed=size)
        left = random_images(size, model.image, count=3, seed=size + 1)
        box = rng.uniform(-1, 1, (3, 4)).astype(np.float32)
        scale = np.asarray([[1, 2], [3, 4], [0, 1]])

        def feeds(row, images=images, left=left, box=box, scale=scale):
            named = {"right": planar(images, row), "left": planar(left, row)}
            return {**named, "box": box[row : row + 1], "scale": scale[row]}

        expected = by_torch(factory_of(source)(size)[0], 3, feeds)
        further = (left, box, scale.astype(np.float32))
        for answers in (model.reference(images, further), outputs_of(model.net, images, further)):
            assert worst(answers, expected) <= 1e-5
        # Exchanged images are told apart.
        swapped = outputs_of(model.net, left, (images, *further[1:]))
        assert worst(swapped[1:], expected[1:]) > 1e-2


def test_channels_last_without_a_size_parameter(request_for):
    source = net_of("channels_last")
    model = ingest(request_for(source, 24, 40))
    images = random_images(40, model.image, count=2)
    (tilt,) = random_further(model.further, 40, model.image, count=2)

    def feeds(row):
        return {"photo": images[row : row + 1], "tilt": tilt[row : row + 1]}

    expected = by_torch(factory_of(source)()[0], 2, feeds)
    assert worst(outputs_of(model.net, images, (tilt,)), expected) <= TOLERANCE
    assert worst(model.reference(images, (tilt,)), expected) <= TOLERANCE


@pytest.mark.parametrize(
    ("factory", "sizes", "message"),
    [
        ("another_side", (32,), r"'more' .*a second image must have the sides of the first, 32"),
        ("doubles", (32,), r"'more' .*expected FLOAT, INT32, INT64 or BOOL"),
        ("two_images_a_time", (32,), r"'image' the example \[2, 3, 32, 32\]: expected a batch of one"),
        ("grid", (32, 48), r"more \[1, 32, 32\] at 32 pixels and image, more \[1, 48, 48\] at 48"),
        ("idle", (32,), "nothing in idle reads its input 'more'"),
        ("no_frame", (32,), "'box' .*expected one FLOAT image"),
        ("other_names", (32,), "cannot be exported.*unexpected keyword argument 'picture'"),
        ("list_of_examples", (32,), r"a net and list: expected .* a dict of example tensors"),
        ("no_examples", (32,), "a net and an empty dict: expected"),
        ("no_tensor", (32,), "'more' the example list: expected"),
    ],
)
def test_inputs_that_cannot_be_given_are_refused_by_name(factory, sizes, message, request_for):
    with pytest.raises(UnsupportedModel, match=message):
        ingest(request_for(net_of(factory), *sizes))


def test_a_net_of_two_inputs_without_examples_is_told_how(request_for, tmp_path):
    path = tmp_path / "bare.py"
    path.write_text(BARE)
    with pytest.raises(UnsupportedModel, match="returns it with a dict of example tensors"):
        ingest(request_for(f"{path}:net", 32))


BARE = """
import torch

class Two(torch.nn.Module):
    def forward(self, image, box):
        return image.mean((2, 3)) * box

def net():
    return Two()
"""
