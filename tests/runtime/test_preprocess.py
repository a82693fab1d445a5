from __future__ import annotations

import cv2
import numpy as np
import pytest

from boardfit.errors import InputError
from boardfit.runtime.preprocess import Placement, Preprocessor, as_bgr, place
from boardfit.runtime.resize import resize_square
from boardfit.specs import ImageSpec

SPECS = {
    "shared-table": ImageSpec(mean=(127.0,) * 3, std=(128.0,) * 3),
    "table-per-channel": ImageSpec(mean=(123.7, 116.3, 103.5), std=(58.4, 57.1, 57.4), resize="linear"),
    "bgr": ImageSpec(mean=(1.0, 2.0, 3.0), std=(4.0, 5.0, 6.0), channels="bgr", crop=1.0),
    "pil": ImageSpec(resize="pil-bicubic", crop=0.5),
    "cubic": ImageSpec(resize="cubic"),
}


def straightforward(frame: np.ndarray, spec: ImageSpec, size: int) -> np.ndarray:
    height, width = frame.shape[:2]
    side = int(np.floor(spec.crop * min(height, width) + 0.5))
    top, left = (height - side) // 2, (width - side) // 2
    pixels = resize_square(frame[top : top + side, left : left + side], size, resize=spec.resize)
    ordered = pixels[..., ::-1] if spec.channels == "rgb" else pixels
    return (ordered.astype(np.float64) - spec.mean) / spec.std


@pytest.mark.parametrize("size", [16, 40, 64])
@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_tensor_follows_the_definition_in_both_layouts(spec, size, random_frame):
    expected = straightforward(random_frame, spec, size)
    pixels, _ = Preprocessor(spec, "NHWC").fit(random_frame, size)
    planes, _ = Preprocessor(spec, "NCHW").fit(random_frame, size)
    assert pixels.shape == (1, size, size, 3)
    assert planes.shape == (1, 3, size, size)
    assert pixels.dtype == planes.dtype == np.float32
    assert pixels.flags.c_contiguous
    assert planes.flags.c_contiguous
    np.testing.assert_allclose(pixels[0], expected, rtol=1e-6, atol=1e-6)
    assert (planes[0].transpose(1, 2, 0) == pixels[0]).all()


def test_tensors_do_not_share_memory(random_frame):
    preprocessor = Preprocessor(ImageSpec(), "NHWC")
    first, _ = preprocessor.fit(random_frame, 32)
    kept = first.copy()
    preprocessor.fit(255 - random_frame, 32)
    assert (first == kept).all()


def test_unknown_layout_is_refused():
    with pytest.raises(InputError, match="expected NHWC or NCHW"):
        Preprocessor(ImageSpec(), "")


@pytest.mark.parametrize(
    ("height", "width", "crop", "expected"),
    [
        (480, 640, 0.875, Placement(size=112, left=110, top=30, side=420)),
        (640, 480, 1.0, Placement(size=112, left=0, top=80, side=480)),
        (299, 299, 0.875, Placement(size=112, left=18, top=18, side=262)),
        (1, 1, 0.1, Placement(size=112, left=0, top=0, side=1)),
        (3, 3, 0.5, Placement(size=112, left=0, top=0, side=2)),
    ],
)
def test_crop_follows_the_rounding_rule(height, width, crop, expected):
    assert place(height, width, crop=crop, size=112) == expected


def test_placement_maps_corners_and_centre_to_the_frame(random_frame):
    _, where = Preprocessor(ImageSpec(crop=0.5), "NHWC").fit(random_frame, 96)
    corners = where.to_frame_xy(np.array([[0.0, 0.0], [96.0, 96.0], [48.0, 48.0]]))
    assert corners.tolist() == [[20.0, 12.0], [44.0, 36.0], [32.0, 24.0]]
    assert where.scale == 0.25


def test_a_marked_pixel_is_found_again():
    frame = np.zeros((200, 300, 3), np.uint8)
    frame[88:96, 140:148] = 255
    tensor, where = Preprocessor(ImageSpec(), "NHWC").fit(frame, 56)
    rows, columns = np.nonzero(tensor[0, :, :, 0] > 0.5)
    centre = where.to_frame_xy(np.array([columns.mean() + 0.5, rows.mean() + 0.5]))
    assert np.abs(centre - (144.0, 92.0)).max() <= where.scale / 2


