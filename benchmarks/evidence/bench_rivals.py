"""Our single-stream beside MLPerf's LoadGen and LiteRT's own litert-benchmark: same file, same threads.

Each round runs each of the three once, in a process of its own, in turning order: ``boardfit bench``, LoadGen
with the same session and pictures, and ``litert-benchmark`` on the .tflite file of that bundle, beside the
stage "inference" of ours. Printed is the ratio of the medians over all rounds, with the interval that a
bootstrap over rounds gives, and whether LoadGen stops early by the numbers that we do.

Usage: python benchmarks/evidence/bench_rivals.py BUNDLE [--rounds 20] [--seconds 3] [--threads 1]

Needs an otherwise idle machine, and: pip install mlcommons-loadgen (litert-benchmark is in ai-edge-litert).
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from boardfit.benchmarks.early_stopping import allowed_above
from boardfit.benchmarks.frames import choose_frames
from boardfit.benchmarks.store import read_report
from boardfit.bundle import open_bundle
from boardfit.runtime.session import load
from boardfit.timing import machine_name, percentile

SIZE_WH = (640, 480)
BAR = 0.03


def ours(bundle: str, asked: argparse.Namespace, folder: Path) -> dict[str, float]:
    """Run ``boardfit bench`` and return its medians in seconds."""
    out = folder / "report"
    command = [sys.executable, "-m", "boardfit", "bench", bundle, "--engine", "litert", "--precision", "fp32"]
    command += ["--threads", str(asked.threads), "--size", str(asked.size), "--runs", "1"]
    command += [
        "--duration",
        str(asked.seconds),
        "--frame-size",
        "x".join(map(str, SIZE_WH)),
        "--out",
        str(out),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 3):
        raise SystemExit(done.stderr)
    measurement = read_report(out).measurements[0]
    run = measurement.runs[0]
    return {
        "frame": percentile(run.latencies_s, 50.0),
        "inference": percentile(run.stages_s["inference"], 50.0),
        "valid": float(measurement.valid),
    }


def loadgen_child(asked: argparse.Namespace) -> None:
    """Run LoadGen on the session that ours opens, and print its summary as JSON."""
    import mlperf_loadgen as loadgen

    with open_bundle(asked.bundle) as opened:
        frames = choose_frames(opened, size_wh=SIZE_WH).frames
    with (
        tempfile.TemporaryDirectory() as folder,
        load(
            asked.bundle, engine="litert", precision="fp32", threads=asked.threads, size=asked.size
        ) as session,
    ):

        def issue(samples: list) -> None:
            for sample in samples:
                session(frames[sample.index])
                loadgen.QuerySamplesComplete([loadgen.QuerySampleResponse(sample.id, 0, 0)])

        for index in range(50):
            session(frames[index % len(frames)])
        settings = loadgen.TestSettings()
        settings.scenario = loadgen.TestScenario.SingleStream
        settings.mode = loadgen.TestMode.PerformanceOnly
        settings.min_duration_ms = int(1000 * asked.seconds)
        settings.min_query_count = 64
        output = loadgen.LogOutputSettings()
        output.outdir = folder
        logs = loadgen.LogSettings()
        logs.log_output = output
        sut = loadgen.ConstructSUT(issue, lambda: None)
        library = loadgen.ConstructQSL(len(frames), len(frames), lambda _: None, lambda _: None)
        loadgen.StartTestWithLogSettings(sut, library, settings, logs, "")
        loadgen.DestroyQSL(library)
        loadgen.DestroySUT(sut)
        text = (Path(folder) / "mlperf_log_summary.txt").read_text()
    numbers = {
        "p50_s": r"50\.00 percentile latency \(ns\)\s*: (\d+)",
        "queries": r"Processed at least \d+ queries \((\d+)\)",
        "discarded": r"Would discard (\d+) highest",
        "needed": r"Processed at least (\d+) queries",
    }
    found = {name: int(re.search(pattern, text)[1]) for name, pattern in numbers.items()}
    print(json.dumps({**found, "p50_s": found["p50_s"] * 1e-9}))


def theirs(bundle: str, asked: argparse.Namespace) -> dict[str, float]:
    """Run LoadGen in a process of its own."""
    words = [
        bundle,
        "--seconds",
        str(asked.seconds),
        "--threads",
        str(asked.threads),
        "--size",
        str(asked.size),
    ]
    command = [sys.executable, __file__, *words, "--loadgen-child"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def litert(model: Path, asked: argparse.Namespace, folder: Path, runs: int) -> float:
    """Run litert-benchmark and return its median in seconds."""
    result = folder / "litert.json"
    tool = Path(sys.executable).with_name("litert-benchmark")
    command = (
        [str(tool)]
        if tool.is_file()
        else [sys.executable, "-m", "ai_edge_litert.tools.benchmark_litert_model"]
    )
    command += ["--model", str(model), "--num_threads", str(asked.threads), "--warmup_runs", "50"]
    command += ["--num_runs", str(runs), "--result_json", str(result)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(result.read_text())["latency"]["median_ms"] / 1e3


def ratio(name: str, mine: list[float], other: list[float]) -> bool:
    """Print the ratio of medians with its interval; return whether it is inside the bar."""
    a, b = np.array(mine), np.array(other)
    random = np.random.RandomState(0)
    rows = random.randint(0, len(a), (10_000, len(a)))
    spread = np.median(a[rows], axis=1) / np.median(b[rows], axis=1)
    middle = np.median(a) / np.median(b)
    low, high = np.percentile(spread, [2.5, 97.5])
    print(
        f"| {name} | {1e3 * np.median(a):.3f} | {1e3 * np.median(b):.3f} | {middle:.4f} "
        f"| {low:.4f} to {high:.4f} | {np.median(a / b):.4f} |"
    )
    return abs(middle - 1.0) <= BAR


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each tool in each round")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--size", type=int, default=224, help="the one that the .tflite file has by default")
    parser.add_argument("--loadgen-child", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args(argv)
    if asked.loadgen_child:
        loadgen_child(asked)
        return 0
    frame, inference, generated, plain, agreed, valid = [], [], [], [], True, 0
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        with open_bundle(asked.bundle) as bundle:
            artifact = next(
                each
                for each in bundle.manifest.artifacts
                if (each.format, each.precision) == ("tflite", "fp32")
            )
            model = folder / "model.tflite"
            model.write_bytes(bundle.read(artifact.files[0]))
        for index in range(asked.rounds):
            turns = ["ours", "loadgen", "litert"]
            for turn in turns[index % 3 :] + turns[: index % 3]:
                place = folder / f"{index}-{turn}"
                place.mkdir()
                if turn == "ours":
                    found = ours(asked.bundle, asked, place)
                    frame.append(found["frame"])
                    inference.append(found["inference"])
                    valid += int(found["valid"])
                elif turn == "loadgen":
                    told = theirs(asked.bundle, asked)
                    generated.append(told["p50_s"])
                    agreed &= told["discarded"] == allowed_above(int(told["queries"]), 90.0) - 1
                    agreed &= told["needed"] == 64
                else:
                    runs = max(50, int(asked.seconds / (plain[-1] if plain else 0.01)))
                    plain.append(litert(model, asked, place, runs))
            print(f"round {index + 1} of {asked.rounds}", file=sys.stderr, flush=True)
    print(f"{machine_name()}, {asked.threads} threads, {asked.size} pixels")
    print(f"{asked.rounds} rounds of {asked.seconds} s each; valid of our runs: {valid}")
    print(f"early stopping by LoadGen's numbers in each round: {'yes' if agreed else 'NO'}\n")
    print("| beside | our p50 ms | their p50 ms | ratio of medians | 95 % interval | median of ratios |")
    print("|---|---|---|---|---|---|")
    inside = ratio("LoadGen, whole frame", frame, generated)
    inside &= ratio("litert-benchmark, inference", inference, plain)
    print(f"\nwithin {100 * BAR:.0f} %: {'yes' if inside else 'NO'}")
    return 0 if inside and agreed else 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
