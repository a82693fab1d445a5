"""boardfit watch: answers from cameras, unattended."""

from __future__ import annotations

import argparse
import logging
import math
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from boardfit.cli.ends import end_at_once
from boardfit.cli.lists import count, size_wh
from boardfit.cli.opened import opened
from boardfit.cli.tuned import add_tuning
from boardfit.errors import InputError, RecipeError

if TYPE_CHECKING:
    import numpy as np

    from boardfit.runtime.camera import Frame, Loop, Source
    from boardfit.runtime.camera.sinks import Answer, Sink
    from boardfit.runtime.model import Model
    from boardfit.runtime.policy.budget import Budget
    from boardfit.runtime.results import Result

EXAMPLE = """\
examples:
  boardfit watch lite0.boardfit 0
  boardfit watch lite0.boardfit rtsp://user:password@192.168.1.20/stream --jsonl answers.jsonl
  boardfit watch lite0.boardfit street.avi --every-frame --record annotated.mp4
  boardfit watch lite0.boardfit 0 --fps 15 --max-temp 75 --reuse --stats --for 60

SOURCE: a USB or V4L2 camera (0, /dev/video0), rtsp://..., http://... (MJPEG), a video file, a folder of
images, 'gst:PIPELINE' without its sink, picamera, synthetic:640x480@30; env:NAME takes it from a variable,
where no list of processes shows its password (but for gst:, whose child process has it in its own line, seen
with ps by everybody on this machine). Several sources share the engine.

Of a camera the newest part stays: files of {parts} minutes of film or {megabytes} MB of lines, {old} old
ones of each (x.1.mp4 is the newest) besides the one that is written, and less film where less than 64 MB
would stay free. Of a file or folder with --every-frame all stays, in one file
(a new film after a full disk; older films under the name are kept as x.1.mp4, x.2.mp4 and so on).

A camera that fails is opened again; what happened stands on stderr and among the JSON lines. Ctrl-C and
SIGTERM end it. As a systemd service: sdk/examples/boardfit-watch.service.
"""
RECORD_FPS = 15.0
_PART_S = 600.0
_JSONL_BYTES = 64_000_000
_OLD_FILES = 4
_SHOWN_S = 1.0
_STATS_S = 10.0