def variants(bgr: np.ndarray) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    grey = np.ascontiguousarray(bgr[..., 0])
    grey_bgr = np.repeat(grey[..., None], 3, axis=2)
    bgra = np.concatenate([bgr, np.full_like(bgr[..., :1], 40)], axis=2)
    wide = np.zeros((bgr.shape[0], bgr.shape[1] * 2, 3), np.uint8)
    wide[:, ::2] = bgr
    return {
        "bgr": (bgr, bgr),
        "grey": (grey, grey_bgr),
        "grey-axis": (grey[..., None], grey_bgr),
        "grey-view": (bgr[..., 0], grey_bgr),
        "grey-axis-view": (bgr[..., :1], grey_bgr),
        "bgra": (bgra, bgr),
        "bgra-to-bgr-view": (bgra[..., :3], bgr),
        "upside-down": (bgr[::-1], bgr[::-1].copy()),
        "mirrored": (bgr[:, ::-1], bgr[:, ::-1].copy()),
        "rgb-view": (bgr[..., ::-1], bgr[..., ::-1].copy()),
        "every-second-column": (wide[:, ::2], bgr),
        "every-second-row": (bgr[::2], bgr[::2].copy()),
        "crop": (bgr[3:20, 5:30], bgr[3:20, 5:30].copy()),
        "transposed": (bgr.transpose(1, 0, 2), bgr.transpose(1, 0, 2).copy()),
        "fortran": (np.asfortranarray(bgr), bgr),
        "one-row-repeated": (np.broadcast_to(bgr[:1], bgr.shape), np.repeat(bgr[:1], bgr.shape[0], 0)),
        "one-pixel": (bgr[:1, :1], bgr[:1, :1].copy()),
        "one-column": (bgr[:, :1], bgr[:, :1].copy()),
        "read-only": (np.frombuffer(bgr.tobytes(), np.uint8).reshape(bgr.shape), bgr),
    }


@pytest.mark.parametrize("name", variants(np.zeros((48, 64, 3), np.uint8)))
def test_frames_of_every_form_become_bgr_that_opencv_takes(name, random_frame):
    frame, expected = variants(random_frame)[name]
    bgr = as_bgr(frame)
    assert (bgr == expected).all()
    assert (cv2.resize(bgr, (7, 5)) == cv2.resize(expected, (7, 5))).all()
    tensor, _ = Preprocessor(ImageSpec(), "NCHW").fit(frame, 24)
    assert (tensor == Preprocessor(ImageSpec(), "NCHW").fit(expected, 24)[0]).all()


def test_a_good_frame_is_not_copied(random_frame):
    assert as_bgr(random_frame) is random_frame


@pytest.mark.parametrize(
    ("frame", "came"),
    [
        (np.zeros((4, 5, 3)), "array of float64 with the shape 4x5x3"),
        (np.zeros((4, 5, 5), np.uint8), "shape 4x5x5"),
        (np.zeros((4, 5, 2), np.uint8), "shape 4x5x2"),
        (np.zeros((0, 5, 3), np.uint8), "shape 0x5x3"),
        (np.zeros((4, 0), np.uint8), "shape 4x0"),
        (np.zeros((2, 4, 5, 3), np.uint8), "shape 2x4x5x3"),
        (np.zeros(5, np.uint8), "shape 5"),
        (np.zeros((4, 5, 3), np.uint16), "uint16"),
        (np.zeros((4, 5), bool), "bool"),
        (None, "a NoneType"),
        ("cat.jpg", "a str"),
        ([[1, 2], [3, 4]], "a list"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_other_frames_are_refused_with_what_came_and_what_was_expected(frame, came):
    with pytest.raises(InputError) as caught:
        as_bgr(frame)
    assert came in str(caught.value)
    assert "expected a numpy array of uint8: HxWx3" in str(caught.value)
