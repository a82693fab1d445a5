"""Compare ``pil-bicubic`` with Pillow: pixels, time and, given a bundle, the answers.

Usage: python benchmarks/evidence/preprocess.py [BUNDLE] [--photos N]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parent))
from photos import data_folder

from boardfit.runtime.engines import available_engines, find_engine
from boardfit.runtime.preprocess import Preprocessor, place
from boardfit.specs import ImageSpec
from boardfit.timing import machine_name, time_paired

INPUTS_WH = ((299, 299), (640, 480), (1920, 1080))
SIZES = (224, 160, 112)


def versions() -> str:
    """Return the versions of the libraries that resize."""
    return f"numpy {np.__version__}, OpenCV {cv2.__version__}"


def photographs(count: int) -> list[np.ndarray]:
    """Return evenly spread photographs of photos_score, BGR."""
    paths = sorted((data_folder() / "photos_score").glob("*.jpg"))
    return [cv2.imread(str(path)) for path in paths[:: max(1, len(paths) // count)][:count]]


def pillow_tensor(frame: np.ndarray, spec: ImageSpec, size: int) -> np.ndarray:
    """Return what Pillow and numpy make of a frame: (1, S, S, 3) float32."""
    where = place(frame.shape[0], frame.shape[1], crop=spec.crop, size=size)
    crop = frame[where.top : where.top + where.side, where.left : where.left + where.side]
    image = Image.fromarray(np.ascontiguousarray(crop[..., ::-1] if spec.channels == "rgb" else crop))
    pixels = np.asarray(image.resize((size, size), Image.Resampling.BICUBIC), np.float64)
    return ((pixels - spec.mean) / spec.std).astype(np.float32)[None]


def make_answers(path: str):
    """Return a function from an NHWC tensor to the class index, and the bundle's image spec."""
    from dataclasses import replace

    from boardfit.bundle import open_bundle

    with open_bundle(path) as bundle:
        fp32 = (a for a in bundle.manifest.artifacts if a.precision == "fp32" and available_engines(a.format))
        artifact = next(fp32)
        name = available_engines(artifact.format)[0]
        engine = find_engine(name)(artifact, bundle.artifact_files(artifact), 2)
        spec = replace(bundle.manifest.image, resize="pil-bicubic")
    source = artifact.inputs[0]

    def answer(tensor: np.ndarray) -> int:
        feed = np.ascontiguousarray(tensor.transpose(0, 3, 1, 2)) if source.layout == "NCHW" else tensor
        return int(engine.run({source.name: feed})[0].argmax())

    return answer, spec


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", nargs="?")
    parser.add_argument("--photos", type=int, default=500)
    asked = parser.parse_args(argv)
    answer, spec = make_answers(asked.bundle) if asked.bundle else (None, ImageSpec(resize="pil-bicubic"))
    fit = Preprocessor(spec, "NHWC").fit
    frames = photographs(asked.photos)
    print(f"{machine_name()}, {versions()}")
    print(f"{len(frames)} photographs of photos_score, enlarged where the input is larger\n")
    print("| input | size | mean abs difference (of 255) | largest | top-1 agreement | Pillow ms | ours ms |")
    print("|---|---|---|---|---|---|---|")
    std = np.float32(spec.std)
    good = bool(frames)
    for width, height in INPUTS_WH:
        for size in SIZES:
            differences, largest, agreed = [], 0.0, []
            for photo in frames:
                frame = cv2.resize(photo, (width, height)) if photo.shape[:2] != (height, width) else photo
                ours, theirs = fit(frame, size)[0], pillow_tensor(frame, spec, size)
                gap = np.abs(ours - theirs) * std
                differences.append(float(gap.mean()))
                largest = max(largest, float(gap.max()))
                if answer:
                    agreed.append(answer(ours) == answer(theirs))
            calls = {
                "pillow": lambda: pillow_tensor(frame, spec, size),  # noqa: B023
                "ours": lambda: fit(frame, size),  # noqa: B023
            }
            times = time_paired(calls, rounds=30)
            agreement = f"{100 * np.mean(agreed):.1f} %" if agreed else "no bundle given"
            good = good and np.mean(differences) <= 0.5 and (not agreed or np.mean(agreed) >= 0.99)
            row = [f"{width}x{height}", size, f"{np.mean(differences):.6f}", f"{largest:.0f}", agreement]
            row += [f"{times[name].p50_s * 1e3:.2f}" for name in ("pillow", "ours")]
            print("|", " | ".join(map(str, row)), "|")
    return 0 if good else 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
