from __future__ import annotations

import struct
import tracemalloc
import zlib

import cv2
import numpy as np
import pytest

from boardfit.errors import InputError
from boardfit.runtime import images
from boardfit.runtime.images import decode_image, image_size_wh, list_images, read_image

FORMATS = ("jpg", "png", "webp", "bmp")


def picture(height: int = 60, width: int = 90) -> np.ndarray:
    corners = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [200, 200, 200]]], np.uint8)
    return cv2.resize(corners, (width, height), interpolation=cv2.INTER_CUBIC)


def encoded(suffix: str, frame: np.ndarray | None = None) -> bytes:
    ok, data = cv2.imencode(f".{suffix}", picture() if frame is None else frame)
    assert ok
    return data.tobytes()


def png_claiming(width: int, height: int) -> bytes:
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))
    return b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", 0) + b"IEND\xae\x42\x60\x82"


@pytest.mark.parametrize("suffix", FORMATS)
def test_reads_each_format_whatever_its_name(tmp_path, suffix):
    path = tmp_path / "photo.dat"
    path.write_bytes(encoded(suffix))
    frame = read_image(path)
    assert frame.dtype == np.uint8
    assert frame.shape == (60, 90, 3)
    assert np.abs(frame.astype(int) - picture()).mean() < 6


@pytest.mark.parametrize("suffix", FORMATS)
def test_bytes_are_decoded_as_a_file_is(tmp_path, suffix):
    path = tmp_path / "photo.dat"
    path.write_bytes(encoded(suffix))
    assert np.array_equal(decode_image(encoded(suffix)), read_image(path))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "^the photo is not an image"),
        (encoded("jpg")[:300], "^the photo is damaged or cut short"),
        (png_claiming(100_000, 100_000), "^the photo has 100000x100000 pixels"),
    ],
    ids=["empty", "cut short", "bomb"],
)
def test_bytes_that_are_no_image_are_refused_by_name(data, message):
    with pytest.raises(InputError, match=message):
        decode_image(data, name="the photo")


@pytest.mark.parametrize("suffix", FORMATS)
def test_size_is_read_from_the_header(suffix):
    assert image_size_wh(encoded(suffix)[:2000]) == (90, 60)


@pytest.mark.parametrize("lossless", [True, False], ids=["VP8L", "VP8"])
@pytest.mark.parametrize("alpha", [True, False], ids=["alpha", "opaque"])
def test_every_kind_of_webp_header(tmp_path, lossless, alpha):
    image = pytest.importorskip("PIL.Image", reason="writes the variants of WebP")
    frame = np.zeros((33, 70, 4 if alpha else 3), np.uint8)
    image.fromarray(frame).save(tmp_path / "a.webp", lossless=lossless)
    assert image_size_wh((tmp_path / "a.webp").read_bytes()) == (70, 33)


@pytest.mark.parametrize("height", [60, -60], ids=["bottom-up", "top-down"])
def test_bmp_of_both_directions(height):
    data = bytearray(encoded("bmp"))
    struct.pack_into("<i", data, 22, height)
    assert image_size_wh(bytes(data)) == (90, 60)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_exif_rotation_is_honoured(tmp_path, orientation, suffix):
    image = pytest.importorskip("PIL.Image", reason="writes EXIF")
    from PIL import ImageOps

    if suffix != "jpg" and int(cv2.__version__.split(".")[0]) < 5:
        pytest.skip("OpenCV 4 reads the orientation of JPEG files only")
    exif = image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"turned.{suffix}"
    image.fromarray(picture()[..., ::-1]).save(path, exif=exif)
    expected = np.asarray(ImageOps.exif_transpose(image.open(path)).convert("RGB"))[..., ::-1]
    frame = read_image(path)
    assert frame.shape == expected.shape == ((60, 90, 3) if orientation <= 4 else (90, 60, 3))
    assert np.abs(frame.astype(int) - expected).mean() < 6


def test_grey_becomes_bgr(tmp_path):
    (tmp_path / "grey.png").write_bytes(encoded("png", picture()[..., 0]))
    frame = read_image(tmp_path / "grey.png")
    assert (frame == picture()[..., :1]).all()


def test_a_huge_png_is_refused_without_decoding(tmp_path, monkeypatch):
    path = tmp_path / "huge.png"
    path.write_bytes(png_claiming(50_000, 50_000))
    monkeypatch.setattr(images.cv2, "imdecode", lambda *args: pytest.fail("was decoded"))
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match=r"huge\.png has 50000x50000 pixels: expected .* at most 100"):
            read_image(path)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_no_pixels_are_refused(tmp_path):
    (tmp_path / "none.png").write_bytes(png_claiming(0, 10))
    with pytest.raises(InputError, match="0x10 pixels"):
        read_image(tmp_path / "none.png")


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("kept", [0.5, 0.9])
def test_a_file_cut_short_is_refused(tmp_path, suffix, kept):
    path = tmp_path / f"cut.{suffix}"
    data = encoded(suffix, np.random.RandomState(0).randint(0, 256, (80, 80, 3)).astype(np.uint8))
    path.write_bytes(data[: int(len(data) * kept)])
    with pytest.raises(InputError, match=rf"cut\.{suffix} .*(damaged or cut short|cannot be decoded)"):
        read_image(path)


