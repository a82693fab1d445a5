"""Would another crop at each size help a net that was trained at one? Top-1 by crop and size, both sets.

python benchmarks/evidence/crop_per_size.py lite0.boardfit
"""

from __future__ import annotations

import argparse
from dataclasses import replace

from photos import labelled

from boardfit.bundle import open_bundle
from boardfit.runtime.engines import find_engine
from boardfit.runtime.images import read_image
from boardfit.runtime.preprocess import Preprocessor
from boardfit.timing import machine_name

CROPS = (0.6, 0.7, 0.75, 0.8, 0.875, 0.95, 1.0)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle")
    args = parser.parse_args(argv)
    with open_bundle(args.bundle) as bundle:
        artifact = next(a for a in bundle.manifest.artifacts if (a.format, a.precision) == ("onnx", "fp32"))
        engine = find_engine("onnxruntime")(artifact, bundle.artifact_files(artifact), 2)
        image = bundle.manifest.image
    spec = artifact.inputs[0]
    print(machine_name())
    for name in ("photos_fit", "photos_score"):
        photos = [(read_image(path), label) for path, label in labelled(name)]
        print(f"\n{name}\n\n| crop | {' | '.join(map(str, artifact.sizes))} |")
        print("|---" * (len(artifact.sizes) + 1) + "|")
        for crop in CROPS:
            preprocessor = Preprocessor(replace(image, crop=crop), spec.layout)
            shares = []
            for size in artifact.sizes:
                answers = [engine.run({spec.name: preprocessor.fit(f, size)[0]})[0] for f, _ in photos]
                hits = sum(int(a.argmax() == label) for a, (_, label) in zip(answers, photos, strict=True))
                shares.append(f"{100 * hits / len(photos):.1f}")
            print(f"| {crop:g} | {' | '.join(shares)} |", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
