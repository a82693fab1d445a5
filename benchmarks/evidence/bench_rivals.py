"""Our single-stream beside MLPerf's LoadGen and LiteRT's own litert-benchmark: same file, same threads.

Each round runs each for a second, in turning order and in one process: ``measure`` on a session of the
bundle; LoadGen on the same session and pictures; ``measure`` on the bare LiteRT engine, with one tensor; and
litert-benchmark on the same .tflite file, which does the same. Printed are the ratios of the medians over all
rounds, with the interval of a bootstrap over rounds, and whether LoadGen stops early by the numbers that we
do. The stage "inference" of a whole frame stands beside litert-benchmark too, without a bar: between two
inferences it finds a picture and its preprocessing in the caches.

Usage: python benchmarks/evidence/bench_rivals.py BUNDLE [--rounds 20] [--seconds 1] [--threads 1]

Needs an otherwise idle machine, and: pip install mlcommons-loadgen (litert-benchmark is in ai-edge-litert).
"""

from __future__ import annotations

import argparse
import contextlib
import io
import re
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from boardfit.benchmarks.cases import Wanted, cases_of
from boardfit.benchmarks.early_stopping import allowed_above
from boardfit.benchmarks.frames import choose_frames
from boardfit.benchmarks.measure import measure
from boardfit.benchmarks.records import Case, Run
from boardfit.benchmarks.scenario import Plan
from boardfit.boards.detect import detect
from boardfit.boards.probes import Probes
from boardfit.bundle import Bundle, open_bundle
from boardfit.runtime.engines import find_engine
from boardfit.runtime.results import Timings
from boardfit.runtime.session import load
from boardfit.timing import machine_name, percentile

SIZE_WH = (640, 480)
BAR = 0.03


class Rivals:
    """All of them, each ready to run for a while."""

    def __init__(
        self, session: Any, bare: Callable, case: Case, frames: Sequence[np.ndarray], model: Path
    ) -> None:
        self.frame_s: list[float] = []
        self.bare_s: list[float] = []
        self.inference_s: list[float] = []
        self.loadgen_s: list[float] = []
        self.litert_s: list[float] = []
        self.stops_alike = True
        self._session = session
        self._bare = bare
        self._case = case
        self._frames = frames
        self._model = model
        self._probes = Probes(detect().profile)

    def ours(self, seconds: float) -> None:
        """Measure whole frames as ``boardfit bench`` does."""
        found = self._measured(self._session, seconds)
        self.frame_s.append(percentile(found.latencies_s, 50.0))
        self.inference_s.append(percentile(found.stages_s["inference"], 50.0))

    def ours_bare(self, seconds: float) -> None:
        """Measure the engine alone."""
        self.bare_s.append(percentile(self._measured(self._bare, seconds).latencies_s, 50.0))

    def _measured(self, session: Callable, seconds: float) -> Run:
        return measure(
            self._case,
            lambda: nullcontext(session),
            self._frames,
            probe=lambda: self._probes.read(0.0),
            plan=Plan(runs=1, duration_s=seconds, warmup_s=0.1),
        ).runs[0]

    def loadgen(self, seconds: float) -> None:
        """Let LoadGen ask the same session for the same pictures."""
        import mlperf_loadgen as loadgen

        def issue(samples: Sequence[Any]) -> None:
            for sample in samples:
                self._session(self._frames[sample.index])
                loadgen.QuerySamplesComplete([loadgen.QuerySampleResponse(sample.id, 0, 0)])

        for frame in self._frames:
            self._session(frame)
        settings = loadgen.TestSettings()
        settings.scenario = loadgen.TestScenario.SingleStream
        settings.mode = loadgen.TestMode.PerformanceOnly
        settings.min_duration_ms = int(1000 * seconds)
        settings.min_query_count = 64
        count = len(self._frames)
        with tempfile.TemporaryDirectory() as folder:
            output, logs = loadgen.LogOutputSettings(), loadgen.LogSettings()
            output.outdir = folder
            logs.log_output = output
            system = loadgen.ConstructSUT(issue, lambda: None)
            library = loadgen.ConstructQSL(count, count, lambda _: None, lambda _: None)
            loadgen.StartTestWithLogSettings(system, library, settings, logs, "")
            loadgen.DestroyQSL(library)
            loadgen.DestroySUT(system)
            text = (Path(folder) / "mlperf_log_summary.txt").read_text()
        needed, queries = _numbers(text, r"Processed at least (\d+) queries \((\d+)\)")
        (discarded,) = _numbers(text, r"Would discard (\d+) highest")
        self.stops_alike &= needed == 64 and discarded == allowed_above(queries, 90.0) - 1
        self.loadgen_s.append(1e-9 * _numbers(text, r"50\.00 percentile latency \(ns\)\s*: (\d+)")[0])

    def litert(self, seconds: float) -> None:
        """Run what the command litert-benchmark runs."""
        from ai_edge_litert.tools import benchmark_litert_model as tool

        runs = max(50, int(seconds / (self.litert_s[-1] if self.litert_s else 0.01)))
        options = {"model": str(self._model), "num_threads": self._case.threads, "num_runs": runs}
        options |= {"warmup_runs": 10, "use_gpu": False, "use_npu": False, "no_cpu": False, "verbose": False}
        texts = ("signature", "dispatch_library_path", "compiler_plugin_path", "runtime_path", "result_json")
        options |= dict.fromkeys(texts, "") | {"require_full_delegation": False}
        with contextlib.redirect_stdout(io.StringIO()):
            found = tool.run_benchmark(SimpleNamespace(**options))
        self.litert_s.append(found["latency"]["median_ms"] / 1e3)


