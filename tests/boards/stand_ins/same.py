"""Whether a board's answers are this machine's: what must be equal, and how far the rest may differ."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

BITS = 1e-9


def differences(
    here: Mapping[str, np.ndarray], there: Mapping[str, np.ndarray], *, tolerance: float, pixels: bool = True
) -> list[str]:
    """Say in what a board's answers are not this machine's.

    Args:
        here: Arrays of ``answers.py``, from this machine.
        there: The same, from the board.
        tolerance: How far an output may differ, as a share of the range of this frame's outputs.
        pixels: Whether both must read the same pixels from a file.

    Returns:
        A sentence for each thing that differs; none if the answers are the same.
    """
    if sorted(here) != sorted(there) or here["names"].tolist() != there["names"].tolist():
        return [f"other frames or looks: {sorted(there)} of {len(there.get('names', []))} frames"]
    said = []
    for name in ("pixels", "histogram", "chosen"):
        wrong = [
            str(frame)
            for frame, mine, theirs in zip(here["names"], here[name], there[name], strict=True)
            if not np.array_equal(mine, theirs)
        ]
        if wrong and (pixels or name != "pixels"):
            said.append(f"{name} differ in {', '.join(wrong)}")
    for name in ("bits", "exact_bits"):
        far = float(np.abs(here[name] - there[name]).max())
        if not far <= BITS:
            said.append(f"{name} differ by {far:.1e}, over {BITS:g}")
    for name in here:
        if name.startswith("outputs"):
            said += _output_differences(name, here[name], there[name], tolerance)
    return said


def deviation(here: np.ndarray, there: np.ndarray) -> float:
    """Return the largest difference of two (N, C) outputs, each as a share of its row's range."""
    spread = np.maximum(here.max(axis=1) - here.min(axis=1), 1e-9)
    return float((np.abs(here - there).max(axis=1) / spread).max())


def _output_differences(name: str, here: np.ndarray, there: np.ndarray, tolerance: float) -> list[str]:
    if here.shape != there.shape or not np.isfinite(there).all():
        return [f"{name} are {list(there.shape)}, expected {list(here.shape)}, all finite"]
    said = []
    far = deviation(here, there)
    if not far <= tolerance:
        said.append(f"{name} differ by {far:.1e} of their range, over {tolerance:g}")
    flips = int((here.argmax(axis=1) != there.argmax(axis=1)).sum())
    if flips:
        said.append(f"{name}: the best class is another one in {flips} of {len(here)} frames")
    return said
