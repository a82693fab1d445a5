"""One bundle on this machine, from the question to the report."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from pathlib import Path

from boardfit.benchmarks.accuracy import Judge, Labelled
from boardfit.benchmarks.cases import Wanted, cases_of, given_inputs, opener
from boardfit.benchmarks.compare import LEAST_RUNS
from boardfit.benchmarks.environment import environment
from boardfit.benchmarks.frames import choose_frames
from boardfit.benchmarks.measure import measure
from boardfit.benchmarks.records import Case, Measurement, Report
from boardfit.benchmarks.scenario import Plan
from boardfit.boards.detect import Board, detect
from boardfit.boards.probes import Probes
from boardfit.boards.probes.memory import reset_peak
from boardfit.boards.records import Snapshot
from boardfit.bundle import open_bundle


def bench(
    bundle: str | os.PathLike[str],
    wanted: Wanted | None = None,
    *,
    plan: Plan | None = None,
    images: Sequence[str | os.PathLike[str]] = (),
    frame_size_wh: tuple[int, int] | None = None,
    labelled: Labelled = (),
    command: Sequence[str] = (),
    progress: Callable[[str], None] = lambda _: None,
) -> Report:
    """Measure a bundle on this machine.

    Args:
        bundle: Path of a .boardfit file or of an unpacked one.
        wanted: Scenario, engines, precisions, threads, sizes; by default single-stream as ``boardfit.load``
            would run it.
        plan: How long and how often; five runs of 10 s by default.
        images: Files, folders or patterns to measure with; else the bundle's own test picture.
        frame_size_wh: Measure with made pictures of this width and height instead.
        labelled: Image files with the index of their class, on which answers are judged.
        command: Words of the command line, for the report.
        progress: Told after each run.

    Returns:
        The report. ``report.valid`` says whether its numbers can be trusted, and ``all_faults`` of each
        measurement why not.

    Raises:
        BundleError: The bundle is damaged.
        EngineMissing: An engine is not installed.
        InputError: An image is missing or damaged.
        RecipeError: The options make no sense, or the bundle lacks what they name.
        EngineError: An engine fails.
    """
    wanted, plan = wanted or Wanted(), plan or Plan()
    started = datetime.now(timezone.utc)
    board = detect()
    probes = Probes(board.profile)

    def probe() -> Snapshot:
        return probes.read(time.perf_counter())

    state = probe()
    with open_bundle(bundle) as opened:
        manifest, bundle_id = opened.manifest, opened.content_id
        frames = choose_frames(opened, images=images, size_wh=frame_size_wh)
        inputs = given_inputs(opened)
    cases = cases_of(manifest, wanted, frame_size_wh=frames.size_wh)
    judge = Judge(bundle, manifest, labelled, inputs=inputs, progress=progress) if labelled else None
    measurements = []
    for case in cases:
        found = measure(
            case,
            opener(bundle, case, inputs),
            frames.frames,
            probe=probe,
            prepare=_prepare,
            plan=plan,
            progress=progress,
            show_times=not board.emulated,
        )
        accuracy = judge.accuracy(case) if judge else None
        measurements.append(Measurement(case=case, runs=found.runs, accuracy=accuracy, faults=found.faults))
    return Report(
        environment=environment(
            board,
            state,
            engines=sorted({case.engine for case in cases}),
            command=command,
            started=started,
        ),
        bundle_name=manifest.name or Path(bundle).name,
        bundle_id=bundle_id,
        measurements=tuple(measurements),
        notes=(*frames.notes, *_notes(board, state, plan), *_memory_notes(cases)),
    )


def _prepare() -> None:
    """Let go of what the run before has left, so that the peak of memory is this run's own."""
    gc.collect()
    reset_peak()


def _memory_notes(cases: Sequence[Case]) -> list[str]:
    if len({case.engine for case in cases}) < 2:
        return []
    return ["several engines ran in one process: the memory of each includes the libraries of those before"]


def _notes(board: Board, state: Snapshot, plan: Plan) -> list[str]:
    """Return what a reader must know of the machine and the plan."""
    notes = []
    if board.emulated:
        notes.append(f"the processor is emulated ({board.emulation}): these times are no board's performance")
    if state.throttled is None and not state.clocks_hz:
        notes.append("this machine tells neither its clock nor whether it throttles: neither was watched")
    if state.hottest_c is None:
        notes.append("this machine tells no temperature")
    others = sorted({name for name in state.governors.values() if name != "performance"})
    if others:
        notes.append(
            f"the frequency governor is {', '.join(others)}: its changes of the clock are in these times"
        )
    if plan.runs < LEAST_RUNS:
        notes.append(f"{plan.runs} runs: fewer than {LEAST_RUNS} say too little to compare reports")
    return notes
