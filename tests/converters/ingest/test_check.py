from __future__ import annotations

import numpy as np
import pytest

from boardfit.converters.ingest.check import check_import, max_relative_difference, random_images
from boardfit.errors import UnsupportedModel
from boardfit.specs import ImageSpec


@pytest.mark.parametrize(
    ("actual", "expected", "difference"),
    [
        ([1.0, -4.0], [1.0, -5.0], 0.2),
        ([0.0], [0.0], 0.0),
        ([1e-9], [0.0], np.inf),
        ([np.nan], [1.0], np.inf),
        ([1.0, 1.0], [1.0], np.inf),
    ],
)
def test_max_relative_difference(actual, expected, difference):
    assert max_relative_difference(np.float32(actual), np.float32(expected)) == pytest.approx(difference)


def test_random_images_are_normalised_pixels_and_seeded():
    spec = ImageSpec(mean=(100.0, 0.0, 0.0), std=(2.0, 1.0, 1.0))
    images = random_images(16, spec, count=2)
    assert (images.shape, images.dtype) == ((2, 16, 16, 3), np.float32)
    assert -50.0 <= images[..., 0].min() < 0.0 <= images[..., 1].min()
    np.testing.assert_array_equal(images, random_images(16, spec, count=2))


def test_a_net_that_differs_is_refused():
    def net(images, training):
        return images.mean((1, 2)) * np.float32(1.001)

    def reference(images, further=()):
        return [images.mean((1, 2))]

    assert (
        check_import(lambda x, training: reference(x)[0], reference, sizes=[8], image=ImageSpec(), name="n")
        == 0
    )
    with pytest.raises(UnsupportedModel, match="n was read, but answers differently at 8 pixels"):
        check_import(net, reference, sizes=[8], image=ImageSpec(), name="n")
