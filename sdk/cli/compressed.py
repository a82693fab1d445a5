"""What compressing changed, for people: from a bundle's record to texts, and to the page."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from boardfit.cli.text import counted, table
from boardfit.errors import ReportError

if TYPE_CHECKING:
    from boardfit.benchmarks.compression_figures import Change, Panel, Training
    from boardfit.benchmarks.compression_page import CompressionPage, Integers
    from boardfit.bundle import Bundle
    from boardfit.converters.compression_record import CompressionRecord, Curve, IntegerChange

PAGE = "compression.html"


def read_compression(bundle: Bundle) -> CompressionRecord:
    """Return what a bundle tells of its compression.

    Raises:
        ReportError: It was not compressed, or the record cannot be read.
    """
    from boardfit.converters.compression_record import CompressionRecord

    found = (bundle.measurements or {}).get("compressed")
    if found is None:
        raise ReportError(
            f"{bundle.path} was not compressed, so there is no before and after to show: build it with "
            "--elastic, --prune, --distill or --qat; what was measured of any bundle shows boardfit inspect"
        )
    return CompressionRecord.from_dict(found)


def write_compression(folder: Path, bundle: Bundle) -> list[Path]:
    """Write the page and its pictures into a folder, which is made if need be.

    Returns:
        The paths, the page first.

    Raises:
        ReportError: There is nothing to show, or it cannot be written.
    """
    from boardfit.benchmarks.compression_page import all_figures, compression_html
    from boardfit.benchmarks.store import write_file
    from boardfit.cli.raster import png

    page = page_of(bundle, read_compression(bundle))
    pictures = {
        f"{each.name}.png": png(each.wide, f"{each.title}: {bundle.manifest.name}")
        for each in all_figures(page)
    }
    files = {PAGE: compression_html(page).encode(), **pictures}
    for name, data in files.items():
        write_file(folder / name, data)
    return [folder / name for name in files]


def page_of(bundle: Bundle, record: CompressionRecord) -> CompressionPage:
    """Return all that stands on the page."""
    from boardfit.benchmarks.compression_page import CompressionPage, Score

    manifest = bundle.manifest
    machine = (bundle.measurements or {}).get("machine")
    return CompressionPage(
        title=f"Compression of {manifest.name}",
        headline=headline(record),
        facts=(
            ("Bundle", f"{Path(bundle.path).name}, content id {bundle.content_id[:16]}"),
            ("Stages", ", ".join(record.stages)),
            ("Sizes", ", ".join(map(str, record.after.macs))),
        ),
        changes=tuple(_sizes(record)),
        times=tuple(_times(record)),
        timed_on=machine if isinstance(machine, str) and machine else "a machine that was not named",
        right=tuple(Score(r.size, r.images, r.before, r.after, r.lost, r.gained) for r in record.right),
        agreement=tuple(Score(r.size, r.images, r.before, r.after) for r in record.agreement),
        integers=tuple(map(_integers, record.integers)),
        trainings=tuple(_training(number, curve) for number, curve in enumerate(record.curves)),
    )


def headline(record: CompressionRecord) -> str:
    """Return what is left at the largest size, in a sentence."""
    size = max(record.after.macs)
    shares = [
        f"{_ratio(record.after.parameters, record.before.parameters):.2f} of the parameters",
        f"{_ratio(record.after.macs[size], record.before.macs[size]):.2f} of the multiplications",
        *(f"{row.ratio:.2f} of the time on {row.engine}" for row in record.times if row.size == size),
    ]
    text = f"{' and '.join(record.stages) or 'nothing'}: at {size} pixels {', '.join(shares)} are left"
    what = "right answers" if record.right else "answers that are the source's"
    for row in record.right or record.agreement:
        if row.size == size:
            text += f"; {what} {row.before:.1f} to {row.after:.1f} %"
    for change in record.integers:
        if change.size == size and change.used:
            text += f"; {change.artifact} {change.measure} {_told(change, change.before)} to "
            text += _told(change, change.after)
    return f"{text}."


def compression_table(record: CompressionRecord) -> str:
    """Return the numbers as a table of plain text."""
    changes = (*_sizes(record), *_times(record))
    rows = [[each.name, each.before, each.after, f"{each.ratio:.2f}"] for each in changes]
    for what, scores in (("right answers", record.right), ("answers as the source", record.agreement)):
        for row in scores:
            points = f"{row.after - row.before:+.1f}"
            rows.append([f"{what} at {row.size}", f"{row.before:.1f} %", f"{row.after:.1f} %", points])
    for change in record.integers:
        name = f"{change.measure} of {change.artifact}, without and with qat"
        unused = "" if change.used else "not used"
        rows.append([name, _told(change, change.before), _told(change, change.after), unused])
    return table(["", "source", "compressed", "ratio, points"], rows)


def _integers(change: IntegerChange) -> Integers:
    from boardfit.benchmarks.compression_page import Integers

    return Integers(
        artifact=change.artifact,
        measure=change.measure,
        before=_told(change, change.before),
        after=_told(change, change.after),
        error_before=_error(change.error_before),
        error_after=_error(change.error_after),
        used=change.used,
    )


def _told(change: IntegerChange, value: float | None) -> str:
    """Return what the gate measured, with its unit; nothing where it did not."""
    if value is None:
        return "-"
    return f"{value:+.1f} points" if change.measure == "drop" else f"{value:.1f} %"


def _error(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


def _sizes(record: CompressionRecord) -> Iterator[Change]:
    """Yield weights, multiplications and files."""
    from boardfit.benchmarks.compression_figures import Change

    before, after = record.before, record.after
    yield Change(
        "parameters",
        f"{before.parameters:,}",
        f"{after.parameters:,}",
        _ratio(after.parameters, before.parameters),
    )
    for size in sorted(before.macs.keys() & after.macs.keys()):
        one, two = before.macs[size], after.macs[size]
        yield Change(
            f"multiplications at {size}", f"{one / 1e6:,.2f} M", f"{two / 1e6:,.2f} M", _ratio(two, one)
        )
    for row in record.files:
        texts = f"{row.before_bytes / 1e6:.3f} MB", f"{row.after_bytes / 1e6:.3f} MB"
        yield Change(
            f"{row.format} {row.precision}, all files", *texts, _ratio(row.after_bytes, row.before_bytes)
        )


def _times(record: CompressionRecord) -> Iterator[Change]:
    from boardfit.benchmarks.compression_figures import Change

    for row in record.times:
        name = f"{row.engine} at {row.size}, {row.precision}, {counted(row.threads, 'thread')}"
        yield Change(name, f"{1e3 * row.before_s:.2f} ms", f"{1e3 * row.after_s:.2f} ms", row.ratio)


def _training(number: int, curve: Curve) -> Training:
    from boardfit.benchmarks.compression_figures import Training

    seconds = [value for value in curve.series.get("seconds", ()) if value is not None]
    told = f", {sum(seconds):.0f} s" if len(seconds) == curve.epochs[-1] else ""
    return Training(
        name="-".join(["training", str(number + 1), *re.findall(r"\w+", curve.stage)]),
        title=f"Training of {curve.stage}: {counted(curve.epochs[-1], 'epoch')}{told}",
        epochs=curve.epochs,
        phases=curve.phases,
        panels=tuple(_panels(curve.series)),
    )


def _panels(series: Mapping[str, tuple[float | None, ...]]) -> Iterator[Panel]:
    """Yield loss, the shares of answers, whatever else was told, and the pace."""
    from boardfit.benchmarks.compression_figures import Panel

    shares = {"accuracy": "right answers, %", "agreement": "answers as the teacher, %"}
    known = ("loss", *shares, "images_per_s")
    others = [name for name in series if name not in (*known, "seconds")]
    for name in ("loss", *shares, *sorted(others), "images_per_s"):
        values = series.get(name)
        if values is None:
            continue
        if name in shares:
            percent = tuple(None if value is None else 100.0 * value for value in values)
            yield Panel(shares[name], percent, "green", from_zero=False, top=100.0)
        elif name == "images_per_s":
            large = max((value for value in values if value is not None), default=0.0) >= 1e4
            scaled = tuple(None if value is None else value / (1e3 if large else 1.0) for value in values)
            yield Panel("thousand images/s" if large else "images/s", scaled, "purple")
        else:
            yield Panel(name, values, "blue" if name == "loss" else "teal")


def _ratio(after: float, before: float) -> float:
    return after / before if before else 1.0
