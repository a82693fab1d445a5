from __future__ import annotations

import pytest

from boardfit.converters.ingest.onnx_padding import (
    PaddingAmbiguous,
    PaddingUnclear,
    Window,
    decide_padding,
    same_pads,
)


def window(extent, kernel=3, stride=2, pads=(0, 0, 0, 0), **more):
    return Window((extent, extent), (kernel, kernel), (stride, stride), pads=pads, **more)


@pytest.mark.parametrize(
    ("extent", "kernel", "stride", "expected"),
    [
        (224, 3, 2, (0, 0, 1, 1)),
        (7, 3, 2, (1, 1, 1, 1)),
        (14, 5, 2, (1, 1, 2, 2)),
        (7, 5, 2, (2, 2, 2, 2)),
        (9, 3, 1, (1, 1, 1, 1)),
        (9, 2, 1, (0, 0, 1, 1)),
        (8, 1, 2, (0, 0, 0, 0)),
    ],
)
def test_same_is_what_tensorflow_computes(extent, kernel, stride, expected):
    import numpy as np
    from keras import ops

    found = window(extent, kernel, stride)
    assert same_pads(found) == expected
    top, left, bottom, right = expected
    image = np.random.default_rng(0).normal(size=(1, extent, extent, 1)).astype("float32")
    weight = np.random.default_rng(1).normal(size=(kernel, kernel, 1, 1)).astype("float32")
    padded = np.pad(image, ((0, 0), (top, bottom), (left, right), (0, 0)))
    same = np.asarray(ops.conv(image, weight, stride, "same"))
    np.testing.assert_allclose(same, np.asarray(ops.conv(padded, weight, stride, "valid")), atol=1e-5)


def test_lower_puts_the_odd_pixel_first():
    assert same_pads(window(224), lower=True) == (1, 1, 0, 0)


SAME_112_AND_224 = [window(7, 5, pads=(2, 2, 2, 2)), window(14, 5, pads=(1, 1, 2, 2))]


@pytest.mark.parametrize(
    ("windows", "reading", "mode", "explicit"),
    [
        (SAME_112_AND_224, "exports", "same", (0, 0, 0, 0)),
        ([window(7, pads=(1, 1, 1, 1)), window(14, pads=(1, 1, 1, 1))], "exports", "valid", (1, 1, 1, 1)),
        ([window(n, stride=1, pads=(1, 1, 1, 1)) for n in (7, 14)], "exports", "same", (0, 0, 0, 0)),
        ([window(n) for n in (7, 14)], "exports", "valid", (0, 0, 0, 0)),
        ([window(n, pads=(0, 0, 1, 1)) for n in (8, 14)], "exports", "same", (0, 0, 0, 0)),
        ([window(n, pads=(0, 0, 1, 1)) for n in (8, 14)], "symbolic", "valid", (0, 0, 1, 1)),
        ([window(n, pads=(0, 0, 1, 1)) for n in (8, 14)], "fixed", "valid", (0, 0, 1, 1)),
        ([window(n, pads=(1, 1, 1, 1)) for n in (8, 7)], "fixed", "valid", (1, 1, 1, 1)),
        ([window(7, pads=(1, 1, 1, 1))], "assumed", "same", (0, 0, 0, 0)),
        ([window(8, pads=(1, 1, 1, 1))], "assumed", "valid", (1, 1, 1, 1)),
        ([window(n, rule="SAME_UPPER") for n in (7, 14)], "fixed", "same", (0, 0, 0, 0)),
    ],
)
def test_decision(windows, reading, mode, explicit):
    decision = decide_padding(windows, reading=reading)
    assert (decision.mode, decision.explicit) == (mode, explicit)


@pytest.mark.parametrize(
    "windows",
    [
        [window(7, pads=(1, 1, 1, 1)), window(14, pads=(1, 1, 1, 1))],
        [window(7, pads=(1, 1, 1, 1))],
        [window(14, 2), window(7, 2)],
    ],
    ids=["another-size-disagrees", "no-other-size", "no-padding-may-be-same-too"],
)
def test_one_size_cannot_tell(windows):
    with pytest.raises(PaddingAmbiguous):
        decide_padding(windows, reading="fixed", own=0)


def test_contradiction_is_unclear():
    with pytest.raises(PaddingUnclear, match="2, 2, 2, 2"):
        decide_padding([window(7, pads=(1, 1, 1, 1)), window(14, pads=(2, 2, 2, 2))], reading="exports")