def bare_engine(session: Any, bundle: Bundle, size: int) -> Callable[[np.ndarray], SimpleNamespace]:
    """Return a session that gives a LiteRT engine of its own one and the same tensor."""
    artifact = session.artifact(size)
    files = bundle.artifact_files(artifact)
    engine = find_engine("litert")(artifact, files, session.threads)
    feeds = {
        artifact.inputs[0].name: np.random.RandomState(0).uniform(-1, 1, (1, size, size, 3)).astype("f4")
    }
    answer = SimpleNamespace(size=size, timings=Timings(0.0, 0.0, 0.0, 0.0, 0.0))

    def run(_frame: np.ndarray) -> SimpleNamespace:
        engine.run(feeds)
        return answer

    return run


def _numbers(text: str, pattern: str) -> tuple[int, ...]:
    found = re.search(pattern, text)
    if found is None:
        raise SystemExit(f"LoadGen does not say {pattern!r}:\n{text}")
    return tuple(map(int, found.groups()))


def ratio(name: str, mine: Sequence[float], other: Sequence[float]) -> bool:
    """Print the ratio of medians with its interval; return whether it is inside the bar."""
    a, b = np.array(mine), np.array(other)
    rows = np.random.RandomState(0).randint(0, len(a), (10_000, len(a)))
    spread = np.median(a[rows], axis=1) / np.median(b[rows], axis=1)
    middle = np.median(a) / np.median(b)
    low, high = np.percentile(spread, [2.5, 97.5])
    print(
        f"| {name} | {1e3 * np.median(a):.3f} | {1e3 * np.median(b):.3f} | {middle:.4f} "
        f"| {low:.4f} to {high:.4f} | {np.median(a / b):.4f} |"
    )
    return bool(abs(middle - 1.0) <= BAR)


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each tool in each round")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--size", type=int, default=224, help="the one that the .tflite file has by default")
    asked = parser.parse_args(argv)
    wanted = Wanted(engines=("litert",), precisions=("fp32",), threads=(asked.threads,), sizes=(asked.size,))
    options = {"engine": "litert", "precision": "fp32", "threads": asked.threads, "size": asked.size}
    with (
        open_bundle(asked.bundle) as bundle,
        tempfile.TemporaryDirectory() as folder,
        load(bundle, **options) as session,
    ):
        frames = choose_frames(bundle, size_wh=SIZE_WH)
        (case,) = cases_of(bundle.manifest, wanted, frame_size_wh=SIZE_WH)
        model = Path(folder) / "model.tflite"
        model.write_bytes(bundle.read(session.artifact(asked.size).files[0]))
        rivals = Rivals(session, bare_engine(session, bundle, asked.size), case, frames.frames, model)
        turns: list[Callable[[float], None]] = [rivals.ours, rivals.loadgen, rivals.ours_bare, rivals.litert]
        for index in range(asked.rounds):
            for turn in turns[index % 4 :] + turns[: index % 4]:
                turn(asked.seconds)
            print(f"round {index + 1} of {asked.rounds}", file=sys.stderr, flush=True)
    print(f"{machine_name()}, {asked.threads} threads, {asked.size} pixels")
    print(f"{asked.rounds} rounds of {asked.seconds} s each")
    print(f"early stopping by LoadGen's numbers in each round: {'yes' if rivals.stops_alike else 'NO'}\n")
    print("| beside | our p50 ms | their p50 ms | ratio of medians | 95 % interval | median of ratios |")
    print("|---|---|---|---|---|---|")
    inside = ratio("LoadGen, whole frame", rivals.frame_s, rivals.loadgen_s)
    inside &= ratio("litert-benchmark, bare engine", rivals.bare_s, rivals.litert_s)
    ratio("litert-benchmark, inference within a frame (no bar)", rivals.inference_s, rivals.litert_s)
    print(f"\nwithin {100 * BAR:.0f} %: {'yes' if inside else 'NO'}")
    return 0 if inside and rivals.stops_alike else 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
