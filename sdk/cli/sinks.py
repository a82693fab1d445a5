"""Where the answers of ``boardfit run`` go: table or JSON lines, pictures, the page, progress."""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from boardfit.cli.tally import Tally
from boardfit.cli.text import counted
from boardfit.errors import InputError

if TYPE_CHECKING:
    import numpy as np

    from boardfit.bundle import Bundle
    from boardfit.cli.frames import FrameRef, Inputs
    from boardfit.runtime.model import Model
    from boardfit.runtime.results import Result

FEW = 5
LABEL_WIDTH = 32


class Sinks:
    """Receives results one by one, and sums them up in the end.

    Attributes:
        skipped: One sentence for each input that could not be used.
    """

    def __init__(self, bundle: Bundle, args: argparse.Namespace, inputs: Inputs) -> None:
        """Make the folder for the pictures, before any long work.

        Args:
            bundle: Open bundle.
            args: Of the subcommand.
            inputs: What will run.

        Raises:
            InputError: The folder cannot be made, or the page's folder is not there.
        """
        self.skipped: list[str] = []
        self._tally = Tally()
        self._json: bool = args.json
        self._top: int = args.top or (5 if args.json else 1)
        self._pictures = Pictures(args.save, at_least=args.top or 3) if args.save or args.report else None
        self._report = Path(args.report) if args.report else None
        if self._report is not None and not self._report.absolute().parent.is_dir():
            raise InputError(
                f"the folder of {self._report} does not exist: make it, or choose another --report"
            )
        self._bundle = bundle
        self._engine = ""
        names = [ref.name for ref in inputs.images] + [f"{path}#000000" for path in inputs.videos]
        self._name_width = min(60, max(len(name) for name in names))
        count = len(inputs.images) if not inputs.videos else None
        self._progress = Progress(count if count is None or count > FEW else 0)
        self._header_due = not args.json

    def describe(self, session: Model) -> None:
        """Take down what runs."""
        self._engine = f"{session.engine}, {session.precision}, {counted(session.threads, 'thread')}"

    def add(self, ref: FrameRef, frame: np.ndarray, result: Result) -> None:
        """Take one answer.

        Args:
            ref: Which frame.
            frame: HxWx3 uint8 BGR, not changed.
            result: The answer.
        """
        self._tally.add(result)
        if self._json:
            self._print(json.dumps(_record(ref, result, self._top), ensure_ascii=False))
        elif ref.shown:
            self._print(self._rows(ref, result))
        if self._pictures is not None and ref.shown:
            self._pictures.add(ref, frame, result)
        self._progress.step(ref.name, self._tally.frames + len(self.skipped))

    def skip(self, name: str, error: InputError) -> None:
        """Take down an input that cannot be used."""
        self.skipped.append(str(error))
        self._progress.clear()
        print(f"boardfit: skipped: {error}", file=sys.stderr)
        if self._json:
            self._print(json.dumps({"source": name, "error": str(error)}, ensure_ascii=False))

    def finish(self) -> None:
        """Print the totals and write the page."""
        self._progress.clear()
        if self._json:
            totals = {"summary": {**self._tally.to_dict(), "skipped": len(self.skipped)}}
            print(json.dumps({**totals, "engine": self._engine}, ensure_ascii=False))
        elif self._tally.frames:
            print(f"\n{self._headline()}\n\n{self._tally.text()}")
        if self.skipped:
            print(f"boardfit: {counted(len(self.skipped), 'input')} skipped", file=sys.stderr)
        if self._report is not None and self._pictures is not None:
            from boardfit.cli.page import write_page

            write_page(
                self._report,
                self._bundle,
                engine=self._engine,
                headline=self._headline(),
                tally=self._tally,
                answers=self._pictures.cards,
                skipped=self.skipped,
            )
            print(f"wrote {self._report}", file=sys.stderr)

    def _headline(self) -> str:
        return f"{counted(self._tally.frames, 'frame')}, {len(self.skipped)} skipped; {self._engine}"

    def _rows(self, ref: FrameRef, result: Result) -> str:
        lines = []
        if self._header_due:
            self._header_due = False
            lines.append(
                f"{'file':<{self._name_width}}  {'answer':<{LABEL_WIDTH}}  {'score':>5}  {'size':>4}  "
                f"{'bits':>4}  {'ms':>6}"
            )
        bits = "-" if result.entropy_bits is None else f"{result.entropy_bits:.2f}"
        tail = f"  {result.size:>4}  {bits:>4}  {result.timings.total_s * 1e3:>6.1f}"
        name = _shortened(ref.name, self._name_width)
        if not result.scores.size:
            # No classifier: the arrays are for programs, here are their shapes.
            shapes = "  ".join(f"{key} {list(array.shape)}" for key, array in result.named.items())
            return "\n".join([*lines, f"{name:<{self._name_width}}  {shapes}{tail}"])
        for index, best in enumerate(result.top(self._top)):
            label = best.label if len(best.label) <= LABEL_WIDTH else f"{best.label[: LABEL_WIDTH - 3]}..."
            row = f"{'' if index else name:<{self._name_width}}  {label:<{LABEL_WIDTH}}  {best.score:>5.2f}"
            lines.append(row if index else row + tail)
        return "\n".join(lines)

    def _print(self, text: str) -> None:
        self._progress.clear()
        print(text)


