"""Reading every blob of an ncnn net while it runs as the runtime runs it."""

from __future__ import annotations

from typing import Any

import numpy as np

from boardfit.converters.targets import Exported
from boardfit.converters.targets.ncnn_graph import NcnnGraph
from boardfit.converters.targets.ncnn_grid import grids_of
from boardfit.errors import EngineError, InputError
from boardfit.runtime.engines.ncnn import open_net


class NcnnProbe:
    """A net whose blobs can be read; see ``records.Probe``. Copies of a blob are left out.

    A blob that is int8 between two layers comes back as the values that its integers stand for.
    """

    def __init__(self, exported: Exported, graph: NcnnGraph, threads: int) -> None:
        self._artifact = exported.artifact
        self._grids = grids_of(graph)
        self._blobs = [blob for blob, source in graph.copied_from().items() if blob == source]
        self._net: Any = open_net(exported.artifact, exported.files, threads)

    def run(self, image: np.ndarray) -> dict[str, np.ndarray]:
        """Run once and return every blob: (C, H, W), (rows, C) or (C,) float32."""
        import ncnn

        size = self._artifact.sizes[0]
        if image.shape != (1, size, size, 3):
            raise InputError(f"an image of shape {image.shape}: expected (1, {size}, {size}, 3), float32")
        if self._net is None:
            raise EngineError(f"the probe of {self._artifact.name} is closed: open it again")
        extractor = self._net.create_extractor()
        # In light mode ncnn frees a blob as soon as its last reader has run.
        extractor.set_light_mode(False)
        planes = np.ascontiguousarray(image[0].transpose(2, 0, 1), np.float32)
        name = self._artifact.inputs[0].name
        self._check(extractor.input(name, ncnn.Mat(planes)), name)
        return {blob: self._values(extractor, blob) for blob in self._blobs}

    def close(self) -> None:
        """Free the net. Twice does no harm."""
        self._net = None

    def _values(self, extractor: Any, blob: str) -> np.ndarray:
        status, mat = extractor.extract(blob)
        self._check(status, blob)
        values = np.array(mat, np.float32)
        return self._grids[blob].values(values) if blob in self._grids else values

    def _check(self, status: int, blob: str) -> None:
        if status != 0:
            raise EngineError(
                f"ncnn could not give the blob {blob!r} of {self._artifact.name} (status {status}): "
                "the .param must name it; export the net again"
            )
