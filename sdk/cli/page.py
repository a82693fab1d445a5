"""From a run's records to those of the page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from boardfit.cli.measured import read_measured
from boardfit.cli.text import image_text, megabytes, policy_text
from boardfit.errors import InputError
from boardfit.files import write_whole

if TYPE_CHECKING:
    from boardfit.benchmarks.report import Answer
    from boardfit.bundle import Bundle
    from boardfit.cli.frames import FrameRef
    from boardfit.cli.tally import Tally
    from boardfit.runtime.results import Result


def write_page(
    path: Path,
    bundle: Bundle,
    *,
    engine: str,
    headline: str,
    tally: Tally,
    answers: Sequence[tuple[FrameRef, Result, bytes]],
    skipped: Sequence[str],
) -> None:
    """Write the page of a run.

    Args:
        path: Of the page.
        bundle: That ran; open.
        engine: Engine, precision and threads, for people.
        headline: One line.
        tally: Totals of the run.
        answers: Frame, result and annotated JPEG.
        skipped: One sentence for each input that could not be used.

    Raises:
        InputError: The page cannot be written.
    """
    from boardfit.benchmarks.report import Page, report_html
    from boardfit.timing import machine_name

    manifest = bundle.manifest
    page = Page(
        title=manifest.name,
        headline=headline,
        facts=(
            ("Bundle", f"{Path(bundle.path).name}, content id {bundle.content_id[:16]}"),
            ("Ran on", f"{machine_name()}; {engine}"),
            ("Image", image_text(manifest.image)),
            ("Policy of the bundle", policy_text(manifest.policy)),
        ),
        answers=tuple(_answer(*answer) for answer in answers),
        frames=tally.frames,
        by_size=tuple(sorted(tally.by_size.items())),
        stages_s=tuple(tally.percentiles_s().items()),
        artifacts=_artifact_rows(bundle),
        measured_on=read_measured(bundle.measurements).machine,
        skipped=tuple(skipped),
    )
    try:
        write_whole(path, report_html(page).encode())
    except OSError as error:
        raise InputError(f"cannot write {path} ({error.strerror}): choose another --report") from error


def _answer(ref: FrameRef, result: Result, jpeg: bytes) -> Answer:
    from boardfit.benchmarks.report import Answer

    return Answer(
        source=ref.path.name if ref.index is None else f"{ref.path.name} #{ref.index}",
        top=tuple((best.label, best.score) for best in result.top(3)),
        size=result.size,
        entropy_bits=result.entropy_bits,
        total_s=result.timings.total_s,
        jpeg=jpeg,
    )


def _artifact_rows(bundle: Bundle) -> tuple[tuple[str, ...], ...]:
    measured = read_measured(bundle.measurements)
    sizes = {entry.path: entry.size_bytes for entry in bundle.manifest.files}
    return tuple(
        (
            artifact.name,
            megabytes(sum(sizes[path] for path in artifact.files)),
            str(size),
            *measured.parity_cells(artifact, size),
            *measured.time_cells(artifact, size),
        )
        for artifact in bundle.manifest.artifacts
        for size in artifact.sizes
    )
