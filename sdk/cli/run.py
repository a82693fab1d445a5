"""boardfit run: answers for images and videos."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from boardfit.cli.given import add_input, read_given
from boardfit.cli.lists import count
from boardfit.cli.opened import opened
from boardfit.cli.tuned import add_tuning

if TYPE_CHECKING:
    from boardfit.bundle import Bundle
    from boardfit.cli.frames import FrameRef, Inputs
    from boardfit.cli.sinks import Sinks
    from boardfit.runtime.model import Model

EXAMPLE = """\
examples:
  boardfit run lite0.boardfit photos
  boardfit run lite0.boardfit 'photos/*.jpg' street.avi --save annotated --report report.html
  boardfit run lite0.boardfit photos --json --top 3 > answers.jsonl
  boardfit run lite0.boardfit photo.jpg --size 160 --engine onnxruntime --threads 1

Of a video the table shows one frame a second; --json has a line for every frame.
Exit status 1: an input could not be read, and was skipped.
"""


def add_parser(subparsers: Any) -> None:
    """Add the subcommand's arguments."""
    parser = subparsers.add_parser(
        "run",
        help="answer images and videos",
        description="Run a bundle on images, folders, patterns and videos. The bundle's policy chooses the "
        "input size of every frame, unless told otherwise.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("bundle", metavar="BUNDLE", help="a .boardfit file or folder")
    parser.add_argument("inputs", metavar="INPUT", nargs="+", help="image, folder of images, pattern, video")
    parser.add_argument("--json", action="store_true", help="print one JSON object a line, for programs")
    parser.add_argument("--top", type=count, metavar="K", help="show the K best classes")
    parser.add_argument("--save", metavar="DIR", help="write annotated pictures to this folder")
    parser.add_argument("--report", metavar="FILE.html", help="write a page with pictures and figures")
    parser.add_argument("--policy", metavar="P", help="fixed, entropy or two-look (default: the bundle's)")
    parser.add_argument("--size", type=count, metavar="S", help="one input side for every frame")
    parser.add_argument("--engine", metavar="NAME", help="litert, onnxruntime or ncnn (default: the first)")
    parser.add_argument("--precision", metavar="P", help="fp32, fp16, int8, ... (default: the most exact)")
    parser.add_argument(
        "--threads", type=count, metavar="N", help="of the engine (default: cores, at most 4)"
    )
    add_tuning(parser)
    parser.add_argument(
        "--key",
        action="append",
        metavar="PUB",
        help="run only what this key has signed; given again: or that one",
    )
    add_input(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Answer every frame; 1 if an input had to be skipped."""
    from boardfit.bundle import open_bundle
    from boardfit.cli.frames import find_inputs
    from boardfit.cli.sinks import Sinks

    inputs = find_inputs(args.inputs)
    with open_bundle(args.bundle) as bundle:
        if args.key:
            from boardfit.bundle.trust import require_trusted

            require_trusted(bundle, args.key, installing=False)
        sinks = Sinks(bundle, args, inputs)
        _answer_all(bundle, args, inputs, sinks)
        sinks.finish()
    return 1 if sinks.skipped else 0


def _answer_all(bundle: Bundle, args: argparse.Namespace, inputs: Inputs, sinks: Sinks) -> None:
    from boardfit.cli.frames import video_frames
    from boardfit.errors import InputError
    from boardfit.runtime.images import read_image
    from boardfit.runtime.inputs import input_specs

    given = read_given(args.given, input_specs(bundle.manifest.artifacts)[1:])

    @contextmanager
    def open_session(stream: bool) -> Iterator[Model]:
        from boardfit.loading import load

        loading = partial(
            load,
            bundle,
            engine=args.engine,
            precision=args.precision,
            threads=args.threads,
            policy=args.policy,
            size=args.size,
            stream=stream,
            tuning=args.tuning,
        )
        with opened(loading, given=given) as session:
            sinks.describe(session)
            yield session

    if inputs.images:
        with open_session(False) as session:
            for ref in inputs.images:
                _answer(session, ref, lambda ref=ref: read_image(ref.path), sinks, given)  # type: ignore[misc]
    for path in inputs.videos:
        # A session of its own: the hysteresis of one film must not reach into the next.
        with open_session(True) as session:
            try:
                for ref, frame in video_frames(path):
                    _answer(session, ref, lambda frame=frame: frame, sinks, given)  # type: ignore[misc]
            except InputError as error:
                sinks.skip(str(path), error)


def _answer(
    session: Model, ref: FrameRef, read: Callable[[], Any], sinks: Sinks, given: Mapping[str, Any]
) -> None:
    from boardfit.errors import InputError

    try:
        frame = read()
        result = session(frame, inputs=given)
    except InputError as error:
        sinks.skip(ref.name, error)
        return
    sinks.add(ref, frame, result)
