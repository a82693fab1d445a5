"""Reports as a bench writes them, made by numbers: seeded latencies, heat, faults."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from boardfit.benchmarks.records import Accuracy, Case, Environment, Measurement, Report, Run
from boardfit.boards.records import MemoryUse, Snapshot

ENVIRONMENT = Environment(
    board="raspberry-pi-5",
    board_title="Raspberry Pi 5",
    emulated=False,
    cpu="Cortex-A76",
    cores=4,
    memory_bytes=8 << 30,
    os_name="Debian GNU/Linux 12 (bookworm)",
    kernel="6.6.51+rpt-rpi-2712",
    libc="glibc 2.36",
    python="3.11.2",
    packages={"boardfit": "0.1.0", "numpy": "2.4.0", "opencv": "5.0.0", "ai-edge-litert": "2.3.0"},
    governor="performance",
    power_mode=None,
    command=("boardfit", "bench", "lite0.boardfit", "--out", "pi5"),
    started_utc="2026-11-25T12:00:00Z",
)
CASE = Case(
    scenario="single-stream",
    engine="litert",
    engine_version="2.3.0",
    precision="int8",
    threads=4,
    affinity=(),
    sizes=(224,),
    policy="fixed",
    frame_size_wh=(640, 480),
)


def snapshot(time_s: float, *, heat: float, throttled: bool = False) -> Snapshot:
    clock = 1.5e9 if throttled else 2.4e9
    return Snapshot(
        time_s=time_s,
        temperatures_c={"cpu-thermal": heat, "rp1": heat - 6.0},
        clocks_hz={"cpu0": clock},
        max_clocks_hz={"cpu0": clock},
        governors={"cpu0": "performance"},
        throttled=throttled,
        throttle_bits=0xE0008 if throttled else 0,
        memory=MemoryUse(rss_bytes=90 << 20, peak_bytes=118 << 20, total_bytes=8 << 30),
        load_1min=1.1,
        busy_share=0.01,
    )


def make_run(
    case: Case = CASE,
    *,
    p50_s: float = 0.008,
    seed: int = 0,
    index: int = 0,
    frames: int = 400,
    noise: float = 0.004,
    faults: tuple[str, ...] = (),
) -> Run:
    """Return a run whose median is within about ``noise`` of ``p50_s``."""
    rng = np.random.default_rng((seed, index))
    level = p50_s * np.exp(rng.normal(0.0, noise))
    latencies = level * (1.0 + 0.01 * rng.gamma(2.0, 2.0, frames)) / 1.034
    latencies[rng.integers(0, frames, max(1, frames // 100))] *= 1.4
    sizes = rng.choice(case.sizes, frames)
    latencies *= (sizes / max(case.sizes)) ** 2
    hot = bool(faults)
    start = 40.0 * index
    return Run(
        load_s=0.21 * np.exp(rng.normal(0.0, 0.02)),
        first_s=0.031 * np.exp(rng.normal(0.0, 0.03)),
        warmup_s=tuple((latencies[:5] * 1.2).tolist()),
        latencies_s=tuple(latencies.tolist()),
        stages_s={
            "entropy": tuple((latencies * 0.01).tolist()),
            "preprocess": tuple((latencies * 0.14).tolist()),
            "inference": tuple((latencies * 0.83).tolist()),
            "postprocess": tuple((latencies * 0.02).tolist()),
        },
        answered_sizes=tuple(int(size) for size in np.repeat(sizes, case.batch)),
        duration_s=float(latencies.sum()),
        before=snapshot(start, heat=48.0 + index),
        after=snapshot(start + 31.0, heat=61.0 + index, throttled=hot),
        trace=tuple(
            snapshot(start + i, heat=48.0 + index + 13.0 * (1 - 0.9**i), throttled=hot and i > 20)
            for i in range(1, 31)
        ),
        ages_s=tuple((latencies + 0.004).tolist()) if case.scenario == "camera" else (),
        dropped=12 if case.scenario == "camera" else 0,
        faults=faults,
    )


def make_measurement(
    case: Case = CASE,
    *,
    runs: int = 5,
    p50_s: float = 0.008,
    seed: int = 0,
    noise: float = 0.004,
    accuracy: Accuracy | None = None,
    faults: tuple[str, ...] = (),
    run_faults: tuple[str, ...] = (),
) -> Measurement:
    """Return a measurement; ``run_faults`` are those of its last run."""
    done = [
        make_run(
            case,
            p50_s=p50_s,
            seed=seed,
            index=i,
            noise=noise,
            faults=run_faults if i == runs - 1 else (),
        )
        for i in range(runs)
    ]
    return Measurement(case=case, runs=tuple(done), accuracy=accuracy, faults=faults)


def make_report(*measurements: Measurement, **environment: object) -> Report:
    """Return a report of a Pi 5, whose environment may differ in what is named."""
    return Report(
        environment=replace(ENVIRONMENT, **environment),  # type: ignore[arg-type]
        bundle_name="efficientnet-lite0",
        bundle_id="3f" * 32,
        measurements=measurements or (make_measurement(),),
    )


def rich_report(seed: int = 0, scale: float = 1.0, **environment: object) -> Report:
    """Return a report of many configurations: precisions, engines, a policy, a camera, one throttled."""

    def of(name: str, precision: str, ms: float, top1: float, **more: object) -> Measurement:
        case = replace(CASE, engine=name, precision=precision, **more)  # type: ignore[arg-type]
        accuracy = Accuracy(images=500, top1=top1, top1_fp32=0.9)
        return make_measurement(case, p50_s=scale * ms / 1e3, seed=seed, accuracy=accuracy)

    throttled = make_measurement(
        replace(CASE, engine="ncnn", engine_version="1.0.20261020", precision="fp32"),
        p50_s=scale * 0.0123,
        seed=seed,
        accuracy=Accuracy(500, 0.9, 0.9),
        run_faults=("throttled: 0xe0008 after the run, p50 12.3 ms",),
    )
    return make_report(
        of("litert", "int8", 8.1, 0.894),
        of("litert", "fp32", 14.9, 0.9),
        of("onnxruntime", "int8", 9.4, 0.898, engine_version="1.32.0"),
        of("litert", "int8", 2.6, 0.65, sizes=(112,)),
        of("litert", "int8", 7.0, 0.89, sizes=(112, 160, 224), policy="two-look"),
        of("litert", "int8", 8.8, 0.894, scenario="camera", fps=30.0),
        throttled,
        **environment,
    )


@pytest.fixture(scope="session")
def report_of() -> Callable[..., Report]:
    """``make_report``."""
    return make_report


@pytest.fixture(scope="session")
def measurement_of() -> Callable[..., Measurement]:
    """``make_measurement``."""
    return make_measurement


@pytest.fixture(scope="session")
def rich_report_of() -> Callable[..., Report]:
    """``rich_report``."""
    return rich_report