class Pictures:
    """Writes annotated pictures, and keeps some of them as thumbnails for the page.

    Attributes:
        cards: (frame, result, JPEG) of at most MOST frames, evenly spread over all that came.
    """

    MOST = 96

    def __init__(self, folder: str | None, *, at_least: int) -> None:
        self.cards: list[tuple[FrameRef, Result, bytes]] = []
        self._rows = at_least
        self._folder = Path(folder) if folder else None
        self._taken: set[str] = set()
        self._seen, self._every = 0, 1
        if self._folder is not None:
            try:
                self._folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise InputError(
                    f"cannot make the folder {self._folder} ({error.strerror}): choose another --save"
                ) from error

    def add(self, ref: FrameRef, frame: np.ndarray, result: Result) -> None:
        """Draw, and write or keep."""
        from boardfit.cli.annotate import annotate, jpeg, thumbnail_jpeg

        keep = self._seen % self._every == 0
        self._seen += 1
        if self._folder is None and not keep:
            return
        picture = annotate(
            frame, [(best.label, best.score) for best in result.top(self._rows)], footer=_footer(result)
        )
        if self._folder is not None:
            (self._folder / self._free_name(ref)).write_bytes(jpeg(picture))
        if keep:
            self.cards.append((ref, result, thumbnail_jpeg(picture)))
        if len(self.cards) > self.MOST:
            self.cards = self.cards[::2]
            self._every *= 2

    def _free_name(self, ref: FrameRef) -> str:
        """Return a name that no other input of this run has: folders may hold equal names."""
        stem = ref.path.stem if ref.index is None else f"{ref.path.stem}-{ref.index:06d}"
        name, number = f"{stem}.jpg", 2
        while name in self._taken:
            name, number = f"{stem}-{number}.jpg", number + 1
        self._taken.add(name)
        return name


class Progress:
    """Says on stderr how far the run is: on a terminal in place, else a line now and then."""

    def __init__(self, count: int | None) -> None:
        """Begin.

        Args:
            count: How many frames will come; None if unknown; 0 to stay silent.
        """
        self._count = count
        self._terminal = sys.stderr.isatty()
        self._interval_s = 0.2 if self._terminal else 10.0
        self._last_s = time.monotonic()
        self._dirty = False

    def step(self, name: str, done: int) -> None:
        """Tell that one more frame is done."""
        if self._count == 0 or time.monotonic() - self._last_s < self._interval_s:
            return
        self._last_s = time.monotonic()
        text = f"{done} of {self._count} done" if self._count else f"{done} frames done"
        if self._terminal:
            print(f"\r\x1b[K{text}, {_shortened(name, 50)}", end="", file=sys.stderr, flush=True)
            self._dirty = True
        else:
            print(text, file=sys.stderr, flush=True)

    def clear(self) -> None:
        """Remove the line from the terminal, so that other output does not stand behind it."""
        if self._dirty:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
            self._dirty = False


def _record(ref: FrameRef, result: Result, top: int) -> dict[str, Any]:
    return {
        "source": str(ref.path),
        "frame": ref.index,
        "top": [asdict(best) for best in result.top(top)],
        "outputs": {key: list(array.shape) for key, array in result.named.items()},
        "size": result.size,
        "looks": list(result.looks),
        "entropy_bits": result.entropy_bits,
        "answer_entropy_bits": result.answer_entropy_bits,
        "timings": asdict(result.timings),
    }


def _footer(result: Result) -> str:
    looks = " > ".join(map(str, result.looks))
    bits = "" if result.entropy_bits is None else f"   {result.entropy_bits:.2f} bits"
    return f"size {looks}{bits}   {result.timings.total_s * 1e3:.1f} ms"


def _shortened(text: str, width: int) -> str:
    return text if len(text) <= width else f"...{text[3 - width :]}"
