"""Which resize should an image spec default to? Top-1 of a bundle by resize and size.

python benchmarks/evidence/resize_choice.py lite0.boardfit            # photos_fit: to choose
python benchmarks/evidence/resize_choice.py lite0.boardfit --score    # photos_score: to report
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import numpy as np
from photos import labelled

from boardfit.bundle import open_bundle
from boardfit.runtime.engines import find_engine
from boardfit.runtime.images import read_image
from boardfit.runtime.preprocess import Preprocessor
from boardfit.specs import RESIZES
from boardfit.timing import machine_name


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle")
    parser.add_argument("--score", action="store_true")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--sizes", help="sides to run instead of the bundle's")
    args = parser.parse_args(argv)
    name = "photos_score" if args.score else "photos_fit"
    with open_bundle(args.bundle) as bundle:
        artifact = next(a for a in bundle.manifest.artifacts if (a.format, a.precision) == ("onnx", "fp32"))
        engine = find_engine("onnxruntime")(artifact, bundle.artifact_files(artifact), 2)
        specs = {resize: replace(bundle.manifest.image, resize=resize) for resize in RESIZES}
    sizes = tuple(map(int, args.sizes.split(","))) if args.sizes else artifact.sizes
    layout, image_name = artifact.inputs[0].layout, artifact.inputs[0].name
    hits = {(resize, size): 0 for resize in RESIZES for size in sizes}
    count = 0
    for path, label in labelled(name, args.limit):
        frame = read_image(path)
        count += 1
        for resize, spec in specs.items():
            preprocessor = Preprocessor(spec, layout)
            for size in sizes:
                tensor, _ = preprocessor.fit(frame, size)
                hits[resize, size] += int(np.argmax(engine.run({image_name: tensor})[0]) == label)
    print(f"top-1 on {name} ({count} images), {machine_name()}\n")
    print("| resize | " + " | ".join(map(str, sizes)) + " | mean |")
    print("|---" * (len(sizes) + 2) + "|")
    for resize in RESIZES:
        shares = [100.0 * hits[resize, size] / count for size in sizes]
        print(f"| {resize} | " + " | ".join(f"{share:.1f}" for share in [*shares, np.mean(shares)]) + " |")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
