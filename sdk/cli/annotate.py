"""Pictures with their answers written below them."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

import numpy as np

# Below this the text would be wider than the picture: small pictures are enlarged.
MIN_SIDE = 320
# A picture of one pixel by thousands is not enlarged to gigabytes, but gets an empty margin.
MAX_ENLARGED = 2048
_BACKGROUND = (32, 26, 22)
_BAR = (150, 110, 40)
_WHITE, _GREY = (255, 255, 255), (190, 190, 190)


def annotate(frame: np.ndarray, answers: Sequence[tuple[str, float]], *, footer: str) -> np.ndarray:
    """Return a picture with a strip of answers below it.

    The text grows with the picture; the picture itself is not covered.

    Args:
        frame: HxWx3 uint8 BGR of any size.
        answers: (label, score from 0 to 1), best first; the bars show the scores.
        footer: One more line, smaller.

    Returns:
        HxWx3 uint8 BGR, at least MIN_SIDE wide.
    """
    import cv2

    picture = _enlarged(frame)
    height, width = picture.shape[:2]
    # By the width, which the text must fit into; of a very wide picture not much taller than itself.
    unit = max(20, min(round(width / 20), height // 6))
    strip = np.full(((len(answers) + 1) * unit + unit // 2, width, 3), _BACKGROUND, np.uint8)
    for row, (label, score) in enumerate(answers):
        top = row * unit + unit // 4
        bar = round((width - unit) * min(max(score, 0.0), 1.0))
        if bar:
            cv2.rectangle(
                strip, (unit // 2, top), (unit // 2 + bar, top + round(unit * 0.86)), _BAR, cv2.FILLED
            )
        text = f"{score:.2f}  {label}"
        _put(strip, text, (round(unit * 0.7), top + round(unit * 0.64)), height=unit * 0.5, colour=_WHITE)
    bottom = strip.shape[0] - round(unit * 0.4)
    _put(strip, footer, (unit // 2, bottom), height=unit * 0.42, colour=_GREY)
    return np.concatenate([picture, strip])


def thumbnail_jpeg(picture: np.ndarray, *, width: int = 360) -> bytes:
    """Return a picture as a small JPEG.

    Args:
        picture: HxWx3 uint8 BGR.
        width: Largest width in pixels.
    """
    import cv2

    height_now, width_now = picture.shape[:2]
    if width_now > width:
        size_wh = (width, max(1, round(height_now * width / width_now)))
        picture = cv2.resize(picture, size_wh, interpolation=cv2.INTER_AREA)
    return jpeg(picture, quality=80)


def jpeg(picture: np.ndarray, *, quality: int = 90) -> bytes:
    """Return a picture as a JPEG file.

    Args:
        picture: HxWx3 uint8 BGR.
        quality: 0 to 100.
    """
    import cv2

    done, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert done, "OpenCV encodes every uint8 picture"
    return bytes(data)


def ascii_text(text: str) -> str:
    """Return a text in the letters that OpenCV's font has; others become the plain letter, or '?'."""
    plain = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    return "".join(c if " " <= c <= "~" else "?" for c in plain)


def _enlarged(frame: np.ndarray) -> np.ndarray:
    import cv2

    height, width = frame.shape[:2]
    factor = min(-(-MIN_SIDE // width), max(1, MAX_ENLARGED // height))
    if factor > 1:
        size_wh = (width * factor, height * factor)
        # Pixels of an icon stay visible as such; a photograph is drawn smoothly.
        how = cv2.INTER_NEAREST if width < 96 else cv2.INTER_CUBIC
        frame = np.asarray(cv2.resize(frame, size_wh, interpolation=how))
    missing = MIN_SIDE - frame.shape[1]
    if missing <= 0:
        return frame
    return np.asarray(
        cv2.copyMakeBorder(frame, 0, 0, 0, missing, cv2.BORDER_CONSTANT, value=(*_BACKGROUND, 0))
    )


def _put(
    strip: np.ndarray, text: str, origin_xy: tuple[int, int], *, height: float, colour: tuple[int, int, int]
) -> None:
    """Write one line, cut with dots where it would leave the strip."""
    import cv2

    font = cv2.FONT_HERSHEY_SIMPLEX
    # Hershey's capitals are 22 pixels high at scale 1.
    scale = height / 22.0
    thickness = max(1, round(height / 12.0))
    room = strip.shape[1] - origin_xy[0] - round(height / 2)
    line = shown = ascii_text(text)
    while shown and cv2.getTextSize(shown, font, scale, thickness)[0][0] > room:
        line = line[:-1]
        shown = f"{line}..." if line else ""
    cv2.putText(strip, shown, origin_xy, font, scale, colour, thickness, cv2.LINE_AA)
