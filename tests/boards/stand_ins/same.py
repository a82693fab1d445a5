"""Whether a board's answers are this machine's: what must be equal, and how far the rest may differ."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

BITS = 1e-9
# OpenCV's resizes add float32 in another order on another processor: where a pixel lies half-way between two
# greys, it is rounded the other way. Seen: 0.1 % of the pixels at 160 from 448, by one grey. Where the factor
# is a whole number (224, 112) nothing differs.
MOVED_GREYS, MOVED_SHARE = 1, 0.01


def differences(
    here: Mapping[str, np.ndarray],
    there: Mapping[str, np.ndarray],
    *,
    tolerance: float,
    moved: float = 5e-3,
    pixels: bool = True,
    close_calls: bool = False,
) -> list[str]:
    """Say in what a board's answers are not this machine's.

    Args:
        here: Arrays of ``answers.py``, from this machine.
        there: The same, from the board.
        tolerance: How far an output may differ, as a share of the range of this frame's outputs, where the
            net sees the same pixels.
        moved: The same, where it sees pixels that were rounded the other way.
        pixels: Whether both must read the same pixels from a file.
        close_calls: Whether the best class may be one that is as good here, within what outputs may differ.

    Returns:
        A sentence for each thing that differs; none if the answers are the same.
    """
    if sorted(here) != sorted(there) or here["names"].tolist() != there["names"].tolist():
        return [f"other frames or looks: {sorted(there)} of {len(there.get('names', []))} frames"]
    said = _unequal(here, there, ("pixels", "histogram", "chosen") if pixels else ("histogram", "chosen"))
    for name in ("bits", "exact_bits"):
        far = float(np.abs(here[name] - there[name]).max())
        if not far <= BITS:
            said.append(f"{name} differ by {far:.1e}, over {BITS:g}")
    for name in here:
        if name.startswith("outputs "):
            seen = name.replace("outputs", "seen")
            said += _seen_differences(seen, here[seen], there[seen])
            same = (here[seen] == there[seen]).reshape(len(here[seen]), -1).all(axis=1)
            allowed = np.where(same, tolerance, max(tolerance, moved))
            said += _output_differences(name, here[name], there[name], allowed, close_calls)
    return said


def _unequal(
    here: Mapping[str, np.ndarray], there: Mapping[str, np.ndarray], names: tuple[str, ...]
) -> list[str]:
    said = []
    for name in names:
        wrong = [
            str(frame)
            for frame, mine, theirs in zip(here["names"], here[name], there[name], strict=True)
            if not np.array_equal(mine, theirs)
        ]
        if wrong:
            said.append(f"{name} differ in {', '.join(wrong)}")
    return said


def _seen_differences(name: str, here: np.ndarray, there: np.ndarray) -> list[str]:
    apart = np.abs(here.astype(int) - there.astype(int))
    share = float((apart > 0).mean())
    if apart.max() <= MOVED_GREYS and share <= MOVED_SHARE:
        return []
    return [f"{name}: {share:.1%} of the pixels differ, by up to {apart.max()} greys"]


def deviation(here: np.ndarray, there: np.ndarray) -> np.ndarray:
    """Return the largest difference of each row of two (N, C) outputs, as a share of the row's range."""
    spread = np.maximum(here.max(axis=1) - here.min(axis=1), 1e-9)
    return np.abs(here - there).max(axis=1) / spread


def _output_differences(
    name: str, here: np.ndarray, there: np.ndarray, allowed: np.ndarray, close_calls: bool
) -> list[str]:
    if here.shape != there.shape or not np.isfinite(there).all():
        return [f"{name} are {list(there.shape)}, expected {list(here.shape)}, all finite"]
    said = []
    far = deviation(here, there)
    if not (far <= allowed).all():
        worst = int(np.argmax(far - allowed))
        said.append(f"{name} differ by {far[worst]:.1e} of their range, over {allowed[worst]:g}")
    margin = here.max(axis=1) - here[np.arange(len(here)), there.argmax(axis=1)]
    excused = allowed * (here.max(axis=1) - here.min(axis=1)) if close_calls else 0.0
    flips = int((margin > excused).sum())
    if flips:
        said.append(f"{name}: the best class is another one in {flips} of {len(here)} frames")
    return said
