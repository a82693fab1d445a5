"""Does anything cheap know whether a small size will do? Areas under the curve, on both photo sets.

    python benchmarks/evidence/signals.py lite0.boardfit

For "the small size answers unlike the largest": image entropy, the answer's entropy after the small look,
and features of the photograph at 224 pixels. 0.5 knows nothing, 1.0 everything.
"""

from __future__ import annotations

import argparse

import cv2
import numpy as np
from photos import labelled

from boardfit.runtime.entropy import entropy_bits
from boardfit.runtime.images import read_image
from boardfit.runtime.session import load
from boardfit.timing import machine_name


def features(frame: np.ndarray, small: int) -> dict[str, float]:
    side = int(0.875 * min(frame.shape[:2]))
    top, left = (frame.shape[0] - side) // 2, (frame.shape[1] - side) // 2
    grey = cv2.cvtColor(frame[top : top + side, left : left + side], cv2.COLOR_BGR2GRAY).astype(np.float32)
    grey = cv2.resize(grey, (224, 224), interpolation=cv2.INTER_AREA)
    copy = cv2.resize(cv2.resize(grey, (small, small), interpolation=cv2.INTER_AREA), (224, 224))
    edges = np.abs(cv2.Laplacian(grey, cv2.CV_32F))
    return {
        "image entropy": entropy_bits(frame),
        "difference to a small copy": float(np.abs(grey - copy).mean()),
        "the same over contrast": float(np.abs(grey - copy).mean() / (grey.std() + 1.0)),
        "Laplacian": float(edges.std()),
        "contrast": float(grey.std()),
        "sharpness of the centre": float(edges[56:168, 56:168].mean() / (edges.mean() + 1e-3)),
    }


def area(signal: np.ndarray, lost: np.ndarray) -> float:
    """Return the area under the ROC curve by ranks (Mann and Whitney, 1947)."""
    ranks = np.argsort(np.argsort(signal))
    positives = int(lost.sum())
    wins = ranks[lost].sum() - positives * (positives - 1) / 2
    return float(wins / (positives * (len(lost) - positives)))


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle")
    args = parser.parse_args(argv)
    print(machine_name())
    with load(args.bundle, engine="onnxruntime", policy="entropy") as session:
        *smaller, largest = session.sizes
        for name in ("photos_fit", "photos_score"):
            frames = [read_image(path) for path, _ in labelled(name)]
            best = np.array([session.look(frame, largest).top(1)[0].index for frame in frames])
            for small in smaller:
                looks = [session.look(frame, small) for frame in frames]
                lost = np.array([look.top(1)[0].index for look in looks]) != best
                rows = [features(frame, small) for frame in frames]
                signals = {key: np.array([row[key] for row in rows]) for key in rows[0]}
                signals["the answer's entropy"] = np.array([look.answer_entropy_bits for look in looks])
                print(f"\n{name}, {small} against {largest}: {100 * lost.mean():.1f} % answer otherwise\n")
                print("| signal | area |\n|---|---|")
                for key, values in signals.items():
                    print(f"| {key} | {area(values, lost):.3f} |")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
