"""Figures as PNG: the same shapes that pages show as SVG, painted with OpenCV on white."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from boardfit.benchmarks.figure import Drawing, Line, Words

SCALE = 2
"""Pixels of the file for one of the drawing: sharp on a screen of high density."""

LETTER_PX = 13
_BITS = 4
"""Binary digits behind the point in the coordinates that OpenCV takes."""


HEADING_PX = 20
"""Height of a line over a drawing that says what it is, for a file that has lost its page."""

LETTER_WIDTH_PX = 7.3
"""Of bold letters, on average and rather too much."""


def png(drawing: Drawing, heading: str) -> bytes:
    """Return a drawing under a heading as a PNG file, SCALE times as wide and high, on white.

    Args:
        drawing: What to paint, in the colours for light ground.
        heading: What it is of; plain text.
    """
    import cv2

    from boardfit.benchmarks.figure import Words

    picture = _painted(drawing)
    lines = textwrap.wrap(heading, int(drawing.canvas.width / LETTER_WIDTH_PX))
    strip = np.full((HEADING_PX * len(lines) * SCALE, picture.shape[1], 3), 255, np.uint8)
    for number, line in enumerate(lines):
        _paint_words(strip, Words((4.0, 15.0 + HEADING_PX * number), line, bold=True))
    done, data = cv2.imencode(".png", np.vstack([strip, picture]), [cv2.IMWRITE_PNG_COMPRESSION, 9])
    assert done, "OpenCV refused a picture of 8 bits"
    return bytes(data)


def _painted(drawing: Drawing) -> np.ndarray:
    import cv2

    from boardfit.benchmarks.figure import Area, Dot, Line

    canvas = drawing.canvas
    picture = np.full((canvas.height * SCALE, canvas.width * SCALE, 3), 255, np.uint8)
    for shape in drawing.shapes:
        if isinstance(shape, Area):
            layer = picture.copy()
            cv2.fillPoly(layer, [_fixed(shape.points)], _bgr(shape.ink), cv2.LINE_AA, _BITS)
            cv2.addWeighted(layer, shape.opacity, picture, 1.0 - shape.opacity, 0.0, dst=picture)
        elif isinstance(shape, Line):
            _paint_line(picture, shape)
        elif isinstance(shape, Dot):
            centre, radius = _fixed([shape.at])[0].tolist(), round(shape.radius * SCALE * 2**_BITS)
            cv2.circle(picture, centre, radius, _bgr(shape.ink), -1, cv2.LINE_AA, _BITS)
            if shape.hollow:
                inner = radius - 2 * SCALE * 2**_BITS
                cv2.circle(picture, centre, inner, (255, 255, 255), -1, cv2.LINE_AA, _BITS)
        else:
            _paint_words(picture, shape)
    return picture


def _paint_line(picture: np.ndarray, shape: Line) -> None:
    import cv2

    width = max(1, round(shape.width * SCALE))
    pieces = _dashes(shape.points) if shape.dashed else [shape.points]
    lines = [_fixed(piece) for piece in pieces]
    cv2.polylines(picture, lines, False, _bgr(shape.ink, shape.opacity), width, cv2.LINE_AA, _BITS)


def _dashes(points: Sequence[tuple[float, float]], on: float = 5.0, off: float = 4.0) -> list[Any]:
    """Return the pieces of a broken line; the pattern begins anew at each corner."""
    pieces = []
    for start, end in pairwise(points):
        one, two = np.asarray(start), np.asarray(end)
        length = float(np.linalg.norm(two - one))
        for at in np.arange(0.0, length, on + off):
            pieces.append([one + (two - one) * share / length for share in (at, min(at + on, length))])
    return pieces


def _paint_words(picture: np.ndarray, shape: Words) -> None:
    import cv2

    size = LETTER_PX * SCALE
    colour = _bgr(shape.ink, shape.opacity)
    x, y = (round(value * SCALE) for value in shape.at)
    share = {"start": 0.0, "middle": 0.5, "end": 1.0}[shape.anchor]
    if hasattr(cv2, "FontFace"):  # OpenCV 5 brings a font of its own
        font, weight = cv2.FontFace("sans"), 700 if shape.bold else 400
        _, _, width, _ = cv2.getTextSize((0, 0), shape.words, (0, 0), font, size, weight)
        cv2.putText(picture, shape.words, (round(x - share * width), y), colour, font, size, weight)
        return
    # The strokes of OpenCV 4 know ASCII alone.
    words = shape.words.replace("°", " ").encode("ascii", "replace").decode()
    face, scale, thick = cv2.FONT_HERSHEY_SIMPLEX, size / 32.0, 3 if shape.bold else 2
    (width, _), _ = cv2.getTextSize(words, face, scale, thick)
    cv2.putText(picture, words, (round(x - share * width), y), face, scale, colour, thick, cv2.LINE_AA)


def _fixed(points: Sequence[Any]) -> np.ndarray:
    fixed: np.ndarray = np.rint(np.asarray(points, np.float64) * SCALE * 2**_BITS).astype(np.int32)
    return fixed


def _bgr(ink: str, opacity: float = 1.0) -> tuple[int, int, int]:
    """Return an ink on white ground."""
    from boardfit.benchmarks.figure import INKS

    code = INKS[ink][0]
    red, green, blue = (round(255 + opacity * (int(code[i : i + 2], 16) - 255)) for i in (1, 3, 5))
    return blue, green, red