def test_a_jpeg_without_its_end_is_refused_before_decoding(tmp_path, monkeypatch):
    """OpenCV 4 would fill the rest with grey and only warn."""
    path = tmp_path / "cut.jpg"
    path.write_bytes(encoded("jpg")[:-2])
    monkeypatch.setattr(images.cv2, "imdecode", lambda *args: pytest.fail("was decoded"))
    with pytest.raises(InputError, match="cut short"):
        read_image(path)


def test_the_end_of_an_exif_thumbnail_is_not_the_end_of_the_file(tmp_path):
    thumbnail = encoded("jpg", picture(8, 8))
    segment = b"\xff\xe1" + struct.pack(">H", len(thumbnail) + 8) + b"Exif\0\0" + thumbnail
    whole = encoded("jpg")
    path = tmp_path / "thumb.jpg"
    path.write_bytes(whole[:2] + segment + whole[2:-2])
    with pytest.raises(InputError, match="cut short"):
        read_image(path)
    path.write_bytes(whole[:2] + segment + whole[2:] + b"trailing bytes of a camera")
    assert read_image(path).shape == (60, 90, 3)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("text.jpg", b"this is no picture at all\n"),
        ("empty.png", b""),
        ("stub.jpg", b"\xff\xd8\xff\xe0"),
        ("stub.webp", b"RIFF\0\0\0\0WEBPVP8L"),
        ("stub.bmp", b"BM" + bytes(10)),
        ("lost.webp", b"RIFF\0\0\0\0WEBPXXXX" + bytes(40)),
    ],
)
def test_other_contents_are_refused_by_name(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=f"{name} is not an image: expected a JPEG"):
        read_image(tmp_path / name)


def test_random_damage_never_escapes_as_a_foreign_error(tmp_path):
    random = np.random.RandomState(5)
    path = tmp_path / "damaged"
    for suffix in FORMATS:
        whole = encoded(suffix)
        for _ in range(60):
            data = bytearray(whole)
            for at in random.randint(0, min(200, len(data)), 3):
                data[at] = random.randint(256)
            path.write_bytes(bytes(data))
            try:
                assert read_image(path).ndim == 3
            except InputError as error:
                assert str(path) in str(error)


def test_missing_files_and_folders_are_refused(tmp_path):
    for path in (tmp_path, tmp_path / "gone.jpg"):
        with pytest.raises(InputError, match="is not a file"):
            read_image(path)


def test_a_file_of_absurd_size_is_not_read(tmp_path):
    path = tmp_path / "film.jpg"
    with path.open("wb") as file:
        file.truncate(images.MAX_FILE_BYTES + 1)
    with pytest.raises(InputError, match="more than 512 MiB"):
        read_image(path)


@pytest.fixture
def tree(tmp_path):
    for name in ("b.jpg", "a.PNG", "sub/c.webp", "sub/notes.txt", ".hidden.jpg", "z.jpeg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    return tmp_path


def names(tree, found):
    return [path.relative_to(tree).as_posix() for path in found]


def test_folders_are_searched_and_sorted(tree):
    assert names(tree, list_images([tree])) == ["a.PNG", "b.jpg", "sub/c.webp", "z.jpeg"]


def test_patterns_and_files_are_taken_as_they_are(tree):
    assert names(tree, list_images([str(tree / "*.jp*")])) == ["b.jpg", "z.jpeg"]
    assert names(tree, list_images([tree / "**" / "*.txt"])) == ["sub/notes.txt"]


def test_each_file_comes_once_in_the_order_of_the_arguments(tree):
    assert names(tree, list_images([tree / "z.jpeg", tree, tree / "b.jpg"])) == [
        "z.jpeg",
        "a.PNG",
        "b.jpg",
        "sub/c.webp",
    ]


def test_a_name_with_brackets_is_a_file_first(tree):
    (tree / "[1].jpg").write_bytes(b"x")
    assert names(tree, list_images([tree / "[1].jpg"])) == ["[1].jpg"]


@pytest.mark.parametrize("argument", ["nothing*.jpg", "gone.jpg", "empty"])
def test_nothing_found_is_an_error_that_names_the_argument(tmp_path, argument):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"no images at .*: expected a file, a pattern, or a folder"):
        list_images([tmp_path / argument])


def test_no_argument_is_an_error():
    with pytest.raises(InputError, match="no images"):
        list_images([])