def add_parser(subparsers: Any) -> None:
    """Add the subcommand's arguments."""
    parser = subparsers.add_parser(
        "watch",
        help="answer cameras, unattended",
        description="Run a bundle on cameras and streams for as long as they live: newest frame first, "
        "outages noticed within a second and mended.",
        epilog=EXAMPLE.format(parts=round(_PART_S / 60), megabytes=_JSONL_BYTES // 10**6, old=_OLD_FILES),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("bundle", metavar="BUNDLE", help="a .boardfit file or folder")
    parser.add_argument(
        "sources", metavar="SOURCE", nargs="+", help="camera, address, video, folder, pipeline"
    )
    out = parser.add_argument_group("where the answers go")
    out.add_argument(
        "--jsonl",
        metavar="FILE",
        help="append a line of JSON for each answer and event (/dev/stdout: with --quiet, else mixed)",
    )
    out.add_argument(
        "--record", metavar="FILE", help="film with the answers: .mp4, .mkv (survives a power cut)"
    )
    out.add_argument("--top", type=count, metavar="K", default=3, help="keep the K best classes (default: 3)")
    out.add_argument("--stats", action="store_true", help="print times and counts every 10 seconds")
    out.add_argument("--quiet", action="store_true", help="print no answers")
    how = parser.add_argument_group("how to look")
    how.add_argument(
        "--for", type=_above_zero, metavar="S", dest="duration_s", help="end after so many seconds"
    )
    how.add_argument("--wait", action="store_true", help="wait for cameras that are not there yet")
    how.add_argument("--camera-size", type=size_wh, metavar="WxH", help="size in pixels to ask cameras for")
    how.add_argument(
        "--camera-fps",
        type=_rate,
        metavar="N",
        help="frames a second to ask cameras for, needed below 0.5 (one in 2 s); of a folder, its rate",
    )
    how.add_argument(
        "--still", action="store_true", help="a picture that stays the same, or has one colour, is no fault"
    )
    how.add_argument("--every-frame", action="store_true", help="of files: every frame, as fast as possible")
    how.add_argument(
        "--fps", type=_above_zero, metavar="N", help="smaller inputs where N frames a second are missed"
    )
    how.add_argument(
        "--max-temp", type=_above_zero, metavar="C", help="smaller inputs from so many degrees Celsius"
    )
    how.add_argument("--reuse", action="store_true", help="where nothing moved, keep the last answer for 2 s")
    how.add_argument(
        "--isolate", action="store_true", help="engine in a process of its own, replaced if lost"
    )
    how.add_argument(
        "--key",
        action="append",
        metavar="PUB",
        help="run only what this key has signed; given again: or that one",
    )
    how.add_argument("--policy", metavar="P", help="fixed, entropy or two-look (default: the bundle's)")
    how.add_argument("--size", type=count, metavar="S", help="one input side for every frame")
    how.add_argument("--engine", metavar="NAME", help="litert, onnxruntime or ncnn (default: the first)")
    how.add_argument("--precision", metavar="P", help="fp32, fp16, int8, ... (default: the most exact)")
    how.add_argument("--threads", type=count, metavar="N", help="of the engine (default: cores, at most 4)")
    add_tuning(how)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Watch until the sources end, the time is over, or a signal comes."""
    from boardfit.loading import load
    from boardfit.runtime.camera import close_all, loop
    from boardfit.runtime.camera.service import stopped_by_signals
    from boardfit.runtime.camera.sinks.video import check_place
    from boardfit.runtime.policy.motion import MotionSettings

    if args.record and len(args.sources) > 1:
        raise InputError(
            "--record films one camera: run one boardfit watch for each, or take --jsonl, which names each"
        )
    if args.record:
        check_place(Path(args.record))
    with ExitStack() as stack:
        loading = partial(
            load,
            args.bundle,
            engine=args.engine,
            precision=args.precision,
            threads=args.threads,
            policy=args.policy,
            size=args.size,
            stream=len(args.sources) == 1,
            isolate=args.isolate,
            tuning=args.tuning,
            trusted_keys=args.key,
        )
        # An isolated engine's process would keep the stderr that it is born with.
        model = stack.enter_context(opened(loading, quiet=not args.isolate))
        stack.enter_context(_log_on_stderr())
        budget = _budget(args, model)
        words = [_resolved(word) for word in args.sources]
        sources: list[Source] = []
        stack.callback(close_all, sources)
        for word, name in zip(words, _names(words), strict=True):
            sources.append(_open(word, name, args))
        sinks = _sinks(args, words[0], live=all(source.live for source in sources))
        running = loop(
            sources,
            model,
            sinks=sinks,
            budget=budget,
            motion=MotionSettings() if args.reuse else None,
        )
        stack.enter_context(running)
        stack.enter_context(stopped_by_signals(running))
        if args.duration_s:
            stack.enter_context(_stopped_after(args.duration_s, running))
        if args.stats:
            stack.enter_context(_shown_every(_STATS_S, partial(_table, running)))
        try:
            _watch(running, args)
        finally:
            if running.hangs:
                _leave(running, sources, failed=sys.exc_info()[1])
    print(f"\n{_table(running)}", file=sys.stderr)
    return 0


def _leave(running: Loop, sources: Sequence[Source], *, failed: BaseException | None) -> NoReturn:
    """End at once, beside an engine that cannot be told to: the sinks are closed, its process ends too.

    Args:
        running: Is over.
        sources: To be closed.
        failed: Why it ended, if not by itself.
    """
    from boardfit.runtime.camera import close_all

    close_all(sources)
    print(f"\n{_table(running)}\nthe engine was in the middle of a frame, and is left", file=sys.stderr)
    if failed is not None:
        print(f"boardfit: error: {failed}", file=sys.stderr)
    end_at_once(0 if failed is None else 1)


@contextmanager
def _log_on_stderr() -> Iterator[None]:
    """Show what cameras and sinks tell of themselves, good news too."""
    log = logging.getLogger("boardfit")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("boardfit: %(message)s"))
    level = log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(level)


@contextmanager
def _stopped_after(seconds: float, running: Loop) -> Iterator[None]:
    timer = threading.Timer(seconds, running.stop)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


@contextmanager
def _shown_every(seconds: float, text: Callable[[], str]) -> Iterator[None]:
    """Show a text on stderr at intervals, whether answers come or not."""
    over = threading.Event()

    def show() -> None:
        while not over.wait(seconds):
            print(text(), file=sys.stderr, flush=True)

    thread = threading.Thread(target=show, name="stats", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(1.0)


def _watch(running: Loop, args: argparse.Namespace) -> None:
    shown = time.monotonic() - _SHOWN_S
    for frame, result in running:
        now = time.monotonic()
        if not args.quiet and now - shown >= _SHOWN_S:
            shown = now
            print(_line(frame, result, now), flush=True)


def _resolved(word: str) -> str:
    """Return the source that a word means: that of a variable for ``env:NAME``."""
    if not word.startswith("env:"):
        return word
    name = word.removeprefix("env:")
    source = os.environ.get(name, "")
    if not source:
        raise InputError(f"the variable {name} is not set: give it the address of the camera")
    return source


def _names(words: Sequence[str]) -> list[str]:
    """Return what sources are called: where two look alike without their passwords, the second one is #2."""
    from boardfit.names import without_password

    names = [without_password(word) for word in words]
    earlier = [names[:index].count(name) for index, name in enumerate(names)]
    return [f"{name}#{before + 1}" if before else name for name, before in zip(names, earlier, strict=True)]


def _open(word: str, name: str, args: argparse.Namespace) -> Source:
    from boardfit.runtime import camera

    return camera.open(
        word,
        size_wh=args.camera_size,
        fps=args.camera_fps,
        every_frame=args.every_frame,
        wait=args.wait,
        still=args.still,
        name=name,
    )


def _sinks(args: argparse.Namespace, source: str, *, live: bool) -> list[Sink | Callable[[Answer], object]]:
    from boardfit.runtime.camera.address import is_file
    from boardfit.runtime.camera.sinks.jsonl import JsonLines
    from boardfit.runtime.camera.sinks.video import Recording

    sinks: list[Sink | Callable[[Answer], object]] = []
    if args.jsonl:
        most = _JSONL_BYTES if live else sys.maxsize
        sinks.append(JsonLines(args.jsonl, top=args.top, max_bytes=most, keep=_OLD_FILES))
    if args.record:
        from boardfit.runtime.camera.devices.opencv import video_fps

        fps = video_fps(Path(source)) if is_file(source) and Path(source).is_file() else RECORD_FPS
        part_s = _PART_S if live else math.inf
        draw = partial(_drawn, top=args.top)
        sinks.append(
            Recording(args.record, fps=fps, real_time=live, draw=draw, part_s=part_s, keep=_OLD_FILES)
        )
    return sinks


def _budget(args: argparse.Namespace, model: Model) -> Budget | None:
    from boardfit.runtime.policy.budget import Budget, BudgetSettings

    if args.fps is None and args.max_temp is None:
        return None
    from boardfit.boards.detect import detect
    from boardfit.boards.probes import Probes
    from boardfit.boards.probes.ahead import asked_ahead

    probes = Probes(detect().profile)
    if args.max_temp is not None and probes.temperature_c() is None:
        print(
            "boardfit: --max-temp: no sensor tells a temperature here, only a clock that is held down counts",
            file=sys.stderr,
        )
    throttled = asked_ahead(probes.throttled)  # a tool on a Raspberry Pi: no frame waits for it
    settings = BudgetSettings(fps=args.fps, max_temp_c=args.max_temp)
    return Budget(settings, model.sizes, temperature_c=probes.temperature_c, throttled=throttled)


def _drawn(answer: Answer, *, top: int) -> np.ndarray:
    from boardfit.cli.annotate import annotate

    result = answer.result
    footer = f"size {result.size}   {result.timings.total_s * 1e3:.1f} ms   frame {answer.frame.index}"
    return annotate(answer.frame.image, [(best.label, best.score) for best in result.top(top)], footer=footer)


def _line(frame: Frame, result: Result, now: float) -> str:
    answer = "  ".join(f"{best.label}  {best.score:.2f}" for best in result.top(1))
    if not answer:  # no classifier: the arrays are for programs, here are their shapes
        answer = "  ".join(f"{key} {list(array.shape)}" for key, array in result.named.items())
    age_ms = (now - frame.time_s) * 1e3
    return f"{frame.source}#{frame.index}  {answer}  size {result.size}  {age_ms:.0f} ms old"


def _table(running: Loop) -> str:
    from boardfit.cli.text import table
    from boardfit.runtime.camera.stats import PERCENTS

    counts = ", ".join(f"{count} {name}" for name, count in running.counters.items() if count)
    rows = [
        [stage, *(f"{value * 1e3:.2f}" for value in values)]
        for stage, values in running.stats.percentiles_s().items()
    ]
    if not rows:
        return "\n".join(["no frame was answered", counts]).rstrip()
    sizes = ", ".join(f"{count} at {size}" for size, count in sorted(running.stats.by_size.items()))
    return "\n".join([table(["stage", *(f"p{percent} ms" for percent in PERCENTS)], rows), sizes, counts])


def _rate(text: str) -> float:
    from boardfit.runtime.camera.records import require_rate

    value = _above_zero(text)
    try:
        require_rate(value)
    except RecipeError:
        raise argparse.ArgumentTypeError(f"{text!r}: expected at least 1/86400, one frame a day") from None
    return value


def _above_zero(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.0 < value < 1e9:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a number above 0")
    return value
