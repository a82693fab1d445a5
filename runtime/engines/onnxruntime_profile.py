"""ONNX Runtime's own profiler: a file of JSON events, one for each node of each run.

https://onnxruntime.ai/docs/performance/tune-performance/profiling-tools.html
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from boardfit.errors import EngineError
from boardfit.runtime.engines.layers import LayerProfile, profile_of
from boardfit.specs import Artifact

if TYPE_CHECKING:
    from boardfit.runtime.engines.onnxruntime import OnnxRuntimeEngine

_TAIL = "_kernel_time"


def profile(
    engine: type[OnnxRuntimeEngine],
    artifact: Artifact,
    files: Mapping[str, bytes],
    threads: int,
    *,
    feeds: Mapping[str, np.ndarray],
    runs: int,
    warmup: int,
) -> LayerProfile:
    """Run an artifact with the profiler on; see ``Engine``."""
    with tempfile.TemporaryDirectory() as folder:
        profiled = type("Profiled", (engine,), {"profile_prefix": f"{folder}/profile"})
        running = profiled(artifact, files, threads)
        try:
            for _ in range(warmup + runs):
                running.run(feeds)
            text = Path(running.end_profiling()).read_text(encoding="utf-8")
        finally:
            running.close()
    try:
        return read_events(json.loads(text), runs)
    except (ValueError, KeyError, TypeError) as error:
        raise EngineError(f"ONNX Runtime's profile of {artifact.name} cannot be read: {error}") from error


def read_events(events: list[Mapping[str, Any]], runs: int) -> LayerProfile:
    """Return the last runs of a profile.

    Args:
        events: As the profiler writes them; times in microseconds.
        runs: How many; those before were for warm-up.

    Raises:
        EngineError: There are fewer, or their layers differ.
    """
    whole = [event for event in events if event.get("name") == "model_run"][-runs:]
    if len(whole) < runs:
        raise EngineError(f"ONNX Runtime's profile has {len(whole)} runs: expected {runs}")
    nodes = [event for event in events if str(event.get("name", "")).endswith(_TAIL)]
    return profile_of(
        [
            (
                1e-6 * run["dur"],
                [_layer(node) for node in nodes if run["ts"] <= node["ts"] <= run["ts"] + run["dur"]],
            )
            for run in whole
        ]
    )


def _layer(node: Mapping[str, Any]) -> tuple[str, str, float]:
    name = f"{node['args']['node_index']} {node['name'].removesuffix(_TAIL)}"
    return name, str(node["args"]["op_name"]), 1e-6 * node["dur"]
